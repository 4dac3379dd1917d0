//! The gradient of what a product was given: products that add over a weight's outputs.

use std::cell::Cell;
use std::ops::RangeInclusive;

use super::Panels;
use super::across::{self, Across, Out, Rounded, STRETCH, Stretch, Turned};
use super::formats::PART;
use super::panel::{LANES, Steps};
use crate::gemm::pack::Lines;
use crate::gemm::{Epilogue, Matrix, MatrixMut, RIGHT, Right, Threads, product_with};
use crate::team::{self, Shared};

/// Parts of a task: a row is read once for so many.
const GROUP: usize = 4;

thread_local! {
    /// The rows of a product, scaled; a thread keeps their memory.
    static SCALED: Cell<Vec<Stretch>> = const { Cell::new(Vec::new()) };
    /// What a task works with; a thread keeps its memory.
    static WORK: Cell<Option<Box<Work>>> = const { Cell::new(None) };
}

/// What a task works with.
struct Work {
    turned: [Turned; GROUP],
    rounded: Rounded,
    /// `[tiles, GROUP]`.
    out: Vec<Out>,
}

/// `out = dy weights`: the gradient of what [`super::linear`] was given, `[m, outputs]` by `[outputs, inputs]`, the
/// weights one below the other.
pub fn backward(out: MatrixMut, dy: Matrix, weights: &[&Panels]) {
    let MatrixMut { rows, columns: inputs, .. } = out;
    assert!(weights.iter().all(|weight| weight.inputs == inputs));
    assert_eq!(dy.size(), [rows, weights.iter().map(|weight| weight.outputs).sum()]);
    if rows == 0 || inputs == 0 {
        return;
    }
    match stretches(weights) {
        Some(parts) => in_wholes(out, dy, &parts),
        None => in_numbers(out, dy, weights),
    }
}

/// Each block is unpacked once, and never more than a small part of the weights is.
fn in_numbers(out: MatrixMut, dy: Matrix, weights: &[&Panels]) {
    /// Numbers that are unpacked at a time, and the outputs that these are: many, since the gradient is
    /// read and written for each such part.
    const NUMBERS: usize = 1 << 21;
    const OUTPUTS: RangeInclusive<usize> = 256..=768;
    let MatrixMut { rows, columns: inputs, row_stride, .. } = out;
    let mut panels = Vec::new();
    for &weight in weights {
        panels.extend((0..weight.outputs.div_ceil(LANES)).map(|panel| (weight, panel)));
    }
    let outputs = (NUMBERS / inputs).clamp(*OUTPUTS.start(), *OUTPUTS.end());
    // Whole blocks of every format, and two tasks a thread.
    let numbers = weights.iter().map(|weight| weight.format.block().0).max().unwrap_or(1);
    let columns = inputs.div_ceil(2 * team::threads()).next_multiple_of(numbers);
    let mut right = RIGHT.replace(Lines::empty());
    let mut start = 0;
    // Without outputs there is still a result: zeros.
    let parts = panels.chunks(outputs / LANES).chain(panels.is_empty().then_some(&[][..]));
    for part in parts {
        let counts = part.iter().map(|&(weight, panel)| LANES.min(weight.outputs - panel * LANES));
        let depth = counts.clone().sum();
        let steps = right.room(inputs.div_ceil(LANES) * LANES * depth);
        team::chunks(steps, columns * depth, |task, steps| {
            let first = task * columns;
            let last = inputs.min(first + columns);
            let mut at = 0;
            for (&(weight, panel), count) in part.iter().zip(counts.clone()) {
                let (kind, (numbers, _)) = (weight.format.of(), weight.format.block());
                let own = first / numbers * kind.length..last / numbers * kind.length;
                let bytes = &weight.panels(panel, 1)[own];
                (kind.kernels.unpack)(bytes, &mut Steps { numbers: steps, depth, own: at..at + count });
                at += count;
            }
        });
        // SAFETY: all of `out`, which is borrowed mutably, for as long as this product takes.
        let to = unsafe { MatrixMut::raw(out.data, rows, inputs, row_stride) };
        let (dy, steps) = (dy.columns(start, depth), Right::new(steps, [depth, inputs]));
        product_with(to, dy, steps, &Epilogue::default(), start > 0, Threads::Pool);
        start += depth;
    }
    RIGHT.set(right);
}

/// A stretch of a weight's outputs.
struct Part<'a> {
    weight: &'a Panels,
    across: Across,
    /// The first of its panels, and how many.
    panels: [usize; 2],
    /// Of the gradient, its first column and how many.
    columns: [usize; 2],
}

