//! Any bytes as a GGUF file: an error, or metadata and tensors that can all be read; then its tokenizer.
#![no_main]

use dari_files::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_vec("fuzzed.gguf", bytes.to_vec()) else {
        return;
    };
    for name in file.tensors().keys() {
        let _ = file.bytes(name);
    }
    let _ = dari_models::language::gguf::config(&file);
});
