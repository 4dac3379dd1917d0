//! Which SIMD instructions this machine has, and the one place that picks a kernel by them.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction-set level. Those of x86-64 include the ones before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// What the compilation target guarantees.
    Portable,
    /// NEON with dot products of bytes (ARMv8.2).
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// The same with BF16, where its products are quicker than those of f32 (Zen 4).
    Avx512Bf16,
    /// AVX-512 with VNNI and VBMI, and AMX's tiles of bytes and of bf16 numbers (Intel's servers since Sapphire Rapids).
    Amx,
}

const ALL: [Level; 7] = [
    Level::Portable,
    Level::Neon,
    Level::Avx2,
    Level::Avx512,
    Level::Avx512Vnni,
    Level::Avx512Bf16,
    Level::Amx,
];

/// The level in use, or this where none was chosen yet.
const UNSET: u8 = u8::MAX;
static CURRENT: AtomicU8 = AtomicU8::new(UNSET);

impl Level {
    /// The level that kernels use: the machine's best, or a lower one named by the environment's
    /// `DARI_LEVEL` (`portable`, `avx2`, ...).
    #[inline]
    pub fn current() -> Level {
        match ALL.get(CURRENT.load(Ordering::Relaxed) as usize) {
            Some(&level) => level,
            None => {
                let asked = std::env::var("DARI_LEVEL").ok();
                let asked = asked.and_then(|name| ALL.into_iter().find(|level| level.key() == name));
                let level = asked.filter(|level| level.is_available()).unwrap_or_else(Level::best);
                CURRENT.store(level as u8, Ordering::Relaxed);
                level
            }
        }
    }

    /// Makes kernels use this level from now on; `false`, and nothing changed, where the machine
    /// lacks it. Meant for tests and comparisons.
    pub fn choose(self) -> bool {
        let available = self.is_available();
        if available {
            CURRENT.store(self as u8, Ordering::Relaxed);
        }
        available
    }

    /// The best level of this machine.
    pub fn best() -> Level {
        let pays = |level: &Level| *level != Level::Avx512Bf16 || bf16_products_pay();
        ALL.into_iter().rev().filter(pays).find(|level| level.is_available()).unwrap_or(Level::Portable)
    }

    /// Every level that this machine has.
    pub fn available() -> impl Iterator<Item = Level> {
        ALL.into_iter().filter(|level| level.is_available())
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            };
            let avx512 = || {
                avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            };
            match self {
                Level::Portable => true,
                Level::Neon => false,
                Level::Avx2 => avx2(),
                Level::Avx512 => avx512(),
                Level::Avx512Vnni => avx512() && is_x86_feature_detected!("avx512vnni"),
                Level::Avx512Bf16 => {
                    avx512()
                        && is_x86_feature_detected!("avx512vnni")
                        && is_x86_feature_detected!("avx512bf16")
                }
                Level::Amx => {
                    avx512()
                        && is_x86_feature_detected!("avx512vnni")
                        && is_x86_feature_detected!("avx512vbmi")
                        && crate::amx::is_available()
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            match self {
                Level::Portable => true,
                Level::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Level::Portable
        }
    }

    /// The level's name as `dari doctor` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "NEON with dot products",
            Level::Avx2 => "AVX2 + FMA",
            Level::Avx512 => "AVX-512",
            Level::Avx512Vnni => "AVX-512 with VNNI",
            Level::Avx512Bf16 => "AVX-512 with VNNI and BF16",
            Level::Amx => "AVX-512 with VNNI, and AMX",
        }
    }

    /// The level's name as `DARI_LEVEL` spells it.
    pub fn key(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
        }
    }

    /// Whether AVX-512 is there, with more or without.
    pub fn has_avx512(self) -> bool {
        self >= Level::Avx512
    }

    /// Whether products of bf16 numbers are an instruction of their own.
    pub fn has_bf16_products(self) -> bool {
        matches!(self, Level::Avx512Bf16 | Level::Amx)
    }
}

/// Whether `vdpbf16ps` multiplies more numbers a second than f32's instruction does. Intel's cores (up to
/// Emerald Rapids; their bf16 lives in AMX) issue it at a quarter of that instruction's rate, which makes
/// half of its speed: 43 against 75 thousand million products a second, measured. AMD's issue it at half.
fn bf16_products_pay() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        // The letters "Genu" of GenuineIntel.
        vendor.ebx != u32::from_le_bytes(*b"Genu")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Defines `fn name(arguments)` whose body is compiled once per [`Level`] and picked at run time.
macro_rules! leveled {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) $(-> $result)? { body($($argument),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $kind),*) $(-> $result)? { body($($argument),*) }
                let level = $crate::level::Level::current();
                if level.has_avx512() {
                    // SAFETY: a current level is available on this very machine.
                    return unsafe { avx512($($argument),*) };
                }
                if level == $crate::level::Level::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use leveled;
