//! Headers of a stream, and the block that carries them: a zlib stream per direction that all blocks of a connection share.

use flate2::{Decompress, FlushDecompress, Status};

use super::decode::DecodeError;
use super::dictionary::dictionary;

/// Bytes of a block once it is unpacked.
pub(super) const UNPACKED_MAX: usize = 64 * 1024;
const COUNT_MAX: u32 = 256;

/// Names (in lower case) and values, in the order of the wire. A name occurs once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more; a name that is there already gets the new value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name = name.to_ascii_lowercase();
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.to_owned()));
        self
    }

    /// The value of a header, whatever the case of its name. Of several values (separated by NUL) the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The block before it is packed.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let number = |block: &mut Vec<u8>, len: usize| {
            // A frame has 24 bits for its length; headers are ours, or were decoded, which bounds them.
            block.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        };
        number(&mut block, self.0.len());
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            number(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }

    /// Reads an unpacked block.
    pub(super) fn parse(block: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = block;
        let count = take_number(&mut rest)?;
        if count > COUNT_MAX {
            return Err(DecodeError::TooManyHeaders(count));
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?.to_ascii_lowercase();
            let value = take_text(&mut rest)?;
            if name.is_empty() || headers.iter().any(|(known, _)| *known == name) {
                return Err(DecodeError::BadHeaders);
            }
            headers.push((name, value));
        }
        if rest.is_empty() { Ok(Self(headers)) } else { Err(DecodeError::BadHeaders) }
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |headers, (name, value)| headers.with(&name, &value))
    }
}

fn take_number(rest: &mut &[u8]) -> Result<u32, DecodeError> {
    let (number, tail) = rest.split_first_chunk::<4>().ok_or(DecodeError::BadHeaders)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Result<String, DecodeError> {
    let len = usize::try_from(take_number(rest)?).map_err(|_| DecodeError::BadHeaders)?;
    let (text, tail) = rest.split_at_checked(len).ok_or(DecodeError::BadHeaders)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).map_err(|_| DecodeError::BadHeaders)
}

/// Unpacks the blocks of one direction.
#[derive(Debug)]
pub(super) struct Unpacker(Option<Decompress>);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// The block, unpacked. An error leaves the zlib stream unusable: the connection has to end.
    pub(super) fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let zlib = self.0.get_or_insert_with(|| Decompress::new(true));
        let mut unpacked = Vec::with_capacity(1024);
        let mut rest = packed;
        loop {
            if unpacked.len() == unpacked.capacity() {
                if unpacked.len() >= UNPACKED_MAX {
                    return Err(DecodeError::HeadersTooLong);
                }
                unpacked.reserve_exact(unpacked.len().min(UNPACKED_MAX - unpacked.len()));
            }
            let (before_in, before_out) = (zlib.total_in(), unpacked.len());
            match zlib.decompress_vec(rest, &mut unpacked, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(DecodeError::BadCompression),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let used = zlib.total_in() - before_in;
                    rest = rest.get(usize::try_from(used).unwrap_or(usize::MAX)..).unwrap_or_default();
                    zlib.set_dictionary(dictionary()).map_err(|_| DecodeError::BadCompression)?;
                    continue;
                }
                Err(_) => return Err(DecodeError::BadCompression),
            }
            let used = usize::try_from(zlib.total_in() - before_in).unwrap_or(usize::MAX);
            rest = rest.get(used..).unwrap_or_default();
            let is_stuck = used == 0 && unpacked.len() == before_out;
            let is_all_out = unpacked.len() < unpacked.capacity();
            match (rest.is_empty(), is_all_out) {
                (true, true) => return Ok(unpacked),
                (false, true) if is_stuck => return Err(DecodeError::BadCompression),
                (true | false, true | false) => {}
            }
        }
    }
}

/// Packs the blocks of one direction as stored (not compressed) blocks of deflate.
///
/// A reader of zlib cannot tell the difference, and a compressor is 256 KiB of memory for each connection, for headers of some 40
/// bytes.
#[derive(Debug, Default)]
pub(super) struct Packer {
    has_begun: bool,
}

impl Packer {
    pub(super) fn pack(&mut self, block: &[u8]) -> Vec<u8> {
        let mut packed = Vec::with_capacity(block.len() + 16);
        if !std::mem::replace(&mut self.has_begun, true) {
            packed.extend_from_slice(&[0x78, 0x01]);
        }
        for part in block.chunks(usize::from(u16::MAX)).chain([&[][..]]) {
            // An empty stored block at the end makes readers hand out what came before it: that is what a sync flush is.
            let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
            packed.push(0);
            packed.extend_from_slice(&len.to_le_bytes());
            packed.extend_from_slice(&(!len).to_le_bytes());
            packed.extend_from_slice(part);
        }
        packed
    }
}
