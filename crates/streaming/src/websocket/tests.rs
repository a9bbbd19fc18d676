use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::mux::Limits;

/// An event that owns its bytes; the parts of a message are put together.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Message(Vec<u8>),
    Cut(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// All events. `cuts` are where the bytes come in pieces.
fn decode(role: Role, bytes: &[u8], cuts: &[usize]) -> Result<Vec<Found>, DecodeError> {
    let mut decoder = Decoder::new(role);
    let (mut found, mut message) = (Vec::new(), None::<Vec<u8>>);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        let mut piece = &bytes[start..end];
        start = end;
        while let Some(event) = decoder.next(&mut piece)? {
            match event {
                Event::Part { bytes, is_first, is_last } => {
                    assert_eq!(is_first, message.is_none(), "a message begins once");
                    message.get_or_insert_default().extend_from_slice(bytes);
                    if is_last {
                        found.extend(message.take().map(Found::Message));
                    }
                }
                Event::Ping(bytes) => found.push(Found::Ping(bytes.to_vec())),
                Event::Pong => found.push(Found::Pong),
                Event::Close => found.push(Found::Close),
            }
        }
        assert!(piece.is_empty(), "all is taken");
    }
    found.extend(message.filter(|message| !message.is_empty()).map(Found::Cut));
    Ok(found)
}

fn encode(role: Role, messages: &[(Opcode, Vec<u8>)]) -> Vec<u8> {
    let (encoder, mut buffer) = (Encoder::new(role), BytesMut::new());
    messages.iter().for_each(|(opcode, bytes)| encoder.message(*opcode, &[bytes], &mut buffer));
    buffer.to_vec()
}

#[test]
fn the_key_is_answered_as_the_rfc_says() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn examples_of_the_rfc_are_read() {
    let cases: [(Role, &[u8], Found); 6] = [
        (Role::Client, b"\x81\x05Hello", Found::Message(b"Hello".to_vec())),
        (Role::Server, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Found::Message(b"Hello".to_vec())),
        (Role::Client, b"\x01\x03Hel\x80\x02lo", Found::Message(b"Hello".to_vec())),
        (Role::Client, b"\x89\x05Hello", Found::Ping(b"Hello".to_vec())),
        (Role::Server, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Found::Pong),
        (Role::Client, b"\x88\x02\x03\xe8", Found::Close),
    ];
    for (role, bytes, expected) in cases {
        assert_eq!(decode(role, bytes, &[]), Ok(vec![expected]), "{bytes:?}");
    }
    let between = decode(Role::Client, b"\x01\x03Hel\x89\x01x\x80\x02lo", &[4, 6]);
    assert_eq!(between, Ok(vec![Found::Ping(b"x".to_vec()), Found::Message(b"Hello".to_vec())]));
    let empty = decode(Role::Client, b"\x02\0\0\0\x80\0", &[]);
    assert_eq!(empty, Ok(vec![Found::Message(Vec::new())]), "parts may be empty");
}

