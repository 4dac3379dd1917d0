//! NumPy's file format 1.0: magic, a padded Python dictionary, then little-endian values.

use std::io::{Result, Write};

/// Writes what stands before the values of an array of `f4`.
pub fn head(out: &mut impl Write, shape: &[usize]) -> Result<()> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let sizes = sizes.join(", ");
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}{comma}), }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(padded as u16).to_le_bytes())?;
    writeln!(out, "{text:<width$}", width = padded - 1)
}

/// Writes values.
pub fn values(out: &mut impl Write, values: &[f32]) -> Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}
