use super::*;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// In [-1, 1).
    fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Of any finite magnitude.
    fn wild(&mut self) -> f32 {
        let x = f32::from_bits(self.bits() as u32);
        if x.is_finite() { x } else { 0.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Uniform.
    Uniform,
    /// Few centres, most rows a hair away from one, many of them equal.
    Clustered,
    /// All rows are the same.
    Equal,
    /// Small whole numbers: ties of rows that differ.
    Whole,
    /// One number of each row outweighs the others by far.
    Outlier,
    /// Magnitudes from the subnormal to where sums overflow.
    Wild,
    /// Next to nothing, at the subnormal end.
    Tiny,
    /// As `Uniform`, with infinities and NaN among them.
    Broken,
}

const KINDS: [Kind; 8] = [
    Kind::Uniform,
    Kind::Clustered,
    Kind::Equal,
    Kind::Whole,
    Kind::Outlier,
    Kind::Wild,
    Kind::Tiny,
    Kind::Broken,
];

fn table(kind: Kind, rows: usize, dim: usize, random: &mut Random) -> Vec<f32> {
    let centres: Vec<f32> = (0..5 * dim).map(|_| random.number()).collect();
    let mut table = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        let centre = random.below(5);
        let centre = &centres[centre * dim..][..dim];
        let (hair, outlier) = (random.below(2) as f32 * 1e-6, random.below(dim.max(1)));
        for (i, &near) in centre.iter().enumerate() {
            table.push(match kind {
                Kind::Uniform => random.number(),
                Kind::Clustered => near + hair * random.number(),
                Kind::Equal => centres[i],
                Kind::Whole => random.below(3) as f32 - 1.0,
                Kind::Outlier => random.number() * if i == outlier { 1e6 } else { 1e-3 },
                Kind::Wild => random.wild(),
                Kind::Tiny => random.number() * 1e-42,
                Kind::Broken => match random.below(3 * dim) {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2 => f32::NEG_INFINITY,
                    _ => random.number(),
                },
            });
        }
    }
    table
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Codes of all rows.
struct Coded {
    codes: Vec<i8>,
    scales: Vec<f32>,
    errors: Vec<f32>,
    dim: usize,
}

impl Coded {
    fn new(vectors: &[u8], dim: usize) -> Coded {
        let rows = vectors.len() / NUMBER / dim;
        let (mut codes, mut scales, mut errors) =
            (vec![99; rows * dim], vec![f32::NAN; rows], vec![f32::NAN; rows]);
        quantise(vectors, dim, &mut codes, &mut scales, &mut errors);
        Coded { codes, scales, errors, dim }
    }

    fn all(&self) -> Codes<'_> {
        Codes { codes: &self.codes, scales: &self.scales, errors: &self.errors, dim: self.dim }
    }
}

