//! Matrix products: weights packed once, blocked for the caches, threads over tiles, and what
//! follows a product (bias, activation, residual) done while the tile is still near.
//!
//! An element of a result sums its products in the order of `k`, in blocks of fixed length. So it
//! depends neither on the other rows of the batch nor on the number of threads.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::level::Level;
use crate::team;

mod bf16;
pub mod blocks;
mod drive;
mod epilogue;
mod int8;
mod pack;
mod tile;

pub use blocks::{BlockRows, Blocks, Panels};
pub use epilogue::Epilogue;
pub(crate) use epilogue::{add, multiply};
pub use pack::{Format, Lines, Packed, pack};

use drive::{Left, Product};
use int8::Values;
use tile::{PANEL, Run, Shape};

/// A read-only view of a matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that lie `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(row_stride >= columns || rows <= 1);
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "a {rows} x {columns} matrix does not lie in {} values",
            data.len()
        );
        Matrix { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Rows `start..start + count`.
    pub fn rows(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.rows);
        let at = start * self.row_stride;
        Matrix { data: self.data.get(at..).unwrap_or_default(), rows: count, ..self }
    }

    /// Columns `start..start + count`.
    pub fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// A row of a matrix that is not transposed.
    pub fn row(&self, index: usize) -> &'a [f32] {
        debug_assert_eq!(self.column_stride, 1);
        if self.columns == 0 { &[] } else { &self.data[index * self.row_stride..][..self.columns] }
    }
}

/// A matrix inside a slice to be written: rows lie `row_stride` apart.
pub struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    slice: PhantomData<&'a mut [f32]>,
}

impl<'a> MatrixMut<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that lie `row_stride` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        // Checks the bounds.
        Matrix::strided(data, rows, columns, row_stride);
        MatrixMut { data: data.as_mut_ptr(), rows, columns, row_stride, slice: PhantomData }
    }

    /// A matrix among others of one slice, as heads lie side by side in a row.
    ///
    /// # Safety
    /// Its rows lie in memory that nobody else uses for `'a`.
    pub(crate) unsafe fn raw(data: *mut f32, rows: usize, columns: usize, row_stride: usize) -> Self {
        MatrixMut { data, rows, columns, row_stride, slice: PhantomData }
    }
}

/// A result `[rows, columns]` that products fill from left to right; its memory is not cleared first.
pub struct Fresh {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    /// Columns that are there.
    filled: usize,
}

impl Fresh {
    /// Room for a result.
    pub fn new(rows: usize, columns: usize) -> Fresh {
        Fresh { values: Vec::with_capacity(rows * columns), rows, columns, filled: 0 }
    }

    /// The next columns, as many as `b` has: [`product_of`].
    pub fn product(
        &mut self,
        products: Products,
        a: Matrix,
        b: Matrix,
        epilogue: &Epilogue,
        threads: Threads,
    ) {
        let to = self.next(b.columns);
        product_of(products, to, a, b, epilogue, false, threads);
        self.filled += b.columns;
    }

    /// The next columns, as many as the weight has outputs: [`linear`].
    pub fn linear(
        &mut self,
        products: Products,
        x: Matrix,
        weight: Packed,
        epilogue: &Epilogue,
        threads: Threads,
    ) {
        let to = self.next(weight.outputs);
        linear(products, to, x, weight, epilogue, threads);
        self.filled += weight.outputs;
    }

    /// The next columns, as many as weights in blocks have outputs: [`blocks::linear`].
    pub fn blocks(&mut self, x: Matrix, weights: &[&Panels], epilogue: &Epilogue) {
        let count = weights.iter().map(|weight| weight.outputs()).sum();
        blocks::linear(self.next(count), x, weights, epilogue);
        self.filled += count;
    }

    /// The next columns, as many as weights in blocks have inputs: [`blocks::backward`].
    pub fn blocks_backward(&mut self, dy: Matrix, weights: &[&Panels]) {
        let count = weights.first().map_or(0, |weight| weight.inputs());
        blocks::backward(self.next(count), dy, weights);
        self.filled += count;
    }

