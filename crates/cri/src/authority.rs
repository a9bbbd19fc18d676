//! Connections of gRPC clients that name a socket by its path.
//!
//! Go's clients send that path as `:authority` (`%2Fvar%2Flib%2F…`, older ones `/var/lib/…`). It is no authority in the words of
//! RFC 3986, and the HTTP/2 library here refuses the call with PROTOCOL_ERROR; upstream's servers take it. So what is read is mended
//! on its way: in that one header, `%` and `/` become `-`. All three are as long in plain text, and in HPACK's Huffman code, so that
//! nothing else moves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
mod tests;

/// Length of what a client says before its first frame.
const PREFACE: usize = 24;
const HEAD: usize = 9;
/// Type of the frame that begins a header block.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longer frames are refused by the server, which allows no more.
const FRAME_MAX: usize = 1 << 14;
/// What is read at once.
const READ: usize = 8 << 10;
/// Place of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// A server's side of a connection, with a client that may call the socket by its path.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    inner: S,
    part: Part,
    /// Mended, and not handed on yet.
    ready: Vec<u8>,
    handed: usize,
}

/// Where in the stream of frames it is.
#[derive(Debug)]
enum Part {
    /// So many bytes that are nobody's affair here.
    Pass(usize),
    Head(Vec<u8>),
    /// A frame with headers, as far as it has come, and its whole length.
    Headers(Vec<u8>, usize),
}

impl<S> AnyAuthority<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, part: Part::Pass(PREFACE), ready: Vec::new(), handed: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.part {
                Part::Pass(left) => {
                    let (passed, rest) = bytes.split_at(bytes.len().min(*left));
                    self.ready.extend_from_slice(passed);
                    *left -= passed.len();
                    bytes = rest;
                }
                Part::Head(held) => move_to(held, &mut bytes, HEAD),
                Part::Headers(held, length) => move_to(held, &mut bytes, *length),
            }
            self.step();
        }
    }

    /// Goes on to the next part, if this one is whole.
    fn step(&mut self) {
        let next = match &mut self.part {
            Part::Pass(0) => Part::Head(Vec::with_capacity(HEAD)),
            Part::Head(held) if held.len() == HEAD => {
                let length = usize::from(held[0]) << 16 | usize::from(held[1]) << 8 | usize::from(held[2]);
                if held[3] == HEADERS && length <= FRAME_MAX {
                    Part::Headers(std::mem::take(held), HEAD + length)
                } else {
                    self.ready.append(held);
                    Part::Pass(length)
                }
            }
            Part::Headers(held, length) if held.len() == *length => {
                mend_frame(held);
                self.ready.append(held);
                Part::Head(Vec::with_capacity(HEAD))
            }
            Part::Pass(_) | Part::Head(_) | Part::Headers(..) => return,
        };
        self.part = next;
        // A frame may be empty.
        if matches!(self.part, Part::Pass(0)) {
            self.part = Part::Head(Vec::with_capacity(HEAD));
        }
    }
}

fn move_to(held: &mut Vec<u8>, bytes: &mut &[u8], length: usize) {
    let (more, rest) = bytes.split_at(bytes.len().min(length - held.len()));
    held.extend_from_slice(more);
    *bytes = rest;
}

/// Mends the header block of a frame; what does not look like one stays as it is, for the server to refuse.
fn mend_frame(frame: &mut [u8]) {
    let flags = frame[4];
    let block = &mut frame[HEAD..];
    let (mut begin, mut end) = (0, block.len());
    if flags & PADDED != 0 {
        let Some(padding) = block.first() else { return };
        (begin, end) = (1, end.saturating_sub(usize::from(*padding)));
    }
    if flags & PRIORITY != 0 {
        begin += 5;
    }
    if let Some(block) = block.get_mut(begin..end) {
        // A field that is cut off ends the walk.
        let _ = mend_block(block);
    }
}

/// Walks over the fields of RFC 7541, which tell their lengths without the tables.
fn mend_block(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        let (index, has_value);
        (index, at, has_value) = if first & 0x80 != 0 {
            let (index, at) = number(block, at, 7)?;
            (index, at, false)
        } else if first & 0xc0 == 0x40 {
            let (index, at) = number(block, at, 6)?;
            (index, at, true)
        } else if first & 0xe0 == 0x20 {
            let (size, at) = number(block, at, 5)?;
            (size, at, false)
        } else {
            let (index, at) = number(block, at, 4)?;
            (index, at, true)
        };
        if !has_value {
            continue;
        }
        if index == 0 {
            // The name is spelled out.
            (_, _, at) = text(block, at)?;
        }
        let (is_huffman, begin, end) = text(block, at)?;
        let value = block.get_mut(begin..end)?;
        match (index, is_huffman) {
            (AUTHORITY, true) => mend_huffman(value),
            (AUTHORITY, false) => value.iter_mut().filter(|b| matches!(**b, b'%' | b'/')).for_each(|b| *b = b'-'),
            _ => {}
        }
        at = end;
    }
    Some(())
}

/// An integer with a prefix of so many bits, and where what follows begins.
fn number(block: &[u8], mut at: usize, prefix: u32) -> Option<(usize, usize)> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    at += 1;
    if value < most {
        return Some((value, at));
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(at)?);
        at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Whether a string is in Huffman's code, and where it begins and ends.
fn text(block: &[u8], at: usize) -> Option<(bool, usize, usize)> {
    let is_huffman = block.get(at)? & 0x80 != 0;
    let (length, begin) = number(block, at, 7)?;
    Some((is_huffman, begin, begin.checked_add(length)?))
}

/// The codes of RFC 7541, appendix B: all that are as long lie side by side. (Length, the last of that length.)
const CODES: [(usize, u16); 4] = [(5, 0x09), (6, 0x2d), (7, 0x7b), (8, 0xfd)];
const PERCENT: u16 = 0x15;
const SLASH: u16 = 0x18;
const DASH: u16 = 0x16;

/// Up to the first character that no path needs.
fn mend_huffman(value: &mut [u8]) {
    let mut at = 0;
    'characters: loop {
        for (length, last) in CODES {
            let Some(code) = bits(value, at, length) else { return };
            if code > last {
                continue;
            }
            if length == 6 && matches!(code, PERCENT | SLASH) {
                set_bits(value, at, length, DASH);
            }
            at += length;
            continue 'characters;
        }
        return;
    }
}

fn bits(bytes: &[u8], at: usize, length: usize) -> Option<u16> {
    (at..at + length).try_fold(0, |code, bit| {
        let byte = bytes.get(bit / 8)?;
        Some(code << 1 | u16::from(byte >> (7 - bit % 8) & 1))
    })
}

fn set_bits(bytes: &mut [u8], at: usize, length: usize, code: u16) {
    for nth in 0..length {
        let (bit, is_set) = (at + nth, code >> (length - 1 - nth) & 1 == 1);
        let mask = 1 << (7 - bit % 8);
        if is_set {
            bytes[bit / 8] |= mask;
        } else {
            bytes[bit / 8] &= !mask;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.handed == self.ready.len() {
            self.ready.clear();
            self.handed = 0;
            let mut room = [0; READ];
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // What was held of a frame is of no use to anybody.
                return Poll::Ready(Ok(()));
            }
            self.take(read.filled());
        }
        let more = self.ready.len() - self.handed;
        let end = self.handed + more.min(out.remaining());
        out.put_slice(&self.ready[self.handed..end]);
        self.handed = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
