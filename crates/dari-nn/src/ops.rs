//! Borrowing candle's storage as the plain slices that kernels take.

use std::cell::Cell;
use std::ops::Deref;

use dari_kernels::Matrix;
use parking_lot::RwLockReadGuard;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, WithDType, bail};

/// The values of an operation's argument inside `cpu_fwd`.
pub fn view<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("an operation of dari-nn got a tensor that is not contiguous: {layout:?}"),
    }
}

/// A tensor's values, held while this lives.
pub struct Held<'a, T> {
    guard: RwLockReadGuard<'a, Storage>,
    start: usize,
    end: usize,
    kind: std::marker::PhantomData<T>,
}

/// Holds a contiguous CPU tensor's values.
pub fn hold<T: WithDType>(tensor: &Tensor) -> Result<Held<'_, T>> {
    if tensor.dtype() != T::DTYPE {
        bail!("expected {:?}, found {:?}", T::DTYPE, tensor.dtype());
    }
    let (guard, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operation of dari-nn got a tensor that is not contiguous: {layout:?}");
    };
    if !matches!(&*guard, Storage::Cpu(_)) {
        bail!("a CPU operation of dari-nn got a tensor of another device");
    }
    Ok(Held { guard, start, end, kind: std::marker::PhantomData })
}

impl<T: WithDType> Deref for Held<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.guard {
            // The type was checked when the tensor was held.
            Storage::Cpu(storage) => match storage.as_slice::<T>() {
                Ok(values) => &values[self.start..self.end],
                Err(_) => &[],
            },
            _ => &[],
        }
    }
}

/// The rows of an argument inside `cpu_fwd`: of a contiguous one, or of `[batch, tokens, width]`, where they may
/// lie apart.
pub fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Matrix<'a>> {
    let (start, rows, columns, stride) = lie(layout)?;
    let values = storage.as_slice::<f32>()?.get(start..).unwrap_or_default();
    Ok(Matrix::strided(values, rows, columns, stride))
}

/// Whether a tensor's rows all lie equally far apart.
pub fn in_rows(x: &Tensor) -> bool {
    lie(x.layout()).is_ok()
}

fn lie(layout: &Layout) -> Result<(usize, usize, usize, usize)> {
    if let (Some((start, end)), Some(&width)) = (layout.contiguous_offsets(), layout.dims().last()) {
        return Ok((start, (end - start) / width.max(1), width, width));
    }
    let (&[batch, tokens, width], &[far, stride, 1]) = (layout.dims(), layout.stride()) else {
        bail!("expected rows of values side by side, found {layout:?}");
    };
    if stride < width || (batch > 1 && far != tokens * stride) {
        bail!("expected rows equally far apart, found {layout:?}");
    }
    Ok((layout.start_offset(), batch * tokens, width, stride))
}

/// The rows of a tensor, held while this lives.
pub struct HeldRows<'a> {
    guard: RwLockReadGuard<'a, Storage>,
    layout: &'a Layout,
}

/// Holds the rows of a `[batch, tokens, width]` CPU tensor.
pub fn hold_rows(tensor: &Tensor) -> Result<HeldRows<'_>> {
    let (guard, layout) = tensor.storage_and_layout();
    Ok(HeldRows { guard, layout })
}

impl HeldRows<'_> {
    /// As a matrix of all tokens.
    pub fn matrix(&self) -> Result<Matrix<'_>> {
        match &*self.guard {
            Storage::Cpu(storage) => rows(storage, self.layout),
            _ => bail!("a CPU operation of dari-nn got a tensor of another device"),
        }
    }
}

/// A new CPU tensor of these values.
pub fn tensor(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, like.shape(), &Device::Cpu)
}

thread_local! {
    static KERNELS: Cell<bool> = const { Cell::new(true) };
}

/// Runs `model` on this thread by candle's own operations, as other devices do.
pub fn without_kernels<T>(model: impl FnOnce() -> T) -> T {
    let before = KERNELS.replace(false);
    let result = model();
    KERNELS.set(before);
    result
}

/// Whether the kernels serve this tensor: f32 on a CPU.
pub fn by_kernel(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && KERNELS.get()
}
