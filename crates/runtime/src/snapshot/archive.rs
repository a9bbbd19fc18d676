//! Reading tar archives from strangers: one entry after the other, each header bounded.
//!
//! The `tar` crate reads the blocks; going from one to the next is done here, because extended headers may be of any size
//! there, and values with line breaks (capabilities are binary) are refused.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// Bytes of one extended header or long name. A path has at most 4096, an extended attribute 64 KiB.
const EXTENSION_MAX: u64 = 1 << 20;
/// Bytes of a path or link target: Linux takes no longer ones.
const PATH_MAX: usize = 4096;

/// What kind of thing an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink {
        target: Vec<u8>,
    },
    HardLink {
        target: Vec<u8>,
    },
    Char {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// A kind that we cannot make, with its letter.
    Other(u8),
}

/// The head of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Permission bits and set-id bits.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// An archive, read in one pass. Call [`next`](Self::next), then read the entry's content from it (or not).
pub(crate) struct Archive<R> {
    source: R,
    /// Bytes of the current entry's content that are not read.
    left: u64,
    padding: u64,
    is_at_end: bool,
}

/// What extended headers say about the entry that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("archive/tar: {}", what.into()))
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, is_at_end: false }
    }

    /// The next entry; `None` after the last one.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|e| invalid(e.to_string()))?;
            self.begin(size);
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension()?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension()?)),
                EntryType::XHeader => extensions.pax.extend(pax_records(&self.extension()?)?),
                // Said of the whole archive; git writes the commit there.
                EntryType::XGlobalHeader => {}
                kind => return self.entry(&header, kind, extensions).map(Some),
            }
        }
    }

    /// Reads what is left after the last entry, so that a digest below covers all of the stream.
    pub(crate) fn drain(mut self) -> io::Result<R> {
        self.skip()?;
        io::copy(&mut self.source, &mut io::sink())?;
        Ok(self.source)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip(&mut self) -> io::Result<()> {
        let (left, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut self.source.by_ref().take(left), &mut io::sink())? < left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Some programs do not fill up the last block; others, Go's among them, read that.
        io::copy(&mut self.source.by_ref().take(padding), &mut io::sink())?;
        Ok(())
    }

    /// The next header block; `None` at the two empty blocks that end an archive, or where the stream ends.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.is_at_end {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => break,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if filled == 0 || block.iter().all(|b| *b == 0) {
            self.is_at_end = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 =
            block.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(invalid("invalid tar header"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.left > EXTENSION_MAX {
            return Err(invalid(format!("an extended header of {} bytes", self.left)));
        }
        let mut content = Vec::new();
        let size = self.left;
        self.read_to_end(&mut content)?;
        if (content.len() as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(content)
    }

    fn entry(&mut self, header: &Header, kind: EntryType, mut extensions: Extensions) -> io::Result<Entry> {
        let pax = &mut extensions.pax;
        if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) || kind == EntryType::GNUSparse {
            return Err(invalid("sparse files are not supported"));
        }
        let failed = |e: io::Error| invalid(e.to_string());
        if let Some(size) = number(pax, b"size")? {
            self.begin(size);
        }
        let path =
            pax.remove(b"path".as_slice()).or(extensions.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.remove(b"linkpath".as_slice()).or(extensions.link);
        let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        if path.len() > PATH_MAX || link.len() > PATH_MAX || path.contains(&0) || link.contains(&0) {
            return Err(invalid("a path is too long or contains a zero byte"));
        }
        let device = || -> io::Result<(u32, u32)> {
            Ok((
                header.device_major().map_err(failed)?.unwrap_or(0),
                header.device_minor().map_err(failed)?.unwrap_or(0),
            ))
        };
        let old = header.as_old();
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink { target: link },
            EntryType::Link => Kind::HardLink { target: link },
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(major, minor)| Kind::Char { major, minor })?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block { major, minor })?,
            other => Kind::Other(other.as_byte()),
        };
        let seconds = i64::try_from(or_empty(&old.mtime, header.mtime())?).unwrap_or(0);
        let mtime = match pax.get(b"mtime".as_slice()) {
            Some(text) => timestamp(text).ok_or_else(|| invalid("an mtime is no number"))?,
            None => (seconds, 0),
        };
        Ok(Entry {
            size: self.left,
            mode: or_empty(&old.mode, header.mode())? & 0o7777,
            uid: number(pax, b"uid")?.map_or_else(|| or_empty(&old.uid, header.uid()), Ok)?,
            gid: number(pax, b"gid")?.map_or_else(|| or_empty(&old.gid, header.gid()), Ok)?,
            mtime,
            xattrs: std::mem::take(pax)
                .into_iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value)))
                .collect(),
            path,
            kind,
        })
    }
}

