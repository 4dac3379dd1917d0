//! What a block's bytes stand for, one type a format. A block's numbers come in parts of 32, two halves that
//! lie in registers.

use super::simd::Simd;

/// Numbers of a part.
pub(super) const PART: usize = 32;

/// A format by its block: `BYTES` for `PARTS` times [`PART`] numbers, each `whole * scale + least`.
pub(super) trait Format<const BYTES: usize> {
    const PARTS: usize;
    /// Whether the halves of a part have a scale and a minimum each.
    const HALVES: bool = false;

    /// One part's whole numbers, in halves.
    fn wholes<S: Simd>(block: &[u8; BYTES], part: usize) -> [S::Words; 2];

    /// Scale and minimum of a part, or of one of its halves.
    fn scale<S: Simd>(block: &[u8; BYTES], part: usize, half: usize) -> [f32; 2];
}

/// `N` of the bytes.
#[inline(always)]
fn some<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..at + N].first_chunk().expect("N bytes")
}

/// The number of f16 at a place.
#[inline(always)]
fn half<S: Simd>(block: &[u8], at: usize) -> f32 {
    S::halves([block[at], block[at + 1], 0, 0])[0]
}

/// Those of two places, one behind the other.
#[inline(always)]
fn halves<S: Simd>(block: &[u8], at: usize) -> [f32; 2] {
    S::halves(*some(block, at))
}

/// Sixteen bytes' low nibbles and their high ones.
#[inline(always)]
fn nibbles<S: Simd>(block: &[u8], at: usize) -> [S::Words; 2] {
    let both = S::unsigned(some(block, at));
    [S::masked(both, 15), S::right(both, 4)]
}

/// Bits of 32 bytes: those from `from` on that the mask has.
#[inline(always)]
fn bits<S: Simd>(block: &[u8], at: usize, from: usize, mask: i16) -> [S::Words; 2] {
    [at, at + 16].map(|at| S::masked(S::right(S::unsigned(some(block, at)), from as u32), mask))
}

/// Lower bits, and higher ones moved to `place`.
#[inline(always)]
fn joined<S: Simd>(low: [S::Words; 2], high: [S::Words; 2], place: u32) -> [S::Words; 2] {
    [0, 1].map(|half| S::or(low[half], S::left(high[half], place)))
}

pub(super) struct Q4_0;

impl Format<18> for Q4_0 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 18], _: usize) -> [S::Words; 2] {
        nibbles::<S>(block, 2)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 18], _: usize, _: usize) -> [f32; 2] {
        let scale = half::<S>(block, 0);
        [scale, -8.0 * scale]
    }
}

pub(super) struct Q4_1;

impl Format<20> for Q4_1 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 20], _: usize) -> [S::Words; 2] {
        nibbles::<S>(block, 4)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 20], _: usize, _: usize) -> [f32; 2] {
        halves::<S>(block, 0)
    }
}

/// A word of 32 fifth bits, and nibbles.
#[inline(always)]
fn fives<S: Simd>(block: &[u8], at: usize) -> [S::Words; 2] {
    let fifth = u32::from_le_bytes(*some(block, at));
    let [low, high] = nibbles::<S>(block, at + 4);
    [S::or(low, S::where_set(fifth as u16, 16)), S::or(high, S::where_set((fifth >> 16) as u16, 16))]
}

pub(super) struct Q5_0;

impl Format<22> for Q5_0 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 22], _: usize) -> [S::Words; 2] {
        fives::<S>(block, 2)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 22], _: usize, _: usize) -> [f32; 2] {
        let scale = half::<S>(block, 0);
        [scale, -16.0 * scale]
    }
}

pub(super) struct Q5_1;

impl Format<24> for Q5_1 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 24], _: usize) -> [S::Words; 2] {
        fives::<S>(block, 4)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 24], _: usize, _: usize) -> [f32; 2] {
        halves::<S>(block, 0)
    }
}

pub(super) struct Q8_0;

impl Format<34> for Q8_0 {
    const PARTS: usize = 1;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 34], _: usize) -> [S::Words; 2] {
        [2, 18].map(|at| S::signed(some(block, at)))
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 34], _: usize, _: usize) -> [f32; 2] {
        [half::<S>(block, 0), 0.0]
    }
}

