//! The loops over blocks: numbers written out, and products with one row of activations.

use super::formats::{Format, PART};
use super::simd::{Portable, Simd};
use crate::level::{Level, leveled};

/// Rows of activations up to which each is multiplied with the blocks themselves.
pub(super) const FEW: usize = 4;
/// Lanes of a sum.
const LANES: usize = 8;

/// A row of activations as a product with blocks takes it: whole numbers of 16 bits with a scale for each
/// [`PART`], at most 1/65534 of the part's largest away from the number itself, and their sums as they were.
pub(super) struct Row(Vec<RowPart>);

#[derive(Clone, Copy)]
struct RowPart {
    wholes: [[i16; PART / 2]; 2],
    scale: f32,
    /// Of either half.
    sums: [f32; 2],
}

impl Row {
    /// A row of whole parts.
    pub fn new(x: &[f32]) -> Row {
        let mut parts = Vec::with_capacity(x.len() / PART);
        prepare(x, &mut parts);
        Row(parts)
    }

    fn parts(&self) -> &[RowPart] {
        &self.0
    }
}

leveled! {
    fn prepare(x: &[f32], parts: &mut Vec<RowPart>) {
        for x in x.as_chunks::<PART>().0 {
            let mut most = 0.0f32;
            for value in x {
                let size = value.abs();
                most = if size > most { size } else { most };
            }
            // What is no number or endless makes the part's scale so, and with it the product.
            let sums = [0, PART / 2].map(|at| x[at..at + PART / 2].iter().sum::<f32>());
            let sound = (sums[0] + sums[1]) * 0.0;
            let factor = if most > 0.0 { 32767.0 / most } else { 0.0 };
            let mut wholes = [[0; PART / 2]; 2];
            for (i, value) in x.iter().enumerate() {
                // The nearest whole number, in the low bits: adding 1.5 * 2^23 leaves it there.
                wholes[i / (PART / 2)][i % (PART / 2)] = (value * factor + 12_582_912.0).to_bits() as i16;
            }
            parts.push(RowPart { wholes, scale: most / 32767.0 + sound, sums });
        }
    }
}

/// A format's loops.
pub(super) struct Kernels {
    /// The numbers of a run of blocks, which are as many as there is room for.
    pub unpack: fn(&[u8], &mut [f32]),
    /// The products of each row of blocks with one row of activations.
    pub dots: fn(&[u8], &Row, &mut [f32]),
}

/// Those of this level.
pub(super) fn kernels<F: Format<BYTES>, const BYTES: usize>() -> Kernels {
    match Level::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY (of both calls): a current level is available on this very machine.
        Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => Kernels {
            unpack: |bytes, out| unsafe { avx512::unpack::<F, BYTES>(bytes, out) },
            dots: |bytes, x, out| unsafe { avx512::dots::<F, BYTES>(bytes, x, out) },
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Kernels {
            unpack: |bytes, out| unsafe { avx2::unpack::<F, BYTES>(bytes, out) },
            dots: |bytes, x, out| unsafe { avx2::dots::<F, BYTES>(bytes, x, out) },
        },
        _ => Kernels { unpack: unpack::<Portable, F, BYTES>, dots: dots::<Portable, F, BYTES> },
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! level {
    ($name:ident, $simd:ident, $features:literal) => {
        mod $name {
            use super::{Format, Row};
            use crate::gemm::blocks::simd::$simd;

            #[target_feature(enable = $features)]
            pub fn unpack<F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
                super::unpack::<$simd, F, BYTES>(bytes, out);
            }

            #[target_feature(enable = $features)]
            pub fn dots<F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], x: &Row, out: &mut [f32]) {
                super::dots::<$simd, F, BYTES>(bytes, x, out);
            }
        }
    };
}
// The same operations: 32 registers and logic of three operands make Q6_K 1.7 times as quick, the rest up to 1.2 times.
#[cfg(target_arch = "x86_64")]
level!(avx512, Avx2, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
level!(avx2, Avx2, "avx2,fma,f16c");

#[inline(always)]
fn unpack<S: Simd, F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
    let parts = out.as_chunks_mut::<PART>().0;
    for (block, parts) in bytes.as_chunks::<BYTES>().0.iter().zip(parts.chunks_exact_mut(F::PARTS)) {
        for (part, out) in parts.iter_mut().enumerate() {
            let mut out = out.as_chunks_mut::<LANES>().0.iter_mut();
            for (half, words) in F::wholes::<S>(block, part).into_iter().enumerate() {
                let [scale, least] = F::scale::<S>(block, part, half).map(S::same);
                for (numbers, out) in S::numbers_of_words(words).into_iter().zip(&mut out) {
                    *out = S::store(S::product(numbers, scale, least));
                }
            }
        }
    }
}

/// One row of blocks after the other: several at once would ask memory for several places, which its
/// prefetching follows less well, and fill more registers than there are where scales are many.
#[inline(always)]
fn dots<S: Simd, F: Format<BYTES>, const BYTES: usize>(bytes: &[u8], x: &Row, out: &mut [f32]) {
    let (blocks, parts) = (bytes.as_chunks::<BYTES>().0, x.parts());
    let row = parts.len() / F::PARTS;
    for (i, out) in out.iter_mut().enumerate() {
        *out = dot::<S, F, BYTES>(&blocks[i * row..][..row], parts);
    }
}

#[inline(always)]
fn dot<S: Simd, F: Format<BYTES>, const BYTES: usize>(blocks: &[[u8; BYTES]], x: &[RowPart]) -> f32 {
    let (mut sums, mut least) = (S::same(0.0), 0.0);
    for (block, x) in blocks.iter().zip(x.chunks_exact(F::PARTS)) {
        for (part, x) in x.iter().enumerate() {
            let [a, b] = F::wholes::<S>(block, part);
            let [a, b] = [S::pairs(a, S::words(&x.wholes[0])), S::pairs(b, S::words(&x.wholes[1]))];
            if F::HALVES {
                for (half, wholes) in [a, b].into_iter().enumerate() {
                    let [scale, lowest] = F::scale::<S>(block, part, half);
                    sums = S::product(S::numbers(wholes), S::same(scale * x.scale), sums);
                    least = S::one_product(lowest, x.sums[half], least);
                }
            } else {
                let [scale, lowest] = F::scale::<S>(block, part, 0);
                sums = S::product(S::numbers(S::sum(a, b)), S::same(scale * x.scale), sums);
                least = S::one_product(lowest, x.sums[0] + x.sums[1], least);
            }
        }
    }
    fold(S::store(sums)) + least
}

/// The lanes' sum, pairwise.
#[inline(always)]
fn fold(lanes: [f32; LANES]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    four[0] + four[2] + (four[1] + four[3])
}
