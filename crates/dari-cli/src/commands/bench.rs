//! `dari bench`: how fast a model runs or trains on this machine.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use dari::{Speech, Spoken};
use dari_kernels::level::Level;
use dari_kernels::memory;
use dari_train::batches::Amount;
use dari_train::{Parts, Recipe};
use serde_json::{Value, json};

use crate::Outcome;
use crate::cli::{Bench, BenchAction, ModelOptions, SpeechBench, Usage};
use crate::inputs;
use crate::language::say;
use crate::screen;

/// Runs before the clock starts: caches, pages and the processor's clock settle.
const WARM: usize = 2;

/// Bytes whose reading weights are measured against; no usual cache holds them.
const READ: usize = 256 << 20;

/// Runs the command.
pub fn run(arguments: &Bench) -> anyhow::Result<Outcome> {
    match &arguments.action {
        BenchAction::Embed { texts, tokens, runs, json, model } => {
            embed(model, *texts, tokens.as_deref(), (*runs).into(), *json)?;
        }
        BenchAction::Prefill { tokens, speech } => spoken(Speech::Prefill, *tokens, speech)?,
        BenchAction::Decode { tokens, speech } => spoken(Speech::Decode, *tokens, speech)?,
        BenchAction::Ask { tokens, speech } => spoken(Speech::Ask, *tokens, speech)?,
        BenchAction::Train { recipe, runs, settings, json, .. } => {
            train(recipe, settings, (*runs).into(), *json)?;
        }
    }
    Ok(Outcome::Done)
}

fn embed(
    model: &ModelOptions,
    texts: bool,
    tokens: Option<&Path>,
    runs: usize,
    as_json: bool,
) -> anyhow::Result<()> {
    inputs::whole_pictures(model)?;
    let began = Instant::now();
    let engine = inputs::open(model)?;
    let load = began.elapsed().as_secs_f64();
    let mut batch = usize::from(model.batch);
    let seconds = match tokens {
        Some(file) => {
            let ids = read_tokens(file)?;
            batch = ids.len();
            engine.time_tokens(ids, WARM, runs)?
        }
        None if texts => engine.time_tokens(engine.random_tokens(batch)?, WARM, runs)?,
        None => engine.time_pictures(batch, WARM, runs)?,
    };
    let input = if texts || tokens.is_some() { "texts" } else { "pictures" };
    let times = Times::of(&seconds);
    let mut report = times.json();
    report["load_ms"] = json!(load * 1e3);
    report["peak_memory_mb"] = json!(peak());
    report["model"] = json!(engine.name());
    report["input"] = json!(input);
    report["batch"] = json!(batch);
    report["precision"] = json!(engine.precision().name());
    report["threads"] = json!(rayon::current_num_threads());
    report["simd"] = json!(Level::current().key());
    if as_json {
        return Ok(screen::json(&report)?);
    }
    let what = match input {
        "texts" => say!("{batch} texts", "글 {batch}개"),
        _ => say!("{batch} pictures", "그림 {batch}장"),
    };
    times.print(&what)?;
    row(&say!("a second", "1초에"), &format!("{:.1}", batch as f64 / times.median.max(f64::MIN_POSITIVE)))?;
    row(&say!("loading", "불러오기"), &format!("{:.0} ms", load * 1e3))?;
    rest(&report)
}

fn spoken(what: Speech, tokens: u32, options: &SpeechBench) -> anyhow::Result<()> {
    inputs::whole_pictures(&options.model)?;
    let began = Instant::now();
    let engine = inputs::open_speaker(&options.model)?;
    let load = began.elapsed().as_secs_f64();
    let all = engine.time_speech(what, tokens as usize, WARM, options.runs.into())?;
    let median = |of: fn(&Spoken) -> f64| Times::of(&all.iter().map(of).collect::<Vec<_>>()).median;
    let (read, written) = all.first().map_or((0, 0), |run| (run.read, run.written));
    let rate = match what {
        Speech::Prefill => read as f64 / median(|run| run.first).max(f64::MIN_POSITIVE),
        Speech::Decode | Speech::Ask => written as f64 / median(|run| run.rest).max(f64::MIN_POSITIVE),
    };
    let first = median(|run| run.first) * 1e3;
    let mut report = json!({
        "tokens_per_second": rate, "time_to_first_token_ms": first, "peak_memory_mb": peak(),
        "prompt_tokens": read, "tokens": written, "runs": all.len(), "load_ms": load * 1e3,
        "model": engine.name(), "precision": engine.precision().name(),
        "threads": rayon::current_num_threads(), "simd": Level::current().key(),
    });
    let bytes = engine.weight_bytes_a_token().filter(|_| what == Speech::Decode && written > 0);
    let speeds =
        bytes.map(|bytes| [bytes as f64 * rate, memory::reading_speed(READ)].map(|speed| speed / 1e9));
    if let Some([weights, plain]) = speeds {
        report["weights_gb_per_second"] = json!(weights);
        report["memory_gb_per_second"] = json!(plain);
    }
    if options.json {
        return Ok(screen::json(&report)?);
    }
    row(&say!("tokens a second", "1초에 토큰"), &format!("{rate:.1}"))?;
    row(&say!("first token", "첫 토큰까지"), &format!("{first:.1} ms"))?;
    row(&say!("prompt", "프롬프트"), &say!("{read} tokens", "토큰 {read}개"))?;
    row(&say!("loading", "불러오기"), &format!("{:.0} ms", load * 1e3))?;
    if let Some([weights, plain]) = speeds {
        let share = 100.0 * weights / plain;
        row(
            &say!("weights read", "가중치 읽기"),
            &say!(
                "{weights:.1} GB/s, {share:.0} % of the {plain:.1} of a plain loop over memory",
                "{weights:.1} GB/s, 메모리를 그냥 읽는 속도 {plain:.1} GB/s의 {share:.0} %"
            ),
        )?;
    }
    rest(&report)
}

