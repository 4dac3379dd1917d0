//! The frame: its components, and how large each comes out at a scale.

use super::transform::Kernel;
use super::{Error, Scale};

/// Most blocks of one MCU (ITU T.81, B.2.3).
const MAX_MCU_BLOCKS: usize = 10;

/// How samples are coded (which SOF marker).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// Baseline or extended sequential, Huffman.
    Sequential,
    /// Progressive, Huffman.
    Progressive,
}

/// One colour component.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Horizontal and vertical sampling factors, 1 to 4.
    pub(super) h: usize,
    pub(super) v: usize,
    /// Number of its quantisation table.
    pub(super) table: usize,
    /// That table as it stood when the component's first scan began, by zigzag position.
    pub(super) quant: Option<[u16; 64]>,
    /// Blocks across and down that hold picture.
    pub(super) blocks_wide: usize,
    pub(super) blocks_high: usize,
    /// The inverse transform, which gives `kernel.size()` samples a side for each block.
    pub(super) kernel: Kernel,
    /// Samples across and down after it.
    pub(super) width: usize,
    pub(super) height: usize,
    /// How many output pixels share a sample, across and down.
    pub(super) across: usize,
    pub(super) down: usize,
}

/// What a SOF segment says, and what follows from it at the scale asked for.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) process: Process,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// MCUs across and down, of an interleaved scan.
    pub(super) mcus_wide: usize,
    pub(super) mcus_high: usize,
    /// Size of the output.
    pub(super) out_width: usize,
    pub(super) out_height: usize,
    /// Samples a side that a full-resolution block gives: 8, 4, 2 or 1.
    pub(super) block: usize,
}

impl Frame {
    /// Reads a SOF segment's content (T.81, B.2.2).
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is malformed, [`Error::Unsupported`] if it asks for what is not read.
    pub(super) fn read(content: &[u8], process: Process, scale: Scale) -> Result<Frame, Error> {
        let damaged = |what: &str| Error::Damaged(format!("the frame header {what}"));
        let Some((&[precision, h0, h1, w0, w1, count], specs)) = content.split_first_chunk::<6>() else {
            return Err(damaged("is cut short"));
        };
        if precision == 12 {
            return Err(Error::Unsupported("12-bit samples"));
        }
        if precision != 8 {
            return Err(damaged(&format!("gives {precision}-bit samples")));
        }
        let (height, width) = (u16::from_be_bytes([h0, h1]), u16::from_be_bytes([w0, w1]));
        if height == 0 {
            return Err(Error::Unsupported("a height that only follows the first scan (DNL)"));
        }
        if width == 0 {
            return Err(damaged("gives a width of 0"));
        }
        if specs.len() != usize::from(count) * 3 {
            return Err(damaged(&format!("has a length that does not fit {count} components")));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Error::Unsupported("a number of components other than 1, 3 and 4"));
        }
        let mut components: Vec<Component> = Vec::with_capacity(usize::from(count));
        for spec in specs.chunks_exact(3) {
            let &[id, factors, table] = spec else { continue };
            let (h, v) = (usize::from(factors >> 4), usize::from(factors & 15));
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(damaged(&format!("gives a component sampling factors {h} x {v}")));
            }
            if table > 3 {
                return Err(damaged(&format!("names quantisation table {table}")));
            }
            if components.iter().any(|other| other.id == id) {
                return Err(damaged(&format!("names component {id} twice")));
            }
            components.push(Component {
                id,
                h,
                v,
                table: usize::from(table),
                quant: None,
                blocks_wide: 0,
                blocks_high: 0,
                kernel: Kernel::Eight,
                width: 0,
                height: 0,
                across: 1,
                down: 1,
            });
        }
        let mut frame = Frame {
            process,
            width: usize::from(width),
            height: usize::from(height),
            components,
            mcus_wide: 0,
            mcus_high: 0,
            out_width: 0,
            out_height: 0,
            block: 8,
        };
        frame.lay_out(scale)?;
        Ok(frame)
    }

    /// Fills in all sizes at a scale.
    ///
    /// libjpeg's rule (jdmaster.c): a component that is subsampled in both directions gets a transform
    /// of twice the size, as often as that spares upsampling, up to 8 x 8.
    fn lay_out(&mut self, scale: Scale) -> Result<(), Error> {
        let block = 8 / scale.denominator();
        let max_h = self.components.iter().map(|c| c.h).max().unwrap_or(1);
        let max_v = self.components.iter().map(|c| c.v).max().unwrap_or(1);
        let (width, height) = (self.width, self.height);
        self.block = block;
        self.out_width = (width * block).div_ceil(8);
        self.out_height = (height * block).div_ceil(8);
        self.mcus_wide = width.div_ceil(8 * max_h);
        self.mcus_high = height.div_ceil(8 * max_v);
        for component in &mut self.components {
            let (h, v) = (component.h, component.v);
            let mut size = block;
            while size < 8
                && (max_h * block).is_multiple_of(h * size * 2)
                && (max_v * block).is_multiple_of(v * size * 2)
            {
                size *= 2;
            }
            component.kernel = Kernel::of_size(size);
            component.blocks_wide = (width * h).div_ceil(8 * max_h);
            component.blocks_high = (height * v).div_ceil(8 * max_v);
            component.width = (width * h * size).div_ceil(8 * max_h);
            component.height = (height * v * size).div_ceil(8 * max_v);
            let (h_in, v_in) = (h * size / block, v * size / block);
            if !max_h.is_multiple_of(h_in) || !max_v.is_multiple_of(v_in) {
                return Err(Error::Unsupported("sampling factors whose ratio is no whole number"));
            }
            component.across = max_h / h_in;
            component.down = max_v / v_in;
        }
        Ok(())
    }

    /// Bytes of the output.
    pub(super) fn out_bytes(&self) -> u64 {
        self.out_width as u64 * self.out_height as u64 * 3
    }

    /// Blocks that hold picture, of all components.
    pub(super) fn blocks(&self) -> u64 {
        self.components.iter().map(|c| c.blocks_wide as u64 * c.blocks_high as u64).sum()
    }

    /// Refuses a scan whose MCUs hold more blocks than the standard allows.
    pub(super) fn check_mcu(&self, scan: &[ScanComponent]) -> Result<(), Error> {
        let blocks: usize =
            scan.iter().filter_map(|s| self.components.get(s.component)).map(|c| c.h * c.v).sum();
        if scan.len() > 1 && blocks > MAX_MCU_BLOCKS {
            return Err(Error::Damaged(format!("a scan has {blocks} blocks in each unit; 10 are allowed")));
        }
        Ok(())
    }
}