/// The score by its definition, without vectors.
fn score(row: &[f32], query: &[f32]) -> f32 {
    let whole = row.len() / LANES * LANES;
    let mut sums = [0.0f32; LANES];
    for i in 0..whole {
        sums[i % LANES] += row[i] * query[i];
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    (whole..row.len()).fold(sums[0], |sum, i| sum + row[i] * query[i])
}

fn reference(
    table: &[f32],
    query: &[f32],
    k: usize,
    id: &dyn Fn(usize) -> Option<usize>,
) -> Vec<(usize, usize, u32)> {
    let rows = table.chunks_exact(query.len()).enumerate();
    let scored = rows.filter_map(|(row, v)| Some((row, id(row)?, score(v, query))));
    let mut all: Vec<(usize, usize, f32)> = scored.filter(|found| !found.2.is_nan()).collect();
    all.sort_by(|a, b| b.2.partial_cmp(&a.2).unwrap().then(a.1.cmp(&b.1)));
    all.truncate(k);
    all.into_iter().map(|(row, id, score)| (row, id, score.to_bits())).collect()
}

fn plain(best: &Best) -> Vec<(usize, usize, u32)> {
    best.found.iter().map(|found| (found.row, found.id, found.score.to_bits())).collect()
}

#[test]
fn the_answer_is_the_plain_scans() {
    let mut random = Random(1);
    for dim in [1, 2, 3, 7, 15, 16, 17, 33, 63, 64, 65, 100, 129, 257, 512] {
        for kind in KINDS {
            let rows = [1, 2, 63, 64, 65, 200, 700][random.below(7)];
            let table = table(kind, rows, dim, &mut random);
            let vectors = bytes(&table);
            let coded = Coded::new(&vectors, dim);
            let whole = [Piece { first: 0, codes: coded.all() }];
            // Some rows have no codes; the last piece may stand for rows that are not there.
            let cuts = [rows / 7, rows / 3, rows / 2];
            let part =
                |from: usize, to: usize| Piece { first: from, codes: coded.all().part(from, to - from) };
            let parts = [part(cuts[0], cuts[1]), part(cuts[2], rows)];
            let near = random.below(rows) * dim;
            for query in 0..4 {
                let query: Vec<f32> = match query {
                    0 => table[near..][..dim].to_vec(),
                    1 => (0..dim).map(|_| random.number()).collect(),
                    2 => (0..dim).map(|_| random.wild()).collect(),
                    _ => vec![[0.0, -0.0, 1e-44, f32::INFINITY, f32::NAN][random.below(5)]; dim],
                };
                for k in [0, 1, 2, 10, rows / 9, rows, rows + 1, usize::MAX] {
                    let all = |row| Some(row);
                    // Ids that run the other way, and rows that do not count.
                    let some = |row: usize| (!row.is_multiple_of(3)).then(|| rows - row);
                    let what = format!("{kind:?} {rows} x {dim}, k {k}");
                    for pieces in [&whole[..], &parts, &[]] {
                        let found = best(&vectors, pieces, &query, k, &all);
                        assert_eq!(plain(&found), reference(&table, &query, k, &all), "{what}");
                        let found = best(&vectors, pieces, &query, k, &some);
                        assert_eq!(plain(&found), reference(&table, &query, k, &some), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn many_tasks_agree_with_one() {
    let mut random = Random(2);
    let (rows, dim) = (70_000, 48);
    for kind in [Kind::Uniform, Kind::Clustered, Kind::Equal, Kind::Broken] {
        let table = table(kind, rows, dim, &mut random);
        let vectors = bytes(&table);
        let coded = Coded::new(&vectors, dim);
        let pieces = [Piece { first: 0, codes: coded.all().part(0, rows - 300) }];
        let query: Vec<f32> = (0..dim).map(|_| random.number()).collect();
        for k in [1, 10, 3000] {
            let found = best(&vectors, &pieces, &query, k, &|row| Some(row));
            assert_eq!(plain(&found), reference(&table, &query, k, &|row| Some(row)), "{kind:?} {k}");
            if kind == Kind::Uniform && k == 10 {
                assert!(found.rescored < 2000, "{} rows were scored again", found.rescored);
            }
        }
    }
}

#[test]
fn intervals_hold_the_scores() {
    let mut random = Random(3);
    for round in 0..60 {
        let dim = 1 + random.below([3, 20, 70, 600, 3000][round % 5]);
        for kind in KINDS {
            let rows = 40;
            let table = table(kind, rows, dim, &mut random);
            let coded = Coded::new(&bytes(&table), dim);
            let like = self::table(kind, 1, dim, &mut random);
            let mixed: Vec<f32> = (0..dim).map(|i| [random.number(), random.wild()][i % 2]).collect();
            for query in [table[..dim].to_vec(), like, mixed, vec![0.0; dim]] {
                let Some(levels) = Query::new(&query) else {
                    assert!(query.iter().any(|x| !x.is_finite()));
                    continue;
                };
                let mut sums = vec![0; rows];
                products(Level::current(), &coded.codes, &levels.levels, &mut sums);
                let (mut lows, mut highs) = (vec![f64::NAN; rows], vec![f64::NAN; rows]);
                intervals(&sums, &coded.scales, &coded.errors, &levels.bounds, &mut lows, &mut highs);
                for (row, vector) in table.chunks_exact(dim).enumerate() {
                    let score = f64::from(score(vector, &query));
                    let (low, high) = (lows[row], highs[row]);
                    if score.is_nan() {
                        assert!(low == f64::NEG_INFINITY && high == f64::INFINITY, "{kind:?} {dim}");
                    } else {
                        assert!(low <= score && score <= high, "{kind:?} {dim}: {low} {score} {high}");
                    }
                    if kind == Kind::Uniform && query[0] == table[0] {
                        let norm = |v: &[f32]| norm(v.iter().map(|&x| f64::from(x)));
                        let share = (high - low) / 2.0 / (norm(vector) * norm(&query));
                        assert!(share < 0.02 || dim < 20, "the interval is wide: {share} at {dim}");
                    }
                }
            }
        }
    }
}

#[test]
fn errors_bound_what_rounding_lost() {
    let mut random = Random(4);
    for dim in [1, 5, 8, 33, 512] {
        for kind in KINDS {
            let table = table(kind, 50, dim, &mut random);
            let coded = Coded::new(&bytes(&table), dim);
            for (row, vector) in table.chunks_exact(dim).enumerate() {
                let (scale, error) = (f64::from(coded.scales[row]), f64::from(coded.errors[row]));
                if vector.iter().any(|x| !x.is_finite()) {
                    assert!(error == f64::INFINITY && scale == 0.0);
                    continue;
                }
                let codes = &coded.codes[row * dim..][..dim];
                let lost = vector.iter().zip(codes).map(|(&v, &c)| f64::from(v) - scale * f64::from(c));
                let lost = norm(lost);
                assert!(codes.iter().all(|c| (-127..=127).contains(c)));
                assert!(lost <= error && error <= lost * 1.00001 + 1e-44, "{kind:?} {lost} {error}");
                // To the nearest.
                let most = scale * (dim as f64).sqrt() * 0.50001;
                assert!(kind == Kind::Tiny || kind == Kind::Wild || lost <= most, "{kind:?}");
            }
        }
    }
}

#[test]
fn products_are_exact_at_every_level() {
    let mut random = Random(5);
    let dims = [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 191, 300, 512, 1000, 5000, 70_000];
    for dim in dims {
        for extreme in [false, true] {
            let rows = 7;
            let query: Vec<f32> = (0..dim).map(|_| if extreme { -3.0 } else { random.number() }).collect();
            let levels = Query::new(&query).unwrap().levels;
            let code = |random: &mut Random| if extreme { -128 } else { random.bits() as i8 };
            let codes: Vec<i8> = (0..rows * dim).map(|_| code(&mut random)).collect();
            let exact = |row: usize| -> i64 {
                let row = &codes[row * dim..][..dim];
                row.iter().zip(&levels).map(|(&c, &d)| i64::from(c) * i64::from(d)).sum()
            };
            let expected: Vec<i32> = (0..rows).map(|row| i32::try_from(exact(row)).unwrap()).collect();
            for level in Level::available() {
                let mut out = vec![i32::MIN; rows];
                products(level, &codes, &levels, &mut out);
                assert_eq!(out, expected, "{level:?} {dim}");
            }
        }
    }
}

#[test]
fn damaged_scales_and_errors_cost_only_time() {
    let mut random = Random(6);
    let (rows, dim) = (300, 20);
    let table = table(Kind::Uniform, rows, dim, &mut random);
    let vectors = bytes(&table);
    let mut coded = Coded::new(&vectors, dim);
    for row in 0..rows {
        match row % 9 {
            0 => coded.scales[row] = f32::NAN,
            1 => coded.errors[row] = f32::NAN,
            2 => coded.scales[row] = f32::INFINITY,
            3 => coded.errors[row] = f32::INFINITY,
            4 => coded.errors[row] = -1.0,
            5 => coded.scales[row] = f32::NEG_INFINITY,
            _ => {}
        }
    }
    let pieces = [Piece { first: 0, codes: coded.all() }];
    let query: Vec<f32> = (0..dim).map(|_| random.number()).collect();
    let found = best(&vectors, &pieces, &query, 10, &|row| Some(row));
    assert_eq!(plain(&found), reference(&table, &query, 10, &|row| Some(row)));
}

#[test]
fn codes_that_promise_too_much_are_not_used() {
    let mut random = Random(7);
    let (rows, dim) = (400, 33);
    let table = table(Kind::Uniform, rows, dim, &mut random);
    let vectors = bytes(&table);
    let mut coded = Coded::new(&vectors, dim);
    let query = table[..dim].to_vec();
    for row in 0..20 {
        // As if these were as near as the query itself.
        coded.codes.copy_within(..dim, (row * 20) * dim);
        coded.scales[row * 20] = coded.scales[0];
        coded.errors[row * 20] = coded.errors[0];
    }
    let pieces = [Piece { first: 0, codes: coded.all() }];
    let found = best(&vectors, &pieces, &query, 10, &|row| Some(row));
    assert_eq!(plain(&found), reference(&table, &query, 10, &|row| Some(row)));
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let all = |row| Some(row);
    assert!(best(&[], &[], &[1.0], 3, &all).found.is_empty());
    assert!(best(&bytes(&[1.0, 2.0]), &[], &[], 3, &all).found.is_empty());
    assert!(best(&bytes(&[1.0, 2.0]), &[], &[1.0], 0, &all).found.is_empty());
    assert!(best(&bytes(&[1.0, 2.0]), &[], &[1.0], 3, &|_| None).found.is_empty());
    assert!(best(&bytes(&[1.0, 2.0]), &[], &[f32::NAN], 3, &all).found.is_empty());
    let mut none = [0.0; 0];
    quantise(&[], 4, &mut [], &mut none, &mut []);
    let (mut scales, mut errors) = ([9.0; 2], [9.0; 2]);
    quantise(&[], 0, &mut [], &mut scales, &mut errors);
    assert_eq!((scales, errors), ([0.0; 2], [0.0; 2]));
}

#[test]
fn ties_go_by_id_and_zeros_are_equal() {
    let vectors = bytes(&[0.0, -0.0, 0.0, -0.0].repeat(100));
    let coded = Coded::new(&vectors, 1);
    let pieces = [Piece { first: 0, codes: coded.all() }];
    let found = best(&vectors, &pieces, &[1.0], 5, &|row| Some(1000 - row));
    let rows: Vec<usize> = found.found.iter().map(|found| found.row).collect();
    assert_eq!(rows, [399, 398, 397, 396, 395]);
}

#[test]
fn bytes_are_seen_as_what_they_are() {
    let numbers = [1.5f32, -2.0, 3.25];
    let whole: Vec<u8> = bytes(&numbers);
    assert_eq!(as_bytes(as_codes(&whole)), whole);
    // Somewhere in four places in a row lies an aligned one.
    let mut room = [0; 16];
    let aligned: Vec<usize> = (0..4)
        .filter(|&at| {
            room[at..at + 12].copy_from_slice(&whole);
            match as_numbers(&room[at..at + 12]) {
                Some(seen) => {
                    assert_eq!(seen, numbers);
                    assert_eq!(as_numbers(&room[at..at + 11]), None);
                    true
                }
                None => false,
            }
        })
        .collect();
    assert_eq!(aligned.len(), usize::from(cfg!(target_endian = "little")));
}
