//! The few operations of which formats are made: sixteen words, eight numbers.

/// One machine's or another's.
///
/// What needs an instruction set is only called where it is there: from functions compiled for it.
pub(super) trait Simd {
    /// Sixteen of 16 bits, with sign.
    type Words: Copy;
    /// Eight whole numbers of 32 bits.
    type Wholes: Copy;
    /// Eight numbers of f32.
    type Numbers: Copy;

    fn words(from: &[i16; 16]) -> Self::Words;
    /// Bytes as they are.
    fn unsigned(from: &[u8; 16]) -> Self::Words;
    /// Bytes whose highest bit is their sign.
    fn signed(from: &[u8; 16]) -> Self::Words;
    /// The bits that `mask` has.
    fn masked(a: Self::Words, mask: i16) -> Self::Words;
    fn or(a: Self::Words, b: Self::Words) -> Self::Words;
    fn right(a: Self::Words, by: u32) -> Self::Words;
    fn left(a: Self::Words, by: u32) -> Self::Words;
    /// `word` where a bit is set, from the lowest bit on; 0 elsewhere.
    fn where_set(bits: u16, word: i16) -> Self::Words;

    /// Products of words, of two neighbours each their sum.
    fn pairs(a: Self::Words, b: Self::Words) -> Self::Wholes;
    fn sum(a: Self::Wholes, b: Self::Wholes) -> Self::Wholes;

    /// Two numbers of f16 that lie one behind the other.
    fn halves(from: [u8; 4]) -> [f32; 2];
    /// `a b + c`.
    fn one_product(a: f32, b: f32, c: f32) -> f32;
    fn same(number: f32) -> Self::Numbers;
    fn numbers(a: Self::Wholes) -> Self::Numbers;
    fn numbers_of_words(a: Self::Words) -> [Self::Numbers; 2];
    /// `a b + c`.
    fn product(a: Self::Numbers, b: Self::Numbers, c: Self::Numbers) -> Self::Numbers;
    fn store(a: Self::Numbers) -> [f32; 8];
}

/// By arrays, whatever the compiler makes of them.
pub(super) struct Portable;

impl Simd for Portable {
    type Words = [i16; 16];
    type Wholes = [i32; 8];
    type Numbers = [f32; 8];

    #[inline(always)]
    fn words(from: &[i16; 16]) -> [i16; 16] {
        *from
    }

    #[inline(always)]
    fn unsigned(from: &[u8; 16]) -> [i16; 16] {
        from.map(i16::from)
    }

    #[inline(always)]
    fn signed(from: &[u8; 16]) -> [i16; 16] {
        from.map(|byte| i16::from(byte as i8))
    }

    #[inline(always)]
    fn masked(a: [i16; 16], mask: i16) -> [i16; 16] {
        a.map(|word| word & mask)
    }

    #[inline(always)]
    fn or(a: [i16; 16], b: [i16; 16]) -> [i16; 16] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn right(a: [i16; 16], by: u32) -> [i16; 16] {
        a.map(|word| (word as u16 >> by) as i16)
    }

    #[inline(always)]
    fn left(a: [i16; 16], by: u32) -> [i16; 16] {
        a.map(|word| word << by)
    }

    #[inline(always)]
    fn where_set(bits: u16, word: i16) -> [i16; 16] {
        std::array::from_fn(|i| if bits >> i & 1 == 1 { word } else { 0 })
    }

    #[inline(always)]
    fn pairs(a: [i16; 16], b: [i16; 16]) -> [i32; 8] {
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        std::array::from_fn(|i| product(2 * i) + product(2 * i + 1))
    }

    #[inline(always)]
    fn sum(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    /// Without a branch: exponent and fraction where f32 has them, then the difference of the exponents'
    /// zeros as a factor, which keeps numbers below the normal ones right.
    #[inline(always)]
    fn halves(from: [u8; 4]) -> [f32; 2] {
        let half = |low: u8, high: u8| {
            let bits = u32::from(u16::from_le_bytes([low, high]));
            let size = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
            let endless = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
            f32::from_bits(size.to_bits() | endless | (bits & 0x8000) << 16)
        };
        [half(from[0], from[1]), half(from[2], from[3])]
    }

    #[inline(always)]
    fn one_product(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }

    #[inline(always)]
    fn same(number: f32) -> [f32; 8] {
        [number; 8]
    }

    #[inline(always)]
    fn numbers(a: [i32; 8]) -> [f32; 8] {
        a.map(|whole| whole as f32)
    }

    #[inline(always)]
    fn numbers_of_words(a: [i16; 16]) -> [[f32; 8]; 2] {
        [0, 8].map(|at| std::array::from_fn(|i| f32::from(a[at + i])))
    }

    #[inline(always)]
    fn product(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| Self::one_product(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn store(a: [f32; 8]) -> [f32; 8] {
        a
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Avx2;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// 256 bits also where there are 512: three ports take them instead of two, and memory is the bound.
    pub struct Avx2;

    // SAFETY (of every call): whoever uses it runs at a level that has AVX2, FMA and F16C.
    impl Simd for Avx2 {
        type Words = __m256i;
        type Wholes = __m256i;
        type Numbers = __m256;

        #[inline(always)]
        fn words(from: &[i16; 16]) -> __m256i {
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn unsigned(from: &[u8; 16]) -> __m256i {
            unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn signed(from: &[u8; 16]) -> __m256i {
            unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn masked(a: __m256i, mask: i16) -> __m256i {
            unsafe { _mm256_and_si256(a, _mm256_set1_epi16(mask)) }
        }

        #[inline(always)]
        fn or(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_or_si256(a, b) }
        }

        #[inline(always)]
        fn right(a: __m256i, by: u32) -> __m256i {
            unsafe { _mm256_srl_epi16(a, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn left(a: __m256i, by: u32) -> __m256i {
            unsafe { _mm256_sll_epi16(a, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn where_set(bits: u16, word: i16) -> __m256i {
            unsafe {
                let own = _mm256_setr_epi16(
                    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768,
                );
                let own_bits = _mm256_and_si256(_mm256_set1_epi16(bits as i16), own);
                _mm256_and_si256(_mm256_cmpeq_epi16(own_bits, own), _mm256_set1_epi16(word))
            }
        }

        #[inline(always)]
        fn pairs(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_madd_epi16(a, b) }
        }

        #[inline(always)]
        fn sum(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_add_epi32(a, b) }
        }

        #[inline(always)]
        fn halves(from: [u8; 4]) -> [f32; 2] {
            unsafe {
                let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(from)));
                [_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both))]
            }
        }

        #[inline(always)]
        fn one_product(a: f32, b: f32, c: f32) -> f32 {
            unsafe { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
        }

        #[inline(always)]
        fn same(number: f32) -> __m256 {
            unsafe { _mm256_set1_ps(number) }
        }

        #[inline(always)]
        fn numbers(a: __m256i) -> __m256 {
            unsafe { _mm256_cvtepi32_ps(a) }
        }

        #[inline(always)]
        fn numbers_of_words(a: __m256i) -> [__m256; 2] {
            unsafe {
                [_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)]
                    .map(|half| _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half)))
            }
        }

        #[inline(always)]
        fn product(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn store(a: __m256) -> [f32; 8] {
            let mut out = [0.0; 8];
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) };
            out
        }
    }
}
