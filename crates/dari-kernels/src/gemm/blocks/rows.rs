//! Rows of activations as panels take them.

use super::formats::PART;
use super::panel::LANES;
use super::simd::Pair;
use crate::level::leveled;

/// Pairs of a part.
pub(super) const PAIRS: usize = PART / 2;

/// The largest whole number.
const MOST: f32 = 32767.0;

/// A few rows side by side: whole numbers of 16 bits with a scale for each part, at most 1/65534 of the
/// part's largest away from the numbers themselves.
pub(super) struct Rows {
    /// How many, with those that are only there to fill the loops: zeros.
    pub count: usize,
    /// `[parts, PAIRS, count]`, where products are by pairs.
    pub pairs: Vec<Pair>,
    /// By part, where they are by planes.
    pub planes: Vec<Planes>,
    /// `[parts, count]`.
    pub marks: Vec<Mark>,
}

/// How whole numbers lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Pairs,
    /// Of [`TALL`] rows.
    Planes,
}

/// Rows of a plane.
pub(super) const TALL: usize = 16;

/// A part of the rows: its whole numbers' high bytes, then the low ones.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Planes(pub [[[u8; PART]; TALL]; 2]);

/// What belongs to one part of a row.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    pub scale: f32,
    /// The sums of the first and the second half's whole numbers, and of all.
    pub sums: [i32; 3],
    /// The same of what they stand for.
    pub totals: [f32; 3],
}

impl Rows {
    /// Rows of whole parts, `inputs` long; `count` of them are given room for.
    pub fn new(count: usize, inputs: usize, order: Order, rows: &[&[f32]]) -> Rows {
        let parts = inputs / PART;
        let (pairs, planes) = match order {
            Order::Pairs => (parts, 0),
            Order::Planes => (0, parts),
        };
        assert!(planes == 0 || count == TALL);
        let mut all = Rows {
            count,
            pairs: vec![Pair::default(); pairs * PAIRS * count],
            planes: vec![Planes([[[0; PART]; TALL]; 2]); planes],
            marks: vec![Mark::default(); parts * count],
        };
        for (row, x) in rows.iter().enumerate() {
            prepare(x, row, &mut all);
        }
        all
    }
}

/// What one is worth where the largest of the numbers is [`MOST`], and what makes them so. Where one is no number
/// or endless, one is worth none, and with it the product.
#[inline(always)]
pub(super) fn scaling(x: &[f32]) -> [f32; 2] {
    // Of finite numbers without their signs the larger has the larger bits, and of others larger ones still.
    let mut lanes = [0u32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (lane, value) in lanes.iter_mut().zip(x) {
            *lane = (value.to_bits() & 0x7fff_ffff).max(*lane);
        }
    }
    let rest = rest.iter().map(|value| value.to_bits() & 0x7fff_ffff);
    let most = f32::from_bits(lanes.into_iter().chain(rest).fold(0, u32::max));
    let scale = if most.is_finite() { most / MOST } else { f32::NAN };
    [scale, if most > 0.0 { MOST / most } else { 0.0 }]
}

leveled! {
    fn prepare(x: &[f32], row: usize, to: &mut Rows) {
        let count = to.count;
        for (part, (x, marks)) in x.as_chunks::<PART>().0.iter().zip(to.marks.chunks_exact_mut(count)).enumerate() {
            let [scale, factor] = scaling(x);
            let mut wholes = [0i16; PART];
            for (whole, value) in wholes.iter_mut().zip(x) {
                // The nearest whole number, in the low bits: adding 1.5 * 2^23 leaves it there.
                *whole = (value * factor + 12_582_912.0).to_bits() as i16;
            }
            if let Some(Planes([high, low])) = to.planes.get_mut(part) {
                high[row] = wholes.map(|whole| (whole >> 8) as u8);
                low[row] = wholes.map(|whole| whole as u8);
            } else {
                let pairs = &mut to.pairs[part * PAIRS * count..][..PAIRS * count];
                for (pair, wholes) in wholes.as_chunks::<2>().0.iter().enumerate() {
                    pairs[pair * count + row] = Pair::new(wholes[0], wholes[1]);
                }
            }
            let [first, second] = [0, PART / 2].map(|at| {
                wholes[at..at + PART / 2].iter().map(|&whole| i32::from(whole)).sum::<i32>()
            });
            let sums = [first, second, first + second];
            marks[row] = Mark { scale, sums, totals: sums.map(|sum| sum as f32 * scale) };
        }
    }
}
