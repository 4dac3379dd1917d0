//! Windows that slide over channels-last pictures: rows for a convolution's product, and pooling; each
//! with its gradient.

use std::ops::Range;

use crate::team;

/// Square windows over pictures `[height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height of a picture.
    pub height: usize,
    /// Width of a picture.
    pub width: usize,
    /// Values of a pixel, side by side.
    pub channels: usize,
    /// Side of the window, at least 1.
    pub side: usize,
    /// Pixels from one window to the next, at least 1.
    pub stride: usize,
    /// Pixels added on each edge.
    pub padding: usize,
}

impl Window {
    /// Windows down and across; none where a window is larger than the padded picture.
    pub fn places(&self) -> (usize, usize) {
        let along = |length: usize| match (length + 2 * self.padding).checked_sub(self.side) {
            Some(spare) => spare / self.stride + 1,
            None => 0,
        };
        (along(self.height), along(self.width))
    }

    /// Values in one window.
    pub fn values(&self) -> usize {
        self.side * self.side * self.channels
    }

    /// Values of one picture.
    pub fn picture(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The pixels of a window that begins at `place * stride - padding` and lie in a picture of
    /// `length`, and how many window pixels come before them.
    fn inside(&self, place: usize, length: usize) -> (Range<usize>, usize) {
        let start = place * self.stride;
        let first = start.max(self.padding) - self.padding;
        let last = (start + self.side).saturating_sub(self.padding).min(length);
        let before = self.padding.saturating_sub(start).min(self.side);
        (first.min(last)..last, before)
    }
}

/// `[batch, height, width, channels]` to `[batch, down, across, side, side, channels]`; zeros where a
/// window reaches over the edge.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn unfold(window: Window, x: &[f32], out: &mut [f32]) {
    let (down, across) = window.places();
    let (picture, line, values) = (window.picture(), across * window.values(), window.values());
    if picture == 0 || down * line == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(picture) && out.len() == x.len() / picture * down * line);
    let run = window.side * window.channels;
    team::chunks(out, line, |number, out| {
        let (batch, y) = (number / down, number % down);
        let x = &x[batch * picture..][..picture];
        let (rows, above) = window.inside(y, window.height);
        for (place, out) in out.chunks_exact_mut(values).enumerate() {
            let (columns, before) = window.inside(place, window.width);
            let (start, count) = (before * window.channels, columns.len() * window.channels);
            let mut lines = out.chunks_exact_mut(run);
            lines.by_ref().take(above).for_each(|line| line.fill(0.0));
            for (row, line) in rows.clone().zip(lines.by_ref()) {
                line[..start].fill(0.0);
                let from = (row * window.width + columns.start) * window.channels;
                line[start..start + count].copy_from_slice(&x[from..][..count]);
                line[start + count..].fill(0.0);
            }
            lines.for_each(|line| line.fill(0.0));
        }
    });
}

/// The gradient of [`unfold`].
///
/// # Panics
/// Where the lengths do not belong together.
pub fn fold(window: Window, slopes: &[f32], dx: &mut [f32]) {
    let (down, across) = window.places();
    let (picture, values) = (window.picture(), window.values());
    dx.fill(0.0);
    if picture == 0 || down * across * values == 0 {
        return;
    }
    let all = down * across * values;
    assert!(dx.len().is_multiple_of(picture) && slopes.len() == dx.len() / picture * all);
    let run = window.side * window.channels;
    team::chunks(dx, picture, |batch, dx| {
        let slopes = &slopes[batch * all..][..all];
        for (place, slopes) in slopes.chunks_exact(values).enumerate() {
            let (rows, above) = window.inside(place / across, window.height);
            let (columns, before) = window.inside(place % across, window.width);
            let (start, count) = (before * window.channels, columns.len() * window.channels);
            for (row, line) in rows.zip(slopes.chunks_exact(run).skip(above)) {
                let to = (row * window.width + columns.start) * window.channels;
                for (dx, slope) in dx[to..][..count].iter_mut().zip(&line[start..]) {
                    *dx += slope;
                }
            }
        }
    });
}

/// The mean of each window, the padding counted as zeros: to `[batch, down, across, channels]`.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn mean(window: Window, x: &[f32], out: &mut [f32]) {
    let share = 1.0 / (window.side * window.side) as f32;
    pool(window, x, out, |x, pixels, out| {
        out.fill(0.0);
        for pixel in pixels.starts() {
            out.iter_mut().zip(&x[pixel..]).for_each(|(out, x)| *out += x);
        }
        out.iter_mut().for_each(|out| *out *= share);
    });
}

