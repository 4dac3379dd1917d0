use super::*;
use crate::gemm::tests::numbers;

fn reference(sizes: Sizes, mask: Mask, scale: f64, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let Sizes { batch, queries, keys, heads, kv_heads, width } = sizes;
    let mut out = vec![0.0; q.len()];
    for b in 0..batch {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            for i in 0..queries {
                let row = ((b * queries + i) * heads + h) * width;
                let key = |j: usize| ((b * keys + j) * kv_heads + kv) * width;
                let sees = |j: usize| {
                    (!mask.causal || j + queries <= i + keys)
                        && mask.window.is_none_or(|window| i + keys < j + queries + window)
                        && mask.keys.is_none_or(|m| m[b * keys + j] != 0)
                };
                let score = |j: usize| scale * (0..width).map(|d| q[row + d] * k[key(j) + d]).sum::<f64>();
                let total: f64 = (0..keys).filter(|&j| sees(j)).map(|j| score(j).exp()).sum();
                for j in (0..keys).filter(|&j| sees(j)) {
                    for d in 0..width {
                        out[row + d] += score(j).exp() / total * v[key(j) + d];
                    }
                }
            }
        }
    }
    out
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| v as f64).collect()
}

#[test]
fn forward_and_backward_follow_the_reference() {
    let shapes = [
        (1, 1, 1, 1, 1, 1),
        (2, 7, 7, 4, 4, 3),
        (2, 5, 9, 4, 2, 8),
        (1, 17, 17, 2, 1, 16),
        (3, 33, 33, 2, 2, 5),
        (1, 70, 9, 1, 1, 3),
        (1, 67, 1030, 2, 1, 4),
        // More queries than a tile has.
        (1, 140, 9, 1, 1, 3),
        (1, 133, 520, 2, 1, 4),
        // With a window later queries see nothing of the first tile.
        (1, 200, 700, 1, 1, 4),
    ];
    for (batch, queries, keys, heads, kv_heads, width) in shapes {
        let sizes = Sizes { batch, queries, keys, heads, kv_heads, width };
        let (nq, nk) = (batch * queries * heads * width, batch * keys * kv_heads * width);
        let (q, k, v, g) = (numbers(nq, 1), numbers(nk, 2), numbers(nk, 3), numbers(nq, 4));
        let padding: Vec<u8> = (0..batch * keys).map(|i| (i % keys == 0 || i % 3 != 1) as u8).collect();
        for mask in [
            Mask::default(),
            Mask { causal: true, ..Mask::default() },
            Mask { keys: Some(&padding), ..Mask::default() },
            Mask { causal: true, keys: Some(&padding), window: None },
            Mask { causal: true, keys: None, window: Some(4) },
            Mask { causal: true, keys: Some(&padding), window: Some(600) },
        ] {
            let mut out = vec![f32::NAN; nq];
            let mut logs = vec![f32::NAN; sizes.statistics()];
            let q_view = Matrix::new(&q, batch * queries, heads * width);
            let [k_view, v_view] = [&k, &v].map(|x| Matrix::new(x, batch * keys, kv_heads * width));
            forward(sizes, mask, 0.3, q_view, k_view, v_view, &mut out, Some(&mut logs));
            let expected = reference(sizes, mask, 0.3, &wide(&q), &wide(&k), &wide(&v));
            for (a, b) in out.iter().zip(&expected) {
                assert!((*a as f64 - b).abs() < 1e-5, "{sizes:?} {mask:?}: {a} {b}");
            }
            let (mut dq, mut dk, mut dv) = (vec![f32::NAN; nq], vec![f32::NAN; nk], vec![f32::NAN; nk]);
            backward(sizes, mask, 0.3, q_view, k_view, v_view, &out, &logs, &g, &mut dq, &mut dk, &mut dv);
            let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
                reference(sizes, mask, 0.3, q, k, v).iter().zip(&g).map(|(y, &g)| y * g as f64).sum()
            };
            let inputs = [wide(&q), wide(&k), wide(&v)];
            for (which, gradient) in [&dq, &dk, &dv].into_iter().enumerate() {
                for probe in (0..gradient.len()).step_by(gradient.len() / 6 + 1) {
                    let at = |delta: f64| {
                        let mut moved = inputs.clone();
                        moved[which][probe] += delta;
                        loss(&moved[0], &moved[1], &moved[2])
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!(
                        (gradient[probe] as f64 - slope).abs() < 1e-4,
                        "{sizes:?} {mask:?} {which} {probe}: {} {slope}",
                        gradient[probe]
                    );
                }
            }
        }
    }
}

