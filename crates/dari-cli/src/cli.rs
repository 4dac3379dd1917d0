//! Every command and option, defined once: help, man page and completions come from here.

mod answers;
mod options;
mod pictures;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use answers::{Ask, Caption, Chat, Complete, Speaking};
pub use options::{CacheFormat, ModelOptions, Precision};
pub use pictures::{Classify, Embed, Index, Look, Search, Similarity};
pub use training::{Bench, BenchAction, Evaluate, EvaluateAction, Judged, SpeechBench, Train};

use crate::korean;
use crate::language::{Language, language};
use crate::screen;

/// See, speak and understand: pictures and words in one engine.
#[derive(Debug, Parser)]
#[command(name = "dari", bin_name = "dari", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  dari search \"빨간 사과\" --in samples
  dari classify photo.jpg --labels \"cat,dog,강아지\"
  dari embed --images *.jpg --texts \"a red apple\" --output vectors.npy";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn pictures and texts into vectors
    Embed(Embed),
    /// Say which of some labels each picture shows
    Classify(Classify),
    /// Show how near pictures and texts are, as a heat map
    Similarity(Similarity),
    /// Show where in a picture words are
    Look(Look),
    /// Say in words what pictures show
    Caption(Caption),
    /// Answer a question about pictures
    Ask(Ask),
    /// Go on with a text
    Complete(Complete),
    /// Talk with a language model
    Chat(Chat),
    /// Take the pictures of a folder into the search index
    Index(Index),
    /// Find pictures by words, or by a picture
    Search(Search),
    /// List, describe or fetch models
    Models(Models),
    /// Tell what this machine and this build can do
    Doctor(Doctor),
    /// Train a model by a recipe
    Train(Train),
    /// Measure how fast a model runs or trains here
    Bench(Bench),
    /// Measure how good a model is on pictures of your own
    Evaluate(Evaluate),
    /// Write completions for a shell
    Completions(Completions),
    /// Write the manual page
    Man(Man),
}

/// Arguments of `dari models`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dari models list
  dari models show mini
  dari models pull siglip2-b16
  dari models pack ~/clip --precision int8")]
pub struct Models {
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// List the embedded model, those fetched, and the short names
    List {
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Tell what a model is and can do
    Show {
        /// The model: a folder, a hub id, or a short name
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fold an adapter into its model, and write both as one
    #[command(after_help = "\
The adapter is a folder in PEFT's layout; its adapter_config.json names the model. The output has that
model's own layout.

Example:
  dari models merge runs/lora/model ~/merged")]
    Merge {
        /// The adapter's folder
        #[arg(value_name = "ADAPTER")]
        model: String,
        /// The folder to write; there is none yet
        #[arg(value_name = "DIR")]
        output: PathBuf,
    },
    /// Pack a model's weights into a file beside them, mapped at once the next time
    #[command(after_help = "\
The file is packed-PRECISION.safetensors in the model's folder. A dari of another layout, or weights
that changed, pass it over.

JSON, one object: {\"model\", \"precision\", \"file\", \"bytes\"}")]
    Pack {
        /// The model: a folder, a hub id, or a short name
        model: String,
        /// Precision of weights and products
        #[arg(long, value_enum, default_value_t = Precision::F32)]
        precision: Precision,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model from the hub
    Pull {
        /// The model: a hub id or a short name
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `dari doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dari doctor --json")]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dari completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dari completions bash > ~/.local/share/bash-completion/completions/dari")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `dari man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dari man --output ~/.local/share/man/man1")]
pub struct Man {
    /// Write one page a command into this folder; the main page to stdout when absent
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A wrong command line that only shows when the arguments are looked at together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The command line's definition in the user's language.
pub fn definition() -> clap::Command {
    match language() {
        Language::English => Cli::command(),
        Language::Korean => korean::translate(Cli::command()),
    }
}

/// Parses the command line; help and mistakes are answered here, with their exit code.
pub fn parse() -> Result<Command, ExitCode> {
    let parsed = definition().try_get_matches().and_then(|matches| {
        settle_threads(&matches);
        Cli::from_arg_matches(&matches)
    });
    parsed.map(|cli| cli.command).map_err(|error| {
        // Help and version are no errors, and a closed pipe is none of ours.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Sets the threads for the whole program, whichever command was told of them.
fn settle_threads(matches: &ArgMatches) {
    if let Some(threads) = threads(matches)
        && let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()
    {
        screen::warn(&format!("--threads {threads} could not be set: {error}"));
    }
}

fn threads(matches: &ArgMatches) -> Option<u16> {
    match matches.subcommand() {
        Some((_, inner)) => threads(inner),
        None => matches.try_get_one("threads").ok().flatten().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        korean::translate(Cli::command()).debug_assert();
    }

    #[test]
    fn every_command_that_takes_threads_is_heard() {
        for line in [
            "look a.png apple --threads 3",
            "ask a.png what --threads 3",
            "bench embed --threads 3",
            "train recipe.toml --threads 3",
            "evaluate retrieval data --threads 3",
        ] {
            let words = std::iter::once("dari").chain(line.split(' '));
            assert_eq!(threads(&definition().get_matches_from(words)), Some(3), "{line}");
        }
        assert_eq!(threads(&definition().get_matches_from(["dari", "doctor"])), None);
    }
}
