//! `dari search`: pictures by words, or by a picture.

use anyhow::Context;
use dari::{Engine, Limits};
use serde_json::json;

use super::index;
use crate::Outcome;
use crate::cli::{Search, Usage};
use crate::gallery::{self, GalleryItem};
use crate::index::Hit;
use crate::inputs::{self, Need};
use crate::language::{language, say};
use crate::screen;
use crate::screen::heat;

/// Pixels of a thumbnail's longer side on the page.
const THUMBNAIL: u32 = 480;

/// Runs the command.
pub fn run(arguments: &Search) -> anyhow::Result<Outcome> {
    if arguments.query.as_ref().is_some_and(|query| query.trim().is_empty()) {
        return Err(Usage(say!(
            "QUERY is empty: say what to look for, in Korean or English",
            "찾을 말이 비었습니다: 한국어나 영어로 말해 주세요"
        ))
        .into());
    }
    let engine = inputs::open(&arguments.model)?;
    let need = if arguments.query.is_some() { Need::Both } else { Need::Pictures };
    inputs::require(&engine, need)?;
    let query = query(&engine, arguments)?;
    let mut store = index::open(&engine)?;
    let mut outcome = Outcome::Done;
    if let Some(folder) = &arguments.folder {
        let report = index::update(&mut store, &engine, folder, arguments.model.batch.into())?;
        outcome = index::outcome(&report);
    }
    let hits = store.search(
        &query,
        arguments.folder.as_deref(),
        usize::try_from(arguments.k).unwrap_or(usize::MAX),
    )?;
    // Counted where nothing is found alone: that takes longer than a search does.
    if hits.is_empty() && arguments.folder.is_none() && store.count(None)? == 0 {
        let name = engine.name();
        anyhow::bail!(say!(
            "`{name}` has indexed no pictures yet: say --in DIR, or run `dari index DIR` first",
            "`{name}`로 색인한 그림이 아직 없습니다: --in DIR을 주거나 먼저 `dari index DIR`을 실행하세요"
        ));
    }
    for (rank, hit) in hits.iter().enumerate() {
        if arguments.json {
            screen::json(
                &json!({"rank": rank + 1, "score": hit.score, "path": hit.path.display().to_string()}),
            )?;
        } else {
            screen::print(&format!(
                "{:>3}  {:.3}  {}",
                rank + 1,
                hit.score,
                screen::clean(&inputs::short(&hit.path).display().to_string())
            ))?;
            if arguments.show {
                show(&hit.path)?;
            }
        }
    }
    if let Some(page) = &arguments.html {
        write_page(page, arguments, &hits).with_context(|| page.display().to_string())?;
    }
    Ok(outcome)
}

/// Shows a picture in the terminal; one that cannot be opened has been named by its path.
fn show(path: &std::path::Path) -> anyhow::Result<()> {
    /// Columns of a thumbnail.
    const COLUMNS: u32 = 24;
    if !screen::is_coloured() {
        return Ok(());
    }
    let Ok(picture) = dari::data::image::open(path, &Limits::default()) else { return Ok(()) };
    let Some(small) = heat::thumbnail(&picture, 8 * COLUMNS) else { return Ok(()) };
    let (width, height) = (small.width(), small.height());
    let Some(shown) = image::RgbImage::from_raw(width, height, small.into_rgb()) else { return Ok(()) };
    let columns = if width >= height { COLUMNS } else { (COLUMNS * width / height).max(1) };
    let config = viuer::Config {
        width: Some(columns),
        absolute_offset: false,
        x: 5,
        truecolor: true,
        ..viuer::Config::default()
    };
    viuer::print(&image::DynamicImage::ImageRgb8(shown), &config)?;
    Ok(())
}

/// The vector to look for: the words', the picture's, or the mean of both.
fn query(engine: &Engine, arguments: &Search) -> anyhow::Result<Vec<f32>> {
    let mut vectors = Vec::new();
    if let Some(words) = &arguments.query {
        let found = engine.embed_texts_noting(&[words])?;
        inputs::warn_of_long_texts(&[words], &found.truncated);
        vectors.extend(found.vectors);
    }
    if let Some(image) = &arguments.image {
        for vector in engine.embed_files(std::slice::from_ref(image)) {
            vectors.push(vector?);
        }
    }
    let mut mean = vec![0.0; engine.dim()];
    for vector in &vectors {
        for (sum, value) in mean.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    Ok(mean)
}

fn write_page(page: &std::path::Path, arguments: &Search, hits: &[Hit]) -> std::io::Result<()> {
    let thumbnails: Vec<Option<Vec<u8>>> = hits
        .iter()
        .map(|hit| {
            let picture = dari::data::image::open(&hit.path, &Limits::default()).ok()?;
            heat::thumbnail(&picture, THUMBNAIL.min(picture.width().max(picture.height())))?.to_png().ok()
        })
        .collect();
    let items: Vec<GalleryItem> = hits
        .iter()
        .zip(&thumbnails)
        .map(|(hit, thumbnail)| GalleryItem {
            path: &hit.path,
            score: hit.score,
            thumbnail: thumbnail.as_deref(),
        })
        .collect();
    let picture = arguments.image.as_ref().map(|image| image.display().to_string());
    let title = [arguments.query.clone(), picture].into_iter().flatten().collect::<Vec<_>>().join(" + ");
    gallery::write(page, &title, language().code(), &items)
}
