//! The commands, a file each.

pub mod ask;
pub mod bench;
pub mod chat;
pub mod classify;
pub mod complete;
pub mod doctor;
pub mod embed;
pub mod evaluate;
pub mod index;
pub mod look;
pub mod models;
pub mod reference;
pub mod search;
pub mod similarity;
mod speech;
pub mod train;
