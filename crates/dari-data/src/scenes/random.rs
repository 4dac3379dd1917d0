//! Numbers at random, keyed: the same key gives the same numbers on every machine.

/// One scrambling step of splitmix64 (Steele, Lea and Flood, 2014).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A splitmix64 sequence that starts at a key.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// Starts the sequence of `keys`; their order matters.
    pub(super) fn keyed(keys: &[u64]) -> Random {
        let state = keys.iter().fold(0x6461_7269, |state, &key| mix(mix(state) ^ key));
        Random { state }
    }

    pub(super) fn next(&mut self) -> u64 {
        let value = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value
    }

    /// An integer in `0..count`, 0 when `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        let high = self.next() >> 32;
        // The bias of at most count / 2^32 is of no account for lists this short.
        ((u128::from(high) * count as u128) >> 32) as usize
    }

    /// A number in `low..high`, from 24 random bits, so that it is exact in `f32`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / 16_777_216.0;
        low + (high - low) * unit
    }

    /// True `percent` times in a hundred.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, `None` when there are none.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let index = self.below(items.len());
        items.get(index).copied()
    }
}

/// Cosine and sine of an angle in whole turns.
///
/// Written out, since the sines of two platforms' libraries differ in the last bit and a pixel may
/// hang on it.
pub(super) fn direction(turns: f32) -> (f32, f32) {
    let turns = f64::from(turns);
    let turns = turns - turns.floor();
    // To the nearest quarter, then Taylor's series on at most an eighth of a turn.
    let quarter = (turns * 4.0 + 0.5).floor();
    let x = (turns - quarter / 4.0) * std::f64::consts::TAU;
    let x2 = x * x;
    let sine =
        x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0 * (1.0 - x2 / 110.0)))));
    let cosine =
        1.0 - x2 / 2.0 * (1.0 - x2 / 12.0 * (1.0 - x2 / 30.0 * (1.0 - x2 / 56.0 * (1.0 - x2 / 90.0))));
    let (cosine, sine) = match quarter as i64 & 3 {
        0 => (cosine, sine),
        1 => (-sine, cosine),
        2 => (-cosine, -sine),
        _ => (sine, -cosine),
    };
    (cosine as f32, sine as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_lie_on_the_circle() {
        for step in -2000_i16..2000 {
            let turns = f32::from(step) / 777.0;
            let (cosine, sine) = direction(turns);
            let angle = f64::from(turns) * std::f64::consts::TAU;
            assert!((f64::from(cosine) - angle.cos()).abs() < 1e-6, "{turns}");
            assert!((f64::from(sine) - angle.sin()).abs() < 1e-6, "{turns}");
        }
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::keyed(&[1, 2]);
        let mut seen = [0_u32; 5];
        for _ in 0..5000 {
            seen[random.below(5)] += 1;
            let value = random.range(-0.5, 0.5);
            assert!((-0.5..0.5).contains(&value));
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
        assert_ne!(Random::keyed(&[1, 2]).next(), Random::keyed(&[2, 1]).next());
    }
}
