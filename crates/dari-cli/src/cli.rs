//! Every command and option, defined once: help, man page and completions come from here.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::korean;
use crate::language::{Language, language, say};
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

/// How a model is loaded and run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// The model: a folder, a hub id, or a short name of `dari models list`
    #[arg(long, value_name = "MODEL", default_value = dari::EMBEDDED, env = "DARI_MODEL")]
    pub model: String,
    /// Precision of weights and products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Where it runs: cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Threads to use; all cores when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Pictures or texts that go through the model at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub batch: u16,
    /// Decode photographs in full; else a JPEG far larger than the model's input is decoded at a part of
    /// its size
    #[arg(long)]
    pub exact: bool,
    /// Look at a part of each picture file: left, top, width and height in pixels
    #[arg(long, value_name = "X,Y,W,H", value_parser = crop)]
    pub crop: Option<Crop>,
}

/// Left, top, width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop(pub [u32; 4]);

fn crop(text: &str) -> Result<Crop, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[x, y, width, height]) if width > 0 && height > 0 => Ok(Crop([x, y, width, height])),
        _ => Err("expected four whole numbers, left,top,width,height, the last two above 0".into()),
    }
}

/// The precisions to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision
    F32,
    /// bfloat16 weights, half the memory
    Bf16,
    /// Eight-bit weights and products, a quarter of the memory
    Int8,
    /// bf16 where the processor multiplies it, else f32
    Auto,
}

/// How a language model answers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Answer")]
pub struct Answering {
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tokens: u32,
    /// How freely tokens are drawn; 0 always takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Draw among so many of the likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw among the fewest likeliest tokens whose probabilities sum up to this
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Draw among tokens at least so probable as this share of the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Makes tokens that are there already less likely; 1 for none
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// What is drawn follows from it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// End an answer at this text; may be given many times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Search so many beams for the likeliest answer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub beams: u8,
    /// With beams: above 0 favours longer answers
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub length_penalty: f64,
}

impl Answering {
    /// As the library takes it.
    pub fn asking(&self) -> Result<dari::Asking, Usage> {
        let bounds = [
            ("--temperature", self.temperature, 0.0..=100.0),
            ("--top-p", self.top_p, 0.0..=1.0),
            ("--min-p", self.min_p, 0.0..=1.0),
            ("--repetition-penalty", self.repetition_penalty, 0.01..=100.0),
        ];
        for (option, found, bounds) in bounds {
            if !bounds.contains(&found) {
                let (least, most) = (bounds.start(), bounds.end());
                return Err(Usage(say!(
                    "{option} is {found}, expected {least} to {most}",
                    "{option}이(가) {found}입니다. {least}에서 {most} 사이여야 합니다"
                )));
            }
        }
        if !self.length_penalty.is_finite() {
            return Err(Usage(say!("--length-penalty is no number", "--length-penalty가 수가 아닙니다")));
        }
        Ok(dari::Asking {
            sampling: dari::Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed,
            },
            most: self.max_tokens as usize,
            stops: self.stop.clone(),
            beams: self.beams.into(),
            length_penalty: self.length_penalty,
        })
    }
}

/// Arguments of `dari caption`.
#[derive(Debug, Args)]
#[command(after_help = "\
The model is LLaVA, Idefics 3 or SmolVLM. Of one picture the words come as they are said; of several
each has its line: path, tab, caption.

JSON, one object a picture: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\"} or {\"picture\", \"error\"}

Examples:
  dari caption photo.jpg --model ./SmolVLM-256M-Instruct
  dari caption samples --model ./llava-1.5-7b-hf --json")]
