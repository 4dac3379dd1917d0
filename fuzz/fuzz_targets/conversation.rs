//! Any bytes as a saved conversation: an error, or one that is the same when it is written and read again.
#![no_main]

use dari::conversation::{parse, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(said) = parse(bytes) {
        let again = write("m", &said).to_string();
        assert_eq!(parse(again.as_bytes()).expect("written, so readable"), said);
    }
});