    /// The whole result.
    pub fn finish(mut self) -> Vec<f32> {
        assert_eq!(self.filled, self.columns, "a result with columns that no product gave");
        // SAFETY: there is room for as many, and a product writes every element of its columns before
        // it returns (one that panics leaves them uncounted).
        unsafe { self.values.set_len(self.rows * self.columns) };
        self.values
    }

    fn next(&mut self, count: usize) -> MatrixMut<'_> {
        assert!(count <= self.columns - self.filled, "{count} more columns than a result has");
        let data = match self.rows {
            0 => self.values.as_mut_ptr(),
            // SAFETY: the first row's columns lie in the room.
            _ => unsafe { self.values.as_mut_ptr().add(self.filled) },
        };
        MatrixMut { data, rows: self.rows, columns: count, row_stride: self.columns, slice: PhantomData }
    }
}

/// Whether a product may use the thread pool, or runs inside one of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread: the caller is parallel already.
    One,
    /// The whole pool.
    Pool,
}

/// Steps of a block along `k`. A panel's block of 256 and a few rows' stay in the first cache. Wider
/// tiles ask so little of the second that it is better not to come back to the result as often.
fn block(level: Level) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        level if level.has_avx512() => 768,
        _ => 256,
    }
}

/// A vector of a thread that keeps its memory from product to product.
trait Scratch: Sized {
    fn take() -> Vec<Self>;
    fn give(vector: Vec<Self>);
}

impl Scratch for f32 {
    fn take() -> Vec<f32> {
        LEFT.take()
    }

    fn give(vector: Vec<f32>) {
        LEFT.set(vector);
    }
}

macro_rules! never_strided {
    ($($type:ty),*) => {
        $(impl Scratch for $type {
            fn take() -> Vec<$type> {
                Vec::new()
            }

            fn give(_: Vec<$type>) {}
        })*
    };
}
never_strided!(u8, i8, i16);

impl Scratch for u32 {
    fn take() -> Vec<u32> {
        LEFT_PAIRS.take()
    }

    fn give(vector: Vec<u32>) {
        LEFT_PAIRS.set(vector);
    }
}

thread_local! {
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static LEFT_PAIRS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    static RIGHT: Cell<Lines> = const { Cell::new(Lines::empty()) };
}

/// The f32 tile of a level: its shape, its loop over rows, and its loop over packed values.
fn f32_run(level: Level) -> (Shape, Run<f32, f32>, Run<f32, f32>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        level if level.has_avx512() => (tile::AVX512, tile::avx512::f32, tile::avx512::f32_packed),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (tile::AVX2, tile::avx2::f32, tile::avx2::f32_packed),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => (tile::NEON, tile::neon::f32, tile::neon::f32_packed),
        _ => (tile::PORTABLE, tile::portable::f32, tile::portable::f32_packed),
    }
}

/// The tile of pairs of bf16, where a level has one.
#[cfg(target_arch = "x86_64")]
fn bf16_run(level: Level) -> (Shape, Run<u32, u32>) {
    match level {
        Level::Amx => (tile::AMX, tile::amx::bf16_pairs),
        _ => (tile::AVX512, tile::avx512::bf16_pairs),
    }
}

/// The numbers that a product multiplies. Sums are f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 where the machine multiplies such ([`Level::has_bf16_products`]), else as they
    /// are: without the instruction nothing is gained.
    Bf16,
}

/// `out = epilogue(a b + keep * out)`: both sides packed on the way.
pub fn product(out: MatrixMut, a: Matrix, b: Matrix, epilogue: &Epilogue, keep: bool, threads: Threads) {
    product_of(Products::F32, out, a, b, epilogue, keep, threads);
}

