//! Keeping the process small: glibc's allocator gives memory back when told to.

use std::path::Path;

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

/// The program's own code and constants: where they are does not change while it runs.
#[derive(Debug)]
pub struct Code(Vec<(usize, usize)>);

impl Code {
    /// Looks for it; nothing when the kernel does not tell where it is.
    pub fn find() -> Self {
        let Ok(exe) = std::fs::read_link("/proc/self/exe") else { return Self(Vec::new()) };
        let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return Self(Vec::new()) };
        Self(unwritten(&maps, &exe))
    }

    /// Lets go of what was brought into memory of it. What is still needed comes back from the page cache.
    ///
    /// Says how many bytes of address space it was.
    pub fn forget(&self) -> usize {
        self.0.iter().map(|&(start, len)| forget(start, len)).sum()
    }
}

/// Address and length of the mappings of the program's file that are private, not writable and never were written to: the linker
/// writes to some while it starts the program and closes them to writing then.
fn unwritten(smaps: &str, exe: &Path) -> Vec<(usize, usize)> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in smaps.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "Anonymous:" if rest.trim() == "0 kB" => found.extend(last.take()),
            _ if word.ends_with(':') => {}
            _ => last = mapping_in(line, exe),
        }
    }
    found
}

fn mapping_in(line: &str, exe: &Path) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (range, perms) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if !matches!(perms, "r-xp" | "r--p") || Path::new(path) != exe {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

fn forget(start: usize, len: usize) -> usize {
    // SAFETY: the range is one mapping of this program's file that is private, cannot be written to and holds no page of its own, so
    // its pages equal the file's and are read from it again when they are touched; nothing in memory is lost.
    let result = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    if result == 0 { len } else { 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_that_is_forgotten_still_runs() {
        assert!(super::Code::find().forget() > 0);
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
        let exe = std::path::Path::new("/a b");
        let of = |perms, anonymous| {
            let smaps =
                format!("1000-3000 {perms} 00001000 fe:00 42     /a b\nSize: 8 kB\nAnonymous: {anonymous} kB\n");
            super::unwritten(&smaps, exe)
        };
        assert_eq!(of("r-xp", "       0"), [(0x1000, 0x2000)]);
        assert_eq!(of("r--p", "0"), [(0x1000, 0x2000)]);
        // Relocated when the program started.
        assert_eq!(of("r--p", "4"), []);
        assert_eq!(of("rw-p", "0"), []);
        let others = "1000-3000 r-xp 0 fe:00 42     /c\nAnonymous: 0 kB\n5000-6000 r-xp 0 00:00 0\nAnonymous: 0 kB\n";
        assert_eq!(super::unwritten(others, exe), []);
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
