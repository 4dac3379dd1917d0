//! What follows a product while its tile is still in the caches.

use super::Matrix;
use crate::activation::Activation;
use crate::level::leveled;

/// `activation(scale * product + bias) * gate + residual`, each part if it is there.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Multiplies the product.
    pub scale: f32,
    /// One number a column, or empty.
    pub bias: &'a [f32],
    /// Applied to each element.
    pub activation: Option<Activation>,
    /// Multiplies what the activation gave (a gated perceptron), rows of the result's width.
    pub gate: Option<Matrix<'a>>,
    /// Added last, rows of the result's width.
    pub residual: Option<Matrix<'a>>,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { scale: 1.0, bias: &[], activation: None, gate: None, residual: None }
    }
}

impl<'a> Epilogue<'a> {
    /// A bias alone; empty for none.
    pub fn bias(bias: &'a [f32]) -> Self {
        Epilogue { bias, ..Epilogue::default() }
    }

    /// A scale alone.
    pub fn scale(scale: f32) -> Self {
        Epilogue { scale, ..Epilogue::default() }
    }

    /// Panics where a part does not fit a result of this size.
    pub(super) fn check(&self, rows: usize, columns: usize) {
        assert!(self.bias.is_empty() || self.bias.len() == columns, "{} for {columns}", self.bias.len());
        for matrix in [self.gate, self.residual].into_iter().flatten() {
            assert!(matrix.rows == rows && matrix.columns == columns && matrix.column_stride == 1);
        }
    }

    /// Applies it to part of a row: columns `first..` of row `row`.
    pub(super) fn apply(&self, row: usize, first: usize, out: &mut [f32]) {
        let columns = first..first + out.len();
        if self.scale != 1.0 {
            scale(out, self.scale);
        }
        if !self.bias.is_empty() {
            add(out, &self.bias[columns.clone()]);
        }
        if let Some(activation) = self.activation {
            activation.in_place(out);
        }
        if let Some(gate) = &self.gate {
            multiply(out, &gate.row(row)[columns.clone()]);
        }
        if let Some(residual) = &self.residual {
            add(out, &residual.row(row)[columns]);
        }
    }

    /// Whether there is nothing to apply.
    pub(super) fn is_empty(&self) -> bool {
        self.scale == 1.0
            && self.bias.is_empty()
            && self.activation.is_none()
            && self.gate.is_none()
            && self.residual.is_none()
    }
}

leveled! {
    fn scale(out: &mut [f32], by: f32) {
        for out in out {
            *out *= by;
        }
    }
}

leveled! {
    pub(crate) fn add(out: &mut [f32], other: &[f32]) {
        for (out, other) in out.iter_mut().zip(other) {
            *out += other;
        }
    }
}

leveled! {
    pub(crate) fn multiply(out: &mut [f32], other: &[f32]) {
        for (out, other) in out.iter_mut().zip(other) {
            *out *= other;
        }
    }
}
