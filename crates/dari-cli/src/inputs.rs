//! What the command line names: pictures, folders of them, lists of words, and the model.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use dari::{Engine, Options, Precision};

use crate::cli::{self, ModelOptions, Usage};
use crate::index;
use crate::language::say;
use crate::screen;

/// The precision that an option means on this machine.
pub fn precision(option: cli::Precision) -> Precision {
    match option {
        cli::Precision::F32 => Precision::F32,
        cli::Precision::Bf16 => Precision::Bf16,
        cli::Precision::Int8 => Precision::Int8,
        cli::Precision::Auto => dari::automatic_precision(),
    }
}

/// Loads the model that the options name, with progress where it has to be fetched.
pub fn open(options: &ModelOptions) -> anyhow::Result<Engine> {
    open_named(&options.model, options)
}

/// The same for commands in which a model speaks: of the embedded ones that which does.
pub fn open_speaker(options: &ModelOptions) -> anyhow::Result<Engine> {
    let is_embedded = options.model == dari::EMBEDDED;
    open_named(if is_embedded { dari::EMBEDDED_VOICE } else { &options.model }, options)
}

fn open_named(model: &str, options: &ModelOptions) -> anyhow::Result<Engine> {
    let settings = Options {
        precision: precision(options.precision),
        device: options.device.clone(),
        batch: options.batch.into(),
        exact: options.exact,
        crop: options.crop.map(|crop| crop.0),
        ..Options::default()
    };
    // A wrong device is a wrong command line, and is said before anything is fetched.
    dari::device(&options.device).map_err(|error| Usage(error.to_string()))?;
    let mut bar = screen::Fetching::default();
    let folder = match dari::open_folder(model, &mut |file, done, total| bar.show(file, done, total)) {
        Err(error @ dari::Error::Option { .. }) => return Err(Usage(error.to_string()).into()),
        other => other?,
    };
    let engine = Engine::from_folder(model, folder, &settings)?;
    let unused = &engine.loaded().unused;
    if !unused.is_empty() {
        let (count, first) = (unused.len(), &unused[0]);
        screen::warn(&say!(
            "the checkpoint holds {count} tensors that this model has no place for, `{first}` among them",
            "체크포인트에 이 모델이 쓰지 않는 텐서가 {count}개 있습니다 (예: `{first}`)"
        ));
    }
    if let Some(path) = &engine.loaded().stale {
        let (path, model, precision) = (path.display(), &options.model, settings.precision.name());
        screen::warn(&say!(
            "{path} was made by another version or of other weights, and is passed over: dari models pack {model} --precision {precision} makes it anew",
            "{path}은(는) 다른 버전이 만들었거나 다른 가중치의 것이어서 쓰지 않습니다: dari models pack {model} --precision {precision}으로 다시 만드세요"
        ));
    }
    Ok(engine)
}

/// Refuses `--crop` where many pictures of their own shapes are looked at.
pub fn whole_pictures(options: &ModelOptions) -> Result<(), Usage> {
    match options.crop {
        Some(_) => Err(Usage(say!(
            "--crop: this command looks at whole pictures; leave it out",
            "--crop: 이 명령은 그림을 온전히 봅니다. 빼 주세요"
        ))),
        None => Ok(()),
    }
}

/// The files of some arguments, and how many things among them could not be looked at.
pub struct Files {
    /// In the order of the arguments; a folder's in the order of their paths.
    pub files: Vec<PathBuf>,
    /// What has been named on stderr already.
    pub failures: usize,
}

/// Files as given; folders replaced by the pictures in them. A folder without any is named, and the
/// rest goes on.
pub fn pictures(arguments: &[PathBuf]) -> anyhow::Result<Files> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            files.push(argument.clone());
            continue;
        }
        let inside = index::pictures_in(argument);
        problems
            .extend(inside.problems.iter().map(|(path, problem)| format!("{}: {problem}", path.display())));
        if inside.pictures.is_empty() {
            problems.push(no_pictures(argument));
        }
        files.extend(inside.pictures);
    }
    if files.is_empty() && !arguments.is_empty() {
        anyhow::bail!(problems.join("; "));
    }
    problems.iter().for_each(|problem| screen::error(problem));
    Ok(Files { files, failures: problems.len() })
}

/// What is said of a folder without pictures.
pub fn no_pictures(folder: &Path) -> String {
    let folder = folder.display();
    say!(
        "{folder}: no pictures here (jpg, png, webp, gif, bmp, tiff are looked for)",
        "{folder}: 그림이 없습니다 (jpg, png, webp, gif, bmp, tiff를 찾습니다)"
    )
}

/// What a command asks of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Pictures to vectors.
    Pictures,
    /// Texts to vectors.
    Texts,
    /// Both in one space.
    Both,
}

/// Refuses a model that cannot do what is asked, before any work is done.
pub fn require(engine: &Engine, need: Need) -> Result<(), Usage> {
    let (can, name) = (engine.abilities(), engine.name());
    let problem = match need {
        Need::Pictures if !can.embed_pictures => say!(
            "`{name}` cannot see pictures: take a CLIP, SigLIP or ViT model with its preprocessor_config.json",
            "`{name}` 모델은 그림을 보지 못합니다: preprocessor_config.json이 있는 CLIP, SigLIP, ViT 모델을 쓰세요"
        ),
        Need::Texts if !can.embed_texts => say!(
            "`{name}` cannot read texts: take a CLIP, SigLIP or BERT model with its tokenizer",
            "`{name}` 모델은 글을 읽지 못합니다: 토크나이저가 있는 CLIP, SigLIP, BERT 모델을 쓰세요"
        ),
        Need::Both if !can.compare => say!(
            "`{name}` cannot compare pictures with words: take a CLIP or SigLIP model with its tokenizer and preprocessor_config.json",
            "`{name}` 모델은 그림과 말을 견주지 못합니다: 토크나이저와 preprocessor_config.json이 있는 CLIP, SigLIP 모델을 쓰세요"
        ),
        _ => return Ok(()),
    };
    Err(Usage(problem))
}

/// A path as seen from where the user stands, where it lies below; else in full.
pub fn short(path: &Path) -> &Path {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    here.ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// The lines of a file that are not blank.
pub fn lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let (path, at) = (file.display(), error.utf8_error().valid_up_to());
        anyhow::anyhow!("{path}: not UTF-8 at byte {at}; save it as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Labels from options and a file, blanks dropped; a label given twice counts once.
pub fn labels(options: &[String], file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let split = options.iter().flat_map(|list| list.split(','));
    let mut all: Vec<String> =
        split.map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
    if let Some(file) = file {
        all.extend(lines(file)?);
    }
    let mut seen = HashSet::new();
    let mut twice = Vec::new();
    all.retain(|label| {
        let new = seen.insert(label.clone());
        if !new && !twice.contains(label) {
            twice.push(label.clone());
        }
        new
    });
    if !twice.is_empty() {
        let list = twice.join(", ");
        screen::warn(&say!(
            "given more than once, counted once: {list}",
            "여러 번 주어져 한 번만 셉니다: {list}"
        ));
    }
    Ok(all)
}

/// Warns of texts that lost their end.
pub fn warn_of_long_texts(texts: &[&str], truncated: &[usize]) {
    for &index in truncated {
        let start: String = texts.get(index).unwrap_or(&"").chars().take(40).collect();
        screen::warn(&say!(
            "longer than the model reads, its end was cut: \"{start}…\"",
            "모델이 읽는 길이를 넘어 끝이 잘렸습니다: \"{start}…\""
        ));
    }
}
