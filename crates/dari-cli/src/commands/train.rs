//! `dari train`: a model by a recipe.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dari_train::{Observer, Outcome as Ended, Recipe, StepReport, train};
use indicatif::ProgressBar;

use crate::Outcome;
use crate::cli::{Train, Usage};
use crate::interrupt;
use crate::language::say;
use crate::screen;
use crate::screen::curve;
use crate::screen::live::Live;

/// Failures named one by one before only their number is told.
const NAMED: u64 = 10;

/// Runs the command.
pub fn run(arguments: &Train) -> anyhow::Result<Outcome> {
    let recipe = Recipe::read(&arguments.recipe, &arguments.settings).map_err(|error| match error {
        dari_train::Error::Recipe { .. } => anyhow::Error::new(Usage(error.to_string())),
        other => other.into(),
    })?;
    let device = dari::device(&arguments.device).map_err(|error| Usage(error.to_string()))?;
    let stop = interrupt::flag()?;
    let live = if arguments.json || arguments.plain { None } else { Live::begin() };
    let bar = match live {
        Some(_) => ProgressBar::hidden(),
        None => screen::bar(recipe.train.steps, "steps"),
    };
    let mut watcher =
        Watcher { bar, live, json: arguments.json, stop, smooth: None, skipped: 0, problem: None };
    let open = |model: &str| {
        let mut bar = screen::Fetching::default();
        dari::open_folder(model, &mut |file, done, total| bar.show(file, done, total)).map_err(|error| {
            dari_train::Error::Recipe { origin: "model.from".into(), problem: error.to_string() }
        })
    };
    let ended = train(&recipe, arguments.resume, &device, &open, &mut watcher);
    watcher.bar.finish_and_clear();
    if let Some(live) = watcher.live.take() {
        live.end();
    }
    draw_curve(&recipe);
    if watcher.skipped > NAMED {
        let count = watcher.skipped;
        screen::warn(&say!("{count} records were skipped in all", "모두 {count}개를 건너뛰었습니다"));
    }
    if let Some(problem) = watcher.problem.take() {
        return Err(problem.into());
    }
    match ended? {
        Ended::Finished(folder) => {
            let folder = folder.display();
            if !arguments.json {
                screen::print(&say!("done: {folder}", "완료: {folder}"))?;
            }
            Ok(Outcome::Done)
        }
        Ended::Stopped(folder) => {
            let folder = folder.display();
            screen::warn(&say!(
                "stopped at {folder}; go on with --resume",
                "{folder}에서 멈췄습니다. --resume으로 이어 가세요"
            ));
            Ok(Outcome::SomeFailed)
        }
    }
}

/// Draws the loss beside the run's other files; a run is no worse for want of it.
fn draw_curve(recipe: &Recipe) {
    let drawn = || -> anyhow::Result<()> {
        let Some(picture) = curve::of_metrics(&recipe.output.join("metrics.jsonl"))? else { return Ok(()) };
        Ok(dari::files::write_atomically(&recipe.output.join("loss.png"), &picture.to_png()?)?)
    };
    if let Err(error) = drawn()
        && recipe.output.join("metrics.jsonl").exists()
    {
        screen::warn(&error.to_string());
    }
}

struct Watcher {
    bar: ProgressBar,
    live: Option<Live>,
    json: bool,
    stop: Arc<AtomicBool>,
    smooth: Option<f32>,
    skipped: u64,
    /// A closed stdout ends the run, with a checkpoint.
    problem: Option<std::io::Error>,
}

impl Watcher {
    fn note(&mut self, line: &str) {
        match &mut self.live {
            Some(live) => live.note(line),
            None => self.bar.suspend(|| screen::note(line)),
        }
    }

    fn warn(&mut self, line: &str) {
        match &mut self.live {
            Some(live) => live.note(line),
            None => self.bar.suspend(|| screen::warn(line)),
        }
    }
}

impl Observer for Watcher {
    fn started(&mut self, lines: &[String]) {
        lines.iter().for_each(|line| self.note(line));
    }

    fn stepped(&mut self, report: &StepReport) {
        // A running mean: one batch's loss jumps.
        let smooth = self.smooth.map_or(report.loss, |old| 0.95 * old + 0.05 * report.loss);
        self.smooth = Some(smooth);
        if self.bar.position() == 0 {
            self.bar.set_position(report.step - 1);
            self.bar.reset_eta();
        }
        self.bar.set_position(report.step);
        if let Some(live) = &mut self.live {
            live.stepped(report, smooth);
        }
        self.bar.set_message(format!("loss {smooth:.3}  {:.0} pairs/s", report.pairs_per_second));
        if self.json {
            let line = serde_json::to_value(report).unwrap_or_default();
            if let Err(error) = screen::json(&line) {
                self.problem = Some(error);
                self.stop.store(true, Ordering::SeqCst);
            }
        }
    }

    fn matched(&mut self, cosines: &[Vec<f32>]) {
        if let Some(live) = &mut self.live {
            live.matched(cosines);
        }
    }

    fn saved(&mut self, folder: &Path) {
        self.note(&folder.display().to_string());
    }

    fn skipped(&mut self, message: &str) {
        self.skipped += 1;
        match self.skipped {
            ..=NAMED => self.warn(message),
            count if count.is_power_of_two() => {
                self.warn(&say!("{count} records skipped so far", "지금까지 {count}개를 건너뛰었습니다"));
            }
            _ => {}
        }
    }

    fn stop(&mut self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
