//! `dari index`: a folder's pictures into the search index.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use dari::Engine;
use serde_json::{Value, json};

use crate::Outcome;
use crate::cli::Index;
use crate::index::{Progress, Report, Store};
use crate::inputs::{self, Need};
use crate::interrupt;
use crate::language::say;
use crate::screen;

/// Runs the command.
pub fn run(arguments: &Index) -> anyhow::Result<Outcome> {
    inputs::whole_pictures(&arguments.model)?;
    let engine = inputs::open(&arguments.model)?;
    inputs::require(&engine, Need::Pictures)?;
    let mut store = open(&engine)?;
    let report = update(&mut store, &engine, &arguments.folder, arguments.model.batch.into())?;
    if arguments.json {
        screen::json(&describe(&report))?;
    } else {
        let Report { seen, embedded, unchanged, moved, copied, removed, .. } = &report;
        let failed = report.failed.len();
        let folder = report.folder.display();
        screen::print(&say!(
            "{folder}: {seen} pictures, {embedded} embedded, {unchanged} unchanged, {moved} moved, {copied} copied, {removed} gone, {failed} failed",
            "{folder}: 그림 {seen}장, 새로 임베딩 {embedded}, 그대로 {unchanged}, 옮겨짐 {moved}, 복사됨 {copied}, 사라짐 {removed}, 실패 {failed}"
        ))?;
    }
    Ok(outcome(&report))
}

/// How an update ended.
pub fn outcome(report: &Report) -> Outcome {
    if report.stopped { Outcome::SomeFailed } else { Outcome::of(report.failed.len()) }
}

/// The index as this model sees it.
pub fn open(engine: &Engine) -> anyhow::Result<Store> {
    Ok(Store::open(&engine.fingerprint()?, engine.dim())?)
}

/// Brings the index up to date with a folder; names what failed.
pub fn update(store: &mut Store, engine: &Engine, folder: &Path, batch: usize) -> anyhow::Result<Report> {
    let stop = interrupt::flag()?;
    let bar = screen::bar(0, "pictures");
    let mut progress = |progress: Progress| match progress {
        Progress::Looking { found } => bar.set_message(found.to_string()),
        Progress::Indexing { done, total, .. } => {
            bar.set_message("");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    };
    // A model that fails is no fault of the pictures: it ends the update, and nothing is remembered.
    let mut broken = None;
    let mut embed = |files: &[PathBuf]| -> Vec<Result<Vec<f32>, String>> {
        let answers = engine.embed_files(files);
        answers
            .into_iter()
            .map(|answer| {
                answer.map_err(|error| {
                    if matches!(error, dari::Error::Forward { .. }) {
                        stop.store(true, Ordering::SeqCst);
                        broken.get_or_insert_with(|| error.to_string());
                    }
                    error.to_string()
                })
            })
            .collect()
    };
    let report = store.update(folder, &mut embed, batch, &mut progress, &stop);
    bar.finish_and_clear();
    if let Some(problem) = broken {
        anyhow::bail!(problem);
    }
    let report = report?;
    if let Some(why) = &report.rebuilt {
        screen::warn(why);
    }
    for (path, message) in &report.failed {
        let path = path.display().to_string();
        screen::error(&if message.contains(&path) { message.clone() } else { format!("{path}: {message}") });
    }
    if report.seen == 0 {
        anyhow::bail!(inputs::no_pictures(&report.folder));
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
