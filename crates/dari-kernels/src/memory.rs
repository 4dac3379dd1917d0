//! The allocator, told to keep what it has: buffers of the same sizes come and go at every step,
//! and giving them back to the system costs a page fault for every 4 KB when they come again.

/// Makes glibc's allocator keep freed memory. Elsewhere it does nothing. Call it once, at start.
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
    }
}
