//! Pictures and words as vectors of one space: `cargo run --release --example embed`.
#![allow(clippy::print_stdout)]

use dari::{Engine, Options, cosine};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(dari::EMBEDDED, &Options::default())?;
    let words = ["빨간 사과", "a red apple", "노란 배", "a yellow boat"];
    let texts = engine.embed_texts(&words)?;
    for file in ["samples/red-apple.png", "samples/yellow-boat.png"] {
        for picture in engine.embed_files(&[file.into()]) {
            let picture = picture?;
            for (word, text) in words.iter().zip(&texts) {
                println!("{file}  {word}  {:.3}", cosine(&picture, text));
            }
        }
    }
    Ok(())
}
