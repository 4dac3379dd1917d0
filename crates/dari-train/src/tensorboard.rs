//! TensorBoard's event files: records of protocol buffers, each framed by its length and check sums
//! (TensorFlow's `record_writer`, `event.proto`, `summary.proto`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// An event file that is being written.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Events {
    /// Begins a new file in `folder`. What older files say of steps behind `step` does not count any more.
    pub fn create(folder: &Path, step: u64) -> Result<Events> {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{}.dari", now.as_secs(), std::process::id());
        let path = folder.join(name);
        let file = BufWriter::new(File::create(&path).map_err(Error::file(&path))?);
        let mut events = Events { path, file };
        let mut version = Message::event(0);
        version.bytes(3, b"brain.Event:2");
        events.record(&version.0)?;
        if step > 0 {
            // A session log that says a run began here.
            let mut session = Message::default();
            session.number(1, 1);
            let mut start = Message::event(step + 1);
            start.bytes(7, &session.0);
            events.record(&start.0)?;
        }
        Ok(events)
    }

    /// Adds what was measured at a step.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut one = Message::default();
            one.bytes(1, tag.as_bytes());
            one.float(2, *value as f32);
            summary.bytes(1, &one.0);
        }
        let mut event = Message::event(step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::file(&self.path))
    }

    fn record(&mut self, bytes: &[u8]) -> Result<()> {
        let length = (bytes.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked(&length).to_le_bytes(), bytes, &masked(bytes).to_le_bytes()];
        self.file.write_all(&parts.concat()).map_err(Error::file(&self.path))
    }
}

/// A protocol buffer's message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An event: the time now, and the step.
    fn event(step: u64) -> Message {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = Message::default();
        event.key(1, 1);
        event.0.extend(now.as_secs_f64().to_le_bytes());
        event.number(2, step);
        event
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// The check sum as records hold it: turned and shifted, since it may be taken over itself.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: records are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn records_are_framed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::create(folder.path(), 0).expect("events");
        events.scalars(300, &[("loss", 1.5)]).expect("written");
        events.flush().expect("flushed");
        let bytes = std::fs::read(&events.path).expect("the file");
        let (mut rest, mut records) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("a length")) as usize;
            assert_eq!(masked(&rest[..8]).to_le_bytes(), rest[8..12]);
            let record = &rest[12..12 + length];
            assert_eq!(masked(record).to_le_bytes(), rest[12 + length..16 + length]);
            records.push(record);
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 2);
        // step 300, a summary of 13 bytes: a value of 11: tag "loss", 1.5.
        let tail = [&[0x10, 0xAC, 0x02, 0x2A, 13, 0x0A, 11, 0x0A, 4][..], b"loss", &[0x15, 0, 0, 0xC0, 0x3F]];
        assert!(records[1].ends_with(&tail.concat()), "{:?}", records[1]);
    }
}
