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

/// Lets go of the program's own code that start-up brought into memory. What is still needed comes back from the page cache.
///
/// Says how many bytes of address space it was; 0 when the kernel does not tell where the code is.
pub fn forget_code() -> usize {
    let Ok(exe) = std::fs::read_link("/proc/self/exe") else { return 0 };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return 0 };
    maps.lines().filter_map(|line| code_in(line, &exe)).map(|(start, len)| forget(start, len)).sum()
}

/// Address and length of a mapping of the program's code: private, executable, never written to.
fn code_in(line: &str, exe: &std::path::Path) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (range, perms) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if perms != "r-xp" || std::path::Path::new(path) != exe {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

fn forget(start: usize, len: usize) -> usize {
    // SAFETY: the range is one mapping of this program's file that is private and not writable, so its pages equal the file's and are
    // read from it again when they are touched; nothing in memory is lost.
    let result = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    if result == 0 { len } else { 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_that_is_forgotten_still_runs() {
        assert!(super::forget_code() > 0);
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
        let exe = std::path::Path::new("/a b");
        let line = |perms| format!("1000-3000 {perms} 00001000 fe:00 42     /a b");
        assert_eq!(super::code_in(&line("r-xp"), exe), Some((0x1000, 0x2000)));
        assert_eq!(super::code_in(&line("rw-p"), exe), None);
        assert_eq!(super::code_in("1000-3000 r-xp 0 fe:00 42     /c", exe), None);
        assert_eq!(super::code_in("1000-3000 r-xp 0 00:00 0", exe), None);
    }

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
