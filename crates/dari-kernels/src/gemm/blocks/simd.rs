//! The few operations of which products with panels are made: sixteen lanes, an output each.

/// One machine's or another's.
///
/// What needs an instruction set is only called where it is there: from functions compiled for it.
pub(super) trait Simd {
    /// Two whole numbers of 16 bits a lane.
    type Words: Copy;
    /// A whole number of 32 bits a lane.
    type Wholes: Copy;
    /// A number of f32 a lane.
    type Numbers: Copy;

    fn words(from: &[u8; 64]) -> Self::Words;
    fn put(a: Self::Words, to: &mut [u8; 64]);
    /// The bits that `mask` has.
    fn masked(a: Self::Words, mask: u16) -> Self::Words;
    fn or(a: Self::Words, b: Self::Words) -> Self::Words;
    fn right(a: Self::Words, by: usize) -> Self::Words;
    fn left(a: Self::Words, by: usize) -> Self::Words;
    /// Every word less so much.
    fn less(a: Self::Words, by: i16) -> Self::Words;
    /// The first word of each lane, which has no sign, and the second.
    fn each(a: Self::Words) -> [Self::Wholes; 2];

    /// `sum`, and in each lane the products of its words with the pair that every lane is given.
    fn products(sum: Self::Wholes, a: Self::Words, pair: Pair) -> Self::Wholes;
    fn whole(whole: i32) -> Self::Wholes;

    fn bytes(from: &[u8; 16]) -> Self::Numbers;
    fn halves(from: &[u8; 32]) -> Self::Numbers;
    fn same(number: f32) -> Self::Numbers;
    fn numbers(a: Self::Wholes) -> Self::Numbers;
    fn times(a: Self::Numbers, b: Self::Numbers) -> Self::Numbers;
    /// `a b + c`.
    fn product(a: Self::Numbers, b: Self::Numbers, c: Self::Numbers) -> Self::Numbers;
    fn load(from: &[f32; 16]) -> Self::Numbers;
    fn store(a: Self::Numbers) -> [f32; 16];
    /// The nearest whole numbers of two lanes each, which 16 bits can hold.
    fn nearest(first: Self::Numbers, second: Self::Numbers) -> [Pair; 16];
}

/// Two whole numbers of 16 bits with sign.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(super) struct Pair(i32);

impl Pair {
    pub const NONE: Pair = Pair(0);

    pub fn new(first: i16, second: i16) -> Pair {
        Pair(i32::from(first as u16) | i32::from(second) << 16)
    }

    fn words(self) -> [i16; 2] {
        [self.0 as i16, (self.0 >> 16) as i16]
    }
}

/// By arrays, whatever the compiler makes of them.
pub(super) struct Portable;

impl Simd for Portable {
    type Words = [[u16; 2]; 16];
    type Wholes = [i32; 16];
    type Numbers = [f32; 16];

    #[inline(always)]
    fn words(from: &[u8; 64]) -> Self::Words {
        let words = from.as_chunks::<4>().0;
        std::array::from_fn(|i| {
            let [a, b, c, d] = words[i];
            [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
        })
    }

    #[inline(always)]
    fn put(a: Self::Words, to: &mut [u8; 64]) {
        for (to, word) in to.as_chunks_mut().0.iter_mut().zip(a.as_flattened()) {
            *to = word.to_le_bytes();
        }
    }

    #[inline(always)]
    fn masked(a: Self::Words, mask: u16) -> Self::Words {
        a.map(|words| words.map(|word| word & mask))
    }

    #[inline(always)]
    fn or(a: Self::Words, b: Self::Words) -> Self::Words {
        std::array::from_fn(|i| [a[i][0] | b[i][0], a[i][1] | b[i][1]])
    }

    #[inline(always)]
    fn right(a: Self::Words, by: usize) -> Self::Words {
        a.map(|words| words.map(|word| word >> by))
    }

    #[inline(always)]
    fn left(a: Self::Words, by: usize) -> Self::Words {
        a.map(|words| words.map(|word| word << by))
    }

    #[inline(always)]
    fn less(a: Self::Words, by: i16) -> Self::Words {
        a.map(|words| words.map(|word| word.wrapping_sub(by as u16)))
    }

    #[inline(always)]
    fn each(a: Self::Words) -> [[i32; 16]; 2] {
        [0, 1].map(|which| a.map(|words| i32::from(words[which])))
    }

    #[inline(always)]
    fn products(sum: [i32; 16], a: Self::Words, pair: Pair) -> [i32; 16] {
        let [first, second] = pair.words();
        let product = |word: u16, of: i16| i32::from(word as i16) * i32::from(of);
        std::array::from_fn(|i| sum[i] + product(a[i][0], first) + product(a[i][1], second))
    }

    #[inline(always)]
    fn whole(whole: i32) -> [i32; 16] {
        [whole; 16]
    }

    #[inline(always)]
    fn bytes(from: &[u8; 16]) -> [f32; 16] {
        from.map(|byte| f32::from(byte as i8))
    }

    /// Without a branch: exponent and fraction where f32 has them, then the difference of the exponents'
    /// zeros as a factor, which keeps numbers below the normal ones right.
    #[inline(always)]
    fn halves(from: &[u8; 32]) -> [f32; 16] {
        let halves = from.as_chunks::<2>().0;
        std::array::from_fn(|i| {
            let bits = u32::from(u16::from_le_bytes(halves[i]));
            let size = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
            let endless = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
            f32::from_bits(size.to_bits() | endless | (bits & 0x8000) << 16)
        })
    }

    #[inline(always)]
    fn same(number: f32) -> [f32; 16] {
        [number; 16]
    }

    #[inline(always)]
    fn numbers(a: [i32; 16]) -> [f32; 16] {
        a.map(|whole| whole as f32)
    }

    #[inline(always)]
    fn times(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn product(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| {
            if cfg!(target_arch = "aarch64") { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] }
        })
    }

