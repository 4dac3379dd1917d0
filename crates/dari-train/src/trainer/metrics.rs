//! A run's figures on disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use dari_files::write_atomically;
use serde_json::Value;

use super::StepReport;
use crate::{Error, Result};

/// `metrics.jsonl`: a line a step; lines of steps that are run again are dropped first.
pub(super) struct Metrics {
    path: PathBuf,
    file: fs::File,
}

impl Metrics {
    pub fn open(path: &Path, done: u64) -> Result<Metrics> {
        let old = match fs::read_to_string(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(Error::File { path: path.to_owned(), error });
            }
        };
        let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
        let kept: String = old
            .lines()
            .filter(|line| step(line).is_some_and(|step| step <= done))
            .map(|line| format!("{line}\n"))
            .collect();
        write_atomically(path, kept.as_bytes())?;
        let file = fs::OpenOptions::new().append(true).open(path).map_err(Error::file(path))?;
        Ok(Metrics { path: path.to_owned(), file })
    }

    pub fn write(&mut self, report: &StepReport) -> Result<()> {
        let line = serde_json::to_string(report).unwrap_or_default();
        // Whole and at once: runs are followed through this file.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(Error::file(&self.path))
    }
}
