//! Weights packed before, in a file beside the model's own: mapped at once the next time.
//!
//! The file is a safetensors file: each packed weight is a tensor of bytes, and the metadata say the
//! layout's version and which weights it was made of. One that does not fit is passed over, never
//! trusted: the weights themselves are always there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use dari_files::{Checkpoint, Dtype, Folder, safetensors};
use dari_nn::Precision;

use crate::generative::composed;
use crate::{Result, auto, config};

/// The version of the layout that the kernels read; another one is packed anew.
const LAYOUT: &str = "1";

/// What lies packed beside a model for a precision.
pub enum Ready {
    /// Nothing.
    Absent,
    /// A file of another version, of other weights, or a damaged one.
    Stale(PathBuf),
    /// What can be taken as it is.
    Usable(Arc<Checkpoint>),
}

fn file_name(precision: Precision) -> String {
    format!("packed-{}.safetensors", precision.name())
}

/// Looks for packed weights beside a model.
pub fn find(folder: &Folder, precision: Precision) -> Ready {
    let Some(path) = folder.path().map(|path| path.join(file_name(precision))) else {
        return Ready::Absent;
    };
    if !path.is_file() {
        return Ready::Absent;
    }
    let stamp = folder.weights_stamp().ok().flatten();
    match Checkpoint::open(&path) {
        Ok(file) if stamp.is_some() => {
            let says = |key: &str| file.metadata().get(key);
            let fits = says("dari_layout").is_some_and(|layout| layout == LAYOUT)
                && says("dari_weights") == stamp.as_ref();
            if fits { Ready::Usable(Arc::new(file)) } else { Ready::Stale(path) }
        }
        _ => Ready::Stale(path),
    }
}

/// Packs a model's weights for a precision into a file beside them, in place of an older one.
///
/// # Errors
/// A model that is part of the binary, one that cannot be loaded, or what the system refuses.
pub fn write(folder: &Folder, precision: Precision) -> Result<PathBuf> {
    let (Some(place), Some(stamp)) = (folder.path(), folder.weights_stamp()?) else {
        return config::refuse(&folder.label(), "it is part of the binary, there is no folder to pack into");
    };
    let loaded = auto::load_plain(folder, &Device::Cpu, precision)?;
    if loaded.model.kind() == composed::KIND {
        return config::refuse(
            &folder.label(),
            "a composed model is not packed: pack its parts' own folders",
        );
    }
    let packed = loaded.weights.packed();
    let mut tensors = Vec::with_capacity(packed.len());
    for (name, weight) in &packed {
        if let Some(bytes) = weight.with_bytes(<[u8]>::to_vec)? {
            tensors.push((name, Dtype::U8, [bytes.len()], bytes));
        }
    }
    let metadata = BTreeMap::from([
        ("dari_layout".to_owned(), LAYOUT.to_owned()),
        ("dari_precision".to_owned(), precision.name().to_owned()),
        ("dari_weights".to_owned(), stamp),
    ]);
    let path = place.join(file_name(precision));
    safetensors::write(&path, &tensors, &metadata)?;
    Ok(path)
}
