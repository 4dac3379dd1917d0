//! Rotary position embedding (Su et al. 2021) with the scalings that public configs name.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result as CandleResult, Shape, Tensor};
pub use dari_kernels::rotary::Pairs;
use dari_kernels::rotary::{self as kernel, Sizes};
use std::sync::Arc;

use crate::{Result, ops};

/// How frequencies are stretched for texts longer than those of the first training.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scaling {
    /// Not at all.
    #[default]
    None,
    /// All alike (Chen et al. 2023).
    Linear {
        /// How many times as long texts may be.
        factor: f64,
    },
    /// By the base, as texts grow over `original` tokens (NTK-aware scaling).
    Dynamic {
        /// How many times as long texts may be.
        factor: f64,
        /// Tokens of the first training.
        original: f64,
    },
    /// Slow frequencies alone, with a smooth passage (LLaMA 3.1).
    Llama3 {
        /// How many times as long texts may be.
        factor: f64,
        /// Tokens of the first training over the longest wave that is stretched in part.
        low: f64,
        /// The same of the shortest.
        high: f64,
        /// Tokens of the first training.
        original: f64,
    },
    /// Slow frequencies alone, with a ramp over their numbers (YaRN: Peng et al. 2023).
    Yarn {
        /// How many times as long texts may be.
        factor: f64,
        /// Tokens of the first training.
        original: f64,
        /// Turns over those tokens from which a frequency stays as it is.
        fast: f64,
        /// Turns up to which one is stretched whole.
        slow: f64,
        /// Whether the ramp's ends are whole numbers.
        truncate: bool,
    },
    /// Each frequency by a number of its own (LongRoPE: Ding et al. 2024).
    Long {
        /// For texts of at most `original` tokens.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// Tokens of the first training.
        original: f64,
    },
}

/// Frequencies of one model.
#[derive(Clone, Debug)]
pub struct Rotary {
    base: f64,
    /// Values of a head that are turned.
    turned: usize,
    pairs: Pairs,
    scaling: Scaling,
    /// Multiplies sines and cosines.
    attention: f64,
}

impl Rotary {
    /// Angles `place * base^(-2 i / turned)`, before their scaling; `attention` multiplies what is turned.
    pub fn new(base: f64, turned: usize, pairs: Pairs, scaling: Scaling, attention: f64) -> Rotary {
        Rotary { base, turned, pairs, scaling, attention }
    }

    /// How many times as many tokens as a config's own number may be read.
    pub fn reach(&self) -> f64 {
        match self.scaling {
            Scaling::Linear { factor } | Scaling::Dynamic { factor, .. } => factor.max(1.0),
            // The others' configs give the number that stretching has reached.
            _ => 1.0,
        }
    }

    /// The sines and cosines of tokens at `places`, in a pass whose last token stands at `longest - 1`.
    pub fn turns(&self, places: &[usize], longest: usize) -> Turns {
        let frequencies: Vec<f32> = self.frequencies(longest).into_iter().map(|f| f as f32).collect();
        let mut turns =
            Turns { pairs: self.pairs, turned: self.turned, cosines: Vec::new(), sines: Vec::new() };
        for &place in places {
            for &frequency in &frequencies {
                // The product is single precision in the reference.
                let (sine, cosine) = f64::from(place as f32 * frequency).sin_cos();
                turns.cosines.push((cosine * self.attention) as f32);
                turns.sines.push((sine * self.attention) as f32);
            }
        }
        turns
    }