/// A component's part in a scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanComponent {
    /// Its place in [`Frame::components`].
    pub(super) component: usize,
    /// Numbers of its Huffman tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// What a SOS segment says (T.81, B.2.3).
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) components: Vec<ScanComponent>,
    /// First and last zigzag position (Ss, Se).
    pub(super) first: usize,
    pub(super) last: usize,
    /// Bit positions before and after (Ah, Al).
    pub(super) high: u32,
    pub(super) low: u32,
}

impl Scan {
    /// Reads a SOS segment's content.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is malformed or names components that the frame does not have.
    pub(super) fn read(content: &[u8], frame: &Frame) -> Result<Scan, Error> {
        let damaged = |what: &str| Error::Damaged(format!("a scan header {what}"));
        let (&count, rest) = content.split_first().ok_or_else(|| damaged("is empty"))?;
        let specs = usize::from(count) * 2;
        if !(1..=4).contains(&count) || rest.len() != specs + 3 {
            return Err(damaged(&format!("has a length that does not fit {count} components")));
        }
        let (specs, tail) = rest.split_at(specs);
        let mut components: Vec<ScanComponent> = Vec::with_capacity(usize::from(count));
        for spec in specs.chunks_exact(2) {
            let &[id, tables] = spec else { continue };
            let component = frame
                .components
                .iter()
                .position(|c| c.id == id)
                .ok_or_else(|| damaged(&format!("names component {id}, which the frame lacks")))?;
            if components.iter().any(|other| other.component == component) {
                return Err(damaged(&format!("names component {id} twice")));
            }
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            if dc > 3 || ac > 3 {
                return Err(damaged(&format!("names Huffman tables {dc} and {ac}")));
            }
            components.push(ScanComponent { component, dc, ac });
        }
        let &[first, last, approximation] = tail else { return Err(damaged("is cut short")) };
        frame.check_mcu(&components)?;
        Ok(Scan {
            components,
            first: first.into(),
            last: last.into(),
            high: u32::from(approximation >> 4),
            low: u32::from(approximation & 15),
        })
    }
}
