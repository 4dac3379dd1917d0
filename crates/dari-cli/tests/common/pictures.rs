//! Pictures drawn by the tests, as files of several formats.

/// Colour of each pixel.
pub type Paint<'a> = &'a dyn Fn(u32, u32) -> [u8; 3];

/// A PNG file, uncompressed.
pub fn png(width: u32, height: u32, paint: Paint<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    for y in 0..height {
        raw.push(0);
        for x in 0..width {
            raw.extend(paint(x, y));
        }
    }
    png_of(width, height, &raw)
}

/// A PNG file that says it is of this size and holds these filtered rows.
pub fn png_of(width: u32, height: u32, raw: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    // Eight bits, RGB, the only compression and filter method, not interlaced.
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &zlib(raw));
    chunk(&mut file, b"IEND", &[]);
    file
}

/// Appends a PNG chunk.
pub fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let sum = crc32(&file[start..]);
    file.extend(sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks.
pub fn zlib(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = data.chunks(65_535).collect();
    for (index, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(index + 1 == blocks.len()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(*block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b << 16) | a).to_be_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A BMP file, 24 bits.
pub fn bmp(width: u32, height: u32, paint: Paint<'_>) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    file.extend((54 + row * height).to_le_bytes());
    file.extend([0; 4]);
    file.extend(54u32.to_le_bytes());
    file.extend(40u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    for y in (0..height).rev() {
        let start = file.len();
        for x in 0..width {
            let [red, green, blue] = paint(x, y);
            file.extend([blue, green, red]);
        }
        file.resize(start + row as usize, 0);
    }
    file
}

/// A picture unlike those of other numbers.
pub fn numbered(number: u32) -> Vec<u8> {
    png(24, 24, &|x, y| {
        let mix = number.wrapping_mul(2_654_435_761) ^ (x / 8 * 97 + y / 8 * 57);
        [mix as u8, (mix >> 8) as u8, (mix >> 16) as u8]
    })
}

/// Width and height in a PNG file's header.
pub fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!(&bytes[12..16], b"IHDR");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    (number(16), number(20))
}