/// The gradient of [`mean`].
///
/// # Panics
/// Where the lengths do not belong together.
pub fn mean_backward(window: Window, dy: &[f32], dx: &mut [f32]) {
    let share = 1.0 / (window.side * window.side) as f32;
    unpool(window, dy, dx, |_, pixels, dy, dx| {
        for pixel in pixels.starts() {
            dx[pixel..].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy * share);
        }
    });
}

/// The largest of each window, the padding left out: to `[batch, down, across, channels]`. A NaN counts
/// as larger than any number; a window of padding alone gives minus infinity.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn largest(window: Window, x: &[f32], out: &mut [f32]) {
    pool(window, x, out, |x, pixels, out| {
        out.fill(f32::NEG_INFINITY);
        for pixel in pixels.starts() {
            for (out, &x) in out.iter_mut().zip(&x[pixel..]) {
                *out = if x > *out || x.is_nan() { x } else { *out };
            }
        }
    });
}

/// The gradient of [`largest`]: to the first of the largest.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn largest_backward(window: Window, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let picture = window.picture();
    unpool(window, dy, dx, |batch, pixels, dy, dx| {
        let x = &x[batch * picture..][..picture];
        for (channel, dy) in dy.iter().enumerate() {
            let places = pixels.starts().map(|pixel| pixel + channel);
            let best =
                places.reduce(|best, at| match x[at] > x[best] || (x[at].is_nan() && !x[best].is_nan()) {
                    true => at,
                    false => best,
                });
            if let Some(best) = best {
                dx[best] += dy;
            }
        }
    });
}

/// The pixels of one window that lie in its picture.
struct Pixels {
    rows: Range<usize>,
    columns: Range<usize>,
    width: usize,
    channels: usize,
}

impl Pixels {
    fn of(window: Window, y: usize, x: usize) -> Pixels {
        let (rows, columns) = (window.inside(y, window.height).0, window.inside(x, window.width).0);
        Pixels { rows, columns, width: window.width, channels: window.channels }
    }

    /// Where each begins in the picture, row by row.
    fn starts(&self) -> impl Iterator<Item = usize> {
        let row =
            move |row| self.columns.clone().map(move |column| (row * self.width + column) * self.channels);
        self.rows.clone().flat_map(row)
    }
}

/// Runs `each(picture, pixels, out)` for every window of every picture.
fn pool(window: Window, x: &[f32], out: &mut [f32], each: impl Fn(&[f32], Pixels, &mut [f32]) + Sync) {
    let ((down, across), picture) = (window.places(), window.picture());
    let line = across * window.channels;
    if picture == 0 || down * line == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(picture) && out.len() == x.len() / picture * down * line);
    team::chunks(out, line, |number, out| {
        let x = &x[number / down * picture..][..picture];
        for (place, out) in out.chunks_exact_mut(window.channels).enumerate() {
            each(x, Pixels::of(window, number % down, place), out);
        }
    });
}

