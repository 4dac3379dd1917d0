//! Progressive scans (ITU T.81, annex G).
//!
//! Of each block are kept the coefficients that its transform reads, and 64 bits that tell which of all
//! its coefficients are not zero yet: a refining scan has a bit for each of those, wanted or not.

use super::Error;
use super::band::Band;
use super::bits::Bits;
use super::frame::{Component, Frame, Scan};
use super::huffman::{Pairs, Table};
use super::markers::Tables;
use super::planes::Planes;
use super::scan::{NO_CODE, Visitor, fault, find, no_table, walk};
use super::transform::Kernel;

/// Scans may visit each of the picture's blocks this often on average; else a small file with thousands
/// of nearly empty scans could keep a decoder busy for hours. Encoders make about ten scans.
const MAX_VISITS: u64 = 100;

/// [`Coefficients::missing`] of a coefficient that no scan has brought.
const UNSEEN: u8 = u8::MAX;

/// Coefficients whose precision libjpeg looks at before it smooths an unfinished picture.
const SMOOTHED: usize = 10;

/// All blocks of a component, row by row.
struct Coefficients {
    wide: usize,
    high: usize,
    v: usize,
    kernel: Kernel,
    /// `kernel.length()` values for each block, by slot.
    values: Vec<i16>,
    /// For each block, which zigzag positions are not zero; bit 0 is not kept.
    set: Vec<u64>,
    /// By zigzag position: how many low bits are still to come, or [`UNSEEN`].
    missing: [u8; 64],
}

/// A progressive picture's coefficients, which its scans fill in.
pub(super) struct Progressive {
    components: Vec<Coefficients>,
    /// Block visits that are left of [`MAX_VISITS`] for each block.
    visits: u64,
}

impl Progressive {
    /// Bytes that the coefficients of a picture take.
    pub(super) fn bytes(frame: &Frame) -> u64 {
        let of =
            |c: &Component| c.blocks_wide as u64 * c.blocks_high as u64 * (c.kernel.length() as u64 * 2 + 8);
        frame.components.iter().map(of).sum()
    }

    /// All zeros; the caller has checked the size.
    pub(super) fn new(frame: &Frame) -> Progressive {
        let components = frame.components.iter().map(|c| {
            let blocks = c.blocks_wide * c.blocks_high;
            Coefficients {
                wide: c.blocks_wide,
                high: c.blocks_high,
                v: c.v,
                kernel: c.kernel,
                values: vec![0; blocks * c.kernel.length()],
                set: vec![0; blocks],
                missing: [UNSEEN; 64],
            }
        });
        Progressive { components: components.collect(), visits: frame.blocks().saturating_mul(MAX_VISITS) }
    }

