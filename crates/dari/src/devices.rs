//! Where a model runs.

use candle_core::Device;

use crate::{Error, Result};

/// The device of that name: `cpu`, `cuda`, `cuda:1`, `metal`.
pub fn device(name: &str) -> Result<Device> {
    let refuse = |expected: String| Error::Option { option: "device", found: name.to_owned(), expected };
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number: usize =
        number.parse().map_err(|_| refuse("expected cpu, cuda, cuda:N, metal or metal:N".into()))?;
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Device::new_cuda(number).map_err(|error| refuse(missing(error, "cuda"))),
        "metal" => Device::new_metal(number).map_err(|error| refuse(missing(error, "metal"))),
        _ => Err(refuse("expected cpu, cuda, cuda:N, metal or metal:N".into())),
    }
}

fn missing(error: candle_core::Error, feature: &str) -> String {
    if cfg!(feature = "cuda") && feature == "cuda" || cfg!(feature = "metal") && feature == "metal" {
        return format!("no such device here ({error}); use --device cpu");
    }
    format!("this build has no support for it: build with `--features {feature}`, or use --device cpu")
}

/// The devices that can be used here.
pub fn devices() -> Vec<String> {
    let mut found = vec!["cpu".to_owned()];
    if cfg!(feature = "cuda") {
        found.extend((0..8).take_while(|&i| Device::new_cuda(i).is_ok()).map(|i| format!("cuda:{i}")));
    }
    if cfg!(feature = "metal") && Device::new_metal(0).is_ok() {
        found.push("metal".to_owned());
    }
    found
}

/// bf16 where the processor multiplies it by itself, else f32.
pub fn automatic_precision() -> dari_nn::Precision {
    match dari_nn::has_bf16_products() {
        true => dari_nn::Precision::Bf16,
        false => dari_nn::Precision::F32,
    }
}
