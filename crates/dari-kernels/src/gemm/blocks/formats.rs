//! What a block's bytes stand for, one type a format (<https://github.com/ggml-org/ggml>, `ggml-quants.c`).
//! A block's numbers come in parts of 32; a part has one scale, or one for each half.

/// Numbers of a part.
pub(super) const PART: usize = 32;

/// A format by its block: `BYTES` for `PARTS` times [`PART`] numbers, each
/// `(whole - CENTRE) * scale + least`.
pub(super) trait Format<const BYTES: usize> {
    const PARTS: usize;
    /// Scales of a part.
    const RUNS: usize = 1;
    /// Bits of a whole number: the lower ones, and the higher ones, which panels keep apart.
    const LOW: usize;
    const HIGH: usize = 0;
    /// What stands for zero.
    const CENTRE: i32 = 0;
    /// Whether anything is added.
    const LEAST: bool = false;
    /// Whether a run has a factor of its own for the block's scale and minimum.
    const FINE: bool = false;

    /// A part's whole numbers.
    fn wholes(block: &[u8; BYTES], part: usize) -> [u8; PART];
    /// The block's scale and minimum, bits of f16.
    fn scales(block: &[u8; BYTES]) -> [u16; 2];
    /// A run's factors for the two.
    fn fine(_block: &[u8; BYTES], _run: usize) -> [i8; 2] {
        [1, 1]
    }
}

