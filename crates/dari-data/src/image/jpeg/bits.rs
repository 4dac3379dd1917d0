//! Entropy-coded bytes as bits (ITU T.81, F.2.2.5), with byte stuffing removed on the way.

use super::Error;

/// A reader of entropy-coded bits, first bit highest.
///
/// `held` has its next `count` bits on top; below them may stand further bits of the same data, which a
/// refill writes again unchanged. At a marker or at the end of the bytes it goes on with zero bits and
/// counts them in `padding`, so that [`Bits::overrun`] can tell if any of them was used. Small and
/// `Copy`, so that a block's loop can keep it in registers.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    padding: u32,
}

impl<'a> Bits<'a> {
    /// Starts at byte `at` of `bytes`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Bits<'a> {
        Bits { bytes, at, held: 0, count: 0, padding: 0 }
    }

    /// The byte it has come to; no marker lies before it.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Makes at least 32 bits ready: a code of 16 and the 15 that may follow it.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            self.fill();
        }
    }

    /// Makes at least 56 bits ready.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        let next = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        if let Some(&next) = next {
            let word = u64::from_be_bytes(next);
            // A byte of `!word` is zero (so one of `word` is 0xFF) exactly if this has a high bit left.
            let marked = (!word).wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080;
            if marked == 0 {
                self.held |= word >> self.count;
                self.at += ((63 - self.count) >> 3) as usize;
                self.count |= 56;
                return;
            }
        }
        *self = self.fill_by_bytes();
    }

    #[cold]
    #[inline(never)]
    fn fill_by_bytes(mut self) -> Bits<'a> {
        while self.count < 56 {
            let byte = match self.bytes.get(self.at) {
                Some(0xff) => {
                    // Fill bytes before a marker are stepped over for good, so that a long run of them
                    // is not walked again at each refill.
                    while self.bytes.get(self.at + 1) == Some(&0xff) {
                        self.at += 1;
                    }
                    if self.bytes.get(self.at + 1) == Some(&0) {
                        self.at += 2;
                        Some(0xff)
                    } else {
                        None
                    }
                }
                Some(&byte) => {
                    self.at += 1;
                    Some(byte)
                }
                None => None,
            };
            if byte.is_none() {
                self.padding = self.padding.saturating_add(8);
            }
            self.held |= u64::from(byte.unwrap_or(0)) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// The next 64 bits; those past what [`Bits::refill`] promised are not to be relied on.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.held
    }

    /// Steps over `bits` bits, at most those made ready.
    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        debug_assert!(bits <= self.count, "{bits} bits skipped of {}", self.count);
        self.held <<= bits & 63;
        self.count = self.count.wrapping_sub(bits);
    }

    /// The next `bits` bits as a number; `bits` is at most 32.
    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        self.refill();
        let value = (self.held >> 1) >> (63 - (bits & 63));
        self.skip(bits);
        value as u32
    }

    /// Whether bits were used that the data do not have.
    #[inline(always)]
    pub(super) fn overrun(&self) -> bool {
        self.padding > self.count
    }

    /// [`Error::Damaged`] if bits were used that the data do not have.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.overrun() {
            return Ok(());
        }
        let what = match self.bytes.get(self.at + 1) {
            Some(marker) => format!("at the marker {marker:#04x}"),
            None => "with the file".to_string(),
        };
        Err(Error::Damaged(format!("the coded picture ends too soon, {what} (byte {})", self.at)))
    }

    /// Goes to behind the restart marker of number `number` (0 to 7) and drops the bits before it.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the interval was too short, or another marker or the end comes first.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Error> {
        self.check()?;
        let mut at = self.at;
        loop {
            match (self.bytes.get(at), self.bytes.get(at + 1)) {
                (Some(0xff), Some(&found)) if found != 0 && found != 0xff => {
                    if found == 0xd0 + (number & 7) {
                        *self = Bits::new(self.bytes, at + 2);
                        return Ok(());
                    }
                    return Err(Error::Damaged(format!(
                        "restart marker {number} expected, but marker {found:#04x} found at byte {at}"
                    )));
                }
                (Some(_), Some(_)) => at += 1,
                _ => {
                    return Err(Error::Damaged(format!(
                        "the file ends before restart marker {number} (byte {at})"
                    )));
                }
            }
        }
    }
}
