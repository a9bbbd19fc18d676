//! Streams as channels: the first byte of a message is the channel's number.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::{Decoder, Encoder, Event, Opcode, Role};
use crate::mux::{Directions, Flow, HangUp, Inbound, Limits, Link, Out, Outbound, Stream, drive};

/// The channel on which a client says that it ends another one (v5).
const CLOSE_CHANNEL: u8 = 255;
/// RFC 6455, section 7.4.1.
const NORMAL: u16 = 1000;

/// What messages are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// A byte for the channel, then the bytes.
    Binary,
    /// As [`Coding::Binary`]; the bytes 255 and N say that channel N ends.
    BinaryWithClose,
    /// A digit for the channel, then the bytes in base64, as text.
    Base64,
    /// No channels: all messages are the bytes of one stream, number 0.
    Plain,
}

/// A WebSocket connection with channels. Dropping it closes it: what waits is still written.
#[derive(Debug)]
pub struct Channels {
    link: Arc<Link>,
    role: Role,
    coding: Coding,
    task: Option<JoinHandle<()>>,
}

impl Channels {
    /// A connection that has no channels yet. Open all of them, then [`Channels::start`]: what comes for others is dropped.
    pub fn new(role: Role, coding: Coding, limits: Limits) -> Self {
        Self { link: Link::new(limits), role, coding, task: None }
    }

    /// Carries the channels over a connection after its handshake, until there was no traffic for `idle`.
    pub fn start<T>(&mut self, io: T, idle: Duration)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let parts = Parts {
            coding: self.coding,
            encoder: Encoder::new(self.role),
            channel: None,
            held: Vec::new(),
            closing: Vec::new(),
        };
        let receiver = Receiver { decoder: Decoder::new(self.role), parts };
        let messages = Messages { encoder: Encoder::new(self.role), coding: self.coding };
        self.task = Some(tokio::spawn(drive(io, self.link.clone(), receiver, messages, idle)));
    }

    /// A channel for both directions. `None`: there is one already.
    pub fn open(&self, channel: u8) -> Option<Stream> {
        self.link.open(u32::from(channel), Directions::Both)
    }

    /// A channel from the peer to us.
    pub fn open_in(&self, channel: u8) -> Option<Stream> {
        self.link.open(u32::from(channel), Directions::In)
    }

    /// A channel from us to the peer.
    pub fn open_out(&self, channel: u8) -> Option<Stream> {
        self.link.open(u32::from(channel), Directions::Out)
    }

    /// Sends an empty message on a channel: kubelet 1.36 tells clients with it that the connection stands.
    pub fn greet(&self, channel: u8) {
        let mut buffer = BytesMut::new();
        put(&Encoder::new(self.role), self.coding, channel, &[], &mut buffer);
        self.link.send(u32::from(channel), buffer.freeze());
    }

    /// Tells when the connection is over.
    pub fn hang_up(&self) -> HangUp {
        self.link.hang_up()
    }

    /// Writes what waits, says goodbye and closes.
    pub async fn close(mut self) {
        self.goodbye();
        // An error would be a panic of the task; there is nothing to add to it.
        if let Some(task) = self.task.take() {
            _ = task.await;
        }
    }

    fn goodbye(&self) {
        self.link.close(Some(Encoder::new(self.role).close(NORMAL).freeze()));
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.goodbye();
    }
}

#[derive(Debug)]
struct Receiver {
    decoder: Decoder,
    parts: Parts,
}

/// What is known of the message that is being read.
#[derive(Debug)]
struct Parts {
    coding: Coding,
    encoder: Encoder,
    channel: Option<u8>,
    /// Base64 that is no group of four yet.
    held: Vec<u8>,
    /// The rest of a message on [`CLOSE_CHANNEL`].
    closing: Vec<u8>,
}

impl Inbound for Receiver {
    fn take(&mut self, mut input: &[u8], link: &Arc<Link>) -> Result<Flow, String> {
        while let Some(event) = self.decoder.next(&mut input).map_err(|error| error.to_string())? {
            if self.parts.event(event, link)? == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::More)
    }
}

