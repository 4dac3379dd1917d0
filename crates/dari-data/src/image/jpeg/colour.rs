//! Component rows to RGB rows.

use std::convert::identity;

use super::frame::Frame;

/// What the components stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

impl Colour {
    /// libjpeg's guess (jdapimin.c, `default_decompress_parms`): JFIF means `YCbCr`; else an Adobe segment
    /// says; else the component ids may spell RGB.
    pub(super) fn of(frame: &Frame, jfif: bool, adobe: Option<u8>) -> Colour {
        match frame.components.as_slice() {
            [_] => Colour::Grey,
            [r, g, b] => match adobe {
                _ if jfif => Colour::YCbCr,
                Some(0) => Colour::Rgb,
                None if [r.id, g.id, b.id] == *b"RGB" => Colour::Rgb,
                _ => Colour::YCbCr,
            },
            _ => match adobe {
                None | Some(0) => Colour::Cmyk,
                Some(_) => Colour::Ycck,
            },
        }
    }

    /// Writes a row of RGB pixels; each line has at least as many samples as there are pixels.
    pub(super) fn convert(self, lines: &[&[u8]], out: &mut [u8]) {
        match (self, lines) {
            (Colour::Grey, [grey]) => by_chunks([grey; 3], out, identity),
            (Colour::Rgb, [red, green, blue]) => by_chunks([red, green, blue], out, identity),
            (Colour::YCbCr, [luma, cb, cr]) => by_chunks([luma, cb, cr], out, to_rgb),
            (Colour::Cmyk, [c, m, y, k]) => {
                let pixels = out.as_chunks_mut::<3>().0.iter_mut();
                for ((((pixel, &c), &m), &y), &k) in pixels.zip(*c).zip(*m).zip(*y).zip(*k) {
                    *pixel = [c, m, y].map(|ink| under_black(255 - ink, k));
                }
            }
            (Colour::Ycck, [luma, cb, cr, k]) => {
                by_chunks([luma, cb, cr], out, to_rgb);
                for (pixel, &k) in out.as_chunks_mut::<3>().0.iter_mut().zip(*k) {
                    // YCCK gives 255 less the inks, and those are stored inverted: the ink is the RGB.
                    *pixel = pixel.map(|ink| under_black(ink, k));
                }
            }
            // A frame has as many lines as its colour asks for.
            _ => {}
        }
    }
}

/// Pillow's RGB sample for an ink and the black that leaves `light` (its `cmyk2rgb`).
fn under_black(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    let shade = ((product >> 8) + product) >> 8;
    u32::from(light).saturating_sub(shade) as u8
}

/// Pixels that are converted together.
const CHUNK: usize = 32;

/// Three lines to pixels through `convert`, which maps one pixel's worth; written in chunks, because the
/// compiler makes vector code of loops over planes, and does not of stores three bytes apart.
#[inline(always)]
fn by_chunks(lines: [&[u8]; 3], out: &mut [u8], convert: impl Fn([u8; 3]) -> [u8; 3]) {
    let [a, b, c] = lines;
    let (whole, rest) = out.as_chunks_mut::<{ CHUNK * 3 }>();
    let done = whole.len() * CHUNK;
    let chunks = a.as_chunks::<CHUNK>().0.iter().zip(b.as_chunks::<CHUNK>().0).zip(c.as_chunks::<CHUNK>().0);
    for (out, ((a, b), c)) in whole.iter_mut().zip(chunks) {
        // In three steps, each of which the compiler makes as wide as its own numbers allow.
        let mut planes = [[0u8; CHUNK]; 3];
        let [x, y, z] = &mut planes;
        for i in 0..CHUNK {
            [x[i], y[i], z[i]] = convert([a[i], b[i], c[i]]);
        }
        let mut packed = [0u32; CHUNK];
        interleave(x, y, z, &mut packed);
        pack(&packed, out);
    }
    let tail = |line: &[u8]| -> [u8; CHUNK] {
        let mut padded = [0; CHUNK];
        padded.iter_mut().zip(line.iter().skip(done)).for_each(|(to, &from)| *to = from);
        padded
    };
    let (a, b, c) = (tail(a), tail(b), tail(c));
    for (pixel, ((&a, &b), &c)) in rest.as_chunks_mut::<3>().0.iter_mut().zip(a.iter().zip(&b).zip(&c)) {
        *pixel = convert([a, b, c]);
    }
}

/// Planes to pixels of four bytes. A function of its own, and so is [`pack`]: seen together, the compiler
/// would take the vectors apart again.
#[inline(never)]
fn interleave(x: &[u8], y: &[u8], z: &[u8], packed: &mut [u32]) {
    for (((packed, &x), &y), &z) in packed.iter_mut().zip(x).zip(y).zip(z) {
        *packed = u32::from(u16::from_le_bytes([x, y])) | u32::from(z) << 16;
    }
}

/// Pixels of four bytes to three: each is written with its empty byte, on which the next is written.
#[inline(never)]
fn pack(pixels: &[u32; CHUNK], out: &mut [u8; CHUNK * 3]) {
    let (last, rest) = (pixels[CHUNK - 1], &pixels[..CHUNK - 1]);
    for (i, pixel) in rest.iter().enumerate() {
        out[i * 3..i * 3 + 4].copy_from_slice(&pixel.to_le_bytes());
    }
    let [x, y, z, _] = last.to_le_bytes();
    out[CHUNK * 3 - 3..].copy_from_slice(&[x, y, z]);
}

/// One pixel of `YCbCr` to RGB as libjpeg's tables give it (jdcolor.c): 16 bits of fraction, rounded once.
/// Each factor is split into a whole number and a rest that fits 16 bits.
#[inline(always)]
fn to_rgb([luma, cb, cr]: [u8; 3]) -> [u8; 3] {
    let luma = i16::from(luma);
    let (cb, cr) = (i16::from(cb) - 128, i16::from(cr) - 128);
    let scaled = |a: i16, factor: i16| i32::from(a) * i32::from(factor);
    // Half of the upper 16 bits of twice the product, rounded: the product's upper bits, rounded.
    let rounded = |a: i16, factor: i16| (((scaled(a + a, factor) >> 16) as i16) + 1) >> 1;
    // 1.402 = 1 + 26345 / 65536.
    let red = luma + cr + rounded(cr, 26345);
    // -0.34414 = -22554 / 65536, -0.71414 = -1 + 18734 / 65536.
    let green = luma - cr + ((scaled(cb, -22554) + scaled(cr, 18734) + 32768) >> 16) as i16;
    // 1.772 = 2 - 14942 / 65536.
    let blue = luma + cb + cb + rounded(cb, -14942);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}
