//! Any bytes as a PyTorch .bin file: an error or tensors that can all be read.
//!
//! Seeds: `cargo +nightly fuzz run pickle fuzz/corpus/pickle crates/dari-files/tests/fixtures`
#![no_main]

use dari_files::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_vec("fuzzed.bin", bytes.to_vec()) else {
        return;
    };
    for name in checkpoint.names() {
        let view = checkpoint.tensor(name).expect("named, so there");
        let elements: usize = view.shape.iter().product();
        assert_eq!(view.data.len(), elements * view.dtype.size());
    }
});
