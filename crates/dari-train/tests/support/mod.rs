//! A run of a recipe in a folder, and one who watches it.

use std::path::Path;

use candle_core::Device;
use dari_files::Folder;
use dari_train::{Error, Observer, Outcome, Recipe, StepReport, train};

/// Keeps what it is told.
pub struct Quiet {
    pub stop_at: u64,
    pub losses: Vec<f32>,
    pub skipped: Vec<String>,
}

impl Quiet {
    pub fn new() -> Quiet {
        Quiet { stop_at: u64::MAX, losses: Vec::new(), skipped: Vec::new() }
    }
}

impl Observer for Quiet {
    fn started(&mut self, _: &[String]) {}

    fn stepped(&mut self, report: &StepReport) {
        self.losses.push(report.loss);
    }

    fn saved(&mut self, _: &Path) {}

    fn skipped(&mut self, message: &str) {
        self.skipped.push(message.to_owned());
    }

    fn stop(&mut self) -> bool {
        self.losses.len() as u64 >= self.stop_at
    }
}

/// Runs `recipe.toml` of a folder.
pub fn run(folder: &Path, settings: &[&str], resume: bool, observer: &mut Quiet) -> Result<Outcome, Error> {
    // A path on the command line is meant from where it is typed: say it in full.
    let place = |setting: &&str| match setting.strip_prefix("output=") {
        Some(name) => format!("output={}", folder.join(name).display()),
        None => (*setting).to_owned(),
    };
    let settings: Vec<String> = settings.iter().map(place).collect();
    let recipe = Recipe::read(&folder.join("recipe.toml"), &settings)?;
    let open = |from: &str| -> Result<Folder, Error> { Ok(Folder::open(Path::new(from))?) };
    train(&recipe, resume, &Device::Cpu, &open, observer)
}
