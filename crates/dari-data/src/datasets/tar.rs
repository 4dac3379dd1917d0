//! The headers of a tar file: ustar, with GNU's and pax's long names. Names are keys only; nothing
//! is ever written under them.

use std::io::{Read, Seek, SeekFrom};

const BLOCK: u64 = 512;

/// The longest name, and the most bytes of pax records, that a member may have.
const NAME_LIMIT: u64 = 1 << 16;

/// A regular file in a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    /// Where its bytes begin.
    pub start: u64,
    pub size: u64,
}

/// What is wrong with a tar file from one place on; members before it are sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where its header is.
    pub at: u64,
    /// The name, if it was read.
    pub name: Option<String>,
    pub problem: String,
}

/// Lists the members of a tar file of `length` bytes up to its end or its first damage.
pub(super) fn list(
    reader: &mut (impl Read + Seek),
    length: u64,
) -> std::io::Result<(Vec<Member>, Option<Damage>)> {
    let mut members = Vec::new();
    let mut at = 0_u64;
    let mut long_name: Option<Vec<u8>> = None;
    let mut long_size: Option<u64> = None;
    loop {
        let damage = |name: Option<String>, problem: String| Some(Damage { at, name, problem });
        let Some(rest) = length.checked_sub(at).filter(|&rest| rest > 0) else {
            return Ok((members, None));
        };
        if rest < BLOCK {
            let problem = format!("the file ends within a header ({rest} of {BLOCK} bytes)");
            return Ok((members, damage(None, problem)));
        }
        let mut block = [0; BLOCK as usize];
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut block)?;
        // A block of nulls ends the archive.
        if block.iter().all(|&byte| byte == 0) {
            return Ok((members, None));
        }
        let header = Header(&block);
        if !header.sum_is_right() {
            let problem = "no tar header (its check sum is wrong); is the shard compressed, or a \
                           member's size not the true one?";
            return Ok((members, damage(None, problem.into())));
        }
        let name = match &long_name {
            Some(name) => name.clone(),
            None => header.name(),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        let kind = header.kind();
        let pax_size = if matches!(kind, b'x' | b'g' | b'L' | b'K') { None } else { long_size.take() };
        let Some(size) = pax_size.or_else(|| header.size()) else {
            return Ok((members, damage(Some(name), "its size is no number".into())));
        };
        let start = at + BLOCK;
        let available = rest - BLOCK;
        if size > available {
            let problem = format!("{size} bytes by its header, {available} to the end of the file");
            return Ok((members, damage(Some(name), problem)));
        }
        match kind {
            b'L' | b'x' => {
                if size > NAME_LIMIT {
                    let problem = format!("a name of {size} bytes; at most {NAME_LIMIT} are read");
                    return Ok((members, damage(None, problem)));
                }
                let mut bytes = vec![0; size as usize];
                reader.read_exact(&mut bytes)?;
                if kind == b'L' {
                    long_name = Some(until_null(&bytes).to_vec());
                } else {
                    let records = pax(&bytes);
                    long_name = records.name.or(long_name);
                    long_size = records.size.or(long_size);
                }
            }
            // Long link names and settings for all that follows: nothing here is needed.
            b'K' | b'g' => {}
            0 | b'0' | b'7' => {
                long_name = None;
                // Old archives mark folders by their names alone.
                if !name.ends_with('/') {
                    members.push(Member { name, start, size });
                }
            }
            // Folders, links, devices.
            _ => long_name = None,
        }
        // `size` fits in the file, so its blocks do not overflow; the last may be cut short.
        at = start + size.div_ceil(BLOCK) * BLOCK;
    }
}

struct Header<'a>(&'a [u8; BLOCK as usize]);