pub struct Caption {
    /// Pictures, or folders of them
    #[arg(required = true, value_name = "IMG")]
    pub images: Vec<PathBuf>,
    /// What is asked of each picture, in place of a plain request for a sentence
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answering: Answering,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari ask`.
#[derive(Debug, Args)]
#[command(after_help = "\
The last argument is the question. Each picture is asked by itself; with --together all of them at once.

JSON, one object a picture: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\"} or {\"picture\", \"error\"}; with --together one with \"pictures\"

Examples:
  dari ask photo.jpg \"What colour is the car?\" --model ./SmolVLM-256M-Instruct
  dari ask before.png after.png \"What has changed?\" --together --model ./SmolVLM-256M-Instruct")]
pub struct Ask {
    /// Pictures, or folders of them, and the question last
    #[arg(required = true, value_name = "IMG… QUESTION")]
    pub inputs: Vec<String>,
    /// Ask of all pictures at once
    #[arg(long)]
    pub together: bool,
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answering: Answering,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari complete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what follows each text, as it comes. The model is a language model: GPT-2, LLaMA, Mistral or
Qwen 2, as a folder or a GGUF file.

JSON, one object a line: {\"prompt\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\",
\"ended\": \"stop\"|\"length\"|\"full\"|\"interrupted\", \"confidence\"}

Examples:
  dari complete \"Once upon a time\" --model SmolLM2-135M.gguf --max-tokens 60
  dari complete --model ./qwen2 --temperature 0.7 --seed 1 < story.txt")]
pub struct Complete {
    /// Texts to go on with; standard input when absent
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answering: Answering,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari chat`.
#[derive(Debug, Args)]
#[command(after_help = "\
A line is a message; the answer comes word by word. ctrl-C stops an answer, ctrl-D ends. Commands:
/image FILE, /system TEXT, /save FILE, /load FILE, /reset, /help, /exit. What was read before is not
read again.
Lines can be piped in: a message each.

JSON, one object an answer: {\"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\"}

Examples:
  dari chat --model SmolLM2-135M.gguf
  printf 'Hi\\nAnd you?\\n' | dari chat --model ./qwen2 --json")]
pub struct Chat {
    /// Pictures that the first message is about
    #[arg(value_name = "IMG")]
    pub images: Vec<PathBuf>,
    /// What the model is told before all messages
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answering: Answering,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari embed`.
#[derive(Debug, Args)]
#[command(after_help = "\
One row an input: pictures first, then texts, each in the order given. A picture that cannot be
read keeps its row, filled with NaN in .npy and with an \"error\" in .jsonl, and is named on stderr.
Blank lines of --texts-file are no texts.

JSON, one object a line: {\"input\", \"kind\": \"picture\"|\"text\", \"vector\": [..]} or {.., \"error\"}

Examples:
  dari embed --images a.jpg b.png --texts \"a red apple\" --output vectors.npy
  dari embed --texts \"빨간 사과\" --json")]
pub struct Embed {
    /// Pictures, or folders of them
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub images: Vec<PathBuf>,
    /// Texts
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub texts: Vec<String>,
    /// Texts, one a line of this file
    #[arg(long, value_name = "FILE")]
    pub texts_file: Option<PathBuf>,
    /// Where to write: .npy (float32, [n, dim]), .jsonl or .parquet; JSON lines to stdout when absent
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Give the vectors as the model does, not brought to unit length
    #[arg(long)]
    pub no_normalize: bool,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari classify`.
#[derive(Debug, Args)]
#[command(after_help = "\
With several templates a label's vector is the mean over them. CLIP's probabilities sum to 1
over the labels; SigLIP's are each label's own. A classifier checkpoint needs no labels.

JSON, one object a line: {\"picture\", \"labels\": [{\"label\", \"probability\"}, ..]}
or {\"picture\", \"error\"}

Examples:
  dari classify photo.jpg --labels \"cat,dog,강아지\"
  dari classify *.png --labels-file labels.txt --template \"a photo of a {}\"")]
pub struct Classify {
    /// Pictures, or folders of them
    #[arg(required = true, value_name = "IMG")]
    pub images: Vec<PathBuf>,
    /// Labels, separated by commas
    #[arg(long, value_name = "LABELS")]
    pub labels: Vec<String>,
    /// Labels, one a line of this file
    #[arg(long, value_name = "FILE")]
    pub labels_file: Option<PathBuf>,
    /// What a label is put into, {} standing for it; may be given many times
    #[arg(long, value_name = "TEXT")]
    pub template: Vec<String>,
    /// Labels shown for each picture
    #[arg(long, short = 'k', value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub top: u64,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari similarity`.
#[derive(Debug, Args)]
#[command(after_help = "\
JSON, one object: {\"pictures\": [..], \"texts\": [..], \"cosine\": [[..]], \"probability\": [[..]],
\"failed\": [{\"picture\", \"error\"}]}, the matrices a row a picture.

Examples:
  dari similarity --images samples --texts \"빨간 사과\" \"a yellow boat\"
  dari similarity --images a.png b.png --texts cat dog --png heatmap.png")]
pub struct Similarity {
    /// Pictures, or folders of them
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub images: Vec<PathBuf>,
    /// Texts
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub texts: Vec<String>,
    /// Draw the heat map as a picture: a row a picture, a column a text, numbered in order
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari look`.
#[derive(Debug, Args)]
#[command(after_help = "\
Two maps for each text: the similarity of each place by itself, and the gradient of the whole
picture's similarity. The picture is what the model sees of it. --png draws a row a text: the
picture, the similarity, the gradient.

JSON, one object a line: {\"picture\", \"text\", \"down\", \"across\", \"similarity\": [[..]],
\"gradient\": [[..]], \"whole\"}

Examples:
  dari look samples/red-apple.png \"red apple\"
  dari look photo.jpg \"강아지\" \"a ball\" --png places.png")]
pub struct Look {
    /// The picture
    #[arg(value_name = "IMG")]
    pub image: PathBuf,
    /// What to look for
    #[arg(value_name = "TEXT", required = true)]
    pub texts: Vec<String>,
    /// Draw the maps as a picture
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari index`.
#[derive(Debug, Args)]
#[command(after_help = "\
The index lies in the user's data folder ($DARI_DATA_HOME, else the system's own place), never
among the pictures. Only what changed is embedded again; a run cut short is carried on.

JSON, one object: {\"folder\", \"seen\", \"embedded\", \"unchanged\", \"moved\", \"copied\",
\"removed\", \"failed\": [{\"picture\", \"error\"}], \"stopped\"}

Example:
  dari index ~/Pictures")]
pub struct Index {
    /// The folder of pictures
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari search`.
#[derive(Debug, Args)]
#[command(after_help = "\
With --in, the folder is taken into the index first; without, all that this model has indexed
is searched. Words and a picture together look for both.

JSON, one object a line: {\"rank\", \"score\", \"path\"}

Examples:
  dari search \"빨간 사과\" --in samples
  dari search --image cat.jpg -k 20
  dari search \"a boat at sea\" --in ~/Pictures --html found.html")]
pub struct Search {
    /// The words to look for
    #[arg(value_name = "QUERY", required_unless_present = "image")]
    pub query: Option<String>,
    /// A picture to look for pictures like it
    #[arg(long, value_name = "IMG")]
    pub image: Option<PathBuf>,
    /// The folder to search
    #[arg(long = "in", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Pictures to show
    #[arg(short = 'k', value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub k: u64,
    /// Show the pictures in the terminal: as pictures where it can (kitty, iTerm), else as blocks of colour
    #[arg(long)]
    pub show: bool,
    /// Write what was found as a page with its pictures inside
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelOptions,
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
    /// Where it runs: cpu, for now
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
  dari bench train recipes/scenes.toml --json")]
pub struct Bench {
    #[command(subcommand)]
    pub action: BenchAction,
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
    let parsed = definition().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => {
            settle_threads(&cli.command);
            Ok(cli.command)
        }
        Err(error) => {
            // Help and version are no errors, and a closed pipe is none of ours.
            let _ = error.print();
            Err(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
        }
    }
}

fn settle_threads(command: &Command) {
    let threads = match command {
        Command::Embed(Embed { model, .. })
        | Command::Classify(Classify { model, .. })
        | Command::Similarity(Similarity { model, .. })
        | Command::Index(Index { model, .. })
        | Command::Search(Search { model, .. }) => model.threads,
        Command::Train(train) => train.threads,
        Command::Bench(Bench { action: BenchAction::Embed { model, .. } }) => model.threads,
        Command::Bench(Bench { action: BenchAction::Train { threads, .. } }) => *threads,
        _ => None,
    };
    if let Some(threads) = threads
        && let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()
    {
        screen::warn(&format!("--threads {threads} could not be set: {error}"));
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
}
