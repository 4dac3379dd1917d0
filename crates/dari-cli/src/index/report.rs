//! What an update tells: how far it is, and what it did.

use std::path::PathBuf;

/// How far an update has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The folder is being looked through.
    Looking {
        /// Pictures found so far.
        found: usize,
    },
    /// New and changed pictures are read and embedded.
    Indexing {
        /// Pictures dealt with.
        done: usize,
        /// Pictures to deal with.
        total: usize,
        /// Pictures embedded.
        embedded: usize,
    },
}

/// What an update found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The folder, in full.
    pub folder: PathBuf,
    /// Pictures that lie in the folder; 0 when there are none.
    pub seen: usize,
    /// Pictures that went through the model.
    pub embedded: usize,
    /// Of those embedded, the ones whose stored vector was damaged.
    pub repaired: usize,
    /// Pictures whose content is as it was.
    pub unchanged: usize,
    /// Pictures that only have a new name or place.
    pub moved: usize,
    /// Further pictures of a content that was known already.
    pub copied: usize,
    /// Pictures that are gone, without those moved.
    pub removed: usize,
    /// Pictures and folders that could not be read or embedded, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Why all vectors of this model had to be made anew, if they had.
    pub rebuilt: Option<String>,
    /// Whether it was stopped early; the next update carries on from there.
    pub stopped: bool,
}