fn read_tokens(file: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let named = || file.display().to_string();
    let text = std::fs::read(file).with_context(named)?;
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&text).with_context(named)?;
    if ids.is_empty() || ids.iter().any(Vec::is_empty) {
        let file = named();
        return Err(Usage(say!(
            "{file}: a text without tokens; a list of lists of token ids is expected",
            "{file}: 토큰이 없는 글이 있습니다. 토큰 id 목록의 목록이어야 합니다"
        ))
        .into());
    }
    Ok(ids)
}

fn train(recipe: &Path, settings: &[String], runs: usize, as_json: bool) -> anyhow::Result<()> {
    let mut recipe = Recipe::read(recipe, settings).map_err(|error| match error {
        dari_train::Error::Recipe { .. } => anyhow::Error::new(Usage(error.to_string())),
        other => other.into(),
    })?;
    // What a run writes is thrown away.
    let folder = tempfile::tempdir()?;
    recipe.output = folder.path().join("run");
    let open = |model: &str| {
        let mut bar = screen::Fetching::default();
        dari::open_folder(model, &mut |file, done, total| bar.show(file, done, total)).map_err(|error| {
            dari_train::Error::Recipe { origin: "model.from".into(), problem: error.to_string() }
        })
    };
    let device = dari::device("cpu")?;
    let (parts, amounts): (Vec<Parts>, Vec<_>) =
        dari_train::time_steps(&recipe, &device, &open, WARM, runs)?.into_iter().unzip();
    let times = Times::of(&parts.iter().map(Parts::total).collect::<Vec<_>>());
    let median =
        |part: fn(&Parts) -> f64| Times::of(&parts.iter().map(part).collect::<Vec<_>>()).median * 1e3;
    let shares = [median(|p| p.forward), median(|p| p.backward), median(|p| p.optimizer)];
    let mut report = times.json();
    report["forward_ms"] = json!(shares[0]);
    report["backward_ms"] = json!(shares[1]);
    report["optimizer_ms"] = json!(shares[2]);
    report["peak_memory_mb"] = json!(peak());
    report["batch"] = json!(recipe.train.batch);
    let amounts: Vec<Amount> = amounts.into_iter().flatten().collect();
    if !amounts.is_empty() {
        let mean = |of: fn(&Amount) -> usize| amounts.iter().map(of).sum::<usize>() / amounts.len();
        report["tokens"] = json!(mean(|amount| amount.tokens));
        report["said_tokens"] = json!(mean(|amount| amount.said));
        report["picture_pieces"] = json!(mean(|amount| amount.pieces));
    }
    report["threads"] = json!(rayon::current_num_threads());
    report["simd"] = json!(Level::current().key());
    if as_json {
        return Ok(screen::json(&report)?);
    }
    let batch = recipe.train.batch;
    times.print(&say!("a step of {batch} pairs", "{batch}쌍 한 단계"))?;
    let names = [say!("forward", "순전파"), say!("backward", "역전파"), say!("optimizer", "최적화")];
    for (name, share) in names.iter().zip(shares) {
        row(name, &format!("{share:.1} ms"))?;
    }
    rest(&report)
}

fn rest(report: &Value) -> anyhow::Result<()> {
    if let Some(peak) = report["peak_memory_mb"].as_f64() {
        row(&say!("peak memory", "최대 메모리"), &format!("{peak:.0} MB"))?;
    }
    row(&say!("threads", "스레드"), &report["threads"].to_string())?;
    row(&say!("processor", "프로세서"), Level::current().name())
}

fn row(name: &str, value: &str) -> anyhow::Result<()> {
    Ok(screen::print(&format!("{} {value}", screen::fit(name, 20)))?)
}

/// The most memory held so far, in MB.
fn peak() -> Option<f64> {
    memory::peak().map(|bytes| bytes as f64 / 1e6)
}

/// Seconds of several runs.
struct Times {
    median: f64,
    least: f64,
    most: f64,
    runs: usize,
}

impl Times {
    fn of(seconds: &[f64]) -> Times {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let runs = sorted.len();
        // Of an even number, the mean of the two in the middle.
        let median = (at(runs / 2) + at(runs.saturating_sub(1) / 2)) / 2.0;
        Times { median, least: at(0), most: at(runs.saturating_sub(1)), runs }
    }

    fn json(&self) -> Value {
        json!({
            "median_ms": self.median * 1e3, "min_ms": self.least * 1e3, "max_ms": self.most * 1e3,
            "runs": self.runs,
        })
    }

    fn print(&self, what: &str) -> anyhow::Result<()> {
        let [median, least, most] = [self.median, self.least, self.most].map(|seconds| seconds * 1e3);
        let runs = self.runs;
        row(
            what,
            &say!(
                "{median:.1} ms  ({least:.1} to {most:.1} in {runs} runs)",
                "{median:.1} ms  ({runs}번, {least:.1}에서 {most:.1}까지)"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        let times = Times::of(&[3.0, 1.0, 2.0]);
        assert_eq!((times.median, times.least, times.most), (2.0, 1.0, 3.0));
        assert_eq!(Times::of(&[1.0, 2.0]).median, 1.5);
    }
}
