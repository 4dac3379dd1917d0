//! Inverse DCTs from 8 x 8 coefficients to 8, 4, 2 or 1 samples a side.
//!
//! They give the same samples as libjpeg's accurate integer transforms (jidctint.c after Loeffler,
//! Ligtenberg and Moschytz; jidctred.c for the reduced ones): fixed point with 13 bits of fraction, 2
//! bits kept between the column and the row pass. The products are spread out here (a constant times a sum
//! is the sum of the products, in integers), so that each has 16-bit factors, which plain loops over
//! arrays turn into vector code. Coefficients out of any encoder's reach wrap around.

/// Zigzag position to place in rows of eight (ITU T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The last zigzag position before one that lies outside the first four rows and columns.
const CORNER: usize = 9;

/// The slot of a position that is in no block, and of all but the first for [`Kernel::One`].
const UNUSED: u8 = 64;

/// A slot that [`Kernel::Two`] does not read.
const UNREAD: u8 = 31;

/// Coefficients of one block by slot, with room for whatever a `u8 & 127` can name.
pub(super) type Block = [i16; 128];

/// An inverse transform, by the samples a side that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    One,
    Two,
    Four,
    Eight,
}

/// Zigzag position to slot; a table of 256, so that any `u8` index is in it.
pub(super) type Slots = [u8; 256];

const fn slots(kernel: Kernel) -> Slots {
    let mut slots = [UNUSED; 256];
    let mut at = 0;
    while at < 64 {
        let (row, column) = (ZIGZAG[at] / 8, ZIGZAG[at] % 8);
        slots[at] = match kernel {
            Kernel::Eight | Kernel::Four => ZIGZAG[at],
            // The first row and column and the odd ones, five by five.
            Kernel::Two if (row == 0 || row % 2 == 1) && (column == 0 || column % 2 == 1) => {
                row.div_ceil(2) * 5 + column.div_ceil(2)
            }
            Kernel::Two => UNREAD,
            Kernel::One if at == 0 => 0,
            Kernel::One => UNUSED,
        };
        at += 1;
    }
    slots
}

static SLOTS: [Slots; 4] =
    [slots(Kernel::One), slots(Kernel::Two), slots(Kernel::Four), slots(Kernel::Eight)];

impl Kernel {
    /// The transform to 1, 2, 4 or 8 samples a side.
    pub(super) fn of_size(size: usize) -> Kernel {
        match size {
            1 => Kernel::One,
            2 => Kernel::Two,
            4 => Kernel::Four,
            _ => Kernel::Eight,
        }
    }

    /// Samples a side.
    pub(super) fn size(self) -> usize {
        match self {
            Kernel::One => 1,
            Kernel::Two => 2,
            Kernel::Four => 4,
            Kernel::Eight => 8,
        }
    }

    /// Where each coefficient goes, by zigzag position; to a slot past [`Kernel::length`] if nowhere.
    pub(super) fn slots(self) -> &'static Slots {
        &SLOTS[self as usize]
    }

    /// Slots that a block takes.
    pub(super) fn length(self) -> usize {
        match self {
            Kernel::One => 1,
            Kernel::Two => 32,
            Kernel::Four | Kernel::Eight => 64,
        }
    }

    /// A quantisation table by slot instead of zigzag position. Its upper bits wrap as the products do.
    pub(super) fn arrange(self, table: &[u16; 64]) -> [i16; 64] {
        let mut arranged = [0; 64];
        for (&value, &slot) in table.iter().zip(self.slots()) {
            if let Some(place) = arranged.get_mut(usize::from(slot)) {
                *place = value as i16;
            }
        }
        arranged
    }
}

/// The sample that a block without AC coefficients consists of, at any size.
#[inline(always)]
pub(super) fn flat(dc: i16, quant: i16) -> u8 {
    clamp(((i32::from(dc.wrapping_mul(quant)) + 4) >> 3) as i16)
}

