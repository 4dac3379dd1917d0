//! Blocks for the caches and tasks for the threads, around the tiles.

use super::tile::{PANEL, Run, Shape, Tile};
use super::{Epilogue, Scratch, Threads};
use crate::team;

/// Most rows of a task: their block along `k` stays in the second cache.
const ROWS: usize = 96;
/// Most panels of a task: its part of the result stays there too.
const PANELS: usize = 16;

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Rows a multiple of so many bytes apart share a few places of the first cache: they are copied.
const CLASH: usize = 2048;

/// The left side of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<A> {
    /// Rows `row` apart whose values lie side by side.
    Rows { first: *const A, row: usize },
    /// Values at `row * i + column * k`, packed block by block on the way.
    Strided { first: *const A, row: usize, column: usize },
}

/// One product, its operands prepared.
pub(super) struct Product<A, B> {
    /// Rows, columns, steps along `k`.
    pub size: [usize; 3],
    /// Steps of a block along `k`.
    pub block: usize,
    pub left: Left<A>,
    /// Values of the left side in a step.
    pub a_step: usize,
    pub panels: *const B,
    /// Elements of a panel's step.
    pub b_step: usize,
    /// From panel to panel.
    pub b_panel: usize,
    pub out: *mut f32,
    pub out_row: usize,
    /// Whether the product is added to what is there.
    pub keep: bool,
    pub shape: Shape,
    /// The tile's loop.
    pub run: Run<A, B>,
}

// SAFETY: the pointers are only followed as `go` says: inputs are read, and tasks write disjoint
// parts of the result.
unsafe impl<A, B> Sync for Product<A, B> {}

