//! The field's first exercise: two encoders that never met, two linear projections into one space,
//! and a contrastive loss that makes the diagonal appear.
//!
//! `cargo run --release --example shared_space`
//!
//! Three pictures become 768 numbers each (16 x 16 pixels, three colours), three captions 512 each
//! (counts of their letter pairs). Projections of 768 and of 512 to 256 are all that is learned.
#![allow(clippy::print_stdout)]

use candle_core::{Device, Tensor};
use dari::data::scenes::Scene;
use dari::nn::{Linear, Training, Weights, loss};

const SHARED: usize = 256;
const STEPS: usize = 60;
const RATE: f64 = 0.05;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::Cpu;
    let scenes: Vec<Scene> = [3, 8, 21].map(|index| Scene::draw(1, index)).to_vec();
    let captions: Vec<String> = scenes
        .iter()
        .zip(["ko", "en", "ko"])
        .filter_map(|(scene, language)| Some(scene.caption(language, 0)?.text))
        .collect();

    // [3, 768] and [3, 512]: what two frozen encoders say of the three pairs.
    let pixels: Vec<f32> = scenes
        .iter()
        .flat_map(|scene| {
            scene.render(16).rgb().iter().map(|&value| f32::from(value) / 127.5 - 1.0).collect::<Vec<_>>()
        })
        .collect();
    let pictures = Tensor::from_vec(pixels, (3, 768), &device)?;
    let texts = Tensor::from_vec(
        captions.iter().flat_map(|text| letter_pairs(text)).collect::<Vec<_>>(),
        (3, 512),
        &device,
    )?;

    let weights = Weights::train(None, &device, Training::all(42));
    let picture_projection = Linear::load(&weights.pp("picture_projection"), 768, SHARED, false)?;
    let text_projection = Linear::load(&weights.pp("text_projection"), 512, SHARED, false)?;
    let scale = Tensor::new(10f32.ln(), &device)?;
    let project = || -> Result<(Tensor, Tensor), dari::nn::Error> {
        let pictures = loss::normalise(&picture_projection.forward(&pictures)?)?;
        let texts = loss::normalise(&text_projection.forward(&texts)?)?;
        Ok((pictures, texts))
    };

    for (number, caption) in captions.iter().enumerate() {
        println!("{}  {caption}", number + 1);
    }
    let (shown_pictures, shown_texts) = project()?;
    show("before", &shown_pictures, &shown_texts)?;
    for step in 0..STEPS {
        let (pictures, texts) = project()?;
        let loss = loss::info_nce(&pictures, &texts, &scale)?;
        let gradients = loss.backward()?;
        for (_, variable) in weights.variables() {
            if let Some(gradient) = gradients.get(variable.as_tensor()) {
                variable.set(&(variable.as_tensor() - (gradient * RATE)?)?)?;
            }
        }
        if step % 20 == 0 {
            println!("step {step:>2}  loss {:.4}", loss.to_scalar::<f32>()?);
        }
    }
    let (pictures, texts) = project()?;
    show("after", &pictures, &texts)
}

/// Counts of pairs of neighbouring letters, each pair at one of 512 places.
fn letter_pairs(text: &str) -> Vec<f32> {
    let letters: Vec<u32> = text.chars().map(u32::from).collect();
    let mut counts = vec![0.0; 512];
    for pair in letters.windows(2) {
        counts[(pair[0].wrapping_mul(31).wrapping_add(pair[1].wrapping_mul(17)) % 512) as usize] += 1.0;
    }
    counts
}

/// Draws the matrix of cosines: a row a picture, a column a text.
fn show(when: &str, pictures: &Tensor, texts: &Tensor) -> Result<(), Box<dyn std::error::Error>> {
    println!("\n{when}:      text 1  text 2  text 3");
    let cosines = pictures.matmul(&texts.t()?)?.to_vec2::<f32>()?;
    for (number, row) in cosines.iter().enumerate() {
        let cells: String = row
            .iter()
            .map(|&cosine| {
                let shade = ['·', '░', '▒', '▓', '█'][(cosine.clamp(0.0, 0.99) * 5.0) as usize];
                format!("{shade}{shade} {cosine:>5.2}")
            })
            .collect();
        println!("picture {}  {cells}", number + 1);
    }
    Ok(())
}