/// All of them; `None` where a format has no loops for them.
fn stretches<'a>(weights: &[&'a Panels]) -> Option<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    let mut column = 0;
    for &weight in weights {
        let across = weight.format.of().kernels.across?;
        for first in (0..weight.outputs).step_by(STRETCH) {
            let count = STRETCH.min(weight.outputs - first);
            let panels = [first / LANES, count.div_ceil(LANES)];
            parts.push(Part { weight, across, panels, columns: [column + first, count] });
        }
        column += weight.outputs;
    }
    Some(parts)
}

/// The gradient's rows in 16 bits, as [`across`] says.
fn in_wholes(out: MatrixMut, dy: Matrix, parts: &[Part]) {
    /// Stretches that rows are scaled for at a time: a vocabulary has hundreds.
    const PARTS: usize = 16;
    let MatrixMut { rows, columns: inputs, row_stride, .. } = out;
    // Without outputs there is still a result: zeros.
    for (index, parts) in parts.chunks(PARTS).chain(parts.is_empty().then_some(&[][..])).enumerate() {
        // SAFETY: all of `out`, which is borrowed mutably, for as long as these products take.
        let to = unsafe { MatrixMut::raw(out.data, rows, inputs, row_stride) };
        add_parts(to, dy, parts, index > 0);
    }
}

/// What a few stretches give, added to `out` where `keep` says so.
fn add_parts(out: MatrixMut, dy: Matrix, parts: &[Part], keep: bool) {
    /// Most tiles of a task: a weight is turned once for so many rows.
    const TILES: usize = 20;
    let MatrixMut { rows, columns: inputs, row_stride, .. } = out;
    let tall = parts.first().map_or(1, |part| part.across.rows);
    let tiles = rows.div_ceil(tall);
    let mut scaled = SCALED.take();
    scaled.resize((parts.len() * tiles * tall).max(scaled.len()), Stretch::NONE);
    let lines = &mut scaled[..parts.len() * tiles * tall];
    team::chunks(lines, tall, |index, lines| {
        let [first, count] = parts[index / tiles].columns;
        for (line, row) in lines.iter_mut().zip(index % tiles * tall..) {
            let x = if row < rows { &dy.row(row)[first..first + count] } else { &[] };
            across::scale(x, line);
        }
    });
    let groups = (inputs / PART).div_ceil(GROUP);
    // Enough tasks that no thread waits long for the last one.
    let blocks = tiles.div_ceil(TILES).max((4 * team::threads()).div_ceil(groups)).min(tiles);
    let shared = Shared(out.data);
    team::run(groups * blocks, |task| {
        let (group, block) = (task % groups, task / groups);
        let own = GROUP * group..(GROUP * (group + 1)).min(inputs / PART);
        let tiles_own = tiles * block / blocks..tiles * (block + 1) / blocks;
        let mut work = WORK.take().unwrap_or_else(|| {
            Box::new(Work { turned: [Turned::NONE; GROUP], rounded: Rounded::NONE, out: Vec::new() })
        });
        let Work { turned, rounded, out } = &mut *work;
        out.clear();
        out.resize(GROUP * tiles_own.len(), Out::default());
        for (index, part) in parts.iter().enumerate() {
            let Across { turn, add, .. } = part.across;
            let [first, count] = part.panels;
            let panels: [&[u8]; STRETCH / LANES] =
                std::array::from_fn(|panel| part.weight.panels(first + panel.min(count - 1), 1));
            for (turned, own) in turned.iter_mut().zip(own.clone()) {
                turn(&panels[..count], own, turned);
            }
            for (tile, out) in tiles_own.clone().zip(out.chunks_exact_mut(GROUP)) {
                let lines = &lines[(index * tiles + tile) * tall..][..tall];
                add(&turned[..own.len()], lines, rounded, out);
            }
        }
        for (tile, out) in tiles_own.zip(out.chunks_exact(GROUP)) {
            for (place, row) in (tile * tall..rows).enumerate().take(tall) {
                for (own, out) in own.clone().zip(out) {
                    // SAFETY: these inputs of this row lie in `out`, which is borrowed mutably, and are this
                    // task's own.
                    let to = unsafe { shared.part(row * row_stride + own * PART, PART) };
                    let values = out.0[place].as_flattened();
                    if keep {
                        to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
                    } else {
                        to.copy_from_slice(values);
                    }
                }
            }
        }
        WORK.set(Some(work));
    });
    SCALED.set(scaled);
}
