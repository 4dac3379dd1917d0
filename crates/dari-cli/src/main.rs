//! The dari binary: parse, settle the arguments, do the one thing asked, answer with an exit code.
//!
//! 0: all went well. 1: something failed, or some of the inputs did. 2: the command line is wrong.

mod cli;
mod columns;
mod commands;
mod gallery;
mod index;
mod inputs;
mod interrupt;
mod korean;
mod language;
mod npy;
mod screen;

use std::process::ExitCode;

use crate::cli::Command;

#[global_allocator]
static HEAP: dari_kernels::memory::Heap = dari_kernels::memory::Heap;

fn main() -> ExitCode {
    dari_kernels::memory::keep();
    // candle's own threads would wait for each other, awake, on the cores that ours compute on.
    dari_kernels::memory::set_variable("CANDLE_NUM_THREADS", "1");
    quieten_decoders();
    let command = match cli::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    match run(&command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            screen::error(&told(&error));
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

fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Embed(arguments) => commands::embed::run(arguments),
        Command::Classify(arguments) => commands::classify::run(arguments),
        Command::Similarity(arguments) => commands::similarity::run(arguments),
        Command::Index(arguments) => commands::index::run(arguments),
        Command::Search(arguments) => commands::search::run(arguments),
        Command::Models(arguments) => commands::models::run(arguments),
        Command::Doctor(arguments) => commands::doctor::run(arguments),
        Command::Train(arguments) => commands::train::run(arguments),
        Command::Ask(arguments) => commands::ask::ask(arguments),
        Command::Caption(arguments) => commands::ask::caption(arguments),
        Command::Complete(arguments) => commands::complete::run(arguments),
        Command::Chat(arguments) => commands::chat::run(arguments),
        Command::Look(arguments) => commands::look::run(arguments),
        Command::Evaluate(arguments) => commands::evaluate::run(arguments),
        Command::Bench(arguments) => commands::bench::run(arguments),
        Command::Completions(arguments) => commands::reference::completions(arguments),
        Command::Man(arguments) => commands::reference::man(arguments),
    }
}

/// An error with its causes, each told once: many of ours hold their cause's words already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A reader that has seen enough (`dari … | head`) is not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// A panic inside one of these crates is caught and becomes an error of the file it read; the
/// default hook would print it as well.
const CAUGHT: [&str; 18] = [
    "/heic-decoder-",
    "/avif-parse-",
    "/re_rav1d-",
    "/image-",
    "/image-webp-",
    "/png-",
    "/gif-",
    "/tiff-",
    "/zune-",
    "/fdeflate-",
    "/weezl-",
    "/tokenizers-",
    "/fancy-regex-",
    "/spm_precompiled-",
    "/hf-hub-",
    "/ureq-",
    "/parquet-",
    "/unicode-normalization-",
];

fn quieten_decoders() {
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let caught = panic.location().is_some_and(|at| CAUGHT.iter().any(|name| at.file().contains(name)));
        if !caught {
            speak(panic);
        }
    }));
}
