//! A training run as it goes, on a terminal: the loss as a curve, the batch's similarities as a matrix,
//! and how long it will take.

use std::io::{IsTerminal, Stderr, stderr};
use std::time::{Duration, Instant};

use dari_train::StepReport;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Widget};
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::heat;
use crate::language::say;

/// Lines that the view takes: a bar, figures, and a matrix of 16 within its frame.
const HEIGHT: u16 = 20;
/// The least a terminal must have for it.
const LEAST: (u16, u16) = (72, 24);
const REDRAWN_EVERY: Duration = Duration::from_millis(200);

/// The view.
pub struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    state: State,
    drawn: Instant,
}

/// What is shown.
#[derive(Default)]
struct State {
    curve: Curve,
    report: Option<StepReport>,
    smooth: f32,
    cosines: Vec<Vec<f32>>,
    seconds_a_step: Option<f64>,
    last: Option<Instant>,
}

impl Live {
    /// Begins the view; nothing where the terminal is none, or too small for it.
    pub fn begin() -> Option<Live> {
        let size = ratatui::crossterm::terminal::size().ok()?;
        if !stderr().is_terminal()
            || size.0 < LEAST.0
            || size.1 < LEAST.1
            || std::env::var_os("NO_COLOR").is_some()
        {
            return None;
        }
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        let terminal = Terminal::with_options(CrosstermBackend::new(stderr()), options).ok()?;
        Some(Live { terminal, state: State::default(), drawn: Instant::now() })
    }

    /// Takes in a step; `smooth` is the running mean of the loss.
    pub fn stepped(&mut self, report: &StepReport, smooth: f32) {
        let now = Instant::now();
        if let Some(last) = self.state.last.replace(now) {
            let took = (now - last).as_secs_f64();
            let before = self.state.seconds_a_step.unwrap_or(took);
            self.state.seconds_a_step = Some(0.95 * before + 0.05 * took);
        }
        self.state.curve.add(report.step, report.loss);
        self.state.smooth = smooth;
        self.state.report = Some(report.clone());
        if self.drawn.elapsed() >= REDRAWN_EVERY || report.step == report.steps {
            self.drawn = now;
            self.draw();
        }
    }

    /// Takes in the batch's similarities.
    pub fn matched(&mut self, cosines: &[Vec<f32>]) {
        self.state.cosines = cosines.to_vec();
    }

    /// Prints a line above the view.
    pub fn note(&mut self, line: &str) {
        let line = super::clean(line);
        // What cannot be shown is no reason to stop a training run.
        let _ = self.terminal.insert_before(1, |buffer| Line::raw(line).render(buffer.area, buffer));
    }

    fn draw(&mut self) {
        let state = &self.state;
        let _ = self.terminal.draw(|frame| state.render(frame.area(), frame.buffer_mut()));
    }

    /// Leaves the last state on the screen.
    pub fn end(mut self) {
        self.draw();
        let _ = self.terminal.show_cursor();
        // The prompt comes below.
        let _ = ratatui::crossterm::execute!(stderr(), ratatui::crossterm::style::Print("\n"));
    }
}

impl State {
    fn render(&self, area: Rect, buffer: &mut Buffer) {
        let [bar, figures, rest] =
            Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let [left, right] = Layout::horizontal([Constraint::Min(30), Constraint::Length(34)]).areas(rest);
        if let Some(report) = &self.report {
            let (step, steps) = (report.step, report.steps);
            Gauge::default()
                .ratio((step as f64 / steps.max(1) as f64).clamp(0.0, 1.0))
                .label(format!("{step}/{steps}"))
                .gauge_style(Style::new().fg(Color::Rgb(33, 145, 140)).bg(Color::Rgb(40, 40, 48)))
                .render(bar, buffer);
            let left =
                self.seconds_a_step.map_or("–".to_owned(), |a| clock(a * (steps - step.min(steps)) as f64));
            let (loss, rate, pairs) = (self.smooth, report.learning_rate, report.pairs_per_second);
            let text = say!(
                " loss {loss:.3}   learning rate {rate:.2e}   {pairs:.0} pairs/s   {left} left",
                " 손실 {loss:.3}   학습률 {rate:.2e}   초당 {pairs:.0}쌍   {left} 남음"
            );
            Line::raw(text).render(figures, buffer);
        }
        self.curve.render(left, buffer);
        let title = say!(" pictures × texts ", " 그림 × 글 ");
        let block = Block::bordered().title(title);
        let inside = block.inner(right);
        block.render(right, buffer);
        for (y, shares) in heat::shares(&self.cosines).iter().enumerate().take(inside.height.into()) {
            for (x, &share) in shares.iter().enumerate().take((inside.width / 2).into()) {
                let [r, g, b] = heat::colour(share);
                let place = (inside.x + 2 * x as u16, inside.y + y as u16);
                buffer.set_string(place.0, place.1, "  ", Style::new().bg(Color::Rgb(r, g, b)));
            }
        }
    }
}