/// [`product`] of the numbers that `products` says.
pub fn product_of(
    products: Products,
    out: MatrixMut,
    a: Matrix,
    b: Matrix,
    epilogue: &Epilogue,
    keep: bool,
    threads: Threads,
) {
    assert!(
        a.rows == out.rows && b.columns == out.columns && a.columns == b.rows,
        "{} x {} by {} x {} into {} x {}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        out.rows,
        out.columns
    );
    epilogue.check(out.rows, out.columns);
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    let level = Level::current();
    #[cfg(target_arch = "x86_64")]
    if products == Products::Bf16 && level.has_bf16_products() {
        let panels = bf16::panels(b, threads);
        let (shape, rows) = bf16_run(level);
        // Tiles take rows alone.
        let (values, left, run): (_, _, Run<u32, u32>) = if a.column_stride == 1 || level == Level::Amx {
            let values = bf16::rows(a, threads);
            let left = Left::Rows { first: values.as_ptr(), row: a.columns.div_ceil(2) };
            (values, left, rows)
        } else {
            let values = bf16::steps(a.transposed(), threads);
            let left = Left::Strided { first: values.as_ptr(), row: 1, column: a.rows };
            (values, left, tile::avx512::bf16_pairs_packed)
        };
        let product = Product {
            size: [out.rows, out.columns, b.rows.div_ceil(2)],
            block: block(level),
            left,
            a_step: 1,
            panels: panels.as_ptr(),
            b_step: PANEL,
            b_panel: b.rows.div_ceil(2) * PANEL,
            out: out.data,
            out_row: out.row_stride,
            keep,
            shape,
            run,
        };
        // SAFETY: the views checked at construction that every row and column lies in its slice, the
        // shapes agree, `values` and `panels` hold their pairs and live until the end, `out` is
        // borrowed mutably, and the level is this machine's.
        unsafe { product.finished(epilogue, threads) };
        drop(values);
        return;
    }
    let _ = products;
    let mut lines = RIGHT.replace(Lines::empty());
    product_with(out, a, Right::pack(b, &mut lines, threads), epilogue, keep, threads);
    RIGHT.set(lines);
}

/// The right side of products in f32, packed.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    panels: &'a [f32],
    /// Steps of a panel.
    depth: usize,
    /// Rows and columns of what is multiplied: the first of what the panels hold.
    size: [usize; 2],
}

impl<'a> Right<'a> {
    /// Packs `b` into memory that is there for it.
    pub(crate) fn pack(b: Matrix, lines: &'a mut Lines, threads: Threads) -> Right<'a> {
        let [depth, columns] = b.size();
        let panels = lines.room(columns.div_ceil(PANEL) * PANEL * depth);
        let fill = |first: usize, panels: &mut [f32]| {
            if b.column_stride == 1 {
                pack::panels_of_rows(b.data, depth, columns, b.row_stride, first, panels);
            } else {
                pack::panels_of_columns(b.data, depth, columns, b.column_stride, first, panels);
            }
        };
        if depth > 0 {
            const CHUNK: usize = 4;
            match threads {
                Threads::Pool if panels.len() > 1 << 15 => {
                    team::chunks(panels, CHUNK * PANEL * depth, |index, panels| fill(index * CHUNK, panels));
                }
                _ => fill(0, panels),
            }
        }
        Right::new(panels, b.size())
    }

    /// Panels of a matrix of so many rows and columns.
    fn new(panels: &'a [f32], size: [usize; 2]) -> Right<'a> {
        assert_eq!(panels.len(), size[1].div_ceil(PANEL) * PANEL * size[0]);
        Right { panels, depth: size[0], size }
    }

    /// The first rows alone.
    pub(crate) fn rows(self, count: usize) -> Right<'a> {
        assert!(count <= self.size[0]);
        Right { size: [count, self.size[1]], ..self }
    }

    /// The first columns alone.
    pub(crate) fn columns(self, count: usize) -> Right<'a> {
        assert!(count <= self.size[1]);
        Right { size: [self.size[0], count], ..self }
    }
}

