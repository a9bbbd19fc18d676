//! Memory for pieces of a log, used again when a piece was read and taken: fresh memory for each would cost as much as what is done with it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

#[derive(Debug)]
pub(super) struct Buffers {
    /// For what is in the file.
    file: Vec<u8>,
    /// What was lent, oldest first: it comes back in this order.
    lent: VecDeque<Bytes>,
    lent_max: usize,
}

impl Buffers {
    /// For pieces of which so many may wait to be taken: one is being written, and one being made, beside them.
    pub(super) fn new(waiting: usize) -> Self {
        Self { file: Vec::new(), lent: VecDeque::new(), lent_max: waiting + 2 }
    }

    /// Place for so many bytes of the file; what was there before is still there.
    pub(super) fn file(&mut self, bytes: usize) -> &mut [u8] {
        if self.file.len() < bytes {
            self.file.resize(bytes, 0);
        }
        &mut self.file[..bytes]
    }

    /// An empty one for so many bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        match self.lent.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(back)) => emptied(back, bytes),
            Some(Err(away)) => {
                self.lent.push_front(away);
                Vec::with_capacity(bytes)
            }
            None => Vec::with_capacity(bytes),
        }
    }

    /// Gives it away until it is dropped.
    pub(super) fn lend(&mut self, buffer: Vec<u8>) -> Bytes {
        let bytes = Bytes::from(buffer);
        if self.lent.len() < self.lent_max {
            self.lent.push_back(bytes.clone());
        }
        bytes
    }
}

fn emptied(mut back: BytesMut, bytes: usize) -> Vec<u8> {
    back.clear();
    let mut buffer = Vec::from(back);
    buffer.reserve(bytes);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_used_again() {
        let mut buffers = Buffers::new(1);
        let mut first = buffers.take(100);
        first.extend_from_slice(b"one");
        let at = first.as_ptr();
        let first = buffers.lend(first);
        let second = buffers.take(100);
        assert_ne!(second.as_ptr(), at, "the first is not back");
        let second = buffers.lend(second);
        assert_eq!(first, "one");
        drop((first, second));
        let again = buffers.take(100);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn no_more_are_remembered_than_can_be_under_way() {
        let mut buffers = Buffers::new(4);
        let lent: Vec<Bytes> = (0..20).map(|_| buffers.lend(vec![0])).collect();
        assert_eq!((lent.len(), buffers.lent.len()), (20, 6));
    }
}
