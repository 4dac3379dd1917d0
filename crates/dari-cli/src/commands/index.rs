//! `dari index`: a folder's pictures into the search index.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dari::Engine;
use serde_json::{Value, json};

use crate::Outcome;
use crate::cli::Index;
use crate::index::{Progress, Report, Store};
use crate::language::say;
use crate::{inputs, screen};

/// Runs the command.
pub fn run(arguments: &Index) -> anyhow::Result<Outcome> {
    let engine = inputs::open(&arguments.model)?;
    let mut store = open(&engine)?;
    let report = update(&mut store, &engine, &arguments.folder, arguments.model.batch.into())?;
    if arguments.json {
        screen::json(&describe(&report))?;
    } else {
        let Report { seen, embedded, unchanged, moved, copied, removed, .. } = &report;
        let folder = report.folder.display();
        screen::print(&say!(
            "{folder}: {seen} pictures, {embedded} embedded, {unchanged} unchanged, {moved} moved, {copied} copied, {removed} gone",
            "{folder}: 그림 {seen}장, 새로 임베딩 {embedded}, 그대로 {unchanged}, 옮겨짐 {moved}, 복사됨 {copied}, 사라짐 {removed}"
        ))?;
    }
    Ok(if report.stopped { Outcome::SomeFailed } else { Outcome::of(report.failed.len()) })
}

/// The index as this model sees it.
pub fn open(engine: &Engine) -> anyhow::Result<Store> {
    Ok(Store::open(&engine.fingerprint()?, engine.dim())?)
}

/// Brings the index up to date with a folder; names what failed.
pub fn update(store: &mut Store, engine: &Engine, folder: &Path, batch: usize) -> anyhow::Result<Report> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Set once in a process; a second handler would be refused, and the first still serves.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst));
    let bar = screen::bar(0, "pictures");
    let mut progress = |progress: Progress| match progress {
        Progress::Looking { found } => bar.set_message(found.to_string()),
        Progress::Indexing { done, total, .. } => {
            bar.set_message("");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    };
    let mut embed = |files: &[PathBuf]| -> Vec<Result<Vec<f32>, String>> {
        engine
            .embed_files(files)
            .into_iter()
            .map(|answer| answer.map_err(|error| error.to_string()))
            .collect()
    };
    let report = store.update(folder, &mut embed, batch, &mut progress, &stop);
    bar.finish_and_clear();
    let report = report?;
    if let Some(why) = &report.rebuilt {
        screen::warn(why);
    }
    for (path, message) in &report.failed {
        let path = path.display().to_string();
        screen::error(&if message.contains(&path) { message.clone() } else { format!("{path}: {message}") });
    }
    if report.seen == 0 {
        let folder = report.folder.display();
        anyhow::bail!(say!(
            "{folder}: no pictures here (jpg, png, webp, gif, bmp, tiff are looked for)",
            "{folder}: 그림이 없습니다 (jpg, png, webp, gif, bmp, tiff를 찾습니다)"
        ));
    }
    if report.stopped {
        screen::warn(&say!(
            "stopped; the next run carries on from here",
            "멈췄습니다. 다음에 여기서 이어집니다"
        ));
    }
    Ok(report)
}

fn describe(report: &Report) -> Value {
    let failed: Vec<Value> = report
        .failed
        .iter()
        .map(|(path, error)| json!({"picture": path.display().to_string(), "error": error}))
        .collect();
    json!({
        "folder": report.folder.display().to_string(),
        "seen": report.seen,
        "embedded": report.embedded,
        "unchanged": report.unchanged,
        "moved": report.moved,
        "copied": report.copied,
        "removed": report.removed,
        "failed": failed,
        "stopped": report.stopped,
    })
}
