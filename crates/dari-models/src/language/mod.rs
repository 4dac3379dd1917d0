//! Text understanding and generation.

pub mod bert;
pub mod clip_text;
pub mod siglip_text;
pub mod text_tower;