    #[inline(always)]
    fn load(from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(a: [f32; 16]) -> [f32; 16] {
        a
    }

    #[inline(always)]
    fn nearest(first: [f32; 16], second: [f32; 16]) -> [Pair; 16] {
        std::array::from_fn(|i| {
            Pair::new(first[i].round_ties_even() as i16, second[i].round_ties_even() as i16)
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Pair, Simd};

    /// With AVX-512's F, BW and VL; and VNNI, where it says so.
    pub struct Avx512<const VNNI: bool>;

    // SAFETY (of every call): whoever uses it runs at a level that has these instructions.
    impl<const VNNI: bool> Simd for Avx512<VNNI> {
        type Words = __m512i;
        type Wholes = __m512i;
        type Numbers = __m512;

        #[inline(always)]
        fn words(from: &[u8; 64]) -> __m512i {
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn put(a: __m512i, to: &mut [u8; 64]) {
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), a) }
        }

        #[inline(always)]
        fn masked(a: __m512i, mask: u16) -> __m512i {
            unsafe { _mm512_and_si512(a, _mm512_set1_epi16(mask as i16)) }
        }

        #[inline(always)]
        fn or(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_or_si512(a, b) }
        }

        #[inline(always)]
        fn right(a: __m512i, by: usize) -> __m512i {
            unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn left(a: __m512i, by: usize) -> __m512i {
            unsafe { _mm512_sll_epi16(a, _mm_cvtsi32_si128(by as i32)) }
        }

        #[inline(always)]
        fn less(a: __m512i, by: i16) -> __m512i {
            unsafe { _mm512_sub_epi16(a, _mm512_set1_epi16(by)) }
        }

        #[inline(always)]
        fn each(a: __m512i) -> [__m512i; 2] {
            unsafe { [_mm512_and_si512(a, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32::<16>(a)] }
        }

        #[inline(always)]
        fn products(sum: __m512i, a: __m512i, pair: Pair) -> __m512i {
            unsafe {
                let pair = _mm512_set1_epi32(pair.0);
                match VNNI {
                    true => products_added(sum, a, pair),
                    false => _mm512_add_epi32(sum, _mm512_madd_epi16(a, pair)),
                }
            }
        }

        #[inline(always)]
        fn whole(whole: i32) -> __m512i {
            unsafe { _mm512_set1_epi32(whole) }
        }

        #[inline(always)]
        fn bytes(from: &[u8; 16]) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
        }

        #[inline(always)]
        fn halves(from: &[u8; 32]) -> __m512 {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn same(number: f32) -> __m512 {
            unsafe { _mm512_set1_ps(number) }
        }

        #[inline(always)]
        fn numbers(a: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(a) }
        }

        #[inline(always)]
        fn times(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn product(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn load(from: &[f32; 16]) -> __m512 {
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn store(a: __m512) -> [f32; 16] {
            let mut out = [0.0; 16];
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), a) };
            out
        }

        #[inline(always)]
        fn nearest(first: __m512, second: __m512) -> [Pair; 16] {
            let mut out = [Pair::NONE; 16];
            unsafe {
                let (first, second) = (_mm512_cvtps_epi32(first), _mm512_cvtps_epi32(second));
                let pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, first, _mm512_slli_epi32::<16>(second));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
            }
            out
        }
    }

