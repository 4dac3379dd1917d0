//! Keys and values as a cache keeps them: as they are, or in fewer bits.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::gemm::Matrix;
use crate::level::leveled;

/// How a cache keeps numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// As they are.
    #[default]
    F32,
    /// Half precision: half of the memory. What lies beyond its range becomes its largest number.
    F16,
    /// Eight bits, and a scale for each token's head: a little over a quarter of the memory.
    Int8,
}

/// Rows `[tokens, kv_heads * width]` of keys or values, which grow at their end.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Numbers of a row.
    row: usize,
    /// Numbers of a head.
    width: usize,
    numbers: Numbers,
}

#[derive(Clone, Debug)]
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Int8 { whole: Vec<i8>, scales: Vec<f32> },
}

impl Kept {
    /// No rows yet, and room for `tokens`.
    pub fn new(format: CacheFormat, tokens: usize, row: usize, width: usize) -> Kept {
        let count = tokens * row;
        let numbers = match format {
            CacheFormat::F32 => Numbers::F32(Vec::with_capacity(count)),
            CacheFormat::F16 => Numbers::F16(Vec::with_capacity(count)),
            CacheFormat::Int8 => Numbers::Int8 {
                whole: Vec::with_capacity(count),
                scales: Vec::with_capacity(count / width.max(1)),
            },
        };
        Kept { row, width, numbers }
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        match self.numbers {
            Numbers::F32(_) => self.row * size_of::<f32>(),
            Numbers::F16(_) => self.row * size_of::<f16>(),
            Numbers::Int8 { .. } => self.row + self.row / self.width.max(1) * size_of::<f32>(),
        }
    }

    /// The first `tokens` rows stay.
    pub fn truncate(&mut self, tokens: usize) {
        let count = tokens * self.row;
        match &mut self.numbers {
            Numbers::F32(numbers) => numbers.truncate(count),
            Numbers::F16(numbers) => numbers.truncate(count),
            Numbers::Int8 { whole, scales } => {
                whole.truncate(count);
                scales.truncate(count / self.width.max(1));
            }
        }
    }

    /// Adds rows behind those that are there.
    pub fn append(&mut self, rows: Matrix) {
        let [count, row] = rows.size();
        assert_eq!(row, self.row);
        for row in (0..count).map(|index| rows.row(index)) {
            match &mut self.numbers {
                Numbers::F32(numbers) => numbers.extend_from_slice(row),
                Numbers::F16(numbers) => {
                    let most = f32::from(f16::MAX);
                    numbers.extend(row.iter().map(|x| f16::from_f32(x.clamp(-most, most))));
                }
                Numbers::Int8 { whole, scales } => {
                    let before = whole.len();
                    whole.resize(before + row.len(), 0);
                    let width = self.width.max(1);
                    let heads = row.chunks(width).zip(whole[before..].chunks_mut(width));
                    scales.extend(heads.map(|(head, whole)| quantise(head, whole)));
                }
            }
        }
    }

    /// A head of the first `tokens` rows, made in `scratch` where it is not kept in f32.
    pub fn head<'a>(&'a self, tokens: usize, head: usize, scratch: &'a mut Vec<f32>) -> Matrix<'a> {
        let &Kept { row, width, .. } = self;
        if let Numbers::F32(numbers) = &self.numbers {
            return Matrix::new(numbers, tokens, row).columns(head * width, width);
        }
        scratch.resize(tokens * width, 0.0);
        for (token, out) in scratch.chunks_exact_mut(width.max(1)).enumerate() {
            let at = token * row + head * width;
            match &self.numbers {
                Numbers::F32(_) => {}
                Numbers::F16(numbers) => numbers[at..at + width].convert_to_f32_slice(out),
                Numbers::Int8 { whole, scales } => restore(&whole[at..at + width], scales[at / width], out),
            }
        }
        Matrix::new(scratch, tokens, width)
    }
}

leveled! {
    /// A head's numbers to whole ones; gives their step. One that is no number makes all of them none.
    fn quantise(head: &[f32], whole: &mut [i8]) -> f32 {
        let (mut most, mut sound) = (0.0f32, 0.0f32);
        for value in head {
            most = if value.abs() > most { value.abs() } else { most };
            sound += value * 0.0; // stays zero for finite values
        }
        let scale = most / 127.0;
        let reciprocal = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        for (whole, value) in whole.iter_mut().zip(head) {
            // The nearest whole number, ties to even, in the low bits.
            *whole = (value * reciprocal + 12_582_912.0).to_bits() as i8;
        }
        if sound.is_nan() { f32::NAN } else { scale }
    }
}

leveled! {
    fn restore(whole: &[i8], scale: f32, out: &mut [f32]) {
        for (out, &whole) in out.iter_mut().zip(whole) {
            *out = f32::from(whole) * scale;
        }
    }
}
