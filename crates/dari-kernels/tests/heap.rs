//! The heap in large pages, as a program takes it: on its main thread, which a test's harness does not give.

use dari_kernels::memory::{Heap, keep};

#[global_allocator]
static HEAP: Heap = Heap;

/// Kilobytes of the heap for which large pages are asked, and all of them; `None` where the system does not say or
/// has none.
fn asked_for() -> Option<(usize, usize)> {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let (mut asked, mut whole, mut of_heap, mut size) = (0, 0, false, 0);
    for line in std::fs::read_to_string("/proc/self/smaps").ok()?.lines() {
        let mut words = line.split_whitespace();
        match words.next()? {
            "Size:" => size = words.next()?.parse().ok()?,
            "VmFlags:" if of_heap => {
                whole += size;
                asked += if words.any(|flag| flag == "hg") { size } else { 0 };
            }
            first if !first.ends_with(':') => of_heap = line.ends_with("[heap]"),
            _ => {}
        }
    }
    (whole > 0).then_some((asked, whole))
}

#[expect(
    clippy::print_stdout,
    reason = "without a harness its line is this program's, and is counted like the others"
)]
fn main() {
    keep();
    // Weights of a few hundred kilobytes, 128 MB of them.
    let mut all: Vec<Vec<u8>> = (0..512usize).map(|index| vec![index as u8; (256 << 10) + index]).collect();
    for weight in all.iter_mut().step_by(3) {
        weight.extend_from_slice(&[7; 100_000]);
    }
    for (index, weight) in all.iter().enumerate() {
        let (own, more) = weight.split_at((256 << 10) + index);
        assert!(own.iter().all(|&byte| byte == index as u8), "{index}");
        assert!(more.iter().all(|&byte| byte == 7), "{index}");
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Some((asked, whole)) = asked_for() {
        assert!(asked * 10 > whole * 9 && whole > 128 << 10, "{asked} of {whole} kB in large pages");
    }
    // What was freed is given out again as zeros.
    all.truncate(10);
    let zeros: Vec<Vec<u8>> = (0..512).map(|_| vec![0; 256 << 10]).collect();
    assert!(zeros.iter().flatten().all(|&byte| byte == 0));
    assert!(all.iter().enumerate().all(|(index, weight)| weight[0] == index as u8));
    println!("test result: ok. 1 passed; 0 failed; the heap in large pages: {:?} kB of all", asked_for());
}
