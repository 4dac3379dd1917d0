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

/// Blocks whose bytes are all alike: scales are ordinary numbers.
fn weight(name: &str, outputs: usize) -> Option<(Blocks, Vec<u8>)> {
    let format = Blocks::from_name(name)?;
    Some((format, vec![0x2a; format.row_bytes(INPUTS)? * outputs]))
}

#[divan::bench(args = FORMATS)]
fn one_row(bencher: Bencher, name: &str) {
    let Some((format, bytes)) =
        Blocks::from_name(name).and_then(|format| weight(name, (64 << 20) / format.row_bytes(INPUTS)?))
    else {
        return;
    };
    let outputs = bytes.len() / format.row_bytes(INPUTS).unwrap_or(1);
    let Some(rows) = BlockRows::new(format, outputs, INPUTS, &bytes) else { return };
    let weight = Panels::pack(rows);
    let (x, mut out) = (vec![0.5; INPUTS], vec![0.0; outputs]);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let (to, x) = (MatrixMut::new(&mut out, 1, outputs), Matrix::new(&x, 1, INPUTS));
        linear(to, x, &[&weight], &Epilogue::default());
    });
}

#[divan::bench(args = FORMATS)]
fn many_rows(bencher: Bencher, name: &str) {
    const ROWS: usize = 512;
    let outputs = 1536;
    let Some((format, bytes)) = weight(name, outputs) else { return };
    let Some(rows) = BlockRows::new(format, outputs, INPUTS, &bytes) else { return };
    let weight = Panels::pack(rows);
    let (x, mut out) = (vec![0.5; ROWS * INPUTS], vec![0.0; ROWS * outputs]);
    bencher.counter(ItemsCount::new(ROWS * INPUTS * outputs)).bench_local(|| {
        let x = Matrix::new(&x, ROWS, INPUTS);
        linear(MatrixMut::new(&mut out, ROWS, outputs), x, &[&weight], &Epilogue::default());
    });
}

/// The gradient of many rows, as when a bridge is trained below a frozen model.
#[divan::bench(args = FORMATS)]
fn backward_of_many_rows(bencher: Bencher, name: &str) {
    const ROWS: usize = 872;
    let outputs = 3072;
    let Some((format, bytes)) = weight(name, outputs) else { return };
    let Some(rows) = BlockRows::new(format, outputs, INPUTS, &bytes) else { return };
    let weight = Panels::pack(rows);
    let (dy, mut out) = (vec![0.5; ROWS * outputs], vec![0.0; ROWS * INPUTS]);
    bencher.counter(ItemsCount::new(ROWS * INPUTS * outputs)).bench_local(|| {
        let dy = Matrix::new(&dy, ROWS, outputs);
        backward(MatrixMut::new(&mut out, ROWS, INPUTS), dy, &[&weight]);
    });
}
