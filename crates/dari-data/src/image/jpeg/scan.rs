//! What all scans share: the order of their blocks (ITU T.81, A.2) and restarts; and the sequential scan.

use super::Error;
use super::bits::Bits;
use super::frame::{Frame, Scan};
use super::huffman::{END, PAIRS_PER_FILL, Pairs, Table};
use super::markers::Tables;
use super::planes::Planes;
use super::transform::{Block, Kernel, Slots};

/// What is done with a scan's blocks.
pub(super) trait Visitor {
    /// Decodes the next block, of the scan's component number `part`. `place` is its column and row of
    /// blocks, or `None` if it only fills up an MCU.
    fn block(&mut self, bits: &mut Bits, part: usize, place: Option<(usize, usize)>) -> Result<(), Error>;

    /// Forgets what a restart marker resets.
    fn restart(&mut self);

    /// Learns that as many MCU rows are complete.
    fn row(&mut self, rows: usize);
}

/// Takes `visitor` through the blocks of a scan from byte `at`; returns the byte where it ended.
///
/// # Errors
/// Those of `visitor`, and [`Error::Damaged`] if the data end too soon or a restart marker is missing.
pub(super) fn walk(
    bytes: &[u8],
    at: usize,
    scan: &Scan,
    frame: &Frame,
    restart: usize,
    visitor: &mut impl Visitor,
) -> Result<usize, Error> {
    let parts: Vec<_> = scan.components.iter().filter_map(|s| frame.components.get(s.component)).collect();
    // A scan of one component has MCUs of one block, and only blocks that hold picture.
    let (wide, high) = match parts.as_slice() {
        [only] => (only.blocks_wide, only.blocks_high),
        _ => (frame.mcus_wide, frame.mcus_high),
    };
    let single = parts.len() == 1;
    let mut bits = Bits::new(bytes, at);
    let mut left = restart;
    let mut number = 0u8;
    for row in 0..high {
        for column in 0..wide {
            if restart > 0 {
                if left == 0 {
                    bits.restart(number)?;
                    visitor.restart();
                    number = (number + 1) & 7;
                    left = restart;
                }
                left -= 1;
            }
            for (part, component) in parts.iter().enumerate() {
                let (h, v) = if single { (1, 1) } else { (component.h, component.v) };
                for y in row * v..(row + 1) * v {
                    for x in column * h..(column + 1) * h {
                        let inside = x < component.blocks_wide && y < component.blocks_high;
                        visitor.block(&mut bits, part, inside.then_some((x, y)))?;
                    }
                }
            }
        }
        bits.check()?;
        visitor.row(row + 1);
    }
    Ok(bits.at())
}

/// A fault in entropy-coded data: that they end too soon, if so, or else `what`.
#[cold]
pub(super) fn fault(bits: &Bits, what: &str) -> Error {
    match bits.check() {
        Err(error) => error,
        Ok(()) => Error::Damaged(format!("the coded picture {what} (about byte {})", bits.at())),
    }
}

/// Faults of entropy-coded data, for [`fault`].
pub(super) const NO_CODE: &str = "has a code that is in no table";
pub(super) const TOO_FAR: &str = "has coefficients past the end of a block";

/// A component's part in a sequential scan.
struct Part<'a> {
    component: usize,
    /// Rows of blocks to an MCU row.
    v: usize,
    kernel: Kernel,
    slots: &'static Slots,
    quant: [i16; 64],
    dc: &'a Table,
    ac: &'a Table,
    pairs: &'a Pairs,
    /// DC coefficient of the block before.
    before: i16,
}

/// Decodes sequential blocks straight into samples.
struct Sequential<'a> {
    parts: Vec<Part<'a>>,
    planes: &'a mut Planes,
    block: Block,
}

