//! One shared space: matching pictures and words near, others far.

pub mod clip;
pub mod open_clip;
pub mod siglip;