/// A sample of a value that is small, as after [`descale`] by more than 16 bits.
#[inline(always)]
fn clamp(value: i16) -> u8 {
    value.saturating_add(128).clamp(0, 255) as u8
}

/// Rounds off `BITS` bits.
#[inline(always)]
fn descale<const BITS: u32>(value: i32) -> i32 {
    value.wrapping_add(1 << (BITS - 1)) >> BITS
}

/// As [`descale`], to what goes from the column pass to the row pass.
#[inline(always)]
fn middle<const BITS: u32>(value: i32) -> i16 {
    descale::<BITS>(value).clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// Sum of products of 16-bit factors.
#[inline(always)]
fn dot<const N: usize>(values: [i16; N], factors: [i16; N]) -> i32 {
    let mut sum = 0i32;
    for n in 0..N {
        sum = sum.wrapping_add(i32::from(values[n]) * i32::from(factors[n]));
    }
    sum
}

/// Sum and difference.
#[inline(always)]
fn butterfly(even: i32, odd: i32) -> [i32; 2] {
    [even.wrapping_add(odd), even.wrapping_sub(odd)]
}

/// An 8-point transform, scaled by 2^13 times the square root of 8.
#[inline(always)]
fn eight_points(x: [i16; 8]) -> [i32; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [sum, difference] = butterfly(i32::from(x0) << 13, i32::from(x4) << 13);
    let [e0, e3] = butterfly(sum, dot([x2, x6], [10703, 4433]));
    let [e1, e2] = butterfly(difference, dot([x2, x6], [4433, -10704]));
    let odd = [x1, x3, x5, x7];
    let [y0, y7] = butterfly(e0, dot(odd, [11363, 9633, 6437, 2260]));
    let [y1, y6] = butterfly(e1, dot(odd, [9633, -2259, -11362, -6436]));
    let [y2, y5] = butterfly(e2, dot(odd, [6437, -11362, 2261, 9633]));
    let [y3, y4] = butterfly(e3, dot(odd, [2260, -6436, 9633, -11363]));
    [y0, y1, y2, y3, y4, y5, y6, y7]
}

/// To 8 x 8 samples (jidctint.c, `jpeg_idct_islow`). Only the first `K` rows and columns of coefficients
/// are read.
#[inline(always)]
fn eight_of<const K: usize>(block: &[i16; 64], quant: &[i16; 64]) -> [[u8; 8]; 8] {
    // Each loop over lanes is one transform for eight columns, then rows: the compiler makes it one vector
    // program, and the turns between them shuffles.
    let mut columns = [[0i16; 8]; 8];
    for lane in 0..8 {
        let mut x = [0i16; 8];
        for row in 0..K {
            x[row] = block[row * 8 + lane].wrapping_mul(quant[row * 8 + lane]);
        }
        let y = eight_points(x);
        for row in 0..8 {
            columns[row][lane] = middle::<11>(y[row]);
        }
    }
    let mut turned = [[0i16; 8]; K];
    for column in 0..K {
        for row in 0..8 {
            turned[column][row] = columns[row][column];
        }
    }
    let mut rows = [[0u8; 8]; 8];
    for lane in 0..8 {
        let mut x = [0i16; 8];
        for column in 0..K {
            x[column] = turned[column][lane];
        }
        let y = eight_points(x);
        for column in 0..8 {
            rows[column][lane] = clamp(descale::<18>(y[column]) as i16);
        }
    }
    let mut out = [[0u8; 8]; 8];
    for row in 0..8 {
        for column in 0..8 {
            out[row][column] = rows[column][row];
        }
    }
    out
}

/// To 8 x 8 samples; `last` is the last zigzag position that may not be zero.
pub(super) fn eight(block: &[i16; 64], quant: &[i16; 64], last: usize) -> [[u8; 8]; 8] {
    if last <= CORNER { eight_of::<4>(block, quant) } else { eight_of::<8>(block, quant) }
}

/// Four outputs from coefficients 0, 1, 2, 3, 5, 6 and 7 (the one at 4 has no part in them).
#[inline(always)]
fn four_points(x: [i16; 8]) -> [i32; 4] {
    let [x0, x1, x2, x3, _, x5, x6, x7] = x;
    let odd = [x1, x3, x5, x7];
    let [e0, e1] = butterfly(i32::from(x0) << 14, dot([x2, x6], [15137, -6270]));
    let [y0, y3] = butterfly(e0, dot(odd, [20995, 7373, -4926, -4176]));
    let [y1, y2] = butterfly(e1, dot(odd, [8697, -17799, 11893, -1730]));
    [y0, y1, y2, y3]
}

/// To 4 x 4 samples (jidctred.c, `jpeg_idct_4x4`), from the first `K` rows and columns.
#[inline(always)]
fn four_of<const K: usize>(block: &[i16; 64], quant: &[i16; 64]) -> [[u8; 4]; 4] {
    let mut columns = [[0i16; 8]; 4];
    for lane in 0..8 {
        let mut x = [0i16; 8];
        for row in 0..K {
            x[row] = block[row * 8 + lane].wrapping_mul(quant[row * 8 + lane]);
        }
        let y = four_points(x);
        for row in 0..4 {
            columns[row][lane] = middle::<12>(y[row]);
        }
    }
    // Four lanes are too few for the compiler: the other four hold nothing.
    let mut turned = [[0i16; 8]; K];
    for column in 0..K {
        for row in 0..4 {
            turned[column][row] = columns[row][column];
        }
    }
    let mut rows = [[0i16; 8]; 4];
    for lane in 0..8 {
        let mut x = [0i16; 8];
        for column in 0..K {
            x[column] = turned[column][lane];
        }
        let y = four_points(x);
        for column in 0..4 {
            rows[column][lane] = descale::<19>(y[column]) as i16;
        }
    }
    let mut out = [[0u8; 4]; 4];
    for row in 0..4 {
        for column in 0..4 {
            out[row][column] = clamp(rows[column][row]);
        }
    }
    out
}

/// To 4 x 4 samples; `last` is the last zigzag position that may not be zero.
pub(super) fn four(block: &[i16; 64], quant: &[i16; 64], last: usize) -> [[u8; 4]; 4] {
    if last <= CORNER { four_of::<4>(block, quant) } else { four_of::<8>(block, quant) }
}

/// To 2 x 2 samples (jidctred.c, `jpeg_idct_2x2`), from coefficients 0, 1, 3, 5 and 7 of each direction.
pub(super) fn two(block: &[i16; 32], quant: &[i16; 32]) -> [[u8; 2]; 2] {
    const ODD: [i16; 4] = [29692, -10426, 6967, -5906];
    let mut columns = [[0i32; 8]; 2];
    for lane in 0..8 {
        let mut x = [0i16; 5];
        for row in 0..5 {
            x[row] = block[row * 5 + lane].wrapping_mul(quant[row * 5 + lane]);
        }
        let [x0, x1, x3, x5, x7] = x;
        let [upper, lower] = butterfly(i32::from(x0) << 15, dot([x1, x3, x5, x7], ODD));
        columns[0][lane] = descale::<13>(upper);
        columns[1][lane] = descale::<13>(lower);
    }
    // Two rows are too few for vectors.
    let mut out = [[0u8; 2]; 2];
    for (out, &[x0, rest @ ..]) in out.iter_mut().zip(&columns) {
        let odd = rest.iter().zip(ODD).fold(0i32, |sum, (x, y)| sum.wrapping_add(x.wrapping_mul(y.into())));
        let [left, right] = butterfly(x0 << 15, odd);
        *out = [left, right].map(|y| (descale::<20>(y) + 128).clamp(0, 255) as u8);
    }
    out
}
