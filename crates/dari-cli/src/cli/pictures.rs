//! The commands of one space for pictures and words.

use std::path::PathBuf;

use clap::Args;

use super::ModelOptions;

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

A model that speaks answers each text as a question, with one map: attention rollout, what of the
picture the answer comes from. JSON: {\"picture\", \"text\", \"answer\", \"confidence\", \"down\",
\"across\", \"rollout\": [[..]], \"share\"}

Examples:
  dari look samples/red-apple.png \"red apple\"
  dari look photo.jpg \"강아지\" \"a ball\" --png places.png")]
pub struct Look {
    /// The picture
    #[arg(value_name = "IMG")]
    pub image: PathBuf,
    /// What to look for; a question to a model that speaks
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
