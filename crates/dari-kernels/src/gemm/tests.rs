use half::bf16;

use super::*;
use crate::activation::Activation;

/// Reproducible numbers in -1..1.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `check` at every level that this machine has, one such check at a time. Tests that do not
/// ask for a level may run beside it at whatever level is current: they hold at all of them.
pub fn at_every_level(mut check: impl FnMut(Level)) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for level in Level::available() {
        assert!(level.choose());
        check(level);
    }
    Level::best().choose();
}

const ROWS: [usize; 9] = [0, 1, 2, 3, 7, 13, 17, 33, 101];
const SIZES: [(usize, usize); 9] =
    [(1, 1), (0, 5), (5, 3), (16, 16), (17, 33), (96, 130), (259, 65), (515, 20), (300, 530)];

fn reference(x: &[f32], weight: &[f32], inputs: usize, outputs: usize) -> Vec<f64> {
    let m = x.len().checked_div(inputs).unwrap_or(0);
    let mut out = Vec::with_capacity(m * outputs);
    for r in 0..m {
        for c in 0..outputs {
            let (x, w) = (&x[r * inputs..][..inputs], &weight[c * inputs..][..inputs]);
            out.push(x.iter().zip(w).map(|(&x, &w)| x as f64 * w as f64).sum());
        }
    }
    out
}

fn run(
    format: Format,
    x: &[f32],
    weight: &[f32],
    m: usize,
    inputs: usize,
    outputs: usize,
    epilogue: &Epilogue,
) -> Vec<f32> {
    run_of(Products::Bf16, format, x, weight, [m, inputs, outputs], epilogue)
}

fn run_of(
    products: Products,
    format: Format,
    x: &[f32],
    weight: &[f32],
    [m, inputs, outputs]: [usize; 3],
    epilogue: &Epilogue,
) -> Vec<f32> {
    let lines = pack(format, weight, outputs, inputs);
    let packed = Packed::new(format, outputs, inputs, &lines).expect("packed by this very function");
    let mut out = vec![f32::NAN; m * outputs];
    let matrix = MatrixMut::new(&mut out, m, outputs);
    linear(products, matrix, Matrix::new(x, m, inputs), packed, epilogue, Threads::Pool);
    out
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
}

#[test]
fn linear_follows_float64_on_odd_shapes_at_every_level() {
    at_every_level(|level| {
        for m in ROWS {
            for (inputs, outputs) in SIZES {
                let x = numbers(m * inputs, 1);
                let weight = numbers(outputs * inputs, 2);
                let exact = |x: &[f32], weight: &[f32]| match inputs {
                    0 => vec![0.0; m * outputs],
                    _ => reference(x, weight, inputs, outputs),
                };
                let near = |format: Format, got: &[f32], expected: &[f64], tolerance: f64| {
                    assert_eq!(got.len(), expected.len());
                    for (got, expected) in got.iter().zip(expected) {
                        let difference = (*got as f64 - expected).abs();
                        assert!(
                            difference <= tolerance,
                            "{level:?} {format:?} {m} {inputs} {outputs}: {got} {expected}"
                        );
                    }
                };
                let plain = Epilogue::default();
                let got = run(Format::F32, &x, &weight, m, inputs, outputs, &plain);
                near(Format::F32, &got, &exact(&x, &weight), 1e-4);
                let got = run(Format::Bf16, &x, &weight, m, inputs, outputs, &plain);
                let values = if level.has_bf16_products() { rounded(&x) } else { x.clone() };
                near(Format::Bf16, &got, &exact(&values, &rounded(&weight)), 1e-4);
                let sizes = [m, inputs, outputs];
                let got = run_of(Products::F32, Format::Bf16, &x, &weight, sizes, &plain);
                near(Format::Bf16, &got, &exact(&x, &rounded(&weight)), 1e-4);
                // A step is 2/255 of the range at most on either side; errors add as a random walk.
                let got = run(Format::Int8, &x, &weight, m, inputs, outputs, &plain);
                near(Format::Int8, &got, &exact(&x, &weight), 0.02 * (inputs as f64).sqrt());
            }
        }
    });
}

