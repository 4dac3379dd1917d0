//! `dari look`: where in a picture words are.

use anyhow::Context;
use dari::{Asking, Engine, Picture, Places};
use serde_json::json;

use super::speech::mark;
use crate::cli::Look;
use crate::inputs::{self, Need};
use crate::language::say;
use crate::screen::heat;
use crate::{Outcome, screen};

/// The longer side of what is drawn, in pixels.
const DRAWN: u32 = 448;
/// Columns of what is shown on a terminal.
const SHOWN: u32 = 36;

/// Runs the command.
pub fn run(arguments: &Look) -> anyhow::Result<Outcome> {
    let engine = inputs::open(&arguments.model)?;
    if engine.sees() {
        return answers(&engine, arguments);
    }
    inputs::require(&engine, Need::Both)?;
    let picture = engine.open_picture(&arguments.image)?;
    let texts: Vec<&str> = arguments.texts.iter().map(String::as_str).collect();
    let found = engine.look(&picture, &texts)?;
    if arguments.json {
        for (text, places) in texts.iter().zip(&found) {
            let mut line = serde_json::to_value(places)?;
            line["picture"] = json!(arguments.image.display().to_string());
            line["text"] = json!(text);
            screen::json(&line)?;
        }
    }
    let seen = part(&picture, engine.loaded().processor.image()?.region(picture.height(), picture.width()))?;
    if !arguments.json {
        for (text, places) in texts.iter().zip(&found) {
            show(text, places, &seen)?;
        }
    }
    if let Some(path) = &arguments.png {
        let large = scaled(&seen, DRAWN)?;
        let mut rows = Vec::with_capacity(found.len());
        for places in &found {
            rows.push(vec![
                large.clone(),
                heat::over(&large, &places.similarity)?,
                heat::over(&large, &places.gradient)?,
            ]);
        }
        dari::files::write_atomically(path, &heat::sheet(&rows)?.to_png()?)?;
    }
    Ok(Outcome::Done)
}

/// Asks a model that speaks, and shows what of the picture each answer comes from.
fn answers(engine: &Engine, arguments: &Look) -> anyhow::Result<Outcome> {
    let picture = engine.open_picture(&arguments.image)?;
    let mut talk = engine.talk()?;
    let large = scaled(&picture, DRAWN)?;
    let mut rows = Vec::new();
    for question in &arguments.texts {
        let (answer, sources) = talk.look(&picture, question, &Asking::default())?;
        if arguments.json {
            let mut line = serde_json::to_value(&sources)?;
            line["picture"] = json!(arguments.image.display().to_string());
            line["text"] = json!(question);
            line["answer"] = json!(answer.text);
            line["confidence"] = json!(answer.confidence);
            screen::json(&line)?;
        } else {
            let (asked, said) =
                (screen::clean(question), screen::text(answer.text.trim()).replace('\n', " "));
            screen::print(&format!("{asked} {said}{}", mark(&answer)))?;
            let ((x, y), share) = (at(&sources.rollout), 100.0 * sources.share);
            screen::print(&say!(
                "  attention: {share:.0} % of it from the picture, most at {x:.0} % from the left, {y:.0} % from the top",
                "  주의: 그림에서 {share:.0} %, 가장 많이는 왼쪽에서 {x:.0} %, 위에서 {y:.0} %"
            ))?;
            if screen::is_coloured() {
                let small = scaled(&picture, SHOWN)?;
                screen::print_pictures(&[small.clone(), heat::over(&small, &sources.rollout)?])?;
            }
        }
        rows.push(vec![large.clone(), heat::over(&large, &sources.rollout)?]);
    }
    if let Some(path) = &arguments.png {
        dari::files::write_atomically(path, &heat::sheet(&rows)?.to_png()?)?;
    }
    Ok(Outcome::Done)
}

/// Says where the words are; on a terminal that shows colours, draws it.
fn show(text: &str, places: &Places, seen: &Picture) -> anyhow::Result<()> {
    let (text, whole) = (screen::clean(text), places.whole);
    screen::print(&say!(
        "{text}: cosine {whole:.3} with the whole picture",
        "{text}: 그림 전체와 코사인 {whole:.3}"
    ))?;
    let names = [say!("similarity of the places", "자리마다의 유사도"), say!("gradient", "기울기")];
    for (name, map) in names.iter().zip([&places.similarity, &places.gradient]) {
        let (x, y) = at(map);
        let best = map.iter().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
        screen::print(&say!(
            "  {name}: most, {best:.3}, at {x:.0} % from the left, {y:.0} % from the top",
            "  {name}: 가장 큰 {best:.3}, 왼쪽에서 {x:.0} %, 위에서 {y:.0} %"
        ))?;
    }
    if screen::is_coloured() {
        let small = scaled(seen, SHOWN)?;
        screen::print_pictures(&[
            small.clone(),
            heat::over(&small, &places.similarity)?,
            heat::over(&small, &places.gradient)?,
        ])?;
    }
    Ok(())
}

/// The middle of the place of the largest value, in hundredths of the width and the height.
fn at(map: &[Vec<f32>]) -> (f64, f64) {
    let places =
        map.iter().enumerate().flat_map(|(y, row)| row.iter().enumerate().map(move |(x, v)| ((y, x), *v)));
    let ((row, column), _) =
        places.fold(((0, 0), f32::NEG_INFINITY), |best, at| if at.1 > best.1 { at } else { best });
    let part = |at: usize, of: usize| 100.0 * (at as f64 + 0.5) / of.max(1) as f64;
    (part(column, map.first().map_or(0, Vec::len)), part(row, map.len()))
}

/// The part of a picture that the model sees.
fn part(picture: &Picture, [left, top, across, down]: [f64; 4]) -> anyhow::Result<Picture> {
    let start = |at: f64, length: u32| (at.round() as u32).min(length - 1);
    let (left, top) = (start(left, picture.width()), start(top, picture.height()));
    Ok(picture.crop(left, top, (across.round() as u32).max(1), (down.round() as u32).max(1))?)
}

/// A picture brought to a longer side of `side`.
fn scaled(picture: &Picture, side: u32) -> anyhow::Result<Picture> {
    heat::thumbnail(picture, side).context("the picture could not be scaled")
}