impl<R: Read> Read for Archive<R> {
    /// The content of the current entry.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buf[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// A number of a header; an empty field is zero, as Go reads it.
fn or_empty<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(T::default());
    }
    parsed.map_err(|e| invalid(e.to_string()))
}

fn until_nul(mut content: Vec<u8>) -> Vec<u8> {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    content.truncate(end);
    content
}

/// Records of an extended header: `LENGTH KEY=VALUE\n`, where the length counts the whole record.
fn pax_records(mut rest: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let wrong = || invalid("an extended header is malformed");
    let mut records = BTreeMap::new();
    while !rest.is_empty() {
        let blank = rest.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
        let length: usize = std::str::from_utf8(&rest[..blank]).ok().and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        if length > rest.len() || length < blank + 3 || rest[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &rest[blank + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        rest = &rest[length..];
    }
    Ok(records)
}

fn number(pax: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]) -> io::Result<Option<u64>> {
    let Some(value) = pax.get(key) else { return Ok(None) };
    let parsed = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
    parsed.map(Some).ok_or_else(|| invalid("an extended header has no number where one belongs"))
}

/// `SECONDS[.FRACTION]`, negative before 1970.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        (true, 0) | (false, _) => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions() {
        assert_eq!(timestamp(b"12"), Some((12, 0)));
        assert_eq!(timestamp(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"x"), None);
    }

    #[test]
    fn records_may_be_binary() {
        let records = pax_records(b"12 key=a\nb\x00\n6 x=y\n").unwrap();
        assert_eq!(records.get(b"key".as_slice()).unwrap(), b"a\nb\x00");
        assert_eq!(records.get(b"x".as_slice()).unwrap(), b"y");
        for broken in ["0 x=y\n", "99 x=y\n", "6 xyy\n", "x", "3 \n"] {
            assert!(pax_records(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn names_longer_than_a_header() {
        let long = "d/".repeat(150) + "file";
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, &long, b"abc".as_slice()).unwrap();
        let mut archive = Archive::new(builder.get_ref().as_slice());
        let entry = archive.next().unwrap().unwrap();
        assert_eq!(entry.path, long.as_bytes());
        let mut content = Vec::new();
        archive.by_ref().take(3).read_to_end(&mut content).unwrap();
        assert_eq!(content, b"abc");
        assert!(archive.next().unwrap().is_none());
    }

    #[test]
    fn a_giant_long_name_is_refused_before_it_is_read() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let stream = header.as_bytes().as_slice().chain(io::repeat(b'a'));
        assert!(Archive::new(stream).next().unwrap_err().to_string().contains("extended header"));
    }

    #[test]
    fn an_archive_may_end_with_its_last_content() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        header.set_size(3);
        header.set_entry_type(EntryType::Regular);
        header.set_path("a").unwrap();
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut archive = Archive::new(&bytes[..515]);
        assert!(archive.next().unwrap().is_some());
        assert!(archive.next().unwrap().is_none());
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1000);
        builder.append_data(&mut header, "x", [7; 1000].as_slice()).unwrap();
        let whole = builder.into_inner().unwrap();
        for length in [100, 512 + 10, 512 + 999] {
            let mut archive = Archive::new(&whole[..length]);
            let outcome = archive.next().and_then(|_| archive.next());
            assert!(outcome.is_err(), "{length}");
        }
    }
}
