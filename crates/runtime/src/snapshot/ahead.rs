//! A stream that a thread of its own unpacks, while what came of it before is put in its place.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::compression::unpacked;

const PIECE_BYTES: usize = 128 << 10;
/// Pieces that may wait to be read.
const PIECES_MAX: usize = 4;

/// The content of a packed stream. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Ahead {
    now: Vec<u8>,
    /// How much of it was read.
    at: usize,
    /// `None` when the stream has ended.
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    /// An empty piece is the end.
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// Where memory goes back to.
    spent: Sender<Vec<u8>>,
    thread: JoinHandle<()>,
}

impl Ahead {
    /// Starts to unpack `source`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let (spent, back) = channel();
        let work = move || {
            if let Err(error) = unpack(source, &sender, &back) {
                // Nobody reads it any more, or it is told.
                let _ = sender.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("unpack".to_owned()).spawn(work)?;
        Ok(Self { now: Vec::new(), at: 0, link: Some(Link { pieces, spent, thread }) })
    }

    /// Waits for the next piece. `false` at the end.
    fn next(&mut self) -> io::Result<bool> {
        let Some(link) = &self.link else { return Ok(false) };
        // Only a thread that panicked goes without a word.
        let piece = link.pieces.recv().unwrap_or_else(|_| Err(io::Error::other("unpacking was given up")))?;
        // A thread that has read all needs no memory.
        let _ = link.spent.send(std::mem::replace(&mut self.now, piece));
        self.at = 0;
        if self.now.is_empty() {
            self.end();
        }
        Ok(!self.now.is_empty())
    }

    fn end(&mut self) {
        if let Some(Link { pieces, spent, thread }) = self.link.take() {
            drop((pieces, spent));
            // Whether it panicked was told before.
            let _ = thread.join();
        }
    }
}

/// Sends all of a stream, piece by piece, until nobody wants more.
fn unpack(source: impl Read, pieces: &SyncSender<io::Result<Vec<u8>>>, spent: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut content = unpacked(source)?;
    loop {
        let mut piece = spent.try_recv().unwrap_or_default();
        piece.resize(PIECE_BYTES, 0);
        let mut filled = 0;
        while filled < piece.len() {
            match content.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        piece.truncate(filled);
        if pieces.send(Ok(piece)).is_err() || filled == 0 {
            return Ok(());
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.now.len() && !self.next()? {
            return Ok(0);
        }
        let count = into.len().min(self.now.len() - self.at);
        into[..count].copy_from_slice(&self.now[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::tests::gzip;
    use super::*;
    use std::io::Cursor;
    use std::sync::Arc;

    fn content() -> Vec<u8> {
        (0..3 * PIECE_BYTES as u32 * PIECES_MAX as u32 / 4 + 7).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn all_of_it_comes_in_order() {
        for content in [content(), b"short".to_vec(), Vec::new()] {
            let mut read = Vec::new();
            Ahead::start(Cursor::new(gzip(&content))).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{} bytes of {}", read.len(), content.len());
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_an_error_after_what_could() {
        let packed = gzip(&content());
        let mut read = Vec::new();
        let error = Ahead::start(Cursor::new(packed[..packed.len() - 9].to_vec())).unwrap().read_to_end(&mut read);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(content().starts_with(&read));
        assert!(read.len() >= PIECE_BYTES);
    }

    /// Tells by its counter that it was dropped.
    struct Endless(#[expect(dead_code, reason = "counted")] Arc<()>);

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            into.fill(b'x');
            Ok(into.len())
        }
    }

    #[test]
    fn who_reads_no_more_leaves_no_thread() {
        let counter = Arc::new(());
        let mut ahead = Ahead::start(Endless(counter.clone())).unwrap();
        let mut first = [0; 10];
        ahead.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"xxxxxxxxxx");
        drop(ahead);
        assert_eq!(Arc::strong_count(&counter), 1);
    }
}
