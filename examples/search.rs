//! Pictures by words, without an index: `cargo run --release --example search -- "빨간 사과"`.
#![allow(clippy::print_stdout)]

use dari::{Engine, Options, rank};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words = std::env::args().nth(1).unwrap_or_else(|| "빨간 사과".into());
    let engine = Engine::open(dari::EMBEDDED, &Options::default())?;
    let files: Vec<_> =
        std::fs::read_dir("samples")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let pictures = engine.embed_files(&files).into_iter().collect::<Result<Vec<_>, _>>()?;
    let query = engine.embed_texts(&[&words])?;
    for found in rank(&query[0], &pictures, 3) {
        println!("{:.3}  {}", found.score, files[found.index].display());
    }
    Ok(())
}