impl Header<'_> {
    fn field(&self, start: usize, length: usize) -> &[u8] {
        self.0.get(start..start + length).unwrap_or_default()
    }

    /// The sum of all bytes, with spaces in place of the sum; old programs took bytes as signed.
    fn sum_is_right(&self) -> bool {
        let bytes =
            || (self.0.iter().enumerate()).map(|(at, &b)| if (148..156).contains(&at) { b' ' } else { b });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        octal(self.field(148, 8))
            .and_then(|sum| i64::try_from(sum).ok())
            .is_some_and(|sum| sum == unsigned || sum == signed)
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn name(&self) -> Vec<u8> {
        let name = until_null(self.field(0, 100));
        // GNU's format has other things in the place of the prefix.
        let prefix = match self.field(257, 6) {
            b"ustar\0" => until_null(self.field(345, 155)),
            _ => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Octal digits, or a number of base 256 marked by the first bit.
    fn size(&self) -> Option<u64> {
        let field = self.field(124, 12);
        match field.split_first()? {
            (0x80, rest) => {
                rest.iter().try_fold(0_u64, |sum, &byte| sum.checked_mul(256)?.checked_add(u64::from(byte)))
            }
            _ => octal(field),
        }
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

fn until_null(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[derive(Default)]
struct Pax {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

/// Records of `length key=value\n`; what does not follow the form ends them.
fn pax(mut bytes: &[u8]) -> Pax {
    let mut records = Pax::default();
    while let Some(space) = bytes.iter().position(|&byte| byte == b' ') {
        let length = bytes.get(..space).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(length) = length.and_then(|digits| digits.parse::<usize>().ok()) else {
            break;
        };
        let Some((record, rest)) = bytes.split_at_checked(length) else {
            break;
        };
        bytes = rest;
        let Some(record) = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n")) else {
            break;
        };
        if let Some(name) = record.strip_prefix(b"path=") {
            records.name = Some(name.to_vec());
        } else if let Some(size) = record.strip_prefix(b"size=") {
            records.size = std::str::from_utf8(size).ok().and_then(|digits| digits.parse().ok());
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A header with a right check sum.
    fn header(name: &[u8], size: &[u8], kind: u8) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name);
        block[124..124 + size.len()].copy_from_slice(size);
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn member(name: &str, content: &[u8], kind: u8) -> Vec<u8> {
        let mut bytes = header(name.as_bytes(), format!("{:011o}", content.len()).as_bytes(), kind);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<(String, u64)>, Option<Damage>) {
        let (members, damage) = list(&mut Cursor::new(bytes), bytes.len() as u64).unwrap();
        (members.into_iter().map(|member| (member.name, member.size)).collect(), damage)
    }

    #[test]
    fn members_in_order() {
        let mut bytes = member("d/", b"", b'5');
        bytes.extend(member("d/a.txt", b"hello", b'0'));
        bytes.extend(member("link", b"", b'2'));
        bytes.extend(member("b.txt", &[7; 1024], 0));
        bytes.extend([0; 1024]);
        bytes.extend(member("after the end", b"", b'0'));
        assert_eq!(read(&bytes), (vec![("d/a.txt".into(), 5), ("b.txt".into(), 1024)], None));
        // The end blocks may be missing, and the last member's filling.
        assert_eq!(read(&member("a", b"hello", b'0')[..517]).0, [("a".to_owned(), 5)]);
        assert_eq!(read(b"").0, []);
    }

    #[test]
    fn long_names() {
        let long = "x/".repeat(200) + "name.jpg";
        let mut bytes = member("././@LongLink", format!("{long}\0").as_bytes(), b'L');
        bytes.extend(member("cut", b"1", b'0'));
        bytes.extend(member("short", b"22", b'0'));
        let record = format!("path={long}\n");
        let length = record.len() + 4;
        bytes.extend(member("pax", format!("{length} {record}10 size=3\njunk").as_bytes(), b'x'));
        bytes.extend(member("cut", b"333", b'0'));
        let expected = vec![(long.clone(), 1), ("short".into(), 2), (long, 3)];
        assert_eq!(read(&bytes), (expected, None));
    }

    #[test]
    fn sizes_that_lie() {
        let cases: [&[u8]; 6] = [
            b"00000002000",
            b"77777777777",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"99999999999",
            b"-0000000001",
        ];
        for size in cases {
            let mut bytes = member("good", b"1", b'0');
            bytes.extend(header(b"bad", size, b'0'));
            bytes.extend([1; 512]);
            let (members, damage) = read(&bytes);
            assert_eq!(members, [("good".to_owned(), 1)], "{size:?}");
            let damage = damage.unwrap();
            assert_eq!((damage.at, damage.name.as_deref()), (1024, Some("bad")), "{size:?}");
        }
        // A size smaller than the truth leaves bytes that are no header.
        let mut bytes = header(b"small", b"00000000001", b'0');
        bytes.extend([1; 1024]);
        let (members, damage) = read(&bytes);
        assert_eq!(members.len(), 1);
        assert!(damage.unwrap().problem.contains("no tar header"));
        // So does a pax record.
        let mut bytes = member("pax", b"29 size=18446744073709551615\n", b'x');
        bytes.extend(member("bad", b"1", b'0'));
        let (members, damage) = read(&bytes);
        assert!(members.is_empty());
        assert!(damage.unwrap().problem.contains("18446744073709551615 bytes"));
    }

    #[test]
    fn every_truncation_and_flip_ends() {
        let mut bytes = member("././@LongLink", b"a/long/name\0", b'L');
        bytes.extend(member("cut", b"hello", b'0'));
        bytes.extend(member("pax", b"12 path=xyz\n", b'x'));
        bytes.extend(member("b", b"1", b'0'));
        for length in 0..bytes.len() {
            read(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            read(&damaged);
        }
    }
}
