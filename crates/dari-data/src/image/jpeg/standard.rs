//! The Huffman tables of ITU T.81, annex K.3, which Motion JPEG leaves out of its frames; libjpeg-turbo takes
//! them to be meant in a sequential file that lacks tables.

use super::huffman::Table;

/// Counts of DC codes of 1 to 16 bits, for luma and chroma; the symbols are 0 to 11 in order.
const DC: [[u8; 16]; 2] =
    [[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]];

/// Counts of AC codes of 1 to 16 bits, for luma and chroma.
const AC: [[u8; 16]; 2] =
    [[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119]];

/// The first AC symbols of luma; the rest follow in order.
const LUMA: [u8; 37] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
    0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33,
    0x62, 0x72, 0x82,
];

/// The first AC symbols of chroma; the rest follow in order.
const CHROMA: [u8; 43] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13,
    0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62,
    0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1,
];

/// The DC table of number 0 (luma) or 1 (chroma).
pub(super) fn dc(number: usize) -> Option<Table> {
    let symbols: [u8; 12] = std::array::from_fn(|i| i as u8);
    Table::new(*DC.get(number)?, &symbols)
}

/// The AC table of number 0 (luma) or 1 (chroma).
pub(super) fn ac(number: usize) -> Option<Table> {
    let first = if number == 0 { LUMA.as_slice() } else { CHROMA.as_slice() };
    // A run of at most 15 and a size of 1 to 10; the end of a block and the run of 16 come first in both.
    let all = (0u8..=0xff).filter(|symbol| (1..=10).contains(&(symbol & 15)));
    let symbols: Vec<u8> =
        first.iter().copied().chain(all.filter(|symbol| !first.contains(symbol))).collect();
    Table::new(*AC.get(number)?, &symbols)
}
