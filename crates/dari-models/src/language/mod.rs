//! Text understanding and generation.

pub mod bert;
pub mod clip_text;
pub mod gguf;
pub mod gpt2;
pub mod llama;
pub mod qwen;
mod rope;
pub mod siglip_text;
pub mod text_tower;