    fn frequencies(&self, longest: usize) -> Vec<f64> {
        use std::f64::consts::PI;
        let width = self.turned as f64;
        let plain = |base: f64| (0..self.turned / 2).map(move |i| base.powf(-2.0 * i as f64 / width));
        let wavelength = |frequency: f64| 2.0 * PI / frequency;
        match &self.scaling {
            Scaling::None => plain(self.base).collect(),
            Scaling::Linear { factor } => plain(self.base).map(|f| f / factor).collect(),
            Scaling::Dynamic { factor, original } => {
                let length = (longest as f64).max(*original);
                let grown = factor * length / original - (factor - 1.0);
                plain(self.base * grown.powf(width / (width - 2.0))).collect()
            }
            Scaling::Llama3 { factor, low, high, original } => plain(self.base)
                .map(|f| {
                    let wave = wavelength(f);
                    if wave < original / high {
                        return f;
                    }
                    if wave > original / low {
                        return f / factor;
                    }
                    let share = (original / wave - low) / (high - low);
                    (1.0 - share) * f / factor + share * f
                })
                .collect(),
            Scaling::Yarn { factor, original, fast, slow, truncate } => {
                let number =
                    |turns: f64| width * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
                let (mut low, mut high) = (number(*fast), number(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(width - 1.0));
                if low == high {
                    high += 0.001;
                }
                plain(self.base)
                    .enumerate()
                    .map(|(i, f)| {
                        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        ramp * f / factor + (1.0 - ramp) * f
                    })
                    .collect()
            }
            Scaling::Long { short, long, original } => {
                let divisors = if longest as f64 > *original { long } else { short };
                plain(self.base).zip(divisors).map(|(f, divisor)| f / divisor).collect()
            }
        }
    }
}

/// How far each token of a pass is turned, a row a token, sequence after sequence.
#[derive(Clone, Debug)]
pub struct Turns {
    pairs: Pairs,
    turned: usize,
    /// `[tokens, turned / 2]`.
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Turns {
    /// Turns the first `heads` heads of `width` of each row, in place.
    pub(crate) fn turn(&self, x: &mut [f32], heads: usize, width: usize, back: bool) {
        let rows = self.cosines.len() / (self.turned / 2).max(1);
        let sizes = Sizes { heads, width, turned: self.turned, row: x.len() / rows.max(1) };
        kernel::rotate(sizes, self.pairs, &self.cosines, &self.sines, back, x);
    }

    /// `[batch, tokens, heads * width]` to the same.
    pub fn apply(self: &Arc<Turns>, x: &Tensor, heads: usize) -> Result<Tensor> {
        if ops::by_kernel(x) {
            return Ok(x.contiguous()?.apply_op1(Rotate { turns: self.clone(), heads })?);
        }
        let (batch, tokens, total) = x.dims3()?;
        let (width, half) = (total / heads, self.turned / 2);
        let table = |of: &[f32]| Tensor::from_slice(of, (batch, tokens, 1, half), x.device());
        let (cosines, sines) = (table(&self.cosines)?, table(&self.sines)?);
        let split = x.reshape((batch, tokens, heads, width))?;
        let (a, b) = match self.pairs {
            Pairs::Halves => (split.narrow(3, 0, half)?, split.narrow(3, half, half)?),
            Pairs::Neighbours => {
                let pairs = split.narrow(3, 0, self.turned)?.reshape((batch, tokens, heads, half, 2))?;
                (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
            }
        };
        let low = (a.broadcast_mul(&cosines)? - b.broadcast_mul(&sines)?)?;
        let high = (b.broadcast_mul(&cosines)? + a.broadcast_mul(&sines)?)?;
        let turned = match self.pairs {
            Pairs::Halves => Tensor::cat(&[&low, &high], 3)?,
            Pairs::Neighbours => Tensor::stack(&[&low, &high], D::Minus1)?.flatten_from(3)?,
        };
        let rest = split.narrow(3, self.turned, width - self.turned)?;
        Ok(Tensor::cat(&[&turned, &rest], 3)?.reshape((batch, tokens, total))?)
    }
}

struct Rotate {
    turns: Arc<Turns>,
    heads: usize,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotary embedding"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut out = ops::view::<f32>(x, layout)?.to_vec();
        self.turns.turn(&mut out, self.heads, width_of(layout.shape(), self.heads)?, false);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> CandleResult<Option<Tensor>> {
        let dy = dy.contiguous()?;
        let mut slopes = ops::hold::<f32>(&dy)?.to_vec();
        self.turns.turn(&mut slopes, self.heads, width_of(x.shape(), self.heads)?, true);
        Ok(Some(ops::tensor(slopes, x)?))
    }
}

/// The width of each of so many heads.
fn width_of(shape: &Shape, heads: usize) -> CandleResult<usize> {
    Ok(shape.dims3()?.2 / heads.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_kernel_agrees_with_candle() -> Result<()> {
        let x = Tensor::randn(0f32, 1., (2, 5, 24), &Device::Cpu)?;
        for pairs in [Pairs::Halves, Pairs::Neighbours] {
            let rotary = Rotary::new(100.0, 8, pairs, Scaling::None, 1.1);
            let places: Vec<usize> = (0..5).chain(3..8).collect();
            let turns = Arc::new(rotary.turns(&places, 8));
            let ours = turns.apply(&x, 2)?;
            let theirs = ops::without_kernels(|| turns.apply(&x, 2))?;
            let difference = (ours - theirs)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference < 1e-6, "{pairs:?}: {difference}");
        }
        Ok(())
    }
}
