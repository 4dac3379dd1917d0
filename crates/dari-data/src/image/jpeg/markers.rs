//! Marker segments (ITU T.81, annex B) up to each scan's entropy-coded data.

use super::frame::{Frame, Process, Scan};
use super::huffman::Table;
use super::{Error, Scale, standard};

/// Tables as the segments read so far have set them.
#[derive(Default)]
pub(super) struct Tables {
    /// Quantisation tables, by zigzag position.
    pub(super) quant: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Box<Table>>; 4],
    pub(super) ac: [Option<Box<Table>>; 4],
    /// MCUs between restart markers; 0 for none.
    pub(super) restart: usize,
}

impl Tables {
    /// Puts the standard's tables where a sequential scan names some that the file has not set.
    pub(super) fn supply(&mut self, scan: &Scan) {
        for s in &scan.components {
            if let Some(table @ None) = self.dc.get_mut(s.dc) {
                *table = standard::dc(s.dc).map(Box::new);
            }
            if let Some(table @ None) = self.ac.get_mut(s.ac) {
                *table = standard::ac(s.ac).map(Box::new);
            }
        }
    }
}

/// What the reader has come to.
pub(super) enum Event {
    /// A scan whose entropy-coded data begin at [`Reader::at`].
    Scan(Scan),
    /// The end mark.
    End,
}

