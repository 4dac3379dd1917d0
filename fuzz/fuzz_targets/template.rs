//! Any text as a chat template: an error, or a chat; it always comes to an end.
#![no_main]

use dari_data::text::ChatTemplate;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|source: &str| {
    let special = [("bos_token", "<s>".to_owned()), ("eos_token", "</s>".to_owned())];
    let Ok(template) = ChatTemplate::new("fuzzed".into(), source.to_owned(), &special) else {
        return;
    };
    let said = json!([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "뭐야?"}]}]);
    let _ = template.render(&said, true);
});