/// `out = epilogue(a b + keep * out)`, with a right side that is packed already.
pub(crate) fn product_with(
    out: MatrixMut,
    a: Matrix,
    b: Right,
    epilogue: &Epilogue,
    keep: bool,
    threads: Threads,
) {
    assert!(a.rows == out.rows && b.size == [a.columns, out.columns]);
    epilogue.check(out.rows, out.columns);
    let level = Level::current();
    let (shape, rows, packed) = f32_run(level);
    let by_rows = a.column_stride == 1;
    let left = if by_rows {
        Left::Rows { first: a.data.as_ptr(), row: a.row_stride }
    } else {
        Left::Strided { first: a.data.as_ptr(), row: a.row_stride, column: a.column_stride }
    };
    let product = Product {
        size: [out.rows, out.columns, a.columns],
        block: block(level),
        left,
        a_step: 1,
        panels: b.panels.as_ptr(),
        b_step: PANEL,
        b_panel: b.depth * PANEL,
        out: out.data,
        out_row: out.row_stride,
        keep,
        shape,
        run: if by_rows { rows } else { packed },
    };
    // SAFETY: whoever made the views checked that every row and column lies in its memory, and that of
    // `out` is nobody else's; `b` has panels for its rows and columns, the shapes agree, and the level is
    // one that this machine has.
    unsafe { product.finished(epilogue, threads) };
}

/// `out = epilogue(x weight^T)`: `[m, inputs]` by `[outputs, inputs]`. What `products` says is for weights in bf16:
/// whether `x` is rounded to it too.
pub fn linear(
    products: Products,
    out: MatrixMut,
    x: Matrix,
    weight: Packed,
    epilogue: &Epilogue,
    threads: Threads,
) {
    assert!(
        x.rows == out.rows && x.columns == weight.inputs && out.columns == weight.outputs,
        "{} x {} by {} x {} into {} x {}",
        x.rows,
        x.columns,
        weight.outputs,
        weight.inputs,
        out.rows,
        out.columns
    );
    assert_eq!(x.column_stride, 1, "the left side of a linear layer lies in rows");
    epilogue.check(out.rows, out.columns);
    let level = Level::current();
    let call = Call { out: out.data, out_row: out.row_stride, x, weight, epilogue, threads };
    match weight.format {
        Format::F32 => {
            let (shape, run, _) = f32_run(level);
            call.floats(x.data.as_ptr(), x.row_stride, 1, shape, run);
        }
        Format::Bf16 => call.bf16(level, products),
        Format::Int8 => call.int8(level),
    }
}

/// A checked call of [`linear`]; `out` has the rows of `x` and the outputs of `weight`.
struct Call<'a> {
    out: *mut f32,
    out_row: usize,
    x: Matrix<'a>,
    weight: Packed<'a>,
    epilogue: &'a Epilogue<'a>,
    threads: Threads,
}