/// A loss over the steps, kept at a bounded number of points.
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
    /// Steps that the last points stand for each.
    each: u64,
    sum: (f64, u64),
}

/// Points kept at most; then two become one.
const POINTS: usize = 512;

impl Curve {
    fn add(&mut self, step: u64, loss: f32) {
        self.each = self.each.max(1);
        self.sum = (self.sum.0 + f64::from(loss), self.sum.1 + 1);
        if self.sum.1 >= self.each {
            self.points.push((step as f64, self.sum.0 / self.sum.1 as f64));
            self.sum = (0.0, 0);
        }
        if self.points.len() > POINTS {
            let mean = |pair: &[(f64, f64)]| {
                let share = 1.0 / pair.len() as f64;
                (pair.iter().map(|p| p.0).sum::<f64>() * share, pair.iter().map(|p| p.1).sum::<f64>() * share)
            };
            self.points = self.points.chunks(2).map(mean).collect();
            self.each *= 2;
        }
    }

    fn render(&self, area: Rect, buffer: &mut Buffer) {
        let bounds = |of: fn(&(f64, f64)) -> f64| {
            let values = self.points.iter().map(of);
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
            if low < high { [low, high] } else { [0.0, 1.0] }
        };
        let (steps, losses) = (bounds(|p| p.0), bounds(|p| p.1));
        let data = Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(Color::Rgb(253, 200, 37)))
            .data(&self.points);
        let labels = |bounds: [f64; 2], digits: usize| {
            [bounds[0], (bounds[0] + bounds[1]) / 2.0, bounds[1]].map(|x| format!("{x:.digits$}"))
        };
        Chart::new(vec![data])
            .block(Block::bordered().title(say!(" loss ", " 손실 ")))
            .x_axis(Axis::default().bounds(steps).labels(labels(steps, 0)))
            .y_axis(Axis::default().bounds(losses).labels(labels(losses, 2)))
            .render(area, buffer);
    }
}

/// Seconds as people read them.
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_stays_short() {
        let mut curve = Curve::default();
        for step in 1..=10_000 {
            curve.add(step, 1.0 / step as f32);
        }
        assert!(curve.points.len() <= POINTS + 1, "{}", curve.points.len());
        assert!(curve.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1));
    }

    #[test]
    fn everything_is_drawn() {
        let mut state = State { cosines: vec![vec![0.0, 1.0], vec![1.0, 0.0]], ..State::default() };
        for step in 1..=50 {
            state.curve.add(step, 5.0 - step as f32 / 20.0);
            state.report = Some(StepReport {
                step,
                steps: 100,
                loss: 1.0,
                learning_rate: 1e-3,
                gradient_norm: 1.0,
                logit_scale: Some(14.0),
                accuracy: None,
                pairs_per_second: 321.0,
                skipped: 0,
            });
        }
        state.seconds_a_step = Some(2.0);
        let area = Rect::new(0, 0, 90, HEIGHT);
        let mut buffer = Buffer::empty(area);
        state.render(area, &mut buffer);
        let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
        for part in ["50/100", "321", "1:40", "1.00e-3"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let cell = |x: u16, y: u16| buffer[(90 - 34 + 1 + x, 2 + 1 + y)].bg;
        assert_ne!(cell(0, 0), cell(2, 0));
        assert_eq!(cell(0, 0), cell(2, 1));
    }

    #[test]
    fn time_is_told_as_people_read_it() {
        assert_eq!([clock(5.0), clock(65.0), clock(3725.0)], ["0:05", "1:05", "1:02:05"]);
    }
}
