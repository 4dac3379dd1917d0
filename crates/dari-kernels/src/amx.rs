//! Intel's AMX: products of whole tiles of bytes or bf16 numbers, sixteen rows by sixteen columns of sums
//! (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18).
//!
//! Written as assembly, since the compiler's own names for these instructions are not stable yet. It uses no tile by
//! itself, so that none has to be named to it as changed.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Most rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a whole row.
pub(crate) const BYTES: usize = 64;

/// Whether this machine multiplies tiles and the system lets this process do so.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && permitted())
}

fn has_instructions() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    /// Tiles, of bf16 and of bytes.
    const TILES: u32 = 1 << 24 | 1 << 22 | 1 << 25;
    const TILES_SAVED: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: the system has switched the instruction on, as the caller saw.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: as above.
    let saved = unsafe { saved() };
    __cpuid_count(7, 0).edx & TILES == TILES && saved & TILES_SAVED == TILES_SAVED
}

/// Linux gives threads room for tiles once their process has asked for it.
fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: two numbers, and nothing but a permission changes.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// What the eight tiles look like, as `ldtilecfg` reads it.
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// By tile, its rows and each row's bytes.
    pub const fn new(tiles: [[usize; 2]; 8]) -> Shapes {
        let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < tiles.len() {
            let [rows, bytes] = tiles[tile];
            assert!(rows <= ROWS && bytes <= BYTES && bytes.is_multiple_of(4));
            (shapes.rows[tile], shapes.bytes[tile]) = (rows as u8, bytes as u16);
            tile += 1;
        }
        shapes
    }
}

macro_rules! products {
    ($($(#[$meta:meta])* $name:ident: $instruction:literal;)*) => {
        $(
            $(#[$meta])*
            #[inline(always)]
            pub fn $name<const SUM: u8, const A: u8, const B: u8>(&self) {
                // SAFETY: there are such tiles; whoever chose their shapes made them fit.
                unsafe {
                    asm!(
                        concat!($instruction, " tmm{sum}, tmm{a}, tmm{b}"),
                        sum = const SUM,
                        a = const A,
                        b = const B,
                        options(nostack, nomem, preserves_flags),
                    );
                }
            }
        )*
    };
}

/// Tiles of certain shapes, this thread's as long as this lives. Of two only the later one's shapes hold.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// # Safety
    /// [`is_available`].
    #[inline(always)]
    pub unsafe fn new(shapes: &Shapes) -> Tiles {
        // SAFETY: 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, readonly, preserves_flags)) };
        Tiles(PhantomData)
    }

    /// Reads a tile's rows, so many bytes apart.
    ///
    /// # Safety
    /// They may be read as far as the tile's shape goes.
    #[inline(always)]
    pub unsafe fn load<const TILE: u8>(&self, from: *const u8, apart: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {apart}*1]",
                tile = const TILE,
                from = in(reg) from,
                apart = in(reg) apart,
                options(nostack, readonly, preserves_flags),
            );
        }
    }

    /// Writes a tile's rows, so many bytes apart.
    ///
    /// # Safety
    /// They may be written as far as the tile's shape goes.
    #[inline(always)]
    pub unsafe fn store<const TILE: u8>(&self, to: *mut u8, apart: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            asm!(
                "tilestored [{to} + {apart}*1], tmm{tile}",
                tile = const TILE,
                to = in(reg) to,
                apart = in(reg) apart,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Makes a tile zeros.
    #[inline(always)]
    pub fn clear<const TILE: u8>(&self) {
        // SAFETY: there is such a tile.
        unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, nomem, preserves_flags)) };
    }

    products! {
        /// `SUM += A B` of bytes, all with signs, into 32 bits. Four rows of the right side lie in one of tile `B`: its
        /// columns' four bytes.
        signed: "tdpbssd";
        /// The same with a left side without signs.
        unsigned: "tdpbusd";
        /// `SUM += A B` of bf16 numbers, into f32. Two rows of the right side lie in one of tile `B`: its columns' pairs.
        halves: "tdpbf16ps";
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were this one's.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
