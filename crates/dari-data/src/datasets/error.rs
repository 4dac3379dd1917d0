//! What can go wrong with a data set.

use std::path::{Path, PathBuf};

use crate::image;

/// Errors of data sets and of their records. A record's error says where the record is and does
/// not keep the others from being read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused a file.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No data set of a known format.
    #[error(
        "{}: {problem}; expected a folder of pictures with captions (a.jpg, a.txt), a .csv, .tsv or \
         .jsonl file, .tar shards, a folder of them, or a pattern as shards-{{000..012}}.tar",
        .path.display()
    )]
    Unknown {
        /// What was to be opened.
        path: PathBuf,
        /// Why it cannot be.
        problem: String,
    },
    /// A table without the columns that are needed.
    #[error("{}: {problem}", .file.display())]
    Header {
        /// The table.
        file: PathBuf,
        /// Which columns it has and which are expected.
        problem: String,
    },
    /// A data set in which not one picture can be read with a caption.
    #[error("{}: no usable pair of picture and caption; {reason}", .path.display())]
    NoPairs {
        /// The data set.
        path: PathBuf,
        /// The first record's error, or what was looked for.
        reason: String,
    },
    /// A record that cannot be read.
    #[error("{}, {record}: {problem}", .file.display())]
    Record {
        /// The file it is in.
        file: PathBuf,
        /// Its line, or the name of its member.
        record: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A record whose picture cannot be decoded.
    #[error("{}, {record}: {source}", .file.display())]
    Picture {
        /// The file the record is in.
        file: PathBuf,
        /// Its line, or the name of its member.
        record: String,
        /// What is wrong with the picture.
        source: Box<image::Error>,
    },
    /// A number that is no pair's.
    #[error("pair {index} of {length}; expected a number below {length}")]
    Index {
        /// The number.
        index: usize,
        /// How many pairs there are.
        length: usize,
    },
}

impl Error {
    pub(super) fn io(file: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let file = file.to_owned();
        move |source| Error::Io { file, source }
    }

    pub(super) fn record(file: &Path, record: impl ToString, problem: impl ToString) -> Error {
        Error::Record { file: file.to_owned(), record: record.to_string(), problem: problem.to_string() }
    }
}