#[test]
fn int8_is_the_same_at_every_level() {
    for (m, inputs, outputs) in [(1, 7, 5), (9, 64, 33), (20, 1030, 40)] {
        let (x, weight) = (numbers(m * inputs, 4), numbers(outputs * inputs, 5));
        let mut first: Option<Vec<f32>> = None;
        at_every_level(|level| {
            let got = run(Format::Int8, &x, &weight, m, inputs, outputs, &Epilogue::default());
            let first = first.get_or_insert_with(|| got.clone());
            assert_eq!(&got, first, "{level:?}");
        });
    }
}

#[test]
fn a_row_depends_on_no_other_row_and_on_no_thread() {
    let (inputs, outputs) = (530, 150);
    let m = 230;
    let (x, weight) = (numbers(m * inputs, 6), numbers(outputs * inputs, 7));
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
    at_every_level(|level| {
        for format in [Format::F32, Format::Bf16, Format::Int8] {
            let plain = Epilogue::default();
            let whole = three.install(|| run(format, &x, &weight, m, inputs, outputs, &plain));
            for (first, count) in [(0, 1), (5, 2), (100, 7), (31, 97)] {
                let part = &x[first * inputs..][..count * inputs];
                let alone = one.install(|| run(format, part, &weight, count, inputs, outputs, &plain));
                assert_eq!(
                    alone,
                    whole[first * outputs..][..count * outputs],
                    "{level:?} {format:?} {first} {count}"
                );
            }
        }
    });
}

#[test]
fn the_epilogue_comes_in_order() {
    let (m, inputs, outputs) = (19, 24, 37);
    let (x, weight) = (numbers(m * inputs, 1), numbers(outputs * inputs, 2));
    let (bias, gate, residual) =
        (numbers(outputs, 3), numbers(m * (outputs + 3), 4), numbers(m * outputs, 5));
    let epilogue = Epilogue {
        scale: 0.5,
        bias: &bias,
        activation: Some(Activation::Silu),
        gate: Some(Matrix::strided(&gate, m, outputs, outputs + 3)),
        residual: Some(Matrix::new(&residual, m, outputs)),
    };
    let exact = reference(&x, &weight, inputs, outputs);
    at_every_level(|level| {
        let got = run(Format::F32, &x, &weight, m, inputs, outputs, &epilogue);
        for (i, got) in got.iter().enumerate() {
            let (r, c) = (i / outputs, i % outputs);
            let value = 0.5 * exact[i] + bias[c] as f64;
            let value = value / (1.0 + (-value).exp());
            let expected = value * gate[r * (outputs + 3) + c] as f64 + residual[i] as f64;
            assert!((*got as f64 - expected).abs() < 1e-4, "{level:?}: {got} {expected}");
        }
    });
}

