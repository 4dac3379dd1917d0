//! Rotary position embedding (Su et al. 2021): pairs of a head's values turned by angles that grow with
//! the token's place.

use crate::level::leveled;
use crate::team;

/// Which values make a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// The first half's with the second half's: transformers' LLaMA, GPT-NeoX.
    Halves,
    /// Neighbours: the paper's, and llama.cpp's LLaMA files.
    Neighbours,
}

/// The sizes of a rotation.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Heads side by side in a row, at its start.
    pub heads: usize,
    /// Values of a head.
    pub width: usize,
    /// How many of them are turned: the first, an even number.
    pub turned: usize,
    /// Values of a row.
    pub row: usize,
}

/// Rows of a task.
const ROWS: usize = 16;

/// Turns `x`, `[tokens, row]`, in place; what lies behind the heads stays. `cosines` and `sines` are `[tokens, turned / 2]`; with
/// `back` the other way round, which is the gradient.
pub fn rotate(sizes: Sizes, pairs: Pairs, cosines: &[f32], sines: &[f32], back: bool, x: &mut [f32]) {
    let Sizes { heads, width, turned, row } = sizes;
    let half = turned / 2;
    assert!(turned <= width && turned.is_multiple_of(2) && heads * width <= row);
    if row == 0 || half == 0 {
        return;
    }
    assert!(
        x.len().is_multiple_of(row) && cosines.len() == x.len() / row * half && sines.len() == cosines.len()
    );
    team::chunks(x, row * ROWS, |index, x| {
        let first = index * ROWS * half;
        for (token, x) in x.chunks_exact_mut(row).enumerate() {
            let at = first + token * half..first + (token + 1) * half;
            for head in x[..heads * width].chunks_exact_mut(width) {
                match pairs {
                    Pairs::Halves => {
                        let (low, high) = head[..turned].split_at_mut(half);
                        halves(low, high, &cosines[at.clone()], &sines[at.clone()], back);
                    }
                    Pairs::Neighbours => {
                        neighbours(&mut head[..turned], &cosines[at.clone()], &sines[at.clone()], back);
                    }
                }
            }
        }
    });
}

leveled! {
    fn halves(low: &mut [f32], high: &mut [f32], cosines: &[f32], sines: &[f32], back: bool) {
        let sign = if back { -1.0 } else { 1.0 };
        for (((a, b), &cosine), &sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
            let sine = sine * sign;
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
    }
}

leveled! {
    fn neighbours(x: &mut [f32], cosines: &[f32], sines: &[f32], back: bool) {
        let sign = if back { -1.0 } else { 1.0 };
        for ((pair, &cosine), &sine) in x.as_chunks_mut::<2>().0.iter_mut().zip(cosines).zip(sines) {
            let ([a, b], sine) = (*pair, sine * sign);
            *pair = [a * cosine - b * sine, b * cosine + a * sine];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_lengths_and_comes_back() {
        let sizes = Sizes { heads: 2, width: 6, turned: 4, row: 13 };
        let x: Vec<f32> = (0..26).map(|i| (i as f32 * 0.7).sin()).collect();
        let angles = [0.3f32, 2.0, -1.1, 0.0];
        let (cosines, sines) = (angles.map(f32::cos), angles.map(f32::sin));
        for pairs in [Pairs::Halves, Pairs::Neighbours] {
            let mut turned = x.clone();
            rotate(sizes, pairs, &cosines, &sines, false, &mut turned);
            let (a, b) = if pairs == Pairs::Halves { (0, 2) } else { (0, 1) };
            assert!((turned[a] - (x[a] * 0.3f32.cos() - x[b] * 0.3f32.sin())).abs() < 1e-6);
            assert_eq!(turned[4..6], x[4..6]);
            assert!(turned[13] != x[13] && turned[25] == x[25]);
            let length = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>();
            assert!((length(&turned) - length(&x)).abs() < 1e-5);
            rotate(sizes, pairs, &cosines, &sines, true, &mut turned);
            assert!(turned.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
