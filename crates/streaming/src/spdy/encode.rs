//! Bytes out of frames.

use super::frame::{
    FLAG_FIN, FLAG_UNIDIRECTIONAL, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, SYN_REPLY, SYN_STREAM, VERSION,
    WINDOW_UPDATE,
};
use super::headers::Packer;
use super::{Frame, StreamId};

/// Encodes the frames of one direction. Frames with headers have to be sent in the order in which they were encoded.
#[derive(Debug, Default)]
pub struct Encoder {
    packer: Packer,
}

impl Encoder {
    /// For one direction of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of a control frame.
    pub fn frame(&mut self, frame: &Frame) -> Vec<u8> {
        let mut body = Vec::new();
        let (kind, flags) = match frame {
            Frame::SynStream { id, associated, priority, is_fin, is_unidirectional, headers } => {
                put(&mut body, &[*id, *associated]);
                body.extend_from_slice(&[priority << 5, 0]);
                body.extend_from_slice(&self.packer.pack(&headers.block()));
                (SYN_STREAM, fin(*is_fin) | if *is_unidirectional { FLAG_UNIDIRECTIONAL } else { 0 })
            }
            Frame::SynReply { id, is_fin, headers } => {
                put(&mut body, &[*id]);
                body.extend_from_slice(&self.packer.pack(&headers.block()));
                (SYN_REPLY, fin(*is_fin))
            }
            Frame::Headers { id, is_fin, headers } => {
                put(&mut body, &[*id]);
                body.extend_from_slice(&self.packer.pack(&headers.block()));
                (HEADERS, fin(*is_fin))
            }
            Frame::RstStream { id, status } => {
                put(&mut body, &[*id, *status]);
                (RST_STREAM, 0)
            }
            Frame::Settings { entries } => {
                put(&mut body, &[u32::try_from(entries.len()).unwrap_or(u32::MAX)]);
                for (flags, number, value) in entries {
                    put(&mut body, &[u32::from(*flags) << 24 | number & 0x00ff_ffff, *value]);
                }
                (SETTINGS, 0)
            }
            Frame::Ping { id } => {
                put(&mut body, &[*id]);
                (PING, 0)
            }
            Frame::GoAway { last_good, status } => {
                put(&mut body, &[*last_good, *status]);
                (GOAWAY, 0)
            }
            Frame::WindowUpdate { id, delta } => {
                put(&mut body, &[*id, *delta]);
                (WINDOW_UPDATE, 0)
            }
        };
        let mut bytes = Vec::with_capacity(8 + body.len());
        put(&mut bytes, &[0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind), head(flags, body.len())]);
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// The eight bytes before `len` bytes (at most 24 bits of them) of a stream.
pub(super) fn data_head(id: StreamId, len: usize, is_fin: bool) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&id.to_be_bytes());
    bytes[4..].copy_from_slice(&head(fin(is_fin), len).to_be_bytes());
    bytes
}

fn head(flags: u8, len: usize) -> u32 {
    // 24 bits: our data come in chunks of 32 KiB, our headers are short.
    u32::from(flags) << 24 | u32::try_from(len).unwrap_or(0) & 0x00ff_ffff
}

fn fin(is_fin: bool) -> u8 {
    if is_fin { FLAG_FIN } else { 0 }
}

fn put(bytes: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
}
