//! A real BERT, all-MiniLM-L6-v2, against transformers. Its weights are not in the repository:
//! `python scripts/fetch_weights.py minilm` fetches them; without them the test says so and passes.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::io::Write as _;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use dari_files::Folder;
use dari_models::auto;
use dari_nn::{Precision, loss};
use support::Expected;

const CLOSE: f32 = 1e-4;
const HINT: &str = "the fixture is `python parity/make_fixtures.py --only minilm`'s, the weights \
                    `python scripts/fetch_weights.py minilm`'s";

/// Where the script puts the model, if it did.
fn weights() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let root = set("DARI_WEIGHTS").or_else(|| Some(cache()?.join("dari").join("weights")))?;
    let folder = root.join("all-MiniLM-L6-v2");
    folder.join("model.safetensors").is_file().then_some(folder)
}

#[test]
fn a_real_bert_embeds_sentences() {
    let Some(path) = weights() else {
        // Past the capture of passing tests' output: a skip is told, and counted.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no weights of all-MiniLM-L6-v2 (91 MB): fetch them with \
             `python scripts/fetch_weights.py minilm`, or say with DARI_WEIGHTS which folder holds \
             all-MiniLM-L6-v2/"
        );
        return;
    };
    let folder = Folder::open(&path).expect("the folder");
    let loaded = auto::load(&folder, &Device::Cpu, Precision::F32).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.unused, Vec::<String>::new());
    let expected = Expected::of("minilm", HINT);
    let tokens = expected.tokens(&loaded);
    let masks: Vec<Vec<u32>> =
        tokens.mask.iter().map(|row| row.iter().map(|&bit| u32::from(bit)).collect()).collect();
    assert!(masks == expected.whole_numbers("attention_mask"), "the masks differ");
    let model = loaded.model.texts().expect("embeds texts");
    let batch = loss::normalise(&model.embed_texts(&tokens).expect("vectors")).expect("unit");
    expected.check("embeddings", &batch, CLOSE);

    // Each text by itself, without padding.
    let alone: Vec<Tensor> = expected
        .strings("texts")
        .iter()
        .map(|text| {
            let tokens = loaded.processor.tokens(&[text]).expect("tokens").tokens;
            loss::normalise(&model.embed_texts(&tokens).expect("a vector")).expect("unit")
        })
        .collect();
    expected.check("embeddings", &Tensor::cat(&alone, 0).expect("rows"), CLOSE);
}
