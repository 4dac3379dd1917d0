//! `dari models`: what there is, what it can do, and fetching it.

use dari::files::{Folder, hub};
use std::path::Path;

use dari::{Abilities, EMBEDDED, EMBEDDED_VOICE, Engine, Options, Precision, SHORT_NAMES};
use serde_json::json;

use crate::Outcome;
use crate::cli::{Models, ModelsAction, Usage};
use crate::inputs;
use crate::language::say;
use crate::screen;

/// Runs the command.
pub fn run(arguments: &Models) -> anyhow::Result<Outcome> {
    match &arguments.action {
        ModelsAction::List { json } => list(*json)?,
        ModelsAction::Show { model, json } => show(model, *json)?,
        ModelsAction::Pull { model, json } => pull(model, *json)?,
        ModelsAction::Merge { model, output } => merge(model, output)?,
        ModelsAction::Pack { model, precision, json } => pack(model, inputs::precision(*precision), *json)?,
    }
    Ok(Outcome::Done)
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let cached = hub::cached();
    if as_json {
        for name in [EMBEDDED, EMBEDDED_VOICE] {
            screen::json(&json!({"name": name, "where": "embedded"}))?;
        }
        for model in &cached {
            screen::json(
                &json!({"name": model.id, "where": "fetched", "path": model.path.display().to_string(), "bytes": model.bytes}),
            )?;
        }
        for named in SHORT_NAMES {
            screen::json(&json!({"name": named.name, "where": "hub", "id": named.id, "what": named.what}))?;
        }
        return Ok(());
    }
    screen::print(&say!("In the binary:", "바이너리 안에:"))?;
    screen::print(&say!(
        "  mini               drawings and scenes, Korean and English",
        "  mini               그림과 장면, 한국어와 영어"
    ))?;
    screen::print(&say!(
        "  mini-voice         describes pictures and answers questions about them, Korean and English",
        "  mini-voice         그림을 설명하고 질문에 답합니다, 한국어와 영어"
    ))?;
    screen::print(&say!("Fetched:", "받아 둔 것:"))?;
    for model in &cached {
        screen::print(&format!("  {}  {:.1} MB", model.id, model.bytes as f64 / 1e6))?;
    }
    if cached.is_empty() {
        screen::print(&say!("  none", "  없음"))?;
    }
    screen::print(&say!("Short names of public checkpoints:", "공개 체크포인트의 짧은 이름:"))?;
    for named in SHORT_NAMES {
        screen::print(&format!("  {:<18} {:<42} {}", named.name, named.id, named.what))?;
    }
    Ok(())
}

fn merge(model: &str, output: &Path) -> anyhow::Result<()> {
    let folder = open(model)?;
    let (name, place) = (folder.label(), output.display());
    if folder.adapter().is_none() && !folder.has(dari::models::adapter::CONFIG) {
        anyhow::bail!("{}", say!("{name}: there is no adapter to merge", "{name}: 합칠 어댑터가 없습니다"));
    }
    if output.exists() {
        anyhow::bail!(
            "{}",
            say!(
                "{place}: something is there already; choose another folder",
                "{place}: 이미 무언가 있습니다. 다른 폴더를 고르세요"
            )
        );
    }
    dari_train::checkpoint::write_merged(output, &folder, dari_train::checkpoint::Saved::F32)?;
    Ok(screen::print(&say!("written: {place}", "썼습니다: {place}"))?)
}

fn open(model: &str) -> anyhow::Result<Folder> {
    let mut bar = screen::Fetching::default();
    match dari::open_folder(model, &mut |file, done, total| bar.show(file, done, total)) {
        Err(error @ dari::Error::Option { .. }) => Err(Usage(error.to_string()).into()),
        other => Ok(other?),
    }
}

/// Widths and heights for which a picture's cost is shown.
const COMMON: [(u32, u32); 4] = [(224, 224), (640, 480), (1920, 1080), (1080, 1920)];