    /// Decodes a scan; returns the byte where it ended.
    ///
    /// # Errors
    /// [`Error::Damaged`] for damaged data, missing tables, scans that do not follow from those before,
    /// and more scans than any encoder makes.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        at: usize,
        scan: &Scan,
        frame: &Frame,
        tables: &Tables,
    ) -> Result<usize, Error> {
        let Scan { first, last, high, low, .. } = *scan;
        let alone = scan.components.len() == 1;
        let band = if first == 0 { last == 0 } else { first <= last && last <= 63 && alone };
        if !band || low > 13 || (high != 0 && high != low + 1) {
            return Err(Error::Damaged(format!(
                "a scan of coefficients {first} to {last}, bits {high} to {low}, is none (byte {at})"
            )));
        }
        let before = if high == 0 { UNSEEN } else { high as u8 };
        for s in &scan.components {
            let Some(part) = self.components.get_mut(s.component) else { continue };
            let missing = part.missing.get_mut(first..=last).unwrap_or_default();
            if missing.iter().any(|&bits| bits != before) {
                return Err(Error::Damaged(format!(
                    "a scan of coefficients {first} to {last} comes out of turn (byte {at})"
                )));
            }
            missing.fill(low as u8);
            let blocks = part.wide as u64 * part.high as u64;
            self.visits = self.visits.checked_sub(blocks).ok_or_else(|| {
                Error::Damaged(format!("it has too many scans: over {MAX_VISITS} for each block"))
            })?;
        }
        if first == 0 {
            let mut dc = Vec::with_capacity(4);
            for s in &scan.components {
                let table = find(&tables.dc, s.dc);
                if table.is_none() && high == 0 {
                    return Err(no_table(
                        "DC Huffman",
                        frame.components.get(s.component).map_or(0, |c| c.id),
                    ));
                }
                dc.push((s.component, table, 0));
            }
            let mut visitor = Dc { all: &mut self.components, parts: dc, refine: high != 0, low };
            return walk(bytes, at, scan, frame, tables.restart, &mut visitor);
        }
        let Some(s) = scan.components.first() else { return Ok(at) };
        let Some(part) = self.components.get_mut(s.component) else { return Ok(at) };
        let table = find(&tables.ac, s.ac)
            .ok_or_else(|| no_table("AC Huffman", frame.components.get(s.component).map_or(0, |c| c.id)))?;
        let band = Band { first, last, low, table, slots: part.kernel.slots() };
        let pairs = Pairs::new(table);
        let restart = if tables.restart == 0 { usize::MAX } else { tables.restart };
        let mut bits = Bits::new(bytes, at);
        let length = part.kernel.length();
        let values = part.values.chunks_mut(length.saturating_mul(restart));
        for (interval, (values, set)) in values.zip(part.set.chunks_mut(restart)).enumerate() {
            if let Some(before) = interval.checked_sub(1) {
                bits.restart((before & 7) as u8)?;
            }
            let outcome = if high == 0 {
                band.read(&pairs, &mut bits, values, set, length)
            } else {
                band.refine(&mut bits, values, set, length)
            };
            outcome.map_err(|what| fault(&bits, what))?;
            bits.check()?;
        }
        Ok(bits.at())
    }

    /// Transforms all blocks and makes the pixels.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a component has no data or no table, [`Error::Unsupported`] if libjpeg would
    /// smooth the blocks because some low coefficients lack bits.
    pub(super) fn render(&self, frame: &Frame, planes: &mut Planes) -> Result<(), Error> {
        let mut quants = Vec::with_capacity(4);
        for (part, component) in self.components.iter().zip(&frame.components) {
            let [dc, rest @ ..] = &part.missing;
            if *dc == UNSEEN {
                return Err(Error::Damaged(format!("component {} has no scan", component.id)));
            }
            if *dc != 0 || rest.iter().take(SMOOTHED - 1).any(|&bits| bits != 0) {
                return Err(Error::Unsupported("progressive scans that leave coefficients unfinished"));
            }
            let quant = component.quant.ok_or_else(|| no_table("quantisation", component.id))?;
            quants.push(part.kernel.arrange(&quant));
        }
        for mcu_row in 0..frame.mcus_high {
            for (number, (part, quant)) in self.components.iter().zip(&quants).enumerate() {
                let length = part.kernel.length();
                for row in (mcu_row * part.v..(mcu_row + 1) * part.v).take_while(|&row| row < part.high) {
                    let Some(plane) = planes.planes.get_mut(number) else { continue };
                    let values = part.values.chunks_exact(length).skip(row * part.wide);
                    let blocks = values.zip(part.set.iter().skip(row * part.wide)).take(part.wide);
                    for (column, (values, set)) in blocks.enumerate() {
                        let last = 63 - (set | 1).leading_zeros() as usize;
                        plane.reconstruct(part.kernel, quant, values, last, column, row);
                    }
                }
                planes.complete(number, (mcu_row + 1) * part.v, part.kernel.size());
            }
            planes.advance();
        }
        Ok(())
    }
}

/// A DC scan: first (G.1.2.1) or refining.
struct Dc<'a> {
    all: &'a mut [Coefficients],
    /// Component, table and DC value before, for each of the scan's components.
    parts: Vec<(usize, Option<&'a Table>, i16)>,
    refine: bool,
    low: u32,
}

impl Visitor for Dc<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, part: usize, place: Option<(usize, usize)>) -> Result<(), Error> {
        let Some((component, table, before)) = self.parts.get_mut(part) else { return Ok(()) };
        let Some(all) = self.all.get_mut(*component) else { return Ok(()) };
        let value = match table {
            _ if self.refine => (bits.take(1) << self.low) as i16,
            None => 0,
            Some(table) => {
                bits.refill();
                let entry = table.entry(bits.peek()).ok_or_else(|| fault(bits, NO_CODE))?;
                *before = before.wrapping_add(entry.value(bits.peek()));
                bits.skip(entry.total());
                (i32::from(*before) << self.low) as i16
            }
        };
        let place = place.map(|(column, row)| (row * all.wide + column) * all.kernel.length());
        if let Some(kept) = place.and_then(|at| all.values.get_mut(at)) {
            // A first scan finds zero here.
            *kept |= value;
        }
        Ok(())
    }

    fn restart(&mut self) {
        for (_, _, before) in &mut self.parts {
            *before = 0;
        }
    }

    fn row(&mut self, _: usize) {}
}
