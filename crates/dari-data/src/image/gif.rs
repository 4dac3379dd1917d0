//! A GIF's first frame: its place on the screen, and the colour of the screen around it.

/// What comes before the first frame's pixels.
pub(super) struct FirstFrame {
    pub(super) screen: (u32, u32),
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// What Pillow leaves around the frame: the transparent colour, else the palette's first.
    pub(super) around: [u8; 3],
}

impl FirstFrame {
    /// Reads up to the end of the first frame's data; `None` when the bytes end or contradict
    /// themselves before.
    pub(super) fn read(bytes: &[u8]) -> Option<FirstFrame> {
        let u16_at = |at: usize| -> Option<u32> {
            let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(u32::from(u16::from_le_bytes(pair)))
        };
        let screen = (u16_at(6)?, u16_at(8)?);
        let mut at = 13usize;
        let mut palette = colours(bytes, *bytes.get(10)?, &mut at)?;
        let mut transparent = None;
        loop {
            match *bytes.get(at)? {
                0x21 => {
                    // An extension; the graphic control names the transparent index.
                    if *bytes.get(at + 1)? == 0xf9 && *bytes.get(at + 3)? & 1 == 1 {
                        transparent = Some(*bytes.get(at + 6)?);
                    }
                    at = skip_blocks(bytes, at.checked_add(2)?)?;
                }
                0x2c => break,
                0x3b => return None,
                _ => at = at.checked_add(1)?,
            }
        }
        let (left, top) = (u16_at(at + 1)?, u16_at(at + 3)?);
        let (width, height) = (u16_at(at + 5)?, u16_at(at + 7)?);
        let flags = *bytes.get(at + 9)?;
        at = at.checked_add(10)?;
        let local = colours(bytes, flags, &mut at)?;
        if !local.is_empty() {
            palette = local;
        }
        skip_blocks(bytes, at.checked_add(1)?)?;
        let around = usize::from(transparent.unwrap_or(0)) * 3;
        let around =
            palette.get(around..around + 3).and_then(|colour| colour.try_into().ok()).unwrap_or([0, 0, 0]);
        Some(FirstFrame { screen, left, top, width, height, around })
    }

    /// The size Pillow gives the picture: the screen, widened where the frame reaches past it.
    pub(super) fn size(&self) -> (u32, u32) {
        (
            self.screen.0.max(self.left.saturating_add(self.width)),
            self.screen.1.max(self.top.saturating_add(self.height)),
        )
    }

    /// Colours the pixels around the frame in a picture of [`FirstFrame::size`], `[height, width, 3]`.
    pub(super) fn fill_around(&self, width: u32, rgb: &mut [u8]) {
        let across = self.left..self.left.saturating_add(self.width);
        let down = self.top..self.top.saturating_add(self.height);
        for (row, line) in (0u32..).zip(rgb.chunks_exact_mut(width as usize * 3)) {
            for (column, pixel) in (0u32..).zip(line.chunks_exact_mut(3)) {
                if !(down.contains(&row) && across.contains(&column)) {
                    pixel.copy_from_slice(&self.around);
                }
            }
        }
    }
}

/// The palette that `flags` announce at `at`, and `at` moved behind it.
fn colours<'a>(bytes: &'a [u8], flags: u8, at: &mut usize) -> Option<&'a [u8]> {
    if flags & 0x80 == 0 {
        return Some(&[]);
    }
    let end = at.checked_add(3usize << ((flags & 7) + 1))?;
    let palette = bytes.get(*at..end)?;
    *at = end;
    Some(palette)
}

/// Behind a row of length-prefixed blocks and the empty one that ends it.
fn skip_blocks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        at = at.checked_add(1)?.checked_add(length)?;
        if length == 0 {
            return Some(at);
        }
    }
}