/// Walks through a file's segments.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// The byte it has come to.
    pub(super) at: usize,
    scale: Scale,
    pub(super) tables: Tables,
    pub(super) frame: Option<Frame>,
    pub(super) jfif: bool,
    /// The colour transform that an Adobe segment names.
    pub(super) adobe: Option<u8>,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`; `scale` is for the frame's sizes.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the bytes do not begin as a JPEG's.
    pub(super) fn new(bytes: &'a [u8], scale: Scale) -> Result<Reader<'a>, Error> {
        if bytes.get(..2) != Some(&[0xff, 0xd8]) {
            return Err(Error::Damaged("it does not begin with a JPEG's start mark".into()));
        }
        let tables = Tables::default();
        Ok(Reader { bytes, at: 2, scale, tables, frame: None, jfif: false, adobe: None })
    }

    /// Reads segments up to and with the next scan header, or the end mark.
    ///
    /// # Errors
    /// [`Error::Damaged`] for malformed segments and a missing end, [`Error::Unsupported`] for kinds of
    /// JPEG that are not read.
    pub(super) fn next_scan(&mut self) -> Result<Event, Error> {
        loop {
            match self.marker()? {
                0xd9 => return Ok(Event::End),
                0xda => {
                    let content = self.segment()?;
                    let frame = self.frame.as_ref().ok_or_else(|| {
                        Error::Damaged(format!("a scan comes before the frame header (byte {})", self.at))
                    })?;
                    return Ok(Event::Scan(Scan::read(content, frame)?));
                }
                marker => self.other(marker)?,
            }
        }
    }

    /// Reads segments up to and with the frame header.
    ///
    /// # Errors
    /// As [`Reader::next_scan`].
    pub(super) fn find_frame(&mut self) -> Result<&Frame, Error> {
        while self.frame.is_none() {
            match self.marker()? {
                0xd9 | 0xda => break,
                marker => self.other(marker)?,
            }
        }
        self.frame.as_ref().ok_or_else(|| Error::Damaged("it has no frame header".into()))
    }

    /// Steps over the next marker. Bytes before it are passed by, as libjpeg does: some cameras pad.
    fn marker(&mut self) -> Result<u8, Error> {
        loop {
            match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(&marker)) if marker != 0 && marker != 0xff => {
                    self.at += 2;
                    return Ok(marker);
                }
                (Some(_), Some(_)) => self.at += 1,
                _ => {
                    let end = self.bytes.len();
                    return Err(Error::Damaged(format!("its {end} bytes end before its end mark")));
                }
            }
        }
    }

    /// The content of the segment that begins here, which is stepped over.
    fn segment(&mut self) -> Result<&'a [u8], Error> {
        let from = self.at;
        let cut = || Error::Damaged(format!("the file ends within a segment (byte {from})"));
        let length = self.bytes.get(from..).and_then(|rest| rest.first_chunk::<2>()).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return Err(Error::Damaged(format!("a segment gives its length as {length} (byte {from})")));
        }
        let content = self.bytes.get(from + 2..from + length).ok_or_else(cut)?;
        self.at = from + length;
        Ok(content)
    }

    fn other(&mut self, marker: u8) -> Result<(), Error> {
        match marker {
            0xc0..=0xc2 => {
                if self.frame.is_some() {
                    return Err(Error::Damaged(format!("a second frame header (byte {})", self.at)));
                }
                let process = if marker == 0xc2 { Process::Progressive } else { Process::Sequential };
                self.frame = Some(Frame::read(self.segment()?, process, self.scale)?);
            }
            0xc3 => return Err(Error::Unsupported("lossless coding")),
            0xc5..=0xc7 | 0xde | 0xdf => return Err(Error::Unsupported("hierarchical coding")),
            0xc9..=0xcf => return Err(Error::Unsupported("arithmetic coding")),
            0xc8 | 0xf0..=0xfd => return Err(Error::Unsupported("an extension of the standard (JPG)")),
            0xc4 => self.huffman()?,
            0xdb => self.quantisation()?,
            0xdd => match self.segment()? {
                &[high, low] => self.tables.restart = usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(Error::Damaged("the restart interval's segment is malformed".into())),
            },
            // Restart markers and TEM stand alone; those that end a scan early are found in its data.
            0xd0..=0xd7 | 0x01 => {}
            0xd8 => return Err(Error::Damaged(format!("a second start mark (byte {})", self.at))),
            0xe0 => {
                let content = self.segment()?;
                self.jfif |= content.starts_with(b"JFIF\0") && content.len() >= 14;
            }
            0xee => {
                let content = self.segment()?;
                if content.starts_with(b"Adobe") {
                    self.adobe = content.get(11).copied().or(self.adobe);
                }
            }
            _ => {
                self.segment()?;
            }
        }
        Ok(())
    }

    /// DQT (B.2.4.1).
    fn quantisation(&mut self) -> Result<(), Error> {
        let mut rest = self.segment()?;
        while let Some((&head, after)) = rest.split_first() {
            let damaged = |what: String| Error::Damaged(format!("a quantisation segment {what}"));
            let wide = match head >> 4 {
                0 => false,
                1 => true,
                other => return Err(damaged(format!("gives precision {other}"))),
            };
            let number = head & 15;
            let table = self
                .tables
                .quant
                .get_mut(usize::from(number))
                .ok_or_else(|| damaged(format!("sets table {number}")))?;
            let length = if wide { 128 } else { 64 };
            let values = after.get(..length).ok_or_else(|| damaged("is cut short".into()))?;
            let mut filled = [0u16; 64];
            if wide {
                for (to, from) in filled.iter_mut().zip(values.as_chunks::<2>().0) {
                    *to = u16::from_be_bytes(*from);
                }
            } else {
                for (to, &from) in filled.iter_mut().zip(values) {
                    *to = from.into();
                }
            }
            *table = Some(filled);
            rest = after.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// DHT (B.2.4.2).
    fn huffman(&mut self) -> Result<(), Error> {
        let from = self.at;
        let mut rest = self.segment()?;
        while !rest.is_empty() {
            let damaged = |what: &str| Error::Damaged(format!("the Huffman tables at byte {from} {what}"));
            let Some((&[head, counts @ ..], after)) = rest.split_first_chunk::<17>() else {
                return Err(damaged("are cut short"));
            };
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = after.get(..total).ok_or_else(|| damaged("are cut short"))?;
            if total > 256 {
                return Err(damaged("give more than 256 codes"));
            }
            let table = Table::new(counts, symbols).ok_or_else(|| damaged("give more codes than fit"))?;
            let (class, number) = (head >> 4, usize::from(head & 15));
            let set = match class {
                0 if !table.within(15) => return Err(damaged("give a DC size over 15")),
                0 => &mut self.tables.dc,
                1 => &mut self.tables.ac,
                _ => return Err(damaged("are of an unknown class")),
            };
            *set.get_mut(number).ok_or_else(|| damaged("have a number over 3"))? = Some(Box::new(table));
            rest = after.get(total..).unwrap_or_default();
        }
        Ok(())
    }
}