#[test]
fn products_of_views_follow_float64() {
    at_every_level(|level| {
        for (m, k, n) in [(1, 1, 1), (7, 33, 17), (70, 300, 50), (3, 0, 4), (130, 20, 18)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let turn = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (a_turned, b_turned) = (turn(&a, m, k), turn(&b, k, n));
            let old = numbers(m * (n + 2), 3);
            for (a, b) in [
                (Matrix::new(&a, m, k), Matrix::new(&b, k, n)),
                (Matrix::new(&a_turned, k, m).transposed(), Matrix::new(&b, k, n)),
                (Matrix::new(&a, m, k), Matrix::new(&b_turned, n, k).transposed()),
                (Matrix::new(&a_turned, k, m).transposed(), Matrix::new(&b_turned, n, k).transposed()),
            ] {
                for (products, scale, keep) in [
                    (Products::F32, 1.0, false),
                    (Products::F32, 0.3, false),
                    (Products::F32, 1.0, true),
                    (Products::Bf16, 0.3, false),
                    (Products::Bf16, 1.0, true),
                ] {
                    let mut out = if keep { old.clone() } else { vec![f32::NAN; old.len()] };
                    let to = MatrixMut::strided(&mut out, m, n, n + 2);
                    product_of(products, to, a, b, &Epilogue::scale(scale), keep, Threads::Pool);
                    let rounds = products == Products::Bf16 && level.has_bf16_products();
                    for r in 0..m {
                        for c in 0..n {
                            let value = |x: &Matrix, r: usize, c: usize| {
                                let value = x.data[r * x.row_stride + c * x.column_stride];
                                if rounds { bf16::from_f32(value).to_f64() } else { value as f64 }
                            };
                            let sum: f64 = (0..k).map(|i| value(&a, r, i) * value(&b, i, c)).sum();
                            let kept = if keep { old[r * (n + 2) + c] as f64 } else { 0.0 };
                            let expected = scale as f64 * sum + kept;
                            let got = out[r * (n + 2) + c] as f64;
                            assert!(
                                (got - expected).abs() < 1e-4,
                                "{level:?} {products:?} {m} {k} {n}: {got} {expected}"
                            );
                        }
                        if r + 1 < m && !keep {
                            assert!(out[r * (n + 2) + n].is_nan(), "wrote between the rows");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn what_is_no_number_stays_in_its_row_or_column() {
    let (m, inputs, outputs) = (5, 40, 21);
    let mut x = numbers(m * inputs, 1);
    x[2 * inputs + 3] = f32::NAN;
    x[4 * inputs + 1] = f32::INFINITY;
    let mut weight = numbers(outputs * inputs, 2);
    weight[7 * inputs + 39] = f32::NAN;
    at_every_level(|level| {
        for format in [Format::F32, Format::Bf16, Format::Int8] {
            let got = run(format, &x, &weight, m, inputs, outputs, &Epilogue::default());
            for (i, value) in got.iter().enumerate() {
                let (r, c) = (i / outputs, i % outputs);
                let sound = r != 2 && r != 4 && c != 7;
                assert_eq!(value.is_finite(), sound, "{level:?} {format:?} {r} {c}: {value}");
                assert!(r == 4 || sound || value.is_nan());
            }
        }
    });
}

#[test]
fn packed_weights_come_out_again() {
    let weight = numbers(33 * 10, 1);
    let again = |format: Format| {
        let lines = pack(format, &weight, 33, 10);
        Packed::new(format, 33, 10, &lines).expect("packed by this very function").unpack()
    };
    assert_eq!(again(Format::F32), weight);
    assert_eq!(again(Format::Bf16), rounded(&weight));
    for (a, b) in again(Format::Int8).iter().zip(&weight) {
        assert!((a - b).abs() <= 0.5 / 127.0 * 1.001);
    }
}

#[test]
fn packed_bytes_are_checked() {
    let lines = pack(Format::Int8, &numbers(33 * 10, 1), 33, 10);
    assert!(Packed::new(Format::Int8, 33, 10, &lines).is_some());
    assert!(Packed::new(Format::Int8, 33, 13, &lines).is_none());
    assert!(Packed::new(Format::Int8, 33, 10, &lines[1..]).is_none());
    assert!(Packed::new(Format::F32, usize::MAX, usize::MAX, &lines).is_none());
}

#[test]
fn results_are_filled_from_left_to_right() {
    let (a, b, c) = (numbers(5 * 7, 1), numbers(7 * 3, 2), numbers(7 * 20, 3));
    let [a, b, c] = [Matrix::new(&a, 5, 7), Matrix::new(&b, 7, 3), Matrix::new(&c, 7, 20)];
    let mut fresh = Fresh::new(5, 23);
    for part in [b, c] {
        fresh.product(Products::F32, a, part, &Epilogue::default(), Threads::Pool);
    }
    let whole = fresh.finish();
    for (part, first) in [(b, 0), (c, 3)] {
        let mut alone = vec![0.0; 5 * part.columns];
        let to = MatrixMut::new(&mut alone, 5, part.columns);
        product(to, a, part, &Epilogue::default(), false, Threads::One);
        for (row, alone) in alone.chunks_exact(part.columns).enumerate() {
            assert_eq!(&whole[row * 23 + first..][..part.columns], alone);
        }
    }
}

#[test]
#[should_panic(expected = "columns that no product gave")]
fn a_result_with_a_gap_is_not_given_out() {
    Fresh::new(5, 23).finish();
}

#[test]
fn sums_columns() {
    let mut out = [1.0; 2];
    add_column_sums(Matrix::strided(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 2, 3), &mut out);
    assert_eq!(out, [6.0, 8.0]);
}