/// Decodes a sequential scan (F.2.1.3) into `planes`; returns the byte where it ended.
///
/// # Errors
/// [`Error::Damaged`] for damaged data and tables that are missing.
pub(super) fn sequential(
    bytes: &[u8],
    at: usize,
    scan: &Scan,
    frame: &Frame,
    tables: &Tables,
    planes: &mut Planes,
) -> Result<usize, Error> {
    let pairs = [0, 1, 2, 3].map(|number| {
        let used = scan.components.iter().any(|s| s.ac == number);
        find(&tables.ac, number).filter(|_| used).map(Pairs::new)
    });
    let mut parts = Vec::with_capacity(4);
    for s in &scan.components {
        let Some(component) = frame.components.get(s.component) else { continue };
        let kernel = component.kernel;
        let (Some(ac), Some(Some(pairs))) = (find(&tables.ac, s.ac), pairs.get(s.ac)) else {
            return Err(no_table("AC Huffman", component.id));
        };
        parts.push(Part {
            component: s.component,
            v: if scan.components.len() > 1 { component.v } else { 1 },
            kernel,
            slots: kernel.slots(),
            quant: kernel.arrange(&component.quant.ok_or_else(|| no_table("quantisation", component.id))?),
            dc: find(&tables.dc, s.dc).ok_or_else(|| no_table("DC Huffman", component.id))?,
            ac,
            pairs,
            before: 0,
        });
    }
    let mut visitor = Sequential { parts, planes, block: [0; 128] };
    walk(bytes, at, scan, frame, tables.restart, &mut visitor)
}

/// A table by its number.
pub(super) fn find(tables: &[Option<Box<Table>>; 4], number: usize) -> Option<&Table> {
    tables.get(number)?.as_deref()
}

/// That a table is missing.
pub(super) fn no_table(kind: &str, component: u8) -> Error {
    Error::Damaged(format!("the {kind} table of component {component} is missing"))
}

impl Visitor for Sequential<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, part: usize, place: Option<(usize, usize)>) -> Result<(), Error> {
        let Some(part) = self.parts.get_mut(part) else { return Ok(()) };
        let last = if part.kernel == Kernel::One {
            self.block[0] = part.before;
            read_block::<false>(bits, part, &mut self.block)
        } else {
            self.block[..64].fill(0);
            self.block[0] = part.before;
            read_block::<true>(bits, part, &mut self.block)
        };
        let last = last.map_err(|what| fault(bits, what))?;
        part.before = self.block[0];
        if let (Some((column, row)), Some(plane)) = (place, self.planes.planes.get_mut(part.component)) {
            plane.reconstruct(part.kernel, &part.quant, &self.block, last, column, row);
        }
        Ok(())
    }

    fn restart(&mut self) {
        for part in &mut self.parts {
            part.before = 0;
        }
    }

    fn row(&mut self, rows: usize) {
        for part in &self.parts {
            self.planes.complete(part.component, rows * part.v, part.kernel.size());
        }
        self.planes.advance();
    }
}

/// Reads a block's coefficients into their slots; slot 0 comes with the DC coefficient before, the others
/// as zeros. Without `KEEP`, slot 0 alone is filled. Returns the last position that may not be zero.
#[inline(always)]
fn read_block<const KEEP: bool>(
    bits: &mut Bits,
    part: &Part,
    block: &mut Block,
) -> Result<usize, &'static str> {
    let mut b = *bits;
    let slot = |at: usize| usize::from(part.slots[at & 255] & 127);
    let outcome = 'block: {
        b.refill();
        let Some(entry) = part.dc.entry(b.peek()) else { break 'block Err(NO_CODE) };
        block[0] = block[0].wrapping_add(entry.value(b.peek()));
        b.skip(entry.total());
        let mut at = 0usize;
        loop {
            b.fill();
            for _ in 0..PAIRS_PER_FILL {
                let pair = part.pairs.find(b.peek());
                let next = at + pair.advance();
                if next < 63 {
                    b.skip(pair.total());
                    if KEEP {
                        let [first, second] = pair.steps();
                        let values = pair.values();
                        block[slot(at + first)] = values[0];
                        block[slot(at + second)] = values[1];
                    }
                    at = next;
                    if pair.ends() {
                        break 'block Ok(at);
                    }
                } else {
                    // A long code or value, or the end of the block near, past which the pair may reach.
                    b.refill();
                    let Some(entry) = part.ac.entry(b.peek()) else { break 'block Err(NO_CODE) };
                    let value = entry.value(b.peek());
                    b.skip(entry.total());
                    at += entry.advance();
                    if KEEP {
                        block[slot(at)] = value;
                    }
                    if at >= 63 {
                        break 'block end(at);
                    }
                    break;
                }
            }
        }
    };
    *bits = b;
    outcome
}

/// The last coefficient's position, from where the steps of a block have led.
#[inline(always)]
fn end(at: usize) -> Result<usize, &'static str> {
    match at {
        ..=63 => Ok(at),
        END.. => Ok(at - END),
        _ => Err(TOO_FAR),
    }
}
