//! A run's loss as a picture.

use std::path::Path;

use dari::Picture;
use serde_json::Value;

use super::canvas::Canvas;

const WIDTH: usize = 960;
const HEIGHT: usize = 540;
const LEFT: usize = 76;
const RIGHT: usize = 24;
const TOP: usize = 24;
const BOTTOM: usize = 44;
const INK: [u8; 3] = [60; 3];
const GRID: [u8; 3] = [228; 3];
const RAW: [u8; 3] = [190, 214, 220];
const SMOOTH: [u8; 3] = [33, 110, 140];

/// Draws the losses of `metrics.jsonl`: each step's, and their running mean over them; `None` where
/// there are fewer than two.
pub fn of_metrics(file: &Path) -> anyhow::Result<Option<Picture>> {
    let text = std::fs::read_to_string(file)?;
    let point = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line["step"].as_f64()?, line["loss"].as_f64()?))
    };
    let points: Vec<(f64, f64)> = text.lines().filter_map(point).filter(|p| p.1.is_finite()).collect();
    if points.len() < 2 {
        return Ok(None);
    }
    Ok(Some(draw(&points)?))
}

fn draw(points: &[(f64, f64)]) -> anyhow::Result<Picture> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 60.0).clamp(2.0, 50.0);
    let mut mean = points[0].1;
    let smooth: Vec<(f64, f64)> = points
        .iter()
        .map(|&(step, loss)| {
            mean = keep * mean + (1.0 - keep) * loss;
            (step, mean)
        })
        .collect();
    let (first, last) = (points[0].0, points[points.len() - 1].0.max(points[0].0 + 1.0));
    let (low, high) = points
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let unit = nice((high - low).max(1e-6) / 5.0);
    let (low, high) = ((low / unit).floor() * unit, (high / unit).ceil() * unit);
    let (wide, tall) = ((WIDTH - LEFT - RIGHT) as f64, (HEIGHT - TOP - BOTTOM) as f64);
    let x = |step: f64| LEFT as f64 + (step - first) / (last - first) * wide;
    let y = |loss: f64| TOP as f64 + (high - loss) / (high - low) * tall;
    let mut canvas = Canvas::white(WIDTH, HEIGHT);
    let lines = ((high - low) / unit).round() as usize;
    let digits = (-unit.log10().floor()).max(0.0) as usize;
    for line in 0..=lines {
        let value = low + unit * line as f64;
        canvas.fill(LEFT, y(value) as usize, WIDTH - LEFT - RIGHT, 1, GRID);
        canvas.write(&format!("{value:.digits$}"), LEFT / 2, y(value) as usize, INK);
    }
    let step_unit = nice((last - first) / 6.0).max(1.0);
    let mut mark = (first / step_unit).ceil() * step_unit;
    while mark <= last {
        canvas.fill(x(mark) as usize, TOP, 1, HEIGHT - TOP - BOTTOM, GRID);
        canvas.write(&format!("{mark:.0}"), x(mark) as usize, HEIGHT - BOTTOM / 2, INK);
        mark += step_unit;
    }
    for (curve, ink, thick) in [(points, RAW, 1), (&smooth[..], SMOOTH, 3)] {
        for pair in curve.windows(2) {
            canvas.line((x(pair[0].0), y(pair[0].1)), (x(pair[1].0), y(pair[1].1)), thick, ink);
        }
    }
    canvas.finish()
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let unit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|unit| unit * power >= value);
    unit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls() {
        let points: Vec<(f64, f64)> =
            (1..=100).map(|step| (f64::from(step), 5.0 / f64::from(step))).collect();
        let picture = draw(&points).expect("a picture");
        let row_of = |column: usize| {
            (0..HEIGHT).find(|row| picture.rgb()[(row * WIDTH + column) * 3..][..3] == SMOOTH).unwrap_or(0)
        };
        assert!(row_of(LEFT + 20) < row_of(LEFT + 200));
        assert!(row_of(LEFT + 200) < row_of(WIDTH - RIGHT - 20));
        assert_eq!(
            [nice(0.3), nice(0.07), nice(130.0), nice(1.0)].map(|x| (x * 1e6).round() / 1e6),
            [0.5, 0.1, 200.0, 1.0]
        );
    }
}
