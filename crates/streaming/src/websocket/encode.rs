//! Bytes out of messages. Each message is one frame.

use bytes::{BufMut, BytesMut};
use ring::rand::{SecureRandom, SystemRandom};

use super::Role;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// Asks for a [`Opcode::Pong`].
    Ping = 9,
    /// Answers.
    Pong = 10,
}

/// Encodes the messages of one direction.
#[derive(Debug)]
pub struct Encoder {
    role: Role,
    random: SystemRandom,
}

impl Encoder {
    /// For the messages that `role` sends.
    pub fn new(role: Role) -> Self {
        Self { role, random: SystemRandom::new() }
    }

    /// Who sends.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Appends a message of `parts`.
    pub fn message(&self, opcode: Opcode, parts: &[&[u8]], buffer: &mut BytesMut) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        buffer.put_u8(0x80 | opcode as u8);
        let masked = if self.role == Role::Client { 0x80 } else { 0 };
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..=125), _) => buffer.put_u8(masked | short),
            (_, Ok(middle)) => {
                buffer.put_u8(masked | 126);
                buffer.put_u16(middle);
            }
            (_, Err(_)) => {
                buffer.put_u8(masked | 127);
                buffer.put_u64(len as u64);
            }
        }
        let mut mask = [0; 4];
        if self.role == Role::Client {
            // The mask protects caches between the two from chosen bytes. Without random numbers it stays 0, which is valid.
            _ = self.random.fill(&mut mask);
            buffer.put_slice(&mask);
        }
        let start = buffer.len();
        parts.iter().for_each(|part| buffer.put_slice(part));
        if self.role == Role::Client {
            buffer[start..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    /// The message that ends the connection, with a code of RFC 6455, section 7.4.
    pub fn close(&self, code: u16) -> BytesMut {
        let mut buffer = BytesMut::new();
        self.message(Opcode::Close, &[&code.to_be_bytes()], &mut buffer);
        buffer
    }
}
