//! A watch as lines.

use bytes::{Bytes, BytesMut};

use crate::answer::{self, BodyTrouble};
use crate::connect::Stream;

/// One event: an object is at most a few MiB.
const LINE_BYTES_MAX: usize = 32 << 20;

/// The lines of an answer.
pub(super) struct Lines {
    stream: Stream,
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of a line.
    searched: usize,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line that is not empty; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyTrouble> {
        loop {
            while let Some(line) = self.cut() {
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            let Some(chunk) = answer::next(self.stream.answer.body_mut()).await? else {
                // What has no end of line is not complete.
                return Ok(None);
            };
            if self.buffer.len() + chunk.len() > LINE_BYTES_MAX {
                return Err(BodyTrouble::TooLong);
            }
            self.buffer.extend_from_slice(&chunk);
        }
    }

    fn cut(&mut self) -> Option<Bytes> {
        let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end + 1).freeze();
        self.searched = 0;
        if self.buffer.is_empty() {
            // An idle watch holds no memory.
            self.buffer = BytesMut::new();
        }
        Some(line.slice(..line.len() - 1))
    }
}
