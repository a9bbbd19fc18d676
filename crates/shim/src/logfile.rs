//! A container's log in CRI's format: `<time> stdout F line`, and `P` for a part of a line that goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer line is written in parts of this size (containerd 2.1: `max_container_log_line_size`).
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// The log file.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines that could not be written, because the disk was full for example.
    pub(crate) lines_lost: u64,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, lines_lost: 0 })
    }

    /// Goes on in a new file at the same path: somebody has renamed the old one.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Writes whole lines. The container goes on when that fails; what was lost is counted.
    fn write(&mut self, text: &[u8], lines: u64) {
        if !text.is_empty() && self.file.write_all(text).is_err() {
            self.lines_lost += lines;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// One stream on its way into the log: holds the line that has no end yet.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes output and writes the lines that it completes.
    pub(crate) fn take(&mut self, stream: &str, output: &[u8], now_nanos: i64, log: &mut LogFile) {
        let stamp = format!("{} {stream} ", rfc3339(now_nanos));
        let mut text = Vec::with_capacity(output.len() + 64);
        let mut count = 0;
        let mut put = |tag: &[u8], parts: [&[u8]; 2]| {
            text.extend_from_slice(stamp.as_bytes());
            text.extend_from_slice(tag);
            text.extend_from_slice(parts[0]);
            text.extend_from_slice(parts[1]);
            text.push(b'\n');
            count += 1;
        };
        for mut piece in output.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = piece.last() == Some(&b'\n');
            if is_whole {
                piece = &piece[..piece.len() - 1];
            }
            while self.rest.len() + piece.len() > LINE_BYTES_MAX {
                let (part, left) = piece.split_at(LINE_BYTES_MAX - self.rest.len());
                put(b"P ", [&self.rest, part]);
                self.rest.clear();
                piece = left;
            }
            if is_whole {
                put(b"F ", [&self.rest, piece]);
                self.rest.clear();
            } else {
                self.rest.extend_from_slice(piece);
            }
        }
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
        log.write(&text, count);
    }

    /// The stream has ended: a line without end is a part (containerd 2.1).
    pub(crate) fn finish(&mut self, stream: &str, now_nanos: i64, log: &mut LogFile) {
        if !self.rest.is_empty() {
            let mut text = format!("{} {stream} P ", rfc3339(now_nanos)).into_bytes();
            text.append(&mut self.rest);
            text.push(b'\n');
            log.write(&text, 1);
        }
    }
}

/// Nanoseconds since 1970 as `2026-01-02T03:04:05.000000006Z`.
pub(crate) fn rfc3339(nanos: i64) -> String {
    let (secs, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Civil date of a day number; the year begins in March, so that the leap day is its last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outputs: &[&[u8]]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let mut lines = Lines::default();
        for output in outputs {
            lines.take("stdout", output, 0, &mut log);
        }
        lines.finish("stdout", 1, &mut log);
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(rfc3339(1_798_761_599_999_999_999), "2026-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(
            written(&[b"a", b"b\n\nc", b"d\ne"]),
            "1970-01-01T00:00:00.000000000Z stdout F ab\n1970-01-01T00:00:00.000000000Z stdout F \n\
             1970-01-01T00:00:00.000000000Z stdout F cd\n1970-01-01T00:00:00.000000001Z stdout P e\n"
        );
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = [vec![b'x'; LINE_BYTES_MAX], vec![b'y'; 3]].concat();
        for text in [written(&[&long, b"\n"]), written(&[&long[..100], &long[100..], b"\n"])] {
            let rows: Vec<&str> = text.lines().collect();
            assert_eq!(rows.len(), 2);
            assert!(rows[0].contains(" P xxx") && rows[0].ends_with("xxx"), "{}", &rows[0][..60]);
            assert!(rows[1].ends_with(" F yyy"));
        }
        let exact = written(&[&long[..LINE_BYTES_MAX], b"\n"]);
        assert_eq!((exact.lines().count(), exact.contains(" F xxx")), (1, true));
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        let mut log = LogFile::open(Path::new("/dev/full")).unwrap();
        Lines::default().take("stdout", b"one\ntwo\nthree", 0, &mut log);
        assert_eq!(log.lines_lost, 2);
    }

    #[test]
    fn a_log_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let mut lines = Lines::default();
        lines.take("stderr", b"one\n", 0, &mut log);
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        log.reopen().unwrap();
        lines.take("stderr", b"two\n", 0, &mut log);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" stderr F two\n"));
        assert!(std::fs::read_to_string(dir.path().join("0.log.old")).unwrap().ends_with(" stderr F one\n"));
    }
}
