//! Writes synthetic scenes as PNG files with sidecar captions, to index or to train on:
//! `cargo run --release --example draw_scenes -- FOLDER [COUNT] [SIZE] [SEED]`.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use dari_data::scenes::Scene;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("say into which folder")?);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (count, size, seed) = (number(1000)?, number(256)?, number(5)?);
    for index in 0..count {
        let place = folder.join(format!("{:03}", index / 1000));
        std::fs::create_dir_all(&place)?;
        let scene = Scene::draw(seed, index);
        scene.render(size as u32).write_png(&place.join(format!("{index:06}.png")))?;
        for language in ["en", "ko"] {
            if let Some(caption) = scene.caption(language, index) {
                std::fs::write(place.join(format!("{index:06}.{language}.txt")), caption.text + "\n")?;
            }
        }
    }
    println!("{count} pictures in {}", folder.display());
    Ok(())
}