impl Parts {
    fn event(&mut self, event: Event<'_>, link: &Link) -> Result<Flow, String> {
        match event {
            Event::Part { bytes, is_first, is_last } => {
                self.part(bytes, is_first, is_last, link)?;
                Ok(Flow::More)
            }
            Event::Ping(bytes) => {
                let mut buffer = BytesMut::new();
                self.encoder.message(Opcode::Pong, &[bytes], &mut buffer);
                if link.answer(buffer.freeze()) {
                    Ok(Flow::More)
                } else {
                    Err("websocket: the peer asks faster than it reads".to_owned())
                }
            }
            Event::Pong => Ok(Flow::More),
            Event::Close => {
                link.close(Some(self.encoder.close(NORMAL).freeze()));
                Ok(Flow::Done)
            }
        }
    }

    fn part(&mut self, mut bytes: &[u8], is_first: bool, is_last: bool, link: &Link) -> Result<(), String> {
        if self.coding == Coding::Plain {
            link.deliver(0, bytes);
            return Ok(());
        }
        if is_first {
            self.channel = None;
            self.held.clear();
            self.closing.clear();
        }
        if self.channel.is_none() {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            self.channel = Some(if self.coding == Coding::Base64 { first.wrapping_sub(b'0') } else { *first });
            bytes = rest;
        }
        let Some(channel) = self.channel else { return Ok(()) };
        match self.coding {
            Coding::BinaryWithClose if channel == CLOSE_CHANNEL => self.close(bytes, is_last, link),
            Coding::Base64 => self.base64(u32::from(channel), bytes, is_last, link),
            Coding::Binary | Coding::BinaryWithClose | Coding::Plain => {
                link.deliver(u32::from(channel), bytes);
                Ok(())
            }
        }
    }

    fn close(&mut self, bytes: &[u8], is_last: bool, link: &Link) -> Result<(), String> {
        if self.closing.len() + bytes.len() <= 1 {
            self.closing.extend_from_slice(bytes);
            if let (true, Some(channel)) = (is_last, self.closing.first()) {
                link.finish(u32::from(*channel));
                return Ok(());
            }
            if !is_last {
                return Ok(());
            }
        }
        Err("websocket: a single byte names the channel that ends".to_owned())
    }

    fn base64(&mut self, channel: u32, bytes: &[u8], is_last: bool, link: &Link) -> Result<(), String> {
        self.held.extend_from_slice(bytes);
        let whole = self.held.len() - self.held.len() % 4;
        let decoded = STANDARD.decode(&self.held[..whole]).map_err(|_| "websocket: no base64".to_owned())?;
        self.held.drain(..whole);
        link.deliver(channel, &decoded);
        if is_last && !self.held.is_empty() {
            return Err("websocket: base64 is cut off".to_owned());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Messages {
    encoder: Encoder,
    coding: Coding,
}

impl Outbound for Messages {
    fn put(&mut self, out: Out, buffer: &mut BytesMut) {
        match out {
            // Channels are bytes.
            Out::Data(channel, bytes) => put(&self.encoder, self.coding, channel as u8, &bytes, buffer),
            // A server tells no ends: kubelet 1.36 has clients know them from the end of the connection.
            Out::Finish(channel) => self.finish(channel as u8, buffer),
            Out::Reset(channel, _) => self.finish(channel as u8, buffer),
            Out::Raw(_, bytes) => buffer.put_slice(&bytes),
        }
    }
}

impl Messages {
    fn finish(&self, channel: u8, buffer: &mut BytesMut) {
        if self.coding == Coding::BinaryWithClose && self.encoder.role() == Role::Client {
            self.encoder.message(Opcode::Binary, &[&[CLOSE_CHANNEL, channel]], buffer);
        }
    }
}

fn put(encoder: &Encoder, coding: Coding, channel: u8, bytes: &[u8], buffer: &mut BytesMut) {
    match coding {
        Coding::Binary | Coding::BinaryWithClose => encoder.message(Opcode::Binary, &[&[channel], bytes], buffer),
        Coding::Plain => encoder.message(Opcode::Binary, &[bytes], buffer),
        Coding::Base64 => {
            let text = STANDARD.encode(bytes);
            encoder.message(Opcode::Text, &[&[b'0'.wrapping_add(channel)], text.as_bytes()], buffer);
        }
    }
}
