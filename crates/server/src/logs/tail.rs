//! Where the last lines of a file begin: read from its end, block by block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// Blocks for each call of [`Search::step`].
const BLOCKS: usize = 64;

/// A search for the beginning of the last lines. A line without an end does not count (kubelet 1.36).
#[derive(Debug)]
pub(super) struct Search {
    /// Everything from here on was looked at.
    at: u64,
    /// Line feeds yet to be found.
    left: u64,
}

impl Search {
    /// For the last `lines` lines of a file of `size` bytes.
    pub(super) fn new(size: u64, lines: u64) -> Self {
        Self { at: size, left: lines.saturating_add(1) }
    }

    /// Looks at the next blocks: the position, or `None` to go on.
    pub(super) fn step(&mut self, file: &File) -> io::Result<Option<u64>> {
        let mut buffer = vec![0; BLOCK];
        for _ in 0..BLOCKS {
            if self.at == 0 {
                return Ok(Some(0));
            }
            let len = BLOCK.min(usize::try_from(self.at).unwrap_or(BLOCK));
            let from = self.at - len as u64;
            let block = &mut buffer[..len];
            match file.read_exact_at(block, from) {
                Ok(()) => {}
                // Truncated while we look: what is there is all new.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) => return Err(error),
            }
            for feed in memchr::memrchr_iter(b'\n', block) {
                self.left -= 1;
                if self.left == 0 {
                    return Ok(Some(from + feed as u64 + 1));
                }
            }
            self.at = from;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn find(content: &[u8], lines: u64) -> u64 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let mut search = Search::new(content.len() as u64, lines);
        loop {
            if let Some(at) = search.step(&file).unwrap() {
                return at;
            }
        }
    }

    #[test]
    fn whole_lines_count() {
        for (content, lines, wanted) in [
            ("", 0, 0),
            ("", 5, 0),
            ("a\nb\n", 0, 4),
            ("a\nb\n", 1, 2),
            ("a\nb\n", 2, 0),
            ("a\nb\n", 9, 0),
            ("a\nb", 0, 2),
            ("a\nb", 1, 0),
            ("\n\n\n", 1, 2),
        ] {
            assert_eq!(find(content.as_bytes(), lines), wanted, "{content:?} {lines}");
        }
    }

    #[test]
    fn blocks_join() {
        let line = [vec![b'x'; 1000], vec![b'\n']].concat();
        let content = line.repeat(5000);
        for lines in [0, 1, 65, 66, 4999, 5000] {
            assert_eq!(find(&content, lines), (5000 - lines) * 1001, "{lines}");
        }
        assert_eq!(find(&vec![b'x'; BLOCK * (BLOCKS + 2)], 3), 0);
    }
}
