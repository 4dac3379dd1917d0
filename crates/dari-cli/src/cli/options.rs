//! Options that many commands share.

use clap::{Args, ValueEnum};

/// How a model is loaded and run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// The model: a folder, a hub id, or a short name of `dari models list`
    #[arg(long, value_name = "MODEL", default_value = dari::EMBEDDED, env = "DARI_MODEL")]
    pub model: String,
    /// Precision of weights and products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Where it runs: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Threads to use; all cores when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Pictures or texts that go through the model at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch: u16,
    /// Decode photographs in full; else a JPEG far larger than the model's input is decoded at a part of
    /// its size
    #[arg(long)]
    pub exact: bool,
    /// Look at a part of each picture file: left, top, width and height in pixels
    #[arg(long, value_name = "X,Y,W,H", value_parser = crop)]
    pub crop: Option<Crop>,
}

/// Left, top, width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop(pub [u32; 4]);

fn crop(text: &str) -> Result<Crop, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[x, y, width, height]) if width > 0 && height > 0 => Ok(Crop([x, y, width, height])),
        _ => Err("expected four whole numbers, left,top,width,height, the last two above 0".into()),
    }
}

/// How keys and values of what was read are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheFormat {
    /// Single precision
    F32,
    /// Half precision, half of the memory
    F16,
    /// Eight bits and a scale for each token's head, a little over a quarter
    Int8,
}

impl From<CacheFormat> for dari::CacheFormat {
    fn from(format: CacheFormat) -> dari::CacheFormat {
        match format {
            CacheFormat::F32 => dari::CacheFormat::F32,
            CacheFormat::F16 => dari::CacheFormat::F16,
            CacheFormat::Int8 => dari::CacheFormat::Int8,
        }
    }
}

/// The precisions to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision
    F32,
    /// bfloat16 weights, half the memory
    Bf16,
    /// Eight-bit weights and products, a quarter of the memory
    Int8,
    /// bf16 where the processor multiplies it, else f32
    Auto,
}
