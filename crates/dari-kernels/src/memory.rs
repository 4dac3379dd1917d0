//! Memory: what the allocator keeps, large pages, lines asked for ahead, how much is held and how fast it is read.

use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::team;

/// Makes glibc's allocator keep freed memory: buffers of the same sizes come and go at every step, and giving
/// them back to the system costs a page fault for every 4 KB when they come again. [`Heap`] sees it grow from here on.
/// Elsewhere it does nothing. Call it once, at start.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const KEEP: libc::c_int = 1 << 30;
        // SAFETY: mallopt only sets the allocator's own parameters.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
        Heap::look(Heap::LARGE);
    }
}

/// The system's allocator, which asks for large pages as its heap grows: weights smaller than such a page, activations,
/// keys and values then lie in them as well. A program takes it as its `#[global_allocator]` and calls [`keep`], without
/// which large blocks lie outside the heap; elsewhere than with glibc on Linux it is the system's alone.
pub struct Heap;

impl Heap {
    /// Bytes from which on an allocation looks whether the heap has grown.
    const LARGE: usize = 1 << 14;

    fn look(size: usize) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        if size >= Heap::LARGE {
            use std::sync::atomic::AtomicUsize;
            /// Where the heap ended when last seen; nowhere yet.
            static END: AtomicUsize = AtomicUsize::new(0);
            // SAFETY: without an increment the call only says where the heap ends.
            let end = unsafe { libc::sbrk(0) };
            let before = END.load(Ordering::Relaxed);
            if end.addr() != before {
                END.store(end.addr(), Ordering::Relaxed);
                if before != 0 && end.addr() > before {
                    // From the page on in which it ended, which is whole now.
                    let start = before / HUGE_PAGE * HUGE_PAGE;
                    ask_for_huge_pages(end.with_addr(start).cast(), end.addr() - start);
                }
            }
        }
        #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
        let _ = (size, Heap::LARGE);
    }
}

// SAFETY: memory is the system's allocator's in every case.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let start = unsafe { System.alloc(layout) };
        Heap::look(layout.size());
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let start = unsafe { System.alloc_zeroed(layout) };
        Heap::look(layout.size());
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        let start = unsafe { System.realloc(start, layout, size) };
        Heap::look(size);
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) };
    }
}

/// Sets a variable of the environment for a library that reads its settings there; `false`, and
/// nothing done, where the variable is set already or other threads are at work. Call it at start.
pub fn set_variable(name: &str, value: &str) -> bool {
    let alone = match std::fs::read_dir("/proc/self/task") {
        Ok(threads) => threads.count() == 1,
        // Where the system does not say, nothing is risked.
        Err(_) => false,
    };
    if !alone || std::env::var_os(name).is_some() {
        return false;
    }
    // SAFETY: this is the only thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
    true
}

/// Bytes of a large page.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Asks for large pages where whole ones lie in memory that is about to be filled: weights of hundreds
/// of megabytes are read from end to end, and each page of 4 KB is looked up.
pub(crate) fn huge_pages<T>(room: &mut [MaybeUninit<T>]) {
    ask_for_huge_pages(room.as_mut_ptr().cast(), size_of_val(room));
}

fn ask_for_huge_pages(start: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
        let length = bytes.saturating_sub(before) / HUGE_PAGE * HUGE_PAGE;
        if length > 0 {
            // SAFETY: the call changes how pages are mapped, not what they hold, and fails where none are.
            unsafe { libc::madvise(start.wrapping_add(before).cast(), length, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

/// Asks for the line of the cache at an address, which need not be one that may be read.
#[inline(always)]
pub(crate) fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it reads nothing, and fails on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The most memory that this process has held so far, in bytes; `None` where the system does not say.
pub fn peak() -> Option<u64> {
    // Not the other call's figure, where it can be had: that one starts with what the parent held.
    #[cfg(target_os = "linux")]
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        && let Some(Ok(kilobytes)) = line.split_whitespace().next().map(str::parse::<u64>)
    {
        return Some(kilobytes * 1024);
    }
    #[cfg(unix)]
    {
        // SAFETY: the structure is plain numbers, and the call fills it or fails.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::getrusage(libc::RUSAGE_SELF, &mut usage) == 0).then_some(usage)
        }?;
        // macOS counts bytes, the others kilobytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        Some(u64::try_from(usage.ru_maxrss).ok()? * unit)
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Bytes a second that all threads together read in a plain loop over so many, the best of eight passes: what
/// products with one row are measured against, where it is more than the caches hold.
pub fn reading_speed(bytes: usize) -> f64 {
    const PASSES: usize = 8;
    let count = (bytes / size_of::<u64>()).max(1);
    let mut words: Vec<u64> = Vec::with_capacity(count);
    huge_pages(words.spare_capacity_mut());
    words.resize(count, 1);
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let began = std::time::Instant::now();
        let part = count.div_ceil(8 * team::threads());
        let sum = AtomicU64::new(0);
        team::run(count.div_ceil(part), |index| {
            let own = &words[index * part..count.min((index + 1) * part)];
            sum.fetch_add(own.iter().fold(0, |sum, &word| sum.wrapping_add(word)), Ordering::Relaxed);
        });
        // So that nothing of it is left out.
        std::hint::black_box(sum.into_inner());
        best = best.min(began.elapsed().as_secs_f64());
    }
    size_of_val(words.as_slice()) as f64 / best
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read_at_some_speed() {
        // Fewer numbers than threads, too.
        for bytes in [0, 100, 1 << 20] {
            let speed = super::reading_speed(bytes);
            assert!(speed.is_finite() && speed > 0.0, "{speed} bytes a second");
            assert!(bytes < 1 << 20 || speed > 1e6, "{speed} bytes a second");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_peak_holds_what_was_held() {
        let held = vec![1u8; 32 << 20];
        assert!(super::peak().is_some_and(|peak| peak > held.len() as u64));
    }
}
