//! The ten single-byte encodings through which UTF-8 is commonly misread, in the order in which
//! ftfy tries them. The upper halves of the tables are those of the Unicode consortium's mapping
//! files, with unassigned bytes standing for the control characters of the same number, as HTML
//! reads them.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

// The characters of bytes 0x80 to 0xff.
const WINDOWS_1252: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
    àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\
    \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
    абвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
    \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const WINDOWS_1253: &str = "\
    €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
const WINDOWS_1254: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
const WINDOWS_1257: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
    \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
const MACINTOSH: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
    †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
    ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const CODE_PAGE_437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
const ISO_8859_2_FROM_A0: &str = "\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

/// One single-byte encoding: what each character's byte is.
pub(super) struct Encoding {
    /// Windows encodings with holes filled; in these the byte 0x1a stands for U+FFFD.
    pub sloppy: bool,
    /// MacRoman: an en dash before a space is common there, so spaces are not taken for 0xa0.
    pub keeps_spaces: bool,
    bytes: HashMap<char, u8>,
}

impl Encoding {
    fn new(upper: impl Iterator<Item = char>, sloppy: bool, keeps_spaces: bool) -> Encoding {
        let mut bytes: HashMap<char, u8> = (0x80..=0xff_u8).zip(upper).map(|(b, c)| (c, b)).collect();
        if sloppy {
            bytes.insert('\u{fffd}', 0x1a);
        }
        Encoding { sloppy, keeps_spaces, bytes }
    }

    /// The text's bytes in this encoding, or nothing if a character has none.
    pub fn encode(&self, text: &[char]) -> Option<Vec<u8>> {
        text.iter()
            .map(|&character| match u8::try_from(character) {
                Ok(0x1a) if self.sloppy => None,
                Ok(byte @ 0..0x80) => Some(byte),
                _ => self.bytes.get(&character).copied(),
            })
            .collect()
    }
}

fn latin_1() -> impl Iterator<Item = char> {
    (0x80..=0xff_u8).map(char::from)
}

/// Latin-1 comes first.
pub(super) static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let iso_8859_2 = (0x80..0xa0_u8).map(char::from).chain(ISO_8859_2_FROM_A0.chars());
    vec![
        Encoding::new(latin_1(), false, false),
        Encoding::new(WINDOWS_1252.chars(), true, false),
        Encoding::new(WINDOWS_1251.chars(), true, false),
        Encoding::new(WINDOWS_1250.chars(), true, false),
        Encoding::new(WINDOWS_1253.chars(), true, false),
        Encoding::new(WINDOWS_1254.chars(), true, false),
        Encoding::new(WINDOWS_1257.chars(), true, false),
        Encoding::new(iso_8859_2, false, false),
        Encoding::new(MACINTOSH.chars(), false, true),
        Encoding::new(CODE_PAGE_437.chars(), false, false),
    ]
});

/// What the control character `control` (U+0080 to U+009F) is in Windows-1252; any other
/// character is itself.
pub(in crate::text) fn windows_1252(control: char) -> char {
    match u32::from(control) {
        code @ 0x80..=0x9f => WINDOWS_1252.chars().nth((code - 0x80) as usize).unwrap_or(control),
        _ => control,
    }
}

/// Characters that a byte of UTF-8 becomes when it is misread in an encoding of the Latin-1 kind.
pub(super) struct Clues {
    /// First of a sequence of two bytes.
    pub first_of_2: HashSet<char>,
    /// First of a sequence of three bytes.
    pub first_of_3: HashSet<char>,
    /// First of a sequence of four bytes (0xf0, 0xf3: the others lead to unassigned characters).
    pub first_of_4: HashSet<char>,
    /// Any later byte, or the space that took the place of 0xa0.
    pub later: HashSet<char>,
    /// Any later byte, without the punctuation that also stands beside sound text.
    pub later_strict: HashSet<char>,
}

pub(super) static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    let tables = [WINDOWS_1252, WINDOWS_1251, WINDOWS_1250, WINDOWS_1253, WINDOWS_1254, WINDOWS_1257];
    // The filled holes add nothing: Latin-1 has the same character at the same byte.
    let collect = |wanted: &dyn Fn(u8) -> bool| -> HashSet<char> {
        let mut found: HashSet<char> =
            (0x80..=0xff_u8).filter(|&byte| wanted(byte)).map(char::from).collect();
        for table in tables {
            found.extend((0x80..=0xff_u8).zip(table.chars()).filter(|&(b, _)| wanted(b)).map(|p| p.1));
        }
        found
    };
    let mut later = collect(&|byte| byte < 0xc0);
    let mut later_strict = later.clone();
    for punctuation in "–—―‘’‚“”„•…".chars() {
        later_strict.remove(&punctuation);
    }
    later.insert(' ');
    Clues {
        first_of_2: collect(&|byte| (0xc2..=0xdf).contains(&byte)),
        first_of_3: collect(&|byte| (0xe0..=0xef).contains(&byte)),
        first_of_4: collect(&|byte| byte == 0xf0 || byte == 0xf3),
        later,
        later_strict,
    }
});
