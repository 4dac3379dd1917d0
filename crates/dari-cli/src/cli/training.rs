//! The commands that train a model and measure it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ModelOptions;

/// Arguments of `dari train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Recipes are TOML; those of the project lie under recipes/. Checkpoints are model folders in the
public layout. Ctrl-C ends with a checkpoint; --resume goes on from the newest, as if never
interrupted. On a terminal the loss and the batch's similarities are shown as they go; loss.png in
the output folder has the whole curve. JSON, a line a step: {\"step\", \"steps\", \"loss\", \"learning_rate\", ..}

Examples:
  dari train recipes/mini.toml
  dari train recipes/mini.toml --resume
  dari train recipes/scenes.toml --set train.steps=200 --set output=runs/try")]
pub struct Train {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Go on from the newest checkpoint, if there is one
    #[arg(long)]
    pub resume: bool,
    /// Lay a setting over the recipe's; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Where it runs: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Threads to use; all cores when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// One bar on a terminal instead of the live view
    #[arg(long)]
    pub plain: bool,
    /// Print JSON lines, a step each
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dari bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Weights are loaded and warm before the clock starts; no file is read and nothing decoded inside it.

Examples:
  dari bench embed
  dari bench embed --model ~/clip --precision int8 --batch 1 --texts
  dari bench decode --model smollm2.gguf --tokens 128 --threads 2
  dari bench train recipes/scenes.toml --json")]
pub struct Bench {
    #[command(subcommand)]
    pub action: BenchAction,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchAction {
    /// Pictures, or texts, to vectors
    #[command(after_help = "\
JSON, one object: {\"median_ms\", \"min_ms\", \"max_ms\", \"runs\", \"load_ms\", \"peak_memory_mb\",
\"model\", \"input\", \"batch\", \"precision\", \"threads\", \"simd\"}")]
    Embed {
        /// Texts as long as the model reads, instead of pictures
        #[arg(long)]
        texts: bool,
        /// Texts of their own lengths: a JSON file, a list of lists of token ids
        #[arg(long, value_name = "FILE")]
        tokens: Option<PathBuf>,
        /// Measured runs
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10000))]
        runs: u16,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        model: ModelOptions,
    },
    /// A language model that reads a prompt
    #[command(after_help = SPOKEN)]
    Prefill {
        /// Tokens of the prompt
        #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        tokens: u32,
        #[command(flatten)]
        speech: SpeechBench,
    },
    /// A language model that writes, token by token
    #[command(after_help = SPOKEN)]
    Decode {
        /// Tokens to write
        #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        tokens: u32,
        #[command(flatten)]
        speech: SpeechBench,
    },
    /// A vision-language model that sees a picture, reads a question and answers
    #[command(after_help = SPOKEN)]
    Ask {
        /// Tokens of the answer
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        tokens: u32,
        #[command(flatten)]
        speech: SpeechBench,
    },
    /// A training step by a recipe
    #[command(after_help = "\
Nothing is written beside the recipe. JSON, one object: {\"median_ms\", \"min_ms\", \"max_ms\", \"runs\",
\"forward_ms\", \"backward_ms\", \"optimizer_ms\", \"peak_memory_mb\", \"batch\", \"threads\", \"simd\"}")]
    Train {
        /// The recipe
        #[arg(value_name = "RECIPE")]
        recipe: PathBuf,
        /// Measured steps
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10000))]
        runs: u16,
        /// Lay a setting over the recipe's; may be given many times
        #[arg(long = "set", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        /// Threads to use; all cores when absent
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: Option<u16>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

const SPOKEN: &str = "\
Tokens are drawn at random, and an answer never ends by itself. JSON, one object:
{\"tokens_per_second\", \"time_to_first_token_ms\", \"peak_memory_mb\", \"prompt_tokens\", \"tokens\", \"runs\",
\"load_ms\", \"model\", \"precision\", \"threads\", \"simd\"}; each the median of the runs. `decode` of a language model
alone adds \"weights_gb_per_second\", and \"memory_gb_per_second\": how fast a plain loop reads memory";

/// What the measurements of a language model share.
#[derive(Debug, Args)]
pub struct SpeechBench {
    /// Measured runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=10000))]
    pub runs: u16,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari evaluate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Data is what training reads: a folder with captions or a folder a class, CSV, TSV, JSON Lines,
COCO's captions, WebDataset shards. Ties go to the lower index.

Examples:
  dari evaluate zero-shot animals --template \"a photo of a {}\"
  dari evaluate retrieval captions_val2017.json --model ~/clip
  dari evaluate linear-probe --train animals/train --test animals/test")]
pub struct Evaluate {
    #[command(subcommand)]
    pub action: EvaluateAction,
}

/// What is evaluated.
#[derive(Debug, Subcommand)]
pub enum EvaluateAction {
    /// Which class each picture shows, by the classes' names
    #[command(after_help = "\
A picture's class is the first thing said of it. --save writes pictures.npy [n, dim], classes.npy
[classes, templates, dim], labels.json and classes.json.

JSON, one object: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"classes\", \"chance\",
\"top_1\", \"top_5\", \"mean_per_class\"}")]
    ZeroShot {
        /// The pictures and their classes
        #[arg(value_name = "DATA")]
        data: PathBuf,
        /// The classes, one a line of this file; those that the data names when absent
        #[arg(long, value_name = "FILE")]
        labels_file: Option<PathBuf>,
        /// What a class is put into, {} standing for it; may be given many times
        #[arg(long, value_name = "TEXT")]
        template: Vec<String>,
        /// Keep the embeddings and the classes in this folder
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
        #[command(flatten)]
        judged: Judged,
    },
    /// Pictures by their captions, and captions by their pictures
    #[command(after_help = "\
--save writes pictures.npy [n, dim], texts.npy [texts, dim] and pairs.json, each text's picture.

JSON, one object: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"texts\",
\"text_to_picture\": {\"at_1\", \"at_5\", \"at_10\"}, \"picture_to_text\": {..}}")]
    Retrieval {
        /// The pictures and their captions
        #[arg(value_name = "DATA")]
        data: PathBuf,
        /// Keep the embeddings and the pairs in this folder
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
        #[command(flatten)]
        judged: Judged,
    },
    /// What one linear layer reads off the vectors of pictures
    #[command(after_help = "\
Logistic regression, fitted to its least in double precision:
mean cross entropy + lambda / 2 * |W|^2.

JSON, one object: {\"data\", \"model\", \"precision\", \"pictures\", \"failed\", \"classes\", \"chance\",
\"train_pictures\", \"lambda\", \"train\": {\"top_1\", \"top_5\", \"mean_per_class\"}, \"test\": {..},
\"fit\": {\"objective\", \"steps\", \"gradient_norm\"}}")]
    LinearProbe {
        /// What it learns from
        #[arg(long, value_name = "DATA")]
        train: PathBuf,
        /// What it is judged on
        #[arg(long, value_name = "DATA")]
        test: PathBuf,
        /// How far large weights are held back
        #[arg(long, value_name = "NUMBER", default_value_t = 1e-3)]
        lambda: f64,
        /// Bring each feature to mean 0 and deviation 1 first
        #[arg(long)]
        standardise: bool,
        #[command(flatten)]
        judged: Judged,
    },
}

/// What every evaluation takes.
#[derive(Debug, Args)]
pub struct Judged {
    /// Judge by the words of this language alone
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}
