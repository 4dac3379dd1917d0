//! `models/mini` against what transformers computes from the same folder. The fixture belongs to
//! the weights: whoever replaces them runs `python parity/make_fixtures.py --only mini` as well.
#![allow(clippy::print_stdout)]

mod support;

use candle_core::Device;
use dari_data::image::{self, Limits, Picture};
use dari_files::Folder;
use dari_models::{Loaded, auto};
use dari_nn::{Precision, loss};
use support::{Expected, repository};

const CLOSE: f32 = 1e-4;
const HINT: &str =
    "if models/mini was replaced, run `python parity/make_fixtures.py --only mini` and keep both";

fn load() -> Loaded {
    let folder = Folder::open(&repository("models/mini")).expect("models/mini");
    auto::load(&folder, &Device::Cpu, Precision::F32).unwrap_or_else(|error| panic!("{error}"))
}

fn pictures(expected: &Expected) -> Vec<Picture> {
    [("pictures", "fixtures/parity/pictures"), ("samples", "samples")]
        .into_iter()
        .flat_map(|(field, place)| {
            expected.strings(field).into_iter().map(move |name| {
                image::open(&repository(place).join(name), &Limits::default()).expect("a picture")
            })
        })
        .collect()
}

#[test]
fn transformers_reads_mini_alike() {
    let (loaded, expected) = (load(), Expected::of("mini", HINT));
    let pixels = loaded.processor.pixels(&pictures(&expected), &Device::Cpu).expect("pixels");
    let pixels = pixels.tensor().expect("one size");
    let tokens = expected.tokens(&loaded);
    let model = loaded.model.contrastive().expect("a contrastive model");
    let pictures = loss::normalise(&model.embed_pictures(pixels).expect("pictures")).expect("unit");
    let texts = loss::normalise(&model.embed_texts(&tokens).expect("texts")).expect("unit");
    expected.check("image_embeddings", &pictures, CLOSE);
    expected.check("text_embeddings", &texts, CLOSE);
    let logits = model.logits(&pictures, &texts).expect("logits");
    expected.check("logits_per_image", &logits, 5e-4);
}

#[test]
fn nothing_in_mini_is_passed_over() {
    assert_eq!(load().unused, Vec::<String>::new());
}