impl Call<'_> {
    fn product<A, B>(
        &self,
        first: *const A,
        row: usize,
        a_step: usize,
        shape: Shape,
        run: Run<A, B>,
    ) -> Product<A, B> {
        let b_step = PANEL * self.weight.format.step() * self.weight.format.bytes() / size_of::<B>();
        Product {
            size: [self.x.rows, self.weight.outputs, self.weight.steps()],
            block: block(Level::current()),
            left: Left::Rows { first, row },
            a_step,
            panels: self.weight.panels(),
            b_step,
            b_panel: self.weight.steps() * b_step,
            out: self.out,
            out_row: self.out_row,
            keep: false,
            shape,
            run,
        }
    }

    /// Rows of `a_step` values a step; they hold as many as the weight has steps.
    fn floats<A: Scratch + Copy + Default + Send + 'static, B>(
        self,
        first: *const A,
        row: usize,
        a_step: usize,
        shape: Shape,
        run: Run<A, B>,
    ) {
        let product = self.product(first, row, a_step, shape, run);
        // SAFETY: the views and the packed weight checked their sizes, the caller checked that they
        // agree, `out` is borrowed mutably, and the level is one that this machine has.
        unsafe { product.finished(self.epilogue, self.threads) };
    }

    fn bf16(self, level: Level, products: Products) {
        let x = self.x;
        #[cfg(target_arch = "x86_64")]
        if products == Products::Bf16 && level.has_bf16_products() {
            let values = bf16::rows(x, self.threads);
            let (shape, run) = bf16_run(level);
            return self.floats(values.as_ptr(), x.columns.div_ceil(2), 1, shape, run);
        }
        let _ = products;
        let (shape, run): (Shape, Run<f32, u16>) = match level {
            #[cfg(target_arch = "x86_64")]
            level if level.has_avx512() => (tile::AVX512_LOW, tile::avx512::bf16),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => (tile::AVX2, tile::avx2::bf16),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => (tile::NEON, tile::neon::bf16),
            _ => (tile::PORTABLE, tile::portable::bf16),
        };
        if x.columns.is_multiple_of(2) {
            return self.floats(x.data.as_ptr(), x.row_stride, 2, shape, run);
        }
        // Steps take two values: rows of an odd length get a zero at their end.
        let stride = x.columns + 1;
        let mut even = vec![0.0f32; x.rows * stride];
        for (index, row) in even.chunks_exact_mut(stride).enumerate() {
            row[..x.columns].copy_from_slice(x.row(index));
        }
        self.floats(even.as_ptr(), stride, 2, shape, run);
    }

    fn int8(self, level: Level) {
        /// Rows that wait for memory alone, however they are multiplied.
        #[cfg(target_arch = "x86_64")]
        const FEW: usize = 4;
        let rows = int8::quantise(self.x, level, self.threads);
        let stride = rows.stride;
        match &rows.values {
            Values::Bytes(values) => {
                let (shape, run): (Shape, Run<u8, i8>) = match level {
                    #[cfg(target_arch = "x86_64")]
                    Level::Amx if self.x.rows > FEW => (tile::AMX, tile::amx::int8),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512Vnni | Level::Avx512Bf16 | Level::Amx => {
                        (tile::AVX512, tile::avx512::int8_fours)
                    }
                    _ => (tile::PORTABLE, tile::portable::int8),
                };
                self.integers(&rows, self.product(values.as_ptr(), stride, 4, shape, run));
            }
            #[cfg(target_arch = "x86_64")]
            Values::Pairs(values) => {
                let (shape, run): (Shape, Run<i16, i8>) = match level {
                    Level::Avx512 => (tile::AVX512, tile::avx512::int8),
                    _ => (tile::AVX2, tile::avx2::int8),
                };
                self.integers(&rows, self.product(values.as_ptr(), stride, 4, shape, run));
            }
            #[cfg(target_arch = "aarch64")]
            Values::Signed(values) => {
                let product = self.product(values.as_ptr(), stride, 4, tile::NEON, tile::neon::int8);
                self.integers(&rows, product);
            }
        }
    }

    fn integers<A: Scratch + Copy + Default + Send + 'static>(
        &self,
        rows: &int8::Rows,
        product: Product<A, i8>,
    ) {
        let (scales, sums) = (self.weight.scales(), self.weight.sums());
        let finish = |row: usize, first: usize, part: &mut [f32]| {
            let columns = first..first + part.len();
            int8::restore(part, rows.scales[row], rows.shift, &scales[columns.clone()], &sums[columns]);
            self.epilogue.apply(row, first, part);
        };
        // SAFETY: as in `floats`; the quantised rows hold whole steps.
        unsafe { product.go(self.threads, &finish) }
    }
}

/// Adds the sum of each column of a matrix in rows to `out`, rows in order.
pub fn add_column_sums(x: Matrix, out: &mut [f32]) {
    const CHUNK: usize = 128;
    assert!(out.len() == x.columns && x.column_stride == 1);
    let sums = |index: usize, out: &mut [f32]| {
        let part = x.columns(index * CHUNK, out.len());
        for row in 0..part.rows {
            add(out, part.row(row));
        }
    };
    if x.rows * x.columns > 1 << 16 {
        team::chunks(out, CHUNK, sums);
    } else {
        out.chunks_mut(CHUNK).enumerate().for_each(|(index, out)| sums(index, out));
    }
}

#[cfg(test)]
pub(crate) mod tests;
