//! Writes what a language model makes of token ids, for comparison with other programs.
//!
//! `cargo run --release --example logits -- MODEL IDS.json OUT.bin [TOKENS [CACHE]]`: MODEL a folder or GGUF file,
//! IDS.json a list of lists of ids; OUT.bin gets little-endian f32, `[tokens, vocabulary]` of each list, one after the
//! other. Tokens are read through the cache, so many at a time: all (0) as a prompt is, 1 as an answer is; the cache
//! is kept in f32, f16 or int8.

use std::io::Write as _;
use std::path::Path;

use candle_core::{Device, Tensor};
use dari_files::Folder;
use dari_models::auto;
use dari_models::generate::Decoder as _;
use dari_nn::Precision;
use dari_nn::cache::CacheFormat;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(ids), Some(out)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("give MODEL, IDS.json and OUT.bin".into());
    };
    let most = match arguments.next().map_or(Ok(0), |tokens| tokens.parse::<usize>())? {
        0 => usize::MAX,
        most => most,
    };
    let format = match arguments.next().as_deref() {
        None | Some("f32") => CacheFormat::F32,
        Some("f16") => CacheFormat::F16,
        Some("int8") => CacheFormat::Int8,
        Some(other) => return Err(format!("a cache in `{other}`; known are f32, f16, int8").into()),
    };
    let loaded = auto::load(&Folder::open(Path::new(&model))?, &Device::Cpu, Precision::F32)?;
    let model = loaded.model.causal().ok_or("not a language model")?;
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for ids in texts {
        let mut caches = [model.begin().kept_in(format)];
        for ids in ids.chunks(most) {
            let x = model.embed(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?)?;
            let logits = model
                .logits(&model.with_past(&x, &mut caches, ids.len())?)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            for logit in logits {
                out.write_all(&logit.to_le_bytes())?;
            }
        }
    }
    Ok(out.flush()?)
}