    /// `_mm512_dpwssd_epi32`. Not by its intrinsic: the compiler would take that apart again, for a shorter way to
    /// the sum, and with many rows it is the number of instructions that counts.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn products_added(mut sum: __m512i, a: __m512i, pair: __m512i) -> __m512i {
        // SAFETY: one instruction, which is there, on registers alone.
        unsafe {
            std::arch::asm!(
                "vpdpwssd {sum}, {a}, {pair}",
                sum = inout(zmm_reg) sum,
                a = in(zmm_reg) a,
                pair = in(zmm_reg) pair,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    /// Two halves of eight lanes, with AVX2, FMA and F16C. Written out: a closure would not be compiled for them.
    pub struct Avx2;

    // SAFETY (of every call): as above.
    impl Simd for Avx2 {
        type Words = [__m256i; 2];
        type Wholes = [__m256i; 2];
        type Numbers = [__m256; 2];

        #[inline(always)]
        fn words(from: &[u8; 64]) -> [__m256i; 2] {
            let from: *const __m256i = from.as_ptr().cast();
            unsafe { [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))] }
        }

        #[inline(always)]
        fn put(a: [__m256i; 2], to: &mut [u8; 64]) {
            let to: *mut __m256i = to.as_mut_ptr().cast();
            unsafe {
                _mm256_storeu_si256(to, a[0]);
                _mm256_storeu_si256(to.add(1), a[1]);
            }
        }

        #[inline(always)]
        fn masked(a: [__m256i; 2], mask: u16) -> [__m256i; 2] {
            unsafe {
                let mask = _mm256_set1_epi16(mask as i16);
                [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
            }
        }

        #[inline(always)]
        fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
        }

        #[inline(always)]
        fn right(a: [__m256i; 2], by: usize) -> [__m256i; 2] {
            unsafe {
                let by = _mm_cvtsi32_si128(by as i32);
                [_mm256_srl_epi16(a[0], by), _mm256_srl_epi16(a[1], by)]
            }
        }

        #[inline(always)]
        fn left(a: [__m256i; 2], by: usize) -> [__m256i; 2] {
            unsafe {
                let by = _mm_cvtsi32_si128(by as i32);
                [_mm256_sll_epi16(a[0], by), _mm256_sll_epi16(a[1], by)]
            }
        }

        #[inline(always)]
        fn less(a: [__m256i; 2], by: i16) -> [__m256i; 2] {
            unsafe {
                let by = _mm256_set1_epi16(by);
                [_mm256_sub_epi16(a[0], by), _mm256_sub_epi16(a[1], by)]
            }
        }

        #[inline(always)]
        fn each(a: [__m256i; 2]) -> [[__m256i; 2]; 2] {
            unsafe {
                let first = _mm256_set1_epi32(0xffff);
                [
                    [_mm256_and_si256(a[0], first), _mm256_and_si256(a[1], first)],
                    [_mm256_srli_epi32::<16>(a[0]), _mm256_srli_epi32::<16>(a[1])],
                ]
            }
        }

        #[inline(always)]
        fn products(sum: [__m256i; 2], a: [__m256i; 2], pair: Pair) -> [__m256i; 2] {
            unsafe {
                let pair = _mm256_set1_epi32(pair.0);
                [
                    _mm256_add_epi32(sum[0], _mm256_madd_epi16(a[0], pair)),
                    _mm256_add_epi32(sum[1], _mm256_madd_epi16(a[1], pair)),
                ]
            }
        }

        #[inline(always)]
        fn whole(whole: i32) -> [__m256i; 2] {
            unsafe { [_mm256_set1_epi32(whole); 2] }
        }

        #[inline(always)]
        fn bytes(from: &[u8; 16]) -> [__m256; 2] {
            unsafe {
                let all = _mm_loadu_si128(from.as_ptr().cast());
                [
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)),
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(all))),
                ]
            }
        }

        #[inline(always)]
        fn halves(from: &[u8; 32]) -> [__m256; 2] {
            let from: *const __m128i = from.as_ptr().cast();
            unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))] }
        }

        #[inline(always)]
        fn same(number: f32) -> [__m256; 2] {
            unsafe { [_mm256_set1_ps(number); 2] }
        }

        #[inline(always)]
        fn numbers(a: [__m256i; 2]) -> [__m256; 2] {
            unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
        }

        #[inline(always)]
        fn times(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn product(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn load(from: &[f32; 16]) -> [__m256; 2] {
            unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
        }

        #[inline(always)]
        fn store(a: [__m256; 2]) -> [f32; 16] {
            let mut out = [0.0; 16];
            let to = out.as_mut_ptr();
            unsafe {
                _mm256_storeu_ps(to, a[0]);
                _mm256_storeu_ps(to.add(8), a[1]);
            }
            out
        }

        #[inline(always)]
        fn nearest(first: [__m256; 2], second: [__m256; 2]) -> [Pair; 16] {
            let mut out = [Pair::NONE; 16];
            let to: *mut __m256i = out.as_mut_ptr().cast();
            for half in 0..2 {
                unsafe {
                    let [first, second] = [_mm256_cvtps_epi32(first[half]), _mm256_cvtps_epi32(second[half])];
                    let pairs = _mm256_blend_epi16::<0xaa>(first, _mm256_slli_epi32::<16>(second));
                    _mm256_storeu_si256(to.add(half), pairs);
                }
            }
            out
        }
    }
}