/// Two bits a number; of each sixteen a scale and a minimum, four bits each.
pub(super) struct Q2K;

impl Format<84> for Q2K {
    const PARTS: usize = 8;
    const HALVES: bool = true;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 84], part: usize) -> [S::Words; 2] {
        bits::<S>(block, 16 + 32 * (part / 4), 2 * (part % 4), 3)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 84], part: usize, half: usize) -> [f32; 2] {
        let ([scale, least], own) = (halves::<S>(block, 80), block[2 * part + half]);
        [scale * f32::from(own & 15), -least * f32::from(own >> 4)]
    }
}

/// Three bits a number, the third apart; of each sixteen a scale of six bits.
pub(super) struct Q3K;

impl Format<110> for Q3K {
    const PARTS: usize = 8;
    const HALVES: bool = true;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 110], part: usize) -> [S::Words; 2] {
        let low = bits::<S>(block, 32 + 32 * (part / 4), 2 * (part % 4), 3);
        joined::<S>(low, bits::<S>(block, 0, part, 1), 2)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 110], part: usize, half: usize) -> [f32; 2] {
        let (scales, at): (&[u8; 12], usize) = (some(block, 96), 2 * part + half);
        let low = if at < 8 { scales[at] & 15 } else { scales[at - 8] >> 4 };
        let high = scales[8 + at % 4] >> (2 * (at / 4)) & 3;
        let scale = self::half::<S>(block, 108) * f32::from((low | high << 4) as i8 - 32);
        [scale, -4.0 * scale]
    }
}

/// Scale and minimum of one of the eight parts of a Q4_K or Q5_K block, six bits each.
#[inline(always)]
fn sixes<S: Simd>(block: &[u8], part: usize) -> [f32; 2] {
    let ([scale, least], scales) = (halves::<S>(block, 0), some::<12>(block, 4));
    let (own_scale, own_least) = if part < 4 {
        (scales[part] & 63, scales[part + 4] & 63)
    } else {
        (
            scales[part + 4] & 15 | (scales[part - 4] >> 6) << 4,
            scales[part + 4] >> 4 | (scales[part] >> 6) << 4,
        )
    };
    [scale * f32::from(own_scale), -least * f32::from(own_least)]
}

pub(super) struct Q4K;

impl Format<144> for Q4K {
    const PARTS: usize = 8;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 144], part: usize) -> [S::Words; 2] {
        bits::<S>(block, 16 + 32 * (part / 2), 4 * (part % 2), 15)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 144], part: usize, _: usize) -> [f32; 2] {
        sixes::<S>(block, part)
    }
}

pub(super) struct Q5K;

impl Format<176> for Q5K {
    const PARTS: usize = 8;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 176], part: usize) -> [S::Words; 2] {
        let low = bits::<S>(block, 48 + 32 * (part / 2), 4 * (part % 2), 15);
        joined::<S>(low, bits::<S>(block, 16, part, 1), 4)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 176], part: usize, _: usize) -> [f32; 2] {
        sixes::<S>(block, part)
    }
}

/// Six bits a number, two of them apart; of each sixteen a scale of eight bits.
pub(super) struct Q6K;

impl Format<210> for Q6K {
    const PARTS: usize = 8;
    const HALVES: bool = true;

    #[inline(always)]
    fn wholes<S: Simd>(block: &[u8; 210], part: usize) -> [S::Words; 2] {
        let (side, place) = (part / 4, part % 4);
        let low = bits::<S>(block, 64 * side + 32 * (place % 2), 4 * (place / 2), 15);
        joined::<S>(low, bits::<S>(block, 128 + 32 * side, 2 * place, 3), 4)
    }

    #[inline(always)]
    fn scale<S: Simd>(block: &[u8; 210], part: usize, half: usize) -> [f32; 2] {
        let own = block[192 + 2 * part + half] as i8;
        let scale = self::half::<S>(block, 208) * f32::from(own);
        [scale, -32.0 * scale]
    }
}
