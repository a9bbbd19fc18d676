//! Keeping the process small: glibc's allocator gives memory back when told to.

/// One arena and a low trim threshold. To be called before threads are started; without glibc nothing happens.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters of the allocator; these two take any positive int.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
    }
}

/// Gives free memory back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number of bytes to keep and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    fn resident_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn freed_memory_goes_back() {
        super::keep_small();
        let mut small: Vec<Vec<u8>> = (0..40_000).map(|_| vec![1; 1000]).collect();
        let full = resident_kb();
        // Keep the last one, so that the heap's top stays in use and only trimming helps.
        small.drain(..39_999);
        super::trim();
        let after = resident_kb();
        assert!(after + 20_000 < full, "{full} kB before, {after} kB after");
        assert_eq!(small.len(), 1);
    }
}
