//! Matrix products beside the `gemm` crate's, at the sizes of CLIP ViT-B/32.
//!
//!     cargo bench -p dari-kernels --bench products
//!
//! The counter counts multiply-adds; two operations each.

use dari_kernels::gemm::{Epilogue, Format, Matrix, MatrixMut, Products, Threads, linear, pack, product};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Rows, inputs, outputs: a batch of 32 pictures and a single one.
const SIZES: [[usize; 3]; 5] =
    [[1600, 768, 2304], [1600, 768, 3072], [1600, 3072, 768], [50, 768, 3072], [1, 768, 768]];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

fn bench(bencher: Bencher, format: Format, [rows, inputs, outputs]: [usize; 3]) {
    let (x, weight) = (numbers(rows * inputs), numbers(outputs * inputs));
    let lines = pack(format, &weight, outputs, inputs);
    let mut out = vec![0.0; rows * outputs];
    bencher.counter(ItemsCount::new(rows * inputs * outputs)).bench_local(|| {
        if let Some(packed) = dari_kernels::gemm::Packed::new(format, outputs, inputs, &lines) {
            let to = MatrixMut::new(&mut out, rows, outputs);
            let x = Matrix::new(&x, rows, inputs);
            linear(Products::Bf16, to, x, packed, &Epilogue::default(), Threads::Pool);
        }
    });
}

#[divan::bench(args = SIZES)]
fn packed_f32(bencher: Bencher, size: &[usize; 3]) {
    bench(bencher, Format::F32, *size);
}

#[divan::bench(args = SIZES)]
fn packed_bf16(bencher: Bencher, size: &[usize; 3]) {
    bench(bencher, Format::Bf16, *size);
}

#[divan::bench(args = SIZES)]
fn packed_int8(bencher: Bencher, size: &[usize; 3]) {
    bench(bencher, Format::Int8, *size);
}

/// Both sides packed on the way, as in training.
#[divan::bench(args = SIZES)]
fn unpacked_f32(bencher: Bencher, &[rows, inputs, outputs]: &[usize; 3]) {
    let (x, weight) = (numbers(rows * inputs), numbers(outputs * inputs));
    let mut out = vec![0.0; rows * outputs];
    bencher.counter(ItemsCount::new(rows * inputs * outputs)).bench_local(|| {
        let weight = Matrix::new(&weight, outputs, inputs).transposed();
        let to = MatrixMut::new(&mut out, rows, outputs);
        product(to, Matrix::new(&x, rows, inputs), weight, &Epilogue::default(), false, Threads::Pool);
    });
}

#[divan::bench(args = SIZES)]
fn gemm_crate_f32(bencher: Bencher, &[rows, inputs, outputs]: &[usize; 3]) {
    let (x, weight) = (numbers(rows * inputs), numbers(outputs * inputs));
    let mut out = vec![0.0f32; rows * outputs];
    bencher.counter(ItemsCount::new(rows * inputs * outputs)).bench_local(|| {
        // SAFETY: the slices hold what the sizes and strides say, and `out` is borrowed mutably.
        unsafe {
            gemm::gemm(
                rows,
                outputs,
                inputs,
                out.as_mut_ptr(),
                1,
                outputs as isize,
                false,
                x.as_ptr(),
                1,
                inputs as isize,
                weight.as_ptr(),
                inputs as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    });
}

/// What the machine's vector units do at most: sums that never leave their registers, on every thread.
#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use dari_kernels::team;
    use divan::Bencher;
    use divan::counter::ItemsCount;

    const STEPS: usize = 1 << 16;
    /// More than latency times instructions a cycle, and few enough for the registers.
    const SUMS: usize = 12;

    fn bench(bencher: Bencher, available: bool, lanes: usize, run: fn()) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if available {
            bencher
                .counter(ItemsCount::new(threads * STEPS * SUMS * lanes))
                .bench_local(|| team::run(threads, |_| run()));
        }
    }

    macro_rules! peak {
        ($name:ident, $features:literal, $available:expr, $lanes:literal, $zero:expr, $step:expr) => {
            #[divan::bench]
            fn $name(bencher: Bencher) {
                #[target_feature(enable = $features)]
                fn run() {
                    let mut sums = [$zero; SUMS];
                    let factors = black_box([$zero; 2]);
                    for _ in 0..STEPS {
                        for sum in &mut sums {
                            *sum = $step(*sum, factors[0], factors[1]);
                        }
                    }
                    black_box(sums);
                }
                // SAFETY: `bench` calls it only where the features are there.
                bench(bencher, $available, $lanes, || unsafe { run() });
            }
        };
    }

    peak!(f32_avx2, "avx2,fma", is_x86_feature_detected!("fma"), 8, _mm256_setzero_ps(), |s, a, b| {
        _mm256_fmadd_ps(a, b, s)
    });
    peak!(f32_avx512, "avx512f", is_x86_feature_detected!("avx512f"), 16, _mm512_setzero_ps(), |s, a, b| {
        _mm512_fmadd_ps(a, b, s)
    });
    peak!(
        int8_avx512_vnni,
        "avx512f,avx512vnni",
        is_x86_feature_detected!("avx512vnni"),
        64,
        _mm512_setzero_si512(),
        |s, a, b| _mm512_dpbusd_epi32(s, a, b)
    );
}