impl<A: Copy + Default + Send + 'static, B> Product<A, B> {
    /// Multiplies, and applies the epilogue to every part of the result.
    ///
    /// # Safety
    /// As [`Product::go`]; the epilogue was checked against the result's size.
    pub unsafe fn finished(&self, epilogue: &Epilogue, threads: Threads)
    where
        A: Scratch,
    {
        // SAFETY: as the caller promises.
        unsafe {
            if epilogue.is_empty() {
                self.go(threads, &|_, _, _| {});
            } else {
                self.go(threads, &|row, first, part| epilogue.apply(row, first, part));
            }
        }
    }

    /// Multiplies; `finish(row, first column, part of the row)` follows for every part of the result.
    ///
    /// # Safety
    /// `left`, `panels` (`b_panel` apart) and `out` hold what `size` says, `out` is borrowed by nobody
    /// else, and `run` may run here with the sizes that `shape` allows.
    pub unsafe fn go(&self, threads: Threads, finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync))
    where
        A: Scratch,
    {
        let [rows, columns, steps] = self.size;
        if rows == 0 || columns == 0 {
            return;
        }
        let panels = columns.div_ceil(PANEL);
        let work = rows * columns * (steps * self.a_step).max(1);
        let workers = match threads {
            Threads::Pool if work > 1 << 19 => team::threads(),
            _ => 1,
        };
        // Enough tasks that no thread waits long for the last one.
        let wanted = if workers == 1 { 1 } else { 4 * workers };
        let (mut row_blocks, chunks) = (rows.div_ceil(ROWS), panels.div_ceil(PANELS));
        if let Left::Strided { .. } = self.left {
            // Every chunk of panels packs these rows anew: tasks are made of rows as long as two tiles
            // are left for each.
            row_blocks = row_blocks.max(wanted.div_ceil(chunks).min(rows.div_ceil(2 * self.shape.rows)));
        }
        let chunks = chunks.max(wanted.div_ceil(row_blocks));
        let tallest = rows.div_ceil(row_blocks).div_ceil(rows.div_ceil(row_blocks).div_ceil(self.shape.rows));
        let side_by_side = (self.shape.panels)(tallest);
        let chunk = panels.div_ceil(chunks).next_multiple_of(side_by_side);
        let chunks = panels.div_ceil(chunk);
        let task = |index: usize| {
            let (block, part) = (index % row_blocks, index / row_blocks);
            let row_range = [rows * block / row_blocks, rows * (block + 1) / row_blocks];
            let panel_range = [part * chunk, panels.min((part + 1) * chunk)];
            // SAFETY: as the caller promises; tasks differ in rows or panels.
            unsafe { self.task(row_range, panel_range, side_by_side, finish) }
        };
        let count = row_blocks * chunks;
        if workers == 1 || count == 1 {
            (0..count).for_each(task);
        } else {
            team::run(count, task);
        }
    }

    /// # Safety
    /// As [`Product::go`]; nobody else writes these rows of these panels.
    unsafe fn task(
        &self,
        rows: [usize; 2],
        panels: [usize; 2],
        side_by_side: usize,
        finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
    ) where
        A: Scratch,
    {
        let [_, columns, steps] = self.size;
        let count = rows[1] - rows[0];
        let groups = count.div_ceil(self.shape.rows);
        let tallest = count.div_ceil(groups);
        let group = |index: usize| [count * index / groups, count * (index + 1) / groups];
        let mut packed = A::take();
        for block in 0..steps.div_ceil(self.block).max(1) {
            let start = block * self.block;
            let length = self.block.min(steps - start);
            // Where the rows' part starts, and from row to row and step to step.
            let (left, a_row, a_step) = match self.left {
                Left::Rows { first, row } => {
                    // SAFETY: rows and steps of the left side.
                    let left = unsafe { first.add(rows[0] * row + start * self.a_step) };
                    if count > self.shape.rows && (row * size_of::<A>()).is_multiple_of(CLASH) {
                        let values = length * self.a_step;
                        let apart = values + LINE / size_of::<A>();
                        // SAFETY: as many rows with as many values.
                        unsafe { gather(left, row, values, &mut packed, count, apart) };
                        (packed.as_ptr(), apart, self.a_step)
                    } else {
                        (left, row, self.a_step)
                    }
                }
                Left::Strided { first, row, column } => {
                    // Only as many rows of a group are read as it has.
                    if packed.len() < groups * length * tallest {
                        packed.resize(groups * length * tallest, A::default());
                    }
                    for k in 0..length {
                        for index in 0..groups {
                            let [from, to] = group(index);
                            let tile = &mut packed[(index * length + k) * tallest..][..tallest];
                            // SAFETY: rows and steps of the left side; where a whole tile is copied, as
                            // many rows follow.
                            unsafe {
                                let at = first.add((rows[0] + from) * row + (start + k) * column);
                                if row == 1 && rows[0] + from + tallest <= self.size[0] {
                                    copy(at, tile);
                                } else {
                                    for (i, value) in tile.iter_mut().enumerate().take(to - from) {
                                        *value = *at.add(i * row);
                                    }
                                }
                            }
                        }
                    }
                    (packed.as_ptr(), 1, tallest)
                }
            };
            let run = |index: usize, panel: usize, width: usize| {
                let [from, to] = group(index);
                // SAFETY: offsets inside the operands, as the caller promises.
                unsafe {
                    let a = left.add(match self.left {
                        Left::Rows { .. } => from * a_row,
                        Left::Strided { .. } => index * length * tallest,
                    });
                    let tile = Tile {
                        steps: length,
                        a,
                        a_row,
                        a_step,
                        b: self.panels.add(panel * self.b_panel + start * self.b_step),
                        b_panel: self.b_panel,
                        c: self.out.add((rows[0] + from) * self.out_row + panel * PANEL),
                        c_row: self.out_row,
                        columns: (width * PANEL).min(columns - panel * PANEL),
                        add: self.keep || block > 0,
                    };
                    (self.run)(to - from, width, &tile);
                }
            };
            // All groups of rows meet a few panels, then the next ones; or each group meets all panels.
            let at_once = if self.shape.group_by_group { 1 } else { groups };
            for first in (0..groups).step_by(at_once) {
                let mut panel = panels[0];
                while panel < panels[1] {
                    let width = if panel + side_by_side <= panels[1] { side_by_side } else { 1 };
                    (first..first + at_once).for_each(|index| run(index, panel, width));
                    panel += width;
                }
            }
        }
        (self.shape.end)();
        A::give(packed);
        let first = panels[0] * PANEL;
        let width = (panels[1] * PANEL).min(columns) - first;
        for row in rows[0]..rows[1] {
            // SAFETY: this task's own part of the result, written above.
            let part =
                unsafe { std::slice::from_raw_parts_mut(self.out.add(row * self.out_row + first), width) };
            finish(row, first, part);
        }
    }
}

/// Rows nearer to each other.
///
/// # Safety
/// `from` is followed by so many rows of so many values, `row` apart.
unsafe fn gather<A: Copy + Default>(
    from: *const A,
    row: usize,
    values: usize,
    to: &mut Vec<A>,
    count: usize,
    apart: usize,
) {
    if to.len() < count * apart {
        to.resize(count * apart, A::default());
    }
    for (index, to) in to.chunks_exact_mut(apart).enumerate().take(count) {
        // SAFETY: as the caller promises, and as the vector is long.
        unsafe { std::ptr::copy_nonoverlapping(from.add(index * row), to.as_mut_ptr(), values) };
    }
}

/// Values that lie side by side. The lengths that tiles have are copied in registers.
///
/// # Safety
/// `from` is followed by as many as `to` takes.
#[inline(always)]
unsafe fn copy<A: Copy>(from: *const A, to: &mut [A]) {
    macro_rules! by_length {
        ($($length:literal),*) => {
            match to.len() {
                $($length => {
                    // SAFETY: as the caller promises, on either side.
                    unsafe { to.as_mut_ptr().cast::<[A; $length]>().write_unaligned(from.cast::<[A; $length]>().read_unaligned()) }
                })*
                // SAFETY: as the caller promises.
                length => unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), length) },
            }
        };
    }
    by_length!(4, 5, 6, 7, 8, 9, 10, 11, 12)
}
