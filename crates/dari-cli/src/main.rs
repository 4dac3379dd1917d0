//! The dari binary: parse, settle the arguments, do the one thing asked, answer with an exit code.
//!
//! 0: all went well. 1: something failed, or some of the inputs did. 2: the command line is wrong.

mod cli;
mod commands;
mod gallery;
mod index;
mod inputs;
mod korean;
mod language;
mod screen;

use std::process::ExitCode;

use crate::cli::{Command, Settled};

fn main() -> ExitCode {
    dari_kernels::memory::keep();
    quieten_decoders();
    let settled = match cli::parse() {
        Ok(settled) => settled,
        Err(code) => return code,
    };
    match run(&settled) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            screen::error(&format!("{error:#}"));
            ExitCode::from(if error.is::<cli::Usage>() { 2 } else { 1 })
        }
    }
}

/// How a command ended, where it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked was done.
    Done,
    /// The rest was done; what failed has been named.
    SomeFailed,
}

impl Outcome {
    fn of(failures: usize) -> Outcome {
        if failures == 0 { Outcome::Done } else { Outcome::SomeFailed }
    }
}

fn run(settled: &Settled) -> anyhow::Result<Outcome> {
    match &settled.command {
        Command::Embed(arguments) => commands::embed::run(arguments),
        Command::Classify(arguments) => commands::classify::run(arguments),
        Command::Similarity(arguments) => commands::similarity::run(arguments),
        Command::Index(arguments) => commands::index::run(arguments),
        Command::Search(arguments) => commands::search::run(arguments),
        Command::Models(arguments) => commands::models::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
        Command::Train(arguments) => commands::train::run(arguments),
        Command::Completions(arguments) => commands::reference::completions(arguments),
        Command::Man(arguments) => commands::reference::man(arguments),
    }
}

/// A reader that has seen enough (`dari … | head`) is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// A panic inside a picture decoder or a tokenizer file is caught and becomes that file's error;
/// the default hook would print it as well. Panics of our own code still speak.
fn quieten_decoders() {
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let ours =
            panic.location().is_none_or(|at| at.file().starts_with("crates/") || at.file().contains("/dari"));
        if ours {
            speak(panic);
        }
    }));
}
