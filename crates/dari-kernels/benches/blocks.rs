//! Products with weights in ggml's block formats.
//!
//!     cargo bench -p dari-kernels --bench blocks
//!
//! One row counts the weight's bytes, which memory has to bring: 64 MB, more than the caches hold. Many rows count
//! multiply-adds.

use dari_kernels::gemm::blocks::{backward, linear};
use dari_kernels::gemm::{BlockRows, Blocks, Epilogue, Matrix, MatrixMut, Panels};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

fn main() {
    divan::main();
}

const FORMATS: [&str; 10] = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"];
const INPUTS: usize = 1536;

/// A weight, and its bytes, which are all alike: scales are ordinary numbers. `outputs` says how many there are, from a row's bytes.
fn weight(name: &str, outputs: impl Fn(usize) -> usize) -> Option<(Panels, usize)> {
    let format = Blocks::from_name(name)?;
    let row = format.row_bytes(INPUTS)?;
    let outputs = outputs(row);
    let bytes = vec![0x2a; row * outputs];
    Some((Panels::pack(BlockRows::new(format, outputs, INPUTS, &bytes)?), bytes.len()))
}

#[divan::bench(args = FORMATS)]
fn one_row(bencher: Bencher, name: &str) {
    let Some((weight, bytes)) = weight(name, |row| (64 << 20) / row) else { return };
    let (x, mut out) = (vec![0.5; INPUTS], vec![0.0; weight.outputs()]);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let (to, x) = (MatrixMut::new(&mut out, 1, weight.outputs()), Matrix::new(&x, 1, INPUTS));
        linear(to, x, &[&weight], &Epilogue::default());
    });
}

#[divan::bench(args = FORMATS)]
fn many_rows(bencher: Bencher, name: &str) {
    const ROWS: usize = 512;
    const OUTPUTS: usize = 1536;
    let Some((weight, _)) = weight(name, |_| OUTPUTS) else { return };
    let (x, mut out) = (vec![0.5; ROWS * INPUTS], vec![0.0; ROWS * OUTPUTS]);
    bencher.counter(ItemsCount::new(ROWS * INPUTS * OUTPUTS)).bench_local(|| {
        let x = Matrix::new(&x, ROWS, INPUTS);
        linear(MatrixMut::new(&mut out, ROWS, OUTPUTS), x, &[&weight], &Epilogue::default());
    });
}

/// The gradient of many rows, as when a bridge is trained below a frozen model.
#[divan::bench(args = FORMATS)]
fn backward_of_many_rows(bencher: Bencher, name: &str) {
    const ROWS: usize = 872;
    const OUTPUTS: usize = 3072;
    let Some((weight, _)) = weight(name, |_| OUTPUTS) else { return };
    let (dy, mut out) = (vec![0.5; ROWS * OUTPUTS], vec![0.0; ROWS * INPUTS]);
    bencher.counter(ItemsCount::new(ROWS * INPUTS * OUTPUTS)).bench_local(|| {
        let dy = Matrix::new(&dy, ROWS, OUTPUTS);
        backward(MatrixMut::new(&mut out, ROWS, INPUTS), dy, &[&weight]);
    });
}
