//! Huffman tables (ITU T.81, annex C and F.2.2.3) as lookups.

/// Bits that the lookup covers; longer codes are rare.
const LOOKUP: u32 = 10;

/// [`Entry::advance`] of an end of block: past any position, whatever the position before.
pub(super) const END: usize = 128;

/// One decoded symbol, packed: from the lowest byte, the bits of the code and of the value behind it
/// together; the bits of the value; the step to the coefficient (1 + run of zeros, or [`END`]); the symbol.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry(u32);

impl Entry {
    fn new(length: u32, symbol: u8) -> Entry {
        let size = u32::from(symbol & 15);
        let run = u32::from(symbol >> 4);
        let advance = if size == 0 && run != 15 { END as u32 } else { run + 1 };
        Entry((length + size) | size << 8 | advance << 16 | u32::from(symbol) << 24)
    }

    /// Bits of code and value.
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        self.0 & 0xff
    }

    /// Bits of the value behind the code.
    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        self.0 >> 8 & 15
    }

    /// Steps from the last coefficient to this one, of an AC symbol other than a refining scan's.
    #[inline(always)]
    pub(super) fn advance(self) -> usize {
        (self.0 >> 16 & 0xff) as usize
    }

    /// The symbol itself.
    #[inline(always)]
    pub(super) fn symbol(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The signed value behind the code (T.81, figure F.12), from bits that begin with the code.
    #[inline(always)]
    pub(super) fn value(self, bits: u64) -> i16 {
        let size = self.size();
        let rest = bits << ((self.total() - size) & 63);
        let magnitude = ((rest >> 1) >> (63 - size)) as i32;
        // A first bit of 0 marks a negative value, coded as value - 1 in the low bits.
        let negative = !((rest as i64) >> 63) as i32;
        (magnitude + (negative & (1 - (1 << size)))) as i16
    }
}

/// A Huffman table ready for decoding.
pub(super) struct Table {
    /// By the next [`LOOKUP`] bits; zero where the code is longer or there is none.
    short: [Entry; 1 << LOOKUP],
    /// By code length: one past the last code, moved up to 16 bits.
    limits: [u32; 17],
    /// By code length: what to add to a code for its place in `symbols`.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// A table from the counts of codes of 1 to 16 bits and the symbols in order of their codes; `None`
    /// if the counts ask for more codes than there are, or than there are symbols.
    pub(super) fn new(counts: [u8; 16], symbols: &[u8]) -> Option<Table> {
        let mut table = Table {
            short: [Entry::default(); 1 << LOOKUP],
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let mut code: u32 = 0;
        let mut place: usize = 0;
        for (length, count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..count {
                let symbol = *symbols.get(place)?;
                if code >> length != 0 {
                    return None;
                }
                if length <= LOOKUP {
                    let from = (code << (LOOKUP - length)) as usize;
                    let to = ((code + 1) << (LOOKUP - length)) as usize;
                    table.short.get_mut(from..to)?.fill(Entry::new(length, symbol));
                }
                code += 1;
                place += 1;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The symbol that the bits begin with; `None` if no code does. The bits are not stepped over.
    #[inline(always)]
    pub(super) fn entry(&self, bits: u64) -> Option<Entry> {
        let entry = self.short[(bits >> (64 - LOOKUP)) as usize];
        if entry.0 != 0 { Some(entry) } else { self.long(bits) }
    }

    #[cold]
    #[inline(never)]
    fn long(&self, bits: u64) -> Option<Entry> {
        let top = (bits >> 48) as u32;
        for length in LOOKUP + 1..=16 {
            if top < self.limits[length as usize] {
                let place = (top >> (16 - length)) as i32 + self.offsets[length as usize];
                let symbol = *self.symbols.get(usize::try_from(place).ok()?)?;
                return Some(Entry::new(length, symbol));
            }
        }
        None
    }

    /// Whether no symbol is over `most`, as a table of DC sizes must be.
    pub(super) fn within(&self, most: u8) -> bool {
        self.symbols.iter().all(|&symbol| symbol <= most)
    }
}

/// Bits that [`Pairs`] looks up.
const PAIR_LOOKUP: u32 = 10;

/// Pairs that the bits of a full refill surely hold.
pub(super) const PAIRS_PER_FILL: u32 = 56 / PAIR_LOOKUP;

/// What the next bits hold of a block's AC coefficients: one symbol or two, values included.
///
/// Packed, from the lowest byte: bits taken; advance past both; where the first value goes and where the
/// second, counted from the last coefficient ([`END`] for nowhere); then 16 bits for each value, which has
/// the upper 12. The lowest bit of the first 16 tells if the block ends.
#[derive(Clone, Copy, Default)]
pub(super) struct Pair(u64);

impl Pair {
    /// Bits of all that it holds.
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        (self.0 & 0xff) as u32
    }

    /// Steps to the last of its coefficients; past any block if it holds none that fits.
    #[inline(always)]
    pub(super) fn advance(self) -> usize {
        (self.0 >> 8 & 0xff) as usize
    }

    /// Steps to where each value goes.
    #[inline(always)]
    pub(super) fn steps(self) -> [usize; 2] {
        [(self.0 >> 16 & 0xff) as usize, (self.0 >> 24 & 0xff) as usize]
    }

    /// The values.
    #[inline(always)]
    pub(super) fn values(self) -> [i16; 2] {
        [(self.0 >> 32) as i16 >> 4, (self.0 >> 48) as i16 >> 4]
    }

    /// Whether the block ends here.
    #[inline(always)]
    pub(super) fn ends(self) -> bool {
        self.0 >> 32 & 1 == 1
    }
}

/// A lookup of [`Pair`]s.
pub(super) struct Pairs(Box<[Pair; 1 << PAIR_LOOKUP]>);

impl Pairs {
    /// The pairs of an AC table, of a sequential scan or the first of a progressive one.
    pub(super) fn new(table: &Table) -> Pairs {
        let mut pairs = Box::new([Pair::default(); 1 << PAIR_LOOKUP]);
        for (index, pair) in (0u64..).zip(pairs.iter_mut()) {
            let mut bits = index << (64 - PAIR_LOOKUP);
            let (mut taken, mut advance, mut ends) = (0, 0, 0);
            let (mut steps, mut values) = ([END as u64; 2], [0u64; 2]);
            for (step, value) in steps.iter_mut().zip(values.iter_mut()) {
                let fits = |entry: &Entry| taken + entry.total() <= PAIR_LOOKUP;
                let Some(entry) = table.entry(bits).filter(fits) else { break };
                if entry.advance() == END {
                    if entry.symbol() == 0 {
                        taken += entry.total();
                        ends = 1;
                    }
                    // Else a progressive run of ended blocks, for which there is no room here.
                    break;
                }
                taken += entry.total();
                advance += entry.advance() as u64;
                *step = advance;
                *value = ((entry.value(bits) << 4) as u16).into();
                bits <<= entry.total();
            }
            let nothing = if taken == 0 { 0xff } else { advance };
            *pair = Pair(
                u64::from(taken)
                    | nothing << 8
                    | steps[0] << 16
                    | steps[1] << 24
                    | (values[0] | ends) << 32
                    | values[1] << 48,
            );
        }
        Pairs(pairs)
    }

    /// What the bits begin with.
    #[inline(always)]
    pub(super) fn find(&self, bits: u64) -> Pair {
        self.0[(bits >> (64 - PAIR_LOOKUP)) as usize]
    }
}
