//! The dari binary.
use dari_train::*;
struct Say;
#[allow(clippy::print_stdout)]
impl Observer for Say {
    fn started(&mut self, lines: &[String]) {
        for l in lines {
            println!("{l}");
        }
    }
    fn stepped(&mut self, r: &StepReport) {
        if r.step % 20 == 0 || r.step < 5 {
            println!(
                "{} loss {:.4} norm {:.3} scale {:.1} {:.0}/s skipped {}",
                r.step, r.loss, r.gradient_norm, r.logit_scale, r.pairs_per_second, r.skipped
            );
        }
    }
    fn saved(&mut self, f: &std::path::Path) {
        println!("{}", f.display());
    }
    fn skipped(&mut self, m: &str) {
        println!("{m}");
    }
    fn stop(&mut self) -> bool {
        false
    }
}
#[allow(clippy::print_stdout)]
fn main() {
    dari_kernels::memory::keep();
    let a: Vec<String> = std::env::args().skip(1).collect();
    let r = Recipe::read(std::path::Path::new(&a[0]), &a[1..]).unwrap();
    println!(
        "{:?}",
        train(
            &r,
            true,
            &dari::device("cpu").unwrap(),
            &|_| unreachable!(),
            &mut Say
        )
        .map_err(|e| e.to_string())
    );
}