/// The bits of f16 at a place.
fn half(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The same with its sign changed.
fn less(half: u16) -> u16 {
    half ^ 1 << 15
}

/// Sixteen bytes' low nibbles, then their high ones.
fn nibbles(block: &[u8], at: usize) -> [u8; PART] {
    std::array::from_fn(|i| block[at + i % 16] >> (4 * (i / 16)) & 15)
}

/// Of 32 bytes each as many bits from `from` on as the mask has.
fn bits(block: &[u8], at: usize, from: usize, mask: u8) -> [u8; PART] {
    std::array::from_fn(|i| block[at + i] >> from & mask)
}

/// Lower bits, and higher ones moved to `place`.
fn joined(low: [u8; PART], high: [u8; PART], place: u32) -> [u8; PART] {
    std::array::from_fn(|i| low[i] | high[i] << place)
}

/// Nibbles behind a word of 32 fifth bits.
fn fives(block: &[u8], at: usize) -> [u8; PART] {
    let fifth = std::array::from_fn(|i| block[at + i / 8] >> (i % 8) & 1);
    joined(nibbles(block, at + 4), fifth, 4)
}

pub(super) struct Q4_0;

impl Format<18> for Q4_0 {
    const PARTS: usize = 1;
    const LOW: usize = 4;
    const CENTRE: i32 = 8;

    fn wholes(block: &[u8; 18], _: usize) -> [u8; PART] {
        nibbles(block, 2)
    }

    fn scales(block: &[u8; 18]) -> [u16; 2] {
        [half(block, 0), 0]
    }
}

pub(super) struct Q4_1;

impl Format<20> for Q4_1 {
    const PARTS: usize = 1;
    const LOW: usize = 4;
    const LEAST: bool = true;

    fn wholes(block: &[u8; 20], _: usize) -> [u8; PART] {
        nibbles(block, 4)
    }

    fn scales(block: &[u8; 20]) -> [u16; 2] {
        [half(block, 0), half(block, 2)]
    }
}

pub(super) struct Q5_0;

impl Format<22> for Q5_0 {
    const PARTS: usize = 1;
    const LOW: usize = 4;
    const HIGH: usize = 1;
    const CENTRE: i32 = 16;

    fn wholes(block: &[u8; 22], _: usize) -> [u8; PART] {
        fives(block, 2)
    }

    fn scales(block: &[u8; 22]) -> [u16; 2] {
        [half(block, 0), 0]
    }
}

pub(super) struct Q5_1;

impl Format<24> for Q5_1 {
    const PARTS: usize = 1;
    const LOW: usize = 4;
    const HIGH: usize = 1;
    const LEAST: bool = true;

    fn wholes(block: &[u8; 24], _: usize) -> [u8; PART] {
        fives(block, 4)
    }

    fn scales(block: &[u8; 24]) -> [u16; 2] {
        [half(block, 0), half(block, 2)]
    }
}

pub(super) struct Q8_0;

impl Format<34> for Q8_0 {
    const PARTS: usize = 1;
    const LOW: usize = 8;
    const CENTRE: i32 = 128;

    fn wholes(block: &[u8; 34], _: usize) -> [u8; PART] {
        std::array::from_fn(|i| block[2 + i] ^ 128)
    }

    fn scales(block: &[u8; 34]) -> [u16; 2] {
        [half(block, 0), 0]
    }
}

/// Two bits a number; of each sixteen a scale and a minimum, four bits each.
pub(super) struct Q2K;

impl Format<84> for Q2K {
    const PARTS: usize = 8;
    const RUNS: usize = 2;
    const LOW: usize = 2;
    const LEAST: bool = true;
    const FINE: bool = true;

    fn wholes(block: &[u8; 84], part: usize) -> [u8; PART] {
        bits(block, 16 + 32 * (part / 4), 2 * (part % 4), 3)
    }

    fn scales(block: &[u8; 84]) -> [u16; 2] {
        [half(block, 80), less(half(block, 82))]
    }

    fn fine(block: &[u8; 84], run: usize) -> [i8; 2] {
        [block[run] as i8 & 15, (block[run] >> 4) as i8]
    }
}

/// Three bits a number, the third apart; of each sixteen a scale of six bits.
pub(super) struct Q3K;

impl Format<110> for Q3K {
    const PARTS: usize = 8;
    const RUNS: usize = 2;
    const LOW: usize = 2;
    const HIGH: usize = 1;
    const CENTRE: i32 = 4;
    const FINE: bool = true;

    fn wholes(block: &[u8; 110], part: usize) -> [u8; PART] {
        let low = bits(block, 32 + 32 * (part / 4), 2 * (part % 4), 3);
        joined(low, bits(block, 0, part, 1), 2)
    }

    fn scales(block: &[u8; 110]) -> [u16; 2] {
        [half(block, 108), 0]
    }

    fn fine(block: &[u8; 110], run: usize) -> [i8; 2] {
        let scales = &block[96..108];
        let low = if run < 8 { scales[run] & 15 } else { scales[run - 8] >> 4 };
        let high = scales[8 + run % 4] >> (2 * (run / 4)) & 3;
        [(low | high << 4) as i8 - 32, 0]
    }
}

/// Scale and minimum of one of the eight parts of a Q4_K or Q5_K block, six bits each.
fn sixes(block: &[u8], part: usize) -> [i8; 2] {
    let scales = &block[4..16];
    let (scale, least) = if part < 4 {
        (scales[part] & 63, scales[part + 4] & 63)
    } else {
        (
            scales[part + 4] & 15 | (scales[part - 4] >> 6) << 4,
            scales[part + 4] >> 4 | (scales[part] >> 6) << 4,
        )
    };
    [scale as i8, least as i8]
}

pub(super) struct Q4K;

impl Format<144> for Q4K {
    const PARTS: usize = 8;
    const LOW: usize = 4;
    const LEAST: bool = true;
    const FINE: bool = true;

    fn wholes(block: &[u8; 144], part: usize) -> [u8; PART] {
        bits(block, 16 + 32 * (part / 2), 4 * (part % 2), 15)
    }

    fn scales(block: &[u8; 144]) -> [u16; 2] {
        [half(block, 0), less(half(block, 2))]
    }

    fn fine(block: &[u8; 144], run: usize) -> [i8; 2] {
        sixes(block, run)
    }
}

pub(super) struct Q5K;

impl Format<176> for Q5K {
    const PARTS: usize = 8;
    const LOW: usize = 4;
    const HIGH: usize = 1;
    const LEAST: bool = true;
    const FINE: bool = true;

    fn wholes(block: &[u8; 176], part: usize) -> [u8; PART] {
        let low = bits(block, 48 + 32 * (part / 2), 4 * (part % 2), 15);
        joined(low, bits(block, 16, part, 1), 4)
    }

    fn scales(block: &[u8; 176]) -> [u16; 2] {
        [half(block, 0), less(half(block, 2))]
    }

    fn fine(block: &[u8; 176], run: usize) -> [i8; 2] {
        sixes(block, run)
    }
}

/// Six bits a number, two of them apart; of each sixteen a scale of eight bits.
pub(super) struct Q6K;

impl Format<210> for Q6K {
    const PARTS: usize = 8;
    const RUNS: usize = 2;
    const LOW: usize = 4;
    const HIGH: usize = 2;
    const CENTRE: i32 = 32;
    const FINE: bool = true;

    fn wholes(block: &[u8; 210], part: usize) -> [u8; PART] {
        let (side, place) = (part / 4, part % 4);
        let low = bits(block, 64 * side + 32 * (place % 2), 4 * (place / 2), 15);
        joined(low, bits(block, 128 + 32 * side, 2 * place, 3), 4)
    }

    fn scales(block: &[u8; 210]) -> [u16; 2] {
        [half(block, 208), 0]
    }

    fn fine(block: &[u8; 210], run: usize) -> [i8; 2] {
        [block[192 + run] as i8, 0]
    }
}