#[test]
fn pages_are_the_same_keys() {
    for (queries, keys, window) in [
        (1, 1, None),
        (1, 40, None),
        (7, 40, None),
        (3, 33, Some(10)),
        (40, 40, Some(9)),
        (200, 230, Some(9)),
    ] {
        let sizes = Sizes { batch: 1, queries, keys, heads: 4, kv_heads: 2, width: 6 };
        let (q, k, v) = (numbers(queries * 24, 1), numbers(keys * 12, 2), numbers(keys * 12, 3));
        let q = Matrix::new(&q, queries, 24);
        let mask = Mask { causal: true, keys: None, window };
        let (mut whole, mut paged) = (vec![0.0; queries * 24], vec![f32::NAN; queries * 24]);
        forward(sizes, mask, 0.4, q, Matrix::new(&k, keys, 12), Matrix::new(&v, keys, 12), &mut whole, None);
        // Numbers of up to one: f16 has 11 bits of them, int8 seven.
        for (format, near) in [(CacheFormat::F32, 1e-6), (CacheFormat::F16, 1e-3), (CacheFormat::Int8, 2e-2)]
        {
            let kept = |rows: &[f32]| -> Vec<Kept> {
                let page = |rows: &[f32]| {
                    let mut page = Kept::new(format, 16, 12, 6);
                    page.append(Matrix::new(&numbers(36, 9), 3, 12)); // taken back at once
                    page.truncate(1);
                    page.truncate(0);
                    rows.chunks(5 * 12).for_each(|rows| page.append(Matrix::new(rows, rows.len() / 12, 12)));
                    page
                };
                rows.chunks(16 * 12).map(page).collect()
            };
            let (keys_kept, values_kept) = (kept(&k), kept(&v));
            let pages: Vec<Page> =
                keys_kept.iter().zip(&values_kept).map(|(keys, values)| Page { keys, values }).collect();
            forward_paged(sizes, window, 0.4, q, &pages, 16, &mut paged);
            for (a, b) in whole.iter().zip(&paged) {
                assert!((a - b).abs() < near, "{format:?} {queries} {keys} {window:?}: {a} {b}");
            }
            // In fewer bits it is not the same.
            assert_eq!(
                whole.iter().zip(&paged).all(|(a, b)| (a - b).abs() < 1e-6),
                format == CacheFormat::F32
            );
        }
    }
}

#[test]
fn a_score_that_is_no_number_spoils_its_query_alone() {
    // One by one, and many together.
    for queries in [2, 20] {
        let sizes = Sizes { batch: 1, queries, keys: 3, heads: 1, kv_heads: 1, width: 2 };
        let (mut q, k, mut out) = (vec![1.0; queries * 2], [1.0; 6], vec![0.0; queries * 2]);
        q[0] = f32::NAN;
        let (q, k) = (Matrix::new(&q, queries, 2), Matrix::new(&k, 3, 2));
        forward(sizes, Mask::default(), 1.0, q, k, k, &mut out, None);
        assert!(out[0].is_nan() && out[1].is_nan());
        out[2..].iter().for_each(|value| assert!((value - 1.0).abs() < 1e-6, "{queries}: {out:?}"));
    }
}

#[test]
fn a_query_that_sees_nothing_gets_zeros() {
    let sizes = Sizes { batch: 1, queries: 2, keys: 3, heads: 1, kv_heads: 1, width: 2 };
    let (mut out, mut logs) = ([f32::NAN; 4], [f32::NAN; 2]);
    let mask = Mask { keys: Some(&[0, 0, 0]), ..Mask::default() };
    let (q, k) = (Matrix::new(&[1.0; 4], 2, 2), Matrix::new(&[1.0; 6], 3, 2));
    forward(sizes, mask, 1.0, q, k, k, &mut out, Some(&mut logs));
    assert_eq!(out, [0.0; 4]);
    let (mut dq, mut dk, mut dv) = ([f32::NAN; 4], [f32::NAN; 6], [f32::NAN; 6]);
    backward(sizes, mask, 1.0, q, k, k, &out, &logs, &[1.0; 4], &mut dq, &mut dk, &mut dv);
    assert_eq!((dq, dk, dv), ([0.0; 4], [0.0; 6], [0.0; 6]));
}

#[test]
fn what_is_no_number_stays_none_in_fewer_bits() {
    for format in [CacheFormat::F16, CacheFormat::Int8] {
        let mut kept = Kept::new(format, 2, 4, 2);
        kept.append(Matrix::new(&[f32::NAN, 1.0, 0.0, 0.0, 1e6, -1e6, 1e-30, 0.0], 2, 4));
        let (mut first, mut second) = Default::default();
        assert!(kept.head(2, 0, &mut first).row(0)[0].is_nan(), "{format:?}");
        assert_eq!(kept.head(2, 1, &mut second).row(0), [0.0, 0.0], "{format:?}");
        let far = kept.head(2, 0, &mut first).row(1);
        assert!(far[0] > 6e4 && far[0] == -far[1] && far[0].is_finite(), "{format:?}: {far:?}");
    }
}
