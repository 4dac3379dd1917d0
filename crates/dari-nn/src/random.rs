//! Random numbers keyed by what they are for, never drawn from a global state: the same key gives
//! the same numbers on any machine, in any order, after any interruption.

/// A key: a seed narrowed step by step, as `Key::new(seed).with("dropout").at(epoch).at(sample)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

/// SplitMix64's finalizer (Steele, Lea and Flood 2014): every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key {
    /// The root key of a seed.
    pub fn new(seed: u64) -> Key {
        Key(mix(seed.wrapping_add(STEP)))
    }

    /// The key of a named part.
    pub fn with(self, name: &str) -> Key {
        name.bytes().fold(self, |key, byte| key.at(byte as u64 + 1))
    }

    /// The key of a numbered part.
    pub fn at(self, index: u64) -> Key {
        Key(mix(self.0 ^ mix(index.wrapping_add(STEP))).wrapping_add(STEP))
    }

    /// The `index`th 64 random bits under this key.
    pub fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(STEP)))
    }

    /// The `index`th number in `[0, 1)`.
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The `index`th number below `bound`; 0 where `bound` is 0.
    pub fn below(self, index: u64, bound: u64) -> u64 {
        ((self.bits(index) as u128 * bound as u128) >> 64) as u64
    }

    /// The `index`th standard normal number (Box and Muller).
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_reproducible() {
        let key = Key::new(7).with("layer").at(3);
        assert_eq!(key, Key::new(7).with("layer").at(3));
        assert_ne!(key, Key::new(7).with("layer").at(4));
        assert_ne!(Key::new(7).with("ab"), Key::new(7).with("ba"));
        let n = 20_000;
        let mean = (0..n).map(|i| key.uniform(i)).sum::<f64>() / n as f64;
        let (first, second) = (0..n).map(|i| key.normal(i)).fold((0.0, 0.0), |(a, b), x| (a + x, b + x * x));
        assert!((mean - 0.5).abs() < 0.01);
        assert!((first / n as f64).abs() < 0.03 && (second / n as f64 - 1.0).abs() < 0.05);
    }
}
