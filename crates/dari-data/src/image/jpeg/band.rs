//! Progressive AC scans (ITU T.81, G.1.2.2 and G.1.2.3): a band of coefficients of one component.

use super::bits::Bits;
use super::huffman::{END, PAIRS_PER_FILL, Pairs, Table};
use super::scan::{NO_CODE, TOO_FAR};
use super::transform::Slots;

/// An AC scan's band of coefficients.
pub(super) struct Band<'a> {
    /// First and last zigzag position; the first is at least 1.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The lowest bit that the scan brings.
    pub(super) low: u32,
    pub(super) table: &'a Table,
    pub(super) slots: &'static Slots,
}

impl Band<'_> {
    /// Reads the blocks between two restarts for the first time (G.1.2.2). `values` are theirs, `length` to
    /// a block; `set` tells for each which positions are not zero. Stops where the bits end.
    ///
    /// # Errors
    /// What is wrong with the bits.
    #[inline(never)]
    pub(super) fn read(
        &self,
        pairs: &Pairs,
        bits: &mut Bits,
        values: &mut [i16],
        set: &mut [u64],
        length: usize,
    ) -> Result<(), &'static str> {
        let mut b = *bits;
        let mut outcome = Ok(());
        let mut blocks = values.chunks_exact_mut(length).zip(set);
        'all: while let Some((block, set)) = blocks.next() {
            let mut keep = |at: usize, value: i16| {
                *set |= u64::from(value != 0) << (at & 63);
                if let Some(kept) = block.get_mut(usize::from(self.slots[at & 255])) {
                    *kept = (i32::from(value) << self.low) as i16;
                }
            };
            // The last coefficient's place.
            let mut at = self.first - 1;
            'block: while at < self.last {
                b.fill();
                for _ in 0..PAIRS_PER_FILL {
                    let pair = pairs.find(b.peek());
                    let next = at + pair.advance();
                    if next >= self.last {
                        break;
                    }
                    b.skip(pair.total());
                    let ([first, second], values) = (pair.steps(), pair.values());
                    keep(at + first, values[0]);
                    keep(at + second, values[1]);
                    at = next;
                    if pair.ends() {
                        break 'block;
                    }
                }
                // A run of ended blocks, a long code or value, or the end of the band near.
                b.refill();
                let Some(entry) = self.table.entry(b.peek()) else {
                    outcome = Err(NO_CODE);
                    break 'all;
                };
                if entry.advance() == END {
                    b.skip(entry.total());
                    let run = u32::from(entry.symbol() >> 4);
                    let more = (1usize << run) - 1 + b.take(run) as usize;
                    // This block ends here, and so do as many more.
                    if more > 0 {
                        blocks.nth(more - 1);
                    }
                    break;
                }
                at += entry.advance();
                if at > self.last {
                    outcome = Err(TOO_FAR);
                    break 'all;
                }
                keep(at, entry.value(b.peek()));
                b.skip(entry.total());
            }
            if b.overrun() {
                break;
            }
        }
        *bits = b;
        outcome
    }

    /// Reads one more bit of the blocks between two restarts (G.1.2.3), as [`Band::read`] their first.
    ///
    /// # Errors
    /// What is wrong with the bits.
    #[inline(never)]
    pub(super) fn refine(
        &self,
        bits: &mut Bits,
        values: &mut [i16],
        set: &mut [u64],
        length: usize,
    ) -> Result<(), &'static str> {
        let mut b = *bits;
        let mut outcome = Ok(());
        let band = (u64::MAX >> (63 - self.last)) & (u64::MAX << self.first);
        let mut ended = 0u32;
        'all: for (block, set) in values.chunks_exact_mut(length).zip(set) {
            // What was not zero in the band, and the bits read for that, last one lowest.
            let old = *set & band;
            let mut corrections = 0u64;
            // The zeros that are left.
            let mut zeros = !old & band;
            let mut at = self.first as u32;
            while ended == 0 && at as usize <= self.last {
                b.fill();
                let Some(entry) = self.table.entry(b.peek()) else {
                    outcome = Err(NO_CODE);
                    break 'all;
                };
                let run = u32::from(entry.symbol() >> 4);
                b.skip(entry.total() - entry.size());
                if entry.size() > 1 {
                    outcome = Err("has a new coefficient of more than one bit in a refining scan");
                    break 'all;
                }
                if entry.advance() == END {
                    ended = (1 << run) + b.take(run);
                    break;
                }
                // Mostly none to three are stepped over: without a branch, which would be guessed wrong.
                for step in 0..3 {
                    zeros &= if run > step { zeros.wrapping_sub(1) } else { u64::MAX };
                }
                for _ in 3..run {
                    zeros &= zeros.wrapping_sub(1);
                }
                if zeros == 0 {
                    outcome = Err(TOO_FAR);
                    break 'all;
                }
                // The zero that the run leads to. A new coefficient's sign comes first, then a bit for each
                // coefficient that is passed by and is not of the run.
                let target = zeros.trailing_zeros();
                zeros &= zeros - 1;
                let negative = b.peek() >> 63 == 0;
                b.skip(entry.size());
                let passed = target.wrapping_sub(at).wrapping_sub(run);
                collect(&mut b, &mut corrections, passed);
                if entry.size() > 0 {
                    *set |= 1 << target;
                    if let Some(kept) = self.kept(block, target) {
                        *kept = if negative { -1 } else { 1 } << self.low;
                    }
                }
                at = target + 1;
            }
            if old != 0 {
                // The band ends here, or this is one of a run of ended blocks.
                if at as usize <= self.last {
                    b.fill();
                    collect(&mut b, &mut corrections, (old >> at).count_ones());
                }
                if corrections != 0 && length > 1 {
                    self.correct(block, old, corrections);
                }
            }
            ended = ended.saturating_sub(1);
            if b.overrun() {
                break;
            }
        }
        *bits = b;
        outcome
    }

    /// Adds to the magnitude of each coefficient of `which` its bit of `corrections`.
    #[inline(always)]
    fn correct(&self, block: &mut [i16], mut which: u64, corrections: u64) {
        let mut bits = corrections << (64 - which.count_ones());
        while which != 0 {
            if let Some(kept) = self.kept(block, which.trailing_zeros()) {
                let sign = *kept >> 15 | 1;
                // All ones if the bit is set: a branch would be guessed wrong half of the time.
                let chosen = ((bits as i64) >> 63) as i16;
                *kept = kept.wrapping_add((sign << self.low) & chosen);
            }
            bits <<= 1;
            which &= which - 1;
        }
    }

    /// Where a zigzag position's coefficient is kept, if it is.
    #[inline(always)]
    fn kept<'b>(&self, block: &'b mut [i16], position: u32) -> Option<&'b mut i16> {
        block.get_mut(usize::from(self.slots[position as usize & 255]))
    }
}

/// Reads `count` bits, less than 64, and appends them to `corrections`. Up to 39 should be ready.
#[inline(always)]
fn collect(bits: &mut Bits, corrections: &mut u64, count: u32) {
    let mut count = count & 63;
    if count > 39 {
        *corrections = *corrections << 32 | u64::from(bits.take(32));
        bits.fill();
        count -= 32;
    }
    *corrections = *corrections << count | (bits.peek() >> 1) >> (63 - count);
    bits.skip(count);
}