/// Runs `each(batch, pixels, dy, dx of the picture)` for every window of every picture.
fn unpool(
    window: Window,
    dy: &[f32],
    dx: &mut [f32],
    each: impl Fn(usize, Pixels, &[f32], &mut [f32]) + Sync,
) {
    let ((down, across), picture) = (window.places(), window.picture());
    let all = down * across * window.channels;
    dx.fill(0.0);
    if picture == 0 || all == 0 {
        return;
    }
    assert!(dx.len().is_multiple_of(picture) && dy.len() == dx.len() / picture * all);
    team::chunks(dx, picture, |batch, dx| {
        let dy = &dy[batch * all..][..all];
        for (place, dy) in dy.chunks_exact(window.channels).enumerate() {
            each(batch, Pixels::of(window, place / across, place % across), dy, dx);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: [Window; 7] = [
        Window { height: 5, width: 7, channels: 3, side: 3, stride: 1, padding: 1 },
        Window { height: 6, width: 5, channels: 2, side: 3, stride: 2, padding: 1 },
        Window { height: 9, width: 8, channels: 1, side: 7, stride: 2, padding: 3 },
        Window { height: 4, width: 4, channels: 5, side: 1, stride: 2, padding: 0 },
        Window { height: 6, width: 7, channels: 2, side: 2, stride: 2, padding: 0 },
        Window { height: 2, width: 1, channels: 2, side: 3, stride: 1, padding: 1 },
        Window { height: 2, width: 2, channels: 2, side: 3, stride: 1, padding: 0 },
    ];

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    /// Every value of every window, by its place; `None` in the padding.
    fn plain(window: Window, x: &[f32]) -> Vec<Option<f32>> {
        let (down, across) = window.places();
        let mut out = Vec::new();
        for x in x.chunks(window.picture()) {
            for place in 0..down * across {
                for inside in 0..window.side * window.side {
                    let y =
                        (place / across * window.stride + inside / window.side).checked_sub(window.padding);
                    let x_ =
                        (place % across * window.stride + inside % window.side).checked_sub(window.padding);
                    for channel in 0..window.channels {
                        out.push(match (y, x_) {
                            (Some(y), Some(x_)) if y < window.height && x_ < window.width => {
                                Some(x[(y * window.width + x_) * window.channels + channel])
                            }
                            _ => None,
                        });
                    }
                }
            }
        }
        out
    }

    #[test]
    fn windows_are_read_where_they_lie() {
        for window in WINDOWS {
            let x = numbers(2 * window.picture(), 1);
            let expected: Vec<f32> = plain(window, &x).into_iter().map(|x| x.unwrap_or(0.0)).collect();
            let mut out = vec![f32::NAN; expected.len()];
            unfold(window, &x, &mut out);
            assert_eq!(out, expected, "{window:?}");
        }
    }

    #[test]
    fn folding_is_the_transpose_of_unfolding() {
        for window in WINDOWS {
            let x = numbers(2 * window.picture(), 1);
            let mut rows = vec![0.0; plain(window, &x).len()];
            unfold(window, &x, &mut rows);
            let slopes = numbers(rows.len(), 2);
            let mut back = vec![f32::NAN; x.len()];
            fold(window, &slopes, &mut back);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            assert!((dot(&rows, &slopes) - dot(&x, &back)).abs() < 1e-3, "{window:?}");
        }
    }

    #[test]
    fn pools_agree_with_plain_ones() {
        for window in WINDOWS {
            let mut x = numbers(2 * window.picture(), 3);
            x[1] = f32::NAN;
            let all = plain(window, &x);
            let (mut means, mut most) = (Vec::new(), Vec::new());
            for one in all.chunks(window.values()) {
                for channel in 0..window.channels {
                    let values = one.iter().skip(channel).step_by(window.channels);
                    means.push(values.clone().flatten().sum::<f32>() / (window.side * window.side) as f32);
                    let larger = |a: f32, b: &f32| if *b > a || b.is_nan() { *b } else { a };
                    most.push(values.flatten().fold(f32::MIN, larger));
                }
            }
            let mut out = vec![0.0; means.len()];
            let same = |a: &[f32], b: &[f32]| {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4 || (a.is_nan() && b.is_nan())));
            };
            mean(window, &x, &mut out);
            same(&out, &means);
            largest(window, &x, &mut out);
            let seen: Vec<bool> = most.iter().map(|x| *x != f32::MIN).collect();
            let of = |x: &[f32]| -> Vec<f32> { x.iter().zip(&seen).filter(|s| *s.1).map(|s| *s.0).collect() };
            same(&of(&out), &of(&most));
        }
    }

    #[test]
    fn slopes_of_pools_are_those_of_differences() {
        for window in WINDOWS {
            let x = numbers(window.picture(), 4);
            let count = plain(window, &x).len() / (window.side * window.side).max(1);
            let dy = numbers(count, 5);
            for kind in [true, false] {
                let value = |x: &[f32]| {
                    let mut out = vec![0.0; count];
                    if kind {
                        mean(window, x, &mut out)
                    } else {
                        largest(window, x, &mut out)
                    }
                    out.iter().zip(&dy).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                };
                let mut dx = vec![f32::NAN; x.len()];
                match kind {
                    true => mean_backward(window, &dy, &mut dx),
                    false => largest_backward(window, &x, &dy, &mut dx),
                }
                let slopes = (0..x.len()).map(|at| {
                    let (mut up, mut down) = (x.clone(), x.clone());
                    up[at] += 1e-4;
                    down[at] -= 1e-4;
                    ((value(&up) - value(&down)) / f64::from(up[at] - down[at])) as f32
                });
                let slopes: Vec<f32> = slopes.collect();
                assert!(dx.iter().zip(&slopes).all(|(a, b)| (a - b).abs() < 1e-2), "{window:?}");
            }
        }
    }
}
