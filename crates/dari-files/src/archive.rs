//! The part of the zip format that `torch.save` writes: stored entries, found by the central
//! directory. Entries are ranges of the file, so nothing is copied and nothing can inflate.
//!
//! Layout: PKWARE APPNOTE 6.3.9, sections 4.3.7 (local header), 4.3.12 (central directory),
//! 4.3.14 to 4.3.16 (its end, in 64 and 32 bits), 4.5.3 (64-bit sizes).

use crate::error::shown;
use std::collections::BTreeMap;
use std::ops::Range;

/// What every such file begins with.
pub(crate) const MAGIC: &[u8] = b"PK\x03\x04";

const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const CENTRAL_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
/// In a 32-bit field: the number is in the 64-bit extra field.
const ELSEWHERE: u64 = 0xffff_ffff;

/// Every entry's bytes by its name; the error is the problem, without the file's name.
pub(crate) fn entries(file: &[u8]) -> Result<BTreeMap<&str, Range<usize>>, String> {
    let directory = find_directory(file)?;
    let mut entries = BTreeMap::new();
    let mut rest = file.get(directory.clone()).ok_or("its zip directory lies outside of the file")?;
    while !rest.is_empty() {
        let entry = Central::read(rest).ok_or("its zip directory is cut short")?;
        let name = entry.name()?;
        let range = entry
            .locate(file, directory.start)
            .ok_or_else(|| format!("its zip entry {} does not lie where the directory says", shown(name)))?;
        if entries.insert(name, range).is_some() {
            return Err(format!("it has two zip entries named {}", shown(name)));
        }
        rest = rest.get(entry.length..).unwrap_or_default();
    }
    Ok(entries)
}

/// The central directory's range, from the record at the file's end.
fn find_directory(file: &[u8]) -> Result<Range<usize>, String> {
    const LOST: &str = "its zip directory is missing: the file was cut short";
    // The record is the last thing but for a comment of at most 65,535 bytes.
    let last = file.len().checked_sub(END_BYTES).ok_or(LOST)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let is_end = |&at: &usize| {
        let comment = last - at;
        u32_at(file, at) == Some(END) && u16_at(file, at.saturating_add(20)).map(usize::from) == Some(comment)
    };
    let end = (first..=last).rev().find(is_end).ok_or(LOST)?;
    let (size, start, bound) = match find_end_64(file, end) {
        Some(end_64) => {
            (u64_at(file, end_64.saturating_add(40)), u64_at(file, end_64.saturating_add(48)), end_64)
        }
        None => (
            u32_at(file, end.saturating_add(12)).map(u64::from),
            u32_at(file, end.saturating_add(16)).map(u64::from),
            end,
        ),
    };
    let (Some(size), Some(start)) = (to_usize(size), to_usize(start)) else {
        return Err(LOST.to_owned());
    };
    match start.checked_add(size) {
        Some(stop) if stop <= bound => Ok(start..stop),
        _ => Err(format!("its zip directory of {size} bytes at {start} does not fit before byte {bound}")),
    }
}

fn find_end_64(file: &[u8], end: usize) -> Option<usize> {
    let locator = end.checked_sub(LOCATOR_BYTES)?;
    if u32_at(file, locator)? != LOCATOR_64 {
        return None;
    }
    let at = to_usize(u64_at(file, locator.checked_add(8)?))?;
    (at < locator && u32_at(file, at)? == END_64).then_some(at)
}

/// One record of the central directory.
struct Central<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    packed: u64,
    size: u64,
    local: u64,
    length: usize,
}

impl<'a> Central<'a> {
    fn read(rest: &'a [u8]) -> Option<Central<'a>> {
        if u32_at(rest, 0)? != CENTRAL {
            return None;
        }
        let name_bytes = usize::from(u16_at(rest, 28)?);
        let extra_bytes = usize::from(u16_at(rest, 30)?);
        let comment_bytes = usize::from(u16_at(rest, 32)?);
        let (name, after) = rest.get(CENTRAL_BYTES..)?.split_at_checked(name_bytes)?;
        let extra = after.get(..extra_bytes)?;
        let length = CENTRAL_BYTES + name_bytes + extra_bytes + comment_bytes;
        rest.get(..length)?;
        let mut entry = Central {
            name,
            flags: u16_at(rest, 8)?,
            method: u16_at(rest, 10)?,
            packed: u64::from(u32_at(rest, 20)?),
            size: u64::from(u32_at(rest, 24)?),
            local: u64::from(u32_at(rest, 42)?),
            length,
        };
        entry.read_wide(extra)?;
        Some(entry)
    }

    /// The 64-bit extra field holds, in this order, those numbers that did not fit.
    fn read_wide(&mut self, mut extra: &[u8]) -> Option<()> {
        while extra.len() >= 4 {
            let id = u16_at(extra, 0)?;
            let bytes = usize::from(u16_at(extra, 2)?);
            let (field, rest) = extra.get(4..)?.split_at_checked(bytes)?;
            if id == 1 {
                let mut at = 0;
                for number in [&mut self.size, &mut self.packed, &mut self.local] {
                    if *number == ELSEWHERE {
                        *number = u64_at(field, at)?;
                        at += 8;
                    }
                }
            }
            extra = rest;
        }
        Some(())
    }

    fn name(&self) -> Result<&'a str, String> {
        let name = std::str::from_utf8(self.name).map_err(|_| "a zip entry's name is not UTF-8")?;
        if self.flags & 1 != 0 {
            return Err(format!("its zip entry {} is encrypted", shown(name)));
        }
        if self.method != 0 || self.packed != self.size {
            return Err(format!("its zip entry {} is compressed, which torch.save never does", shown(name)));
        }
        Ok(name)
    }

    /// The entry's bytes, if the local header agrees and they end before the directory.
    fn locate(&self, file: &[u8], directory: usize) -> Option<Range<usize>> {
        let local = usize::try_from(self.local).ok()?;
        let header = file.get(local..)?;
        if u32_at(header, 0)? != LOCAL {
            return None;
        }
        let name_bytes = usize::from(u16_at(header, 26)?);
        let extra_bytes = usize::from(u16_at(header, 28)?);
        let name = header.get(LOCAL_BYTES..LOCAL_BYTES + name_bytes)?;
        if name != self.name {
            return None;
        }
        let start = local.checked_add(LOCAL_BYTES + name_bytes + extra_bytes)?;
        let end = start.checked_add(usize::try_from(self.size).ok()?)?;
        (end <= directory).then_some(start..end)
    }
}

fn to_usize(number: Option<u64>) -> Option<usize> {
    usize::try_from(number?).ok()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
