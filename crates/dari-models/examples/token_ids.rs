//! Holds a GGUF file's tokenizer against another program's ids.
//!
//! `cargo run --release --example token_ids -- MODEL.gguf IDS.json`, with IDS.json a list of
//! `{"text", "ids"}`, special tokens in the text taken as such and none put around it. Exit status 1 where any differs.
#![allow(clippy::print_stdout)]

use std::path::Path;

use dari_data::text::gguf;
use dari_files::Folder;
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(ids)) = (arguments.next(), arguments.next()) else {
        return Err("give MODEL.gguf and IDS.json".into());
    };
    let folder = Folder::open(Path::new(&model))?;
    let (words, chat) = gguf::words(&folder, folder.gguf().ok_or("not a GGUF file")?)?;
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let mut wrong = 0;
    for case in &cases {
        let text = case["text"].as_str().ok_or("a text is missing")?;
        let theirs: Vec<u32> = case["ids"]
            .as_array()
            .ok_or("ids are missing")?
            .iter()
            .filter_map(|id| id.as_u64()?.try_into().ok())
            .collect();
        let ours = words.encode(text, false)?;
        if ours != theirs {
            wrong += 1;
            if wrong <= 12 {
                println!("{text:?}\n  ours   {ours:?}\n  theirs {theirs:?}");
            }
        }
    }
    println!("{} texts, {wrong} differ; chat template: {}", cases.len(), chat.is_some());
    std::process::exit(i32::from(wrong > 0));
}
