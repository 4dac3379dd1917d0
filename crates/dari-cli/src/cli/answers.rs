//! The commands in which a language model speaks.

use std::path::PathBuf;

use clap::Args;

use super::{CacheFormat, ModelOptions, Usage};
use crate::language::say;

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
    /// Guess tokens ahead, for the same answer sooner: `lookup` in the text so far, or a smaller model of the same tokens
    #[arg(long, value_name = "lookup|MODEL")]
    pub draft: Option<String>,
    /// How what was read is kept: in fewer bits a long text takes less memory, and an answer may differ
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "f32")]
    pub cache: CacheFormat,
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

/// What every command takes that lets a language model speak.
#[derive(Debug, Args)]
pub struct Speaking {
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answering: Answering,
    #[command(flatten)]
    pub model: ModelOptions,
}

/// Arguments of `dari caption`.
#[derive(Debug, Args)]
#[command(after_help = "\
The model in the binary (mini-voice), LLaVA, Idefics 3, SmolVLM, or one of your own. Of one picture
the words come as they are said; of several each has its line: path, tab, caption. Several are answered
side by side: up to eight, or --batch, as memory allows; one by one with a temperature, beams or --draft.
An answer that is not to be trusted is marked (unsure).

JSON, one object a picture: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\", \"unsure\"} or {\"picture\", \"error\"}

Examples:
  dari caption samples
  dari caption photo.jpg --model ./SmolVLM-256M-Instruct
  dari caption samples --model ./llava-1.5-7b-hf --json")]
pub struct Caption {
    /// Pictures, or folders of them
    #[arg(required = true, value_name = "IMG")]
    pub images: Vec<PathBuf>,
    /// What is asked of each picture, in place of a plain request for a sentence
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    #[command(flatten)]
    pub speaking: Speaking,
}

/// Arguments of `dari ask`.
#[derive(Debug, Args)]
#[command(after_help = "\
The last argument is the question. Each picture is asked by itself, several side by side as with
caption; with --together all of them at once.

JSON, one object a picture: {\"picture\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\", \"ended\",
\"confidence\", \"unsure\"} or {\"picture\", \"error\"}; with --together one with \"pictures\"

Examples:
  dari ask samples/red-apple.png \"사과는 무슨 색이야?\"
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
    #[command(flatten)]
    pub speaking: Speaking,
}

/// Arguments of `dari complete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what follows each text, as it comes. The model is a language model: GPT-2, LLaMA, Mistral or
Qwen 2, as a folder or a GGUF file.

JSON, one object a line: {\"prompt\", \"text\", \"prompt_tokens\", \"reused_tokens\", \"tokens\",
\"ended\": \"stop\"|\"length\"|\"full\"|\"interrupted\", \"confidence\"}; with --draft \"guesses\": {\"made\", \"right\"}

Examples:
  dari complete \"Once upon a time\" --model SmolLM2-135M.gguf --max-tokens 60
  dari complete --model ./qwen2 --temperature 0.7 --seed 1 < story.txt")]
pub struct Complete {
    /// Texts to go on with; standard input when absent
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    #[command(flatten)]
    pub speaking: Speaking,
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
    #[command(flatten)]
    pub speaking: Speaking,
}