fn show(model: &str, as_json: bool) -> anyhow::Result<()> {
    let folder = open(model)?;
    let place = folder.label();
    let engine = Engine::from_folder(model, folder, &Options::default())?;
    let loaded = engine.loaded();
    let weights = loaded.weights.count();
    let picture = loaded.processor.image().ok().map(|image| image.size());
    let tokens = loaded.processor.text().ok().map(|text| text.context());
    let tokens = tokens.or(loaded.context.filter(|_| loaded.model.causal().is_some()));
    let sights = loaded.processor.sights();
    // What pictures of common sizes, width by height, cost among the tokens.
    let costs: Vec<(u32, u32, usize)> = sights
        .iter()
        .flat_map(|sights| COMMON.map(|(width, height)| (width, height, sights.cost(height, width))))
        .collect();
    let abilities = serde_json::to_value(engine.abilities())?;
    if as_json {
        screen::json(&json!({
            "model": model, "place": place, "kind": loaded.model.kind(), "weights": weights, "dim": engine.dim(),
            "picture": picture, "tokens": tokens,
            "picture_tokens": costs.iter().map(|(w, h, cost)| json!({"width": w, "height": h, "tokens": cost})).collect::<Vec<_>>(),
            "abilities": abilities, "unused": loaded.unused,
            "fingerprint": engine.fingerprint()?,
        }))?;
        return Ok(());
    }
    let row = |name: String, value: String| screen::print(&format!("{} {value}", screen::fit(&name, 16)));
    row(say!("model", "모델"), model.to_owned())?;
    row(say!("place", "위치"), place)?;
    row(say!("kind", "종류"), loaded.model.kind().to_owned())?;
    row(say!("weights", "가중치"), format!("{:.2} M", weights as f64 / 1e6))?;
    if engine.dim() > 0 {
        row(say!("vector", "벡터"), engine.dim().to_string())?;
    }
    if let Some((height, width)) = picture {
        row(say!("picture", "그림"), format!("{width} x {height}"))?;
    }
    if let Some(tokens) = tokens {
        row(say!("tokens", "토큰"), tokens.to_string())?;
    }
    if !costs.is_empty() {
        let costs: Vec<String> = costs.iter().map(|(w, h, cost)| format!("{w} x {h}: {cost}")).collect();
        row(say!("picture tokens", "그림 토큰"), costs.join(", "))?;
    }
    let can = list_abilities(&engine.abilities());
    row(say!("can", "할 수 있는 일"), can)?;
    if let Some(classifier) = loaded.model.classifier() {
        let labels: Vec<String> =
            classifier.labels().iter().take(10).map(|label| screen::clean(label)).collect();
        let more = if classifier.labels().len() > 10 { ", …" } else { "" };
        row(say!("labels", "라벨"), format!("{}: {}{more}", classifier.labels().len(), labels.join(", ")))?;
    }
    Ok(())
}

/// What a model can do, in the user's words.
pub fn list_abilities(can: &Abilities) -> String {
    let words = [
        (can.embed_pictures, say!("embed pictures", "그림 임베딩")),
        (can.embed_texts, say!("embed texts", "글 임베딩")),
        (can.compare, say!("compare, zero-shot labels, search", "비교, 제로샷 라벨, 검색")),
        (can.classify, say!("its own labels", "자기 라벨")),
        (can.fill_mask, say!("fill masks", "빈칸 채우기")),
        (can.complete, say!("complete", "이어 쓰기")),
        (can.chat, say!("chat", "대화")),
        (can.ask, say!("answer about pictures", "그림에 관한 질문")),
    ];
    words.into_iter().filter(|(can, _)| *can).map(|(_, word)| word).collect::<Vec<_>>().join(", ")
}

fn pack(model: &str, precision: Precision, as_json: bool) -> anyhow::Result<()> {
    let file = dari::models::packed::write(&open(model)?, precision)?;
    let bytes = std::fs::metadata(&file)?.len();
    let shown = file.display().to_string();
    match as_json {
        true => screen::json(
            &json!({"model": model, "precision": precision.name(), "file": shown, "bytes": bytes}),
        )?,
        false => screen::print(&format!("{shown}  {:.1} MB", bytes as f64 / 1e6))?,
    }
    Ok(())
}

fn pull(model: &str, as_json: bool) -> anyhow::Result<()> {
    let folder = open(model)?;
    match as_json {
        true => screen::json(&json!({"model": model, "place": folder.label()}))?,
        false => screen::print(&folder.label())?,
    }
    Ok(())
}
