//! Writes what a language model makes of token ids, for comparison with other programs.
//!
//! `cargo run --release --example logits -- MODEL IDS.json OUT.bin [TOKENS]`: MODEL a folder or GGUF file, IDS.json a
//! list of lists of ids; OUT.bin gets little-endian f32, `[tokens, vocabulary]` of each list, one after the other. Tokens
//! are read through the cache, so many at a time: all as a prompt is where TOKENS is left out, 1 as an answer is.

use std::io::Write as _;
use std::path::Path;

use candle_core::{Device, Tensor};
use dari_files::Folder;
use dari_models::auto;
use dari_models::generate::Decoder as _;
use dari_nn::Precision;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(ids), Some(out)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("give MODEL, IDS.json and OUT.bin".into());
    };
    let most = arguments.next().map_or(Ok(usize::MAX), |tokens| tokens.parse())?;
    let loaded = auto::load(&Folder::open(Path::new(&model))?, &Device::Cpu, Precision::F32)?;
    let model = loaded.model.causal().ok_or("not a language model")?;
    let texts: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for ids in texts {
        let mut caches = [model.begin()];
        for ids in ids.chunks(most) {
            let x = model.embed(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?)?;
            let logits = model.logits(&model.with_past(&x, &mut caches)?)?.flatten_all()?.to_vec1::<f32>()?;
            for logit in logits {
                out.write_all(&logit.to_le_bytes())?;
            }
        }
    }
    Ok(out.flush()?)
}
