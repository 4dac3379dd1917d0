//! The types of elements, and a view of one tensor.

use std::borrow::Cow;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// 8 bits: 4 of exponent, 3 of fraction (arXiv:2209.05433).
    F8E4M3,
    /// 8 bits: 5 of exponent, 2 of fraction (arXiv:2209.05433).
    F8E5M2,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::F8E4M3 | Dtype::F8E5M2 => 1,
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::U32 | Dtype::I32 | Dtype::F32 => 4,
            Dtype::U64 | Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// The name in a safetensors header: `F32`, `BF16`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::U16 => "U16",
            Dtype::I16 => "I16",
            Dtype::U32 => "U32",
            Dtype::I32 => "I32",
            Dtype::U64 => "U64",
            Dtype::I64 => "I64",
            Dtype::F8E4M3 => "F8_E4M3",
            Dtype::F8E5M2 => "F8_E5M2",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
        }
    }

    /// The type by its name in a safetensors header.
    pub fn from_name(name: &str) -> Option<Dtype> {
        use Dtype::*;
        [Bool, U8, I8, U16, I16, U32, I32, U64, I64, F8E4M3, F8E5M2, F16, BF16, F32, F64]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }

    /// True for the floating types.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor: its bytes lie little endian, contiguous and row-major, not necessarily aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape`'s product times `dtype.size()` bytes; borrowed from the file where it lies so.
    pub data: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// A matrix with its rows and columns exchanged; anything else as it is.
    #[must_use]
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape[..] else {
            return self;
        };
        let size = self.dtype.size();
        let mut turned = Vec::with_capacity(self.data.len());
        for column in 0..columns {
            for row in 0..rows {
                let at = (row * columns + column) * size;
                turned.extend_from_slice(self.data.get(at..at + size).unwrap_or_default());
            }
        }
        TensorView { dtype: self.dtype, shape: vec![columns, rows], data: Cow::Owned(turned) }
    }
}

/// Bytes of a contiguous tensor, or None when the number does not fit. Of an empty tensor the
/// other sizes must fit too, so that whoever multiplies a shape, in whatever order, may.
pub(crate) fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let bytes = shape
        .iter()
        .filter(|&&size| size != 0)
        .try_fold(dtype.size(), |bytes, &size| bytes.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(byte_length(Dtype::F32, &[]), Some(4));
        assert_eq!(byte_length(Dtype::BF16, &[2, 3]), Some(12));
        assert_eq!(byte_length(Dtype::F32, &[0, 3]), Some(0));
        assert_eq!(byte_length(Dtype::U8, &[usize::MAX, 2]), None);
        assert_eq!(byte_length(Dtype::U8, &[usize::MAX, 2, 0]), None);
        assert_eq!(byte_length(Dtype::F64, &[1 << 61]), None);
    }

    #[test]
    fn names() {
        assert_eq!(Dtype::from_name("BF16"), Some(Dtype::BF16));
        assert_eq!(Dtype::from_name("F8_E4M3"), Some(Dtype::F8E4M3));
        assert_eq!(Dtype::from_name("bf16"), None);
    }
}
