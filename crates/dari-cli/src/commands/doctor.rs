//! `dari doctor`: what this machine and this build can do.

use dari::files::{Folder, hub};
use dari::{EMBEDDED, Engine, Options};
use dari_kernels::level::Level;
use serde_json::json;

use crate::Outcome;
use crate::cli::Doctor;
use crate::commands::models::list_abilities;
use crate::index;
use crate::language::say;
use crate::screen;

/// Runs the command.
pub fn run(arguments: &Doctor) -> anyhow::Result<Outcome> {
    let version = env!("CARGO_PKG_VERSION");
    let level = Level::current().name();
    let threads = rayon::current_num_threads();
    let devices = dari::devices();
    let data =
        index::usable_data_folder().map(|path| path.display().to_string()).map_err(|error| error.to_string());
    let cache = hub::Options::from_env();
    let embedded = Engine::open(EMBEDDED, &Options::default())
        .map(|engine| engine.abilities())
        .map_err(|error| error.to_string());
    let fetched: Vec<String> = hub::cached().iter().map(describe).collect();
    let sound = data.is_ok() && embedded.is_ok();
    if arguments.json {
        let problems: Vec<&String> =
            [data.as_ref().err(), embedded.as_ref().err()].into_iter().flatten().collect();
        screen::json(&json!({
            "version": version, "simd": level, "threads": threads, "devices": devices,
            "data": data.as_ref().ok(), "hub_cache": cache.cache.display().to_string(), "offline": cache.offline,
            "fetched": fetched, "mini": embedded.as_ref().ok(),
            "problems": problems,
        }))?;
        return Ok(Outcome::of(usize::from(!sound)));
    }
    let row = |name: String, value: &str| screen::print(&format!("{} {value}", screen::fit(&name, 18)));
    row(say!("version", "버전"), version)?;
    row(say!("processor", "프로세서"), &format!("{} {level}", std::env::consts::ARCH))?;
    row(say!("threads", "스레드"), &threads.to_string())?;
    row(say!("devices", "장치"), &devices.join(", "))?;
    row(say!("search index", "검색 색인"), data.as_deref().unwrap_or_else(|error| error))?;
    row(say!("hub cache", "허브 캐시"), &cache.cache.display().to_string())?;
    row(say!("offline", "오프라인"), if cache.offline { "HF_HUB_OFFLINE=1" } else { "-" })?;
    row(
        say!("fetched", "받아 둔 모델"),
        &if fetched.is_empty() { "-".to_owned() } else { fetched.join(", ") },
    )?;
    let mini = match &embedded {
        Ok(can) => list_abilities(can),
        Err(error) => error.clone(),
    };
    row("mini".to_owned(), &mini)?;
    Ok(Outcome::of(usize::from(!sound)))
}

/// A fetched model with its kind, which says what it can do.
fn describe(model: &hub::CachedModel) -> String {
    let config = Folder::open(&model.path).and_then(|folder| folder.json("config.json"));
    let kind = config.ok().flatten().and_then(|config| Some(config.get("model_type")?.as_str()?.to_owned()));
    match kind {
        Some(kind) => format!("{} ({kind})", model.id),
        None => model.id.clone(),
    }
}
