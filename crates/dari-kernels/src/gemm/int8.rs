//! Rows to whole numbers of 0..255, each row with a scale and an offset of its own.

use super::{Matrix, Threads};
use crate::level::{Level, leveled};
use crate::team;

/// Rows as the tiles of a level read them.
pub(super) enum Values {
    /// As they are, for portable code and VNNI.
    Bytes(Vec<u8>),
    /// In 16 bits, each four as 0, 2, 1, 3.
    #[cfg(target_arch = "x86_64")]
    Pairs(Vec<i16>),
    /// Less 128, for `sdot`.
    #[cfg(target_arch = "aarch64")]
    Signed(Vec<i8>),
}

/// Quantised rows: `x = scale * whole + offset`.
pub(super) struct Rows {
    pub values: Values,
    /// Scale and offset of each row.
    pub scales: Vec<[f32; 2]>,
    /// From row to row, in values.
    pub stride: usize,
    /// What was taken from every whole number.
    pub shift: i32,
}

/// Quantises the rows of `x` for a level.
pub(super) fn quantise(x: Matrix, level: Level, threads: Threads) -> Rows {
    let stride = x.columns.next_multiple_of(4);
    let mut scales = vec![[0.0; 2]; x.rows];
    let values = match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => {
            let mut values = vec![0i16; x.rows * stride];
            each(x, stride, threads, &mut values, &mut scales, row_pairs);
            Values::Pairs(values)
        }
        #[cfg(target_arch = "aarch64")]
        Level::Neon => {
            let mut values = vec![0i8; x.rows * stride];
            each(x, stride, threads, &mut values, &mut scales, row_signed);
            Values::Signed(values)
        }
        _ => {
            let mut values = vec![0u8; x.rows * stride];
            each(x, stride, threads, &mut values, &mut scales, row_bytes);
            Values::Bytes(values)
        }
    };
    let shift = if cfg!(target_arch = "aarch64") && level == Level::Neon { 128 } else { 0 };
    Rows { values, scales, stride, shift }
}

fn each<T: Send>(
    x: Matrix,
    stride: usize,
    threads: Threads,
    values: &mut [T],
    scales: &mut [[f32; 2]],
    row: fn(&[f32], &mut [T]) -> [f32; 2],
) {
    const ROWS: usize = 8;
    let part = |index: usize, values: &mut [T], scales: &mut [[f32; 2]]| {
        for (i, (values, scale)) in values.chunks_exact_mut(stride).zip(scales).enumerate() {
            *scale = row(x.row(index * ROWS + i), values);
        }
    };
    if stride == 0 {
        return;
    }
    match threads {
        Threads::Pool if x.rows > ROWS => team::chunks_of_two((values, ROWS * stride), (scales, ROWS), part),
        _ => {
            let parts = values.chunks_mut(ROWS * stride).zip(scales.chunks_mut(ROWS)).enumerate();
            parts.for_each(|(index, (values, scales))| part(index, values, scales));
        }
    }
}

/// The row's step and least value; both not numbers where the row holds one that is none.
#[inline(always)]
fn range(x: &[f32]) -> [f32; 2] {
    let (mut least, mut most, mut sound) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16], [0.0f32; 16]);
    let mut lanes = |part: &[f32]| {
        for (i, &value) in part.iter().enumerate() {
            least[i] = if value < least[i] { value } else { least[i] };
            most[i] = if value > most[i] { value } else { most[i] };
            // Stays zero for finite values.
            sound[i] += value * 0.0;
        }
    };
    let parts = x.chunks_exact(16);
    lanes(parts.remainder());
    parts.for_each(lanes);
    let least = least.into_iter().fold(f32::INFINITY, f32::min);
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if sound.iter().any(|lane| lane.is_nan()) {
        return [f32::NAN; 2];
    }
    [(most - least) / 255.0, least]
}

/// The nearest whole number, in the low bits: adding 1.5 * 2^23 leaves it there.
#[inline(always)]
fn whole(value: f32, least: f32, reciprocal: f32) -> u32 {
    ((value - least) * reciprocal + 12_582_912.0).to_bits() & 0xff
}

macro_rules! row {
    ($name:ident, $type:ty, $order:expr, $value:expr) => {
        leveled! {
            fn $name(x: &[f32], out: &mut [$type]) -> [f32; 2] {
                let [scale, least] = range(x);
                let reciprocal = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                let value: fn(u32) -> $type = $value;
                let order: [usize; 4] = $order;
                let (fours, rest) = x.as_chunks::<4>();
                for (out, four) in out.chunks_exact_mut(4).zip(fours) {
                    for i in 0..4 {
                        out[i] = value(whole(four[order[i]], least, reciprocal));
                    }
                }
                if !rest.is_empty() && let Some(out) = out.chunks_exact_mut(4).nth(fours.len()) {
                    // The weights there are zeros.
                    for i in 0..4 {
                        out[i] = rest.get(order[i]).map_or(0, |&x| value(whole(x, least, reciprocal)));
                    }
                }
                [scale, least]
            }
        }
    };
}

row!(row_bytes, u8, [0, 1, 2, 3], |whole| whole as u8);
#[cfg(target_arch = "x86_64")]
row!(row_pairs, i16, [0, 2, 1, 3], |whole| whole as i16);
#[cfg(target_arch = "aarch64")]
row!(row_signed, i8, [0, 1, 2, 3], |whole| (whole as i32 - 128) as i8);

leveled! {
    /// Sums of whole numbers, which lie in the bits of `out`, to the numbers that they stand for.
    pub(super) fn restore(out: &mut [f32], row: [f32; 2], shift: i32, scales: &[f32], sums: &[i32]) {
        let [scale, offset] = row;
        for ((out, &weight), &sum) in out.iter_mut().zip(scales).zip(sums) {
            let whole = (out.to_bits() as i32).wrapping_add(sum.wrapping_mul(shift));
            *out = whole as f32 * (scale * weight) + sum as f32 * (offset * weight);
        }
    }
}