#[test]
fn what_is_no_websocket_is_an_error() {
    let cases: [(Role, &[u8], DecodeError); 12] = [
        (Role::Client, b"\xc1\x05Hello", DecodeError::Reserved),
        (Role::Client, b"\x83\x05Hello", DecodeError::Opcode(3)),
        (Role::Client, b"\x8b\x00", DecodeError::Opcode(11)),
        (Role::Server, b"\x81\x05Hello", DecodeError::Mask),
        (Role::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", DecodeError::Mask),
        (Role::Client, b"\x09\x05Hello", DecodeError::Control),
        (Role::Client, b"\x89\x7e\x00\x7e", DecodeError::Control),
        (Role::Client, b"\x80\x05Hello", DecodeError::Fragment),
        (Role::Client, b"\x01\x03Hel\x81\x02lo", DecodeError::Fragment),
        (Role::Client, b"\x01\x03Hel\x82\x02lo", DecodeError::Fragment),
        (Role::Client, b"\x82\x7f\x80\0\0\0\0\0\0\0", DecodeError::Length),
        (Role::Server, b"GET / HTTP/1.1\r\n", DecodeError::Reserved),
    ];
    for (role, bytes, error) in cases {
        assert_eq!(decode(role, bytes, &[]), Err(error), "{bytes:?}");
    }
}

#[test]
fn lengths_are_written_short_and_read_long() {
    for (len, head) in [(125, &b"\x82\x7d"[..]), (126, b"\x82\x7e\x00\x7e"), (65535, b"\x82\x7e\xff\xff")] {
        let bytes = encode(Role::Server, &[(Opcode::Binary, vec![7; len])]);
        assert_eq!((&bytes[..head.len()], bytes.len()), (head, head.len() + len));
    }
    let bytes = encode(Role::Server, &[(Opcode::Binary, vec![7; 65536])]);
    assert_eq!(bytes[..10], *b"\x82\x7f\0\0\0\0\0\x01\0\0");
    assert_eq!(decode(Role::Client, &bytes, &[]), Ok(vec![Found::Message(vec![7; 65536])]));
}

const CLIENT: &[u8] = include_bytes!("../../tests/corpus/websocket/exec-client.bin");
const SERVER: &[u8] = include_bytes!("../../tests/corpus/websocket/exec-server.bin");

#[test]
fn what_a_client_of_kubernetes_wrote_is_read() {
    let expected = [Found::Message(b"\0hello".to_vec()), Found::Message(b"\xff\0".to_vec()), Found::Close];
    assert_eq!(decode(Role::Server, CLIENT, &[]), Ok(expected.into()));
}

/// A server's channels 0 (in) and 1 (out), and the client's end.
fn channels(coding: Coding) -> (Channels, crate::Stream, crate::Stream, tokio::io::DuplexStream) {
    let (here, there) = duplex(64 * 1024);
    let mut channels = Channels::new(Role::Server, coding, Limits::default());
    let (input, output) = (channels.open_in(0).unwrap(), channels.open_out(1).unwrap());
    channels.start(here, Duration::from_secs(3600));
    (channels, input, output, there)
}

#[tokio::test]
async fn a_channel_ends_alone_in_version_5_only() {
    let (_channels, mut input, mut output, mut client) = channels(Coding::BinaryWithClose);
    let messages = [b"\0he".to_vec(), Vec::new(), b"\x07for nobody".to_vec(), b"\0llo".to_vec(), b"\xff\0".to_vec()];
    let messages = messages.map(|message| (Opcode::Binary, message));
    client.write_all(&encode(Role::Client, &messages)).await.unwrap();
    let mut text = String::new();
    input.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    output.write_all(b"there").await.unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x82\x06\x01there");

    let (_channels, mut input, _output, mut client) = channels(Coding::Binary);
    client.write_all(&encode(Role::Client, &[(Opcode::Binary, b"\xff\0".to_vec())])).await.unwrap();
    client.write_all(&encode(Role::Client, &[(Opcode::Binary, b"\0x".to_vec())])).await.unwrap();
    input.read_exact(&mut [0; 1]).await.unwrap();
    client.write_all(&encode(Role::Client, &[(Opcode::Close, Vec::new())])).await.unwrap();
    assert_eq!(input.read(&mut [0; 1]).await.unwrap(), 0, "the end of the connection is the end of each");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x88\x02\x03\xe8");
}

#[tokio::test]
async fn base64_is_text_in_groups_of_four() {
    let (_channels, mut input, mut output, mut client) = channels(Coding::Base64);
    let parts = [&b"\x01\x83\0\0\0\0"[..], b"0aG", b"\x80\x86\0\0\0\0", b"VsbG8="].concat();
    client.write_all(&parts).await.unwrap();
    let mut text = [0; 5];
    input.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    output.write_all(b"there").await.unwrap();
    let mut answer = [0; 11];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x81\x091dGhlcmU=");
    for broken in ["0aGV", "0aGVsbG8", "0!!!!"] {
        let (_channels, mut input, _output, mut client) = channels(Coding::Base64);
        client.write_all(&encode(Role::Client, &[(Opcode::Text, broken.into())])).await.unwrap();
        let ended = input.read_to_end(&mut Vec::new()).await;
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted, "{broken}");
    }
}

#[tokio::test]
async fn pings_are_answered_and_a_malformed_end_of_a_channel_ends_the_connection() {
    let (_channels, mut input, _output, mut client) = channels(Coding::BinaryWithClose);
    client.write_all(&encode(Role::Client, &[(Opcode::Ping, b"abc".to_vec())])).await.unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x8a\x03abc");
    client.write_all(&encode(Role::Client, &[(Opcode::Binary, b"\xff\0\x01".to_vec())])).await.unwrap();
    assert_eq!(input.read(&mut [0; 1]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
}

fn messages() -> impl Strategy<Value = Vec<(Opcode, Vec<u8>)>> {
    let opcode = prop::sample::select(vec![Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong, Opcode::Close]);
    let message = (opcode, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(opcode, mut bytes)| {
        if matches!(opcode, Opcode::Ping | Opcode::Pong | Opcode::Close) {
            bytes.truncate(125);
        }
        (opcode, bytes)
    });
    prop::collection::vec(message, 0..10)
}

proptest! {
    #[test]
    fn messages_come_back_however_they_are_cut(
        messages in messages(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        for (from, to) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
            let found = decode(to, &encode(from, &messages), &cuts).unwrap();
            let expected: Vec<Found> = messages.iter().map(|(opcode, bytes)| match opcode {
                Opcode::Text | Opcode::Binary => Found::Message(bytes.clone()),
                Opcode::Ping => Found::Ping(bytes.clone()),
                Opcode::Pong => Found::Pong,
                Opcode::Close => Found::Close,
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn garbage_is_an_error_or_nothing_and_cuts_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        for role in [Role::Client, Role::Server] {
            prop_assert_eq!(decode(role, &bytes, &[]), decode(role, &bytes, &cuts));
        }
    }

    #[test]
    fn recordings_with_wrong_bytes_are_an_error_or_something_else(
        (role, seed) in prop::sample::select(vec![(Role::Server, CLIENT), (Role::Client, SERVER)]),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut bytes = seed.to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        prop_assert_eq!(decode(role, &bytes, &[]), decode(role, &bytes, &cuts));
    }

    #[test]
    fn channels_take_any_messages_without_panic(
        messages in messages(),
        coding in prop::sample::select(vec![Coding::Binary, Coding::BinaryWithClose, Coding::Base64, Coding::Plain]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (channels, mut input, _output, mut client) = channels(coding);
            // It may be cut off while it writes.
            _ = client.write_all(&encode(Role::Client, &messages)).await;
            drop(client);
            _ = input.read_to_end(&mut Vec::new()).await;
            channels.close().await;
        });
    }
}
