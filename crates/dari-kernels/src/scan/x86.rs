//! Products of codes and levels by AVX2 and AVX-512.

use std::arch::x86_64::*;

use super::product;

/// Bytes by which the next rows are fetched ahead: the hardware alone stops at each page.
const AHEAD: usize = 1024;

/// Defines the products of one width: codes are widened to i16, and pairs multiplied and
/// added to i32, which cannot overflow: a pair is at most 2 * 128 * 32767. One row after the
/// other: four at once share the loads of the query, and halve the speed out of memory.
macro_rules! products {
    ($name:ident, $features:literal, $width:literal, $four:literal, $half:ty, $whole:ty, $load_half:ident,
     $load:ident, $widen:ident, $zero:ident, $madd:ident, $add:ident, $total:expr) => {
        #[target_feature(enable = $features)]
        pub fn $name(codes: &[i8], levels: &[i16], out: &mut [i32]) {
            let term = |codes: &[i8; $width], levels: &[i16; $width]| {
                // SAFETY: reads the arrays' bytes; the loads need no alignment.
                let (codes, levels) = unsafe {
                    ($load_half(codes.as_ptr().cast::<$half>()), $load(levels.as_ptr().cast::<$whole>()))
                };
                $madd($widen(codes), levels)
            };
            let (long, levels_left) = levels.as_chunks::<$four>();
            let (short, last) = levels_left.as_chunks::<$width>();
            for (row, out) in codes.chunks_exact(levels.len()).zip(out) {
                let (row, left) = row.as_chunks::<$four>();
                let mut sums = [$zero(); 4];
                for (codes, levels) in row.iter().zip(long) {
                    // Reads nothing, wherever it points.
                    _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(AHEAD));
                    let (codes, _) = codes.as_chunks::<$width>();
                    let (levels, _) = levels.as_chunks::<$width>();
                    for ((sum, codes), levels) in sums.iter_mut().zip(codes).zip(levels) {
                        *sum = $add(*sum, term(codes, levels));
                    }
                }
                let (row, left) = left.as_chunks::<$width>();
                for ((sum, codes), levels) in sums.iter_mut().zip(row).zip(short) {
                    *sum = $add(*sum, term(codes, levels));
                }
                let [a, b, c, d] = sums;
                *out = $total($add($add(a, b), $add(c, d))) + product(left, last);
            }
        }
    };
}

products!(
    products_avx2,
    "avx2,fma",
    16,
    64,
    __m128i,
    __m256i,
    _mm_loadu_si128,
    _mm256_loadu_si256,
    _mm256_cvtepi8_epi16,
    _mm256_setzero_si256,
    _mm256_madd_epi16,
    _mm256_add_epi32,
    total_avx2
);
products!(
    products_avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    32,
    128,
    __m256i,
    __m512i,
    _mm256_loadu_si256,
    _mm512_loadu_si512,
    _mm512_cvtepi8_epi16,
    _mm512_setzero_si512,
    _mm512_madd_epi16,
    _mm512_add_epi32,
    _mm512_reduce_add_epi32
);

#[target_feature(enable = "avx2")]
#[inline]
fn total_avx2(lanes: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
    let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two));
    _mm_cvtsi128_si32(one)
}
