//! Labels that were never trained: `cargo run --release --example classify`.
#![allow(clippy::print_stdout)]

use dari::{Engine, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(dari::EMBEDDED, &Options::default())?;
    let labels = ["사과", "바나나", "고양이", "자동차"].map(String::from);
    let templates = ["{}", "{} 그림"].map(String::from);
    for picture in engine.embed_files(&["samples/yellow-banana.png".into(), "samples/blue-car.png".into()]) {
        for answer in engine.classify(&[picture?], &labels, &templates)? {
            println!("{} {:.1}%", answer[0].label, 100.0 * answer[0].probability);
        }
    }
    Ok(())
}
