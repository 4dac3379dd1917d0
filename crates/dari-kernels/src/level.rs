//! Which SIMD instructions this machine has, and the one place that picks a kernel by them.

use std::sync::OnceLock;

/// An instruction-set level; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the compilation target guarantees.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
}

impl Level {
    /// The best level of this machine, detected once.
    pub fn detected() -> Level {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if avx2 && is_x86_feature_detected!("avx512f") {
                    return Level::Avx512;
                }
                if avx2 {
                    return Level::Avx2;
                }
            }
            Level::Portable
        })
    }

    /// The level's name as `dari doctor` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "AVX2 + FMA",
            Level::Avx512 => "AVX-512",
        }
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
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn avx512($($argument: $kind),*) $(-> $result)? { body($($argument),*) }
                match $crate::level::Level::detected() {
                    // SAFETY: the level was detected on this very machine.
                    $crate::level::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::level::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::level::Level::Portable => {}
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use leveled;
