mod connection;

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::dictionary::dictionary;
use super::encode::data_head;
use super::*;

/// An event that owns its bytes.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Frame(Frame),
    Data(StreamId, Vec<u8>, bool),
}

/// All events; parts of the same stream that follow each other are put together. `cuts` are where the bytes come in pieces.
fn decode(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Found>, DecodeError> {
    let mut decoder = Decoder::new();
    let mut found: Vec<Found> = Vec::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        let mut piece = &bytes[start..end];
        start = end;
        while let Some(event) = decoder.next(&mut piece)? {
            match (event, found.last_mut()) {
                (Event::Frame(frame), _) => found.push(Found::Frame(frame)),
                (Event::Data { id, bytes, is_fin }, Some(Found::Data(last, held, fin))) if *last == id && !*fin => {
                    held.extend_from_slice(bytes);
                    *fin = is_fin;
                }
                (Event::Data { id, bytes, is_fin }, _) => found.push(Found::Data(id, bytes.to_vec(), is_fin)),
            }
        }
        assert!(piece.is_empty(), "all is taken");
    }
    Ok(found)
}

fn syn_stream(id: StreamId, headers: Headers) -> Frame {
    Frame::SynStream { id, associated: 0, priority: 0, is_fin: false, is_unidirectional: false, headers }
}

#[test]
fn frames_look_on_the_wire_as_the_draft_says() {
    let cases: [(Frame, &[u8]); 8] = [
        (
            syn_stream(1, Headers::new().with("a", "b")),
            b"\x80\x03\0\x01\0\0\0\x24\0\0\0\x01\0\0\0\0\0\0\
              \x78\x01\0\x0e\0\xf1\xff\0\0\0\x01\0\0\0\x01a\0\0\0\x01b\0\0\0\xff\xff",
        ),
        (
            Frame::SynReply { id: 3, is_fin: true, headers: Headers::new() },
            b"\x80\x03\0\x02\x01\0\0\x14\0\0\0\x03\x78\x01\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff",
        ),
        (Frame::RstStream { id: 5, status: CANCEL }, b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x05\0\0\0\x05"),
        (
            Frame::Settings { entries: vec![(1, 4, 1000)] },
            b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\x01\0\0\x04\0\0\x03\xe8",
        ),
        (Frame::Ping { id: 7 }, b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x07"),
        (Frame::GoAway { last_good: 9, status: 0 }, b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x09\0\0\0\0"),
        (
            Frame::Headers { id: 1, is_fin: false, headers: Headers::new() },
            b"\x80\x03\0\x08\0\0\0\x14\0\0\0\x01\x78\x01\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff",
        ),
        (Frame::WindowUpdate { id: 1, delta: 65536 }, b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x01\0\x01\0\0"),
    ];
    for (frame, bytes) in cases {
        assert_eq!(Encoder::new().frame(&frame), bytes, "{frame:?}");
        assert_eq!(decode(bytes, &[]), Ok(vec![Found::Frame(frame)]));
    }
    assert_eq!(data_head(3, 5, true), *b"\0\0\0\x03\x01\0\0\x05");
    assert_eq!(decode(b"\0\0\0\x03\x01\0\0\x05hello", &[10]), Ok(vec![Found::Data(3, b"hello".to_vec(), true)]));
    assert_eq!(decode(b"\0\0\0\x03\x01\0\0\0", &[]), Ok(vec![Found::Data(3, Vec::new(), true)]));
}

#[test]
fn what_clients_and_servers_of_kubernetes_wrote_is_read() {
    let stream_types = |bytes: &[u8]| -> Vec<String> {
        let found = decode(bytes, &[]).unwrap().into_iter();
        let headers = found.filter_map(|found| match found {
            Found::Frame(Frame::SynStream { headers, .. }) => Some(headers),
            Found::Frame(_) | Found::Data(..) => None,
        });
        headers.map(|headers| headers.iter().map(|(name, value)| format!("{name}={value} ")).collect()).collect()
    };
    assert_eq!(
        stream_types(include_bytes!("../../tests/corpus/spdy/exec-client.bin")),
        ["streamtype=error ", "streamtype=stdin ", "streamtype=stdout ", "streamtype=stderr "]
    );
    let forwards = stream_types(include_bytes!("../../tests/corpus/spdy/forward-client.bin"));
    assert_eq!(forwards.len(), 4);
    assert!(forwards.iter().all(|headers| headers.contains("port=") && headers.contains("requestid=")), "{forwards:?}");
    let server = decode(include_bytes!("../../tests/corpus/spdy/exec-server.bin"), &[]).unwrap();
    let replies = server.iter().filter(|found| matches!(found, Found::Frame(Frame::SynReply { .. }))).count();
    assert_eq!(replies, 4);
    assert!(server.contains(&Found::Frame(Frame::GoAway { last_good: 7, status: 0 })));
}

/// A block as a peer packs it that compresses.
fn deflate(zlib: &mut Compress, block: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(block.len() + 1024);
    zlib.compress_vec(block, &mut packed, FlushCompress::Sync).unwrap();
    packed
}

/// A frame SYN_REPLY for stream 1 with a packed block.
fn reply(packed: &[u8]) -> Vec<u8> {
    let len = u32::try_from(packed.len() + 4).unwrap().to_be_bytes();
    [b"\x80\x03\0\x02\0", &len[1..], b"\0\0\0\x01", packed].concat()
}

fn with_dictionary() -> Compress {
    let mut zlib = Compress::new(Compression::best(), true);
    zlib.set_dictionary(dictionary()).unwrap();
    zlib
}

#[test]
fn blocks_share_one_zlib_stream_with_the_dictionary() {
    let mut zlib = with_dictionary();
    let headers = Headers::new().with("content-type", "text/html").with("status", "200 OK");
    let mut bytes = Vec::new();
    let mut lens = Vec::new();
    for _ in 0..3 {
        let packed = deflate(&mut zlib, &headers.block());
        lens.push(packed.len());
        bytes.extend_from_slice(&reply(&packed));
    }
    assert!(lens[1] < lens[0], "the second refers to the first: {lens:?}");
    let found = decode(&bytes, &[3, 30, 31]).unwrap();
    let expected = || Found::Frame(Frame::SynReply { id: 1, is_fin: false, headers: headers.clone() });
    assert_eq!(found, [expected(), expected(), expected()]);
}

#[test]
fn a_block_that_unpacks_to_much_is_refused() {
    let len = |text: &[u8]| u32::try_from(text.len()).unwrap().to_be_bytes();
    let block = |len_of_value: usize| {
        let value = vec![b'x'; len_of_value];
        [&1_u32.to_be_bytes()[..], &len(b"a"), b"a", &len(&value), &value].concat()
    };
    let overhead = block(0).len();
    let fits = reply(&deflate(&mut with_dictionary(), &block(64 * 1024 - overhead - 1)));
    assert_eq!(decode(&fits, &[]).unwrap().len(), 1);
    let bomb = reply(&deflate(&mut with_dictionary(), &block(60_000_000)));
    assert!(bomb.len() < 60_000 + 4_000, "small when packed");
    assert_eq!(decode(&bomb, &[]), Err(DecodeError::HeadersTooLong));
}

#[test]
fn what_is_not_spdy_is_an_error() {
    let cases: [(&[u8], DecodeError); 11] = [
        (b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x07", DecodeError::Version(2)),
        (b"\x80\x03\0\x01\0\x01\0\x01", DecodeError::TooLong(65537)),
        (b"\x80\x03\0\x06\0\0\0\x05\0\0\0\x07\0", DecodeError::Length(6)),
        (b"\x80\x03\0\x03\0\0\0\x04\0\0\0\x07", DecodeError::Length(3)),
        (b"\x80\x03\0\x01\0\0\0\x04\0\0\0\x07", DecodeError::Length(1)),
        (b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x02\x01\0\0\x04\0\0\x03\xe8", DecodeError::Length(4)),
        (b"\x80\x03\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x05", DecodeError::NoStream(3)),
        (b"\0\0\0\0\0\0\0\0", DecodeError::NoStream(0)),
        (b"\x80\x03\0\x02\0\0\0\x08\0\0\0\x01abcd", DecodeError::BadCompression),
        (b"\x80\x03\0\x02\0\0\0\x04\0\0\0\x01", DecodeError::BadHeaders),
        (
            b"\x80\x03\0\x02\0\0\0\x14\0\0\0\x01\x78\x01\0\x04\0\xfb\xff\xff\0\0\0\0\0\0\xff\xff",
            DecodeError::TooManyHeaders(0xff00_0000),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(bytes, &[]), Err(error));
    }
}

#[test]
fn frames_of_unknown_type_are_passed_over() {
    let bytes = [&b"\x80\x03\0\x0a\0\0\0\x05hello"[..], b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x07"].concat();
    assert_eq!(decode(&bytes, &[10]), Ok(vec![Found::Frame(Frame::Ping { id: 7 })]));
    assert_eq!(decode(b"\x80\x03\0\x05\0\0\0\0\x80\x03\0\x06\0\0\0\x04\0\0\0\x07", &[]).unwrap().len(), 1);
}

#[test]
fn headers_are_found_in_any_case_and_the_first_of_several_values() {
    let headers = Headers::new().with("streamType", "a\0b").with("Port", "1").with("port", "2");
    assert_eq!((headers.get("StreamType"), headers.get("PORT"), headers.get("x")), (Some("a"), Some("2"), None));
    assert!(Headers::parse(b"\0\0\0\x02\0\0\0\x01a\0\0\0\0\0\0\0\x01A\0\0\0\0").is_err(), "a name occurs once");
    assert!(Headers::parse(b"\0\0\0\x01\0\0\0\0\0\0\0\0").is_err(), "a name has letters");
    assert!(Headers::parse(b"\0\0\0\0x").is_err(), "nothing follows");
    assert!(Headers::parse(b"\0\0\0\x01\xff\xff\xff\xffa").is_err(), "a length that is not there");
}

fn headers() -> impl Strategy<Value = Headers> {
    let pair = ("[a-z-]{1,12}", "[ -~]{0,30}");
    prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.into_iter().collect())
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = || 1..0x8000_0000_u32;
    prop_oneof![
        (id(), 0..0x8000_0000_u32, 0..8_u8, any::<(bool, bool)>(), headers()).prop_map(
            |(id, associated, priority, (is_fin, is_unidirectional), headers)| Frame::SynStream {
                id,
                associated,
                priority,
                is_fin,
                is_unidirectional,
                headers
            }
        ),
        (id(), any::<bool>(), headers()).prop_map(|(id, is_fin, headers)| Frame::SynReply { id, is_fin, headers }),
        (id(), any::<bool>(), headers()).prop_map(|(id, is_fin, headers)| Frame::Headers { id, is_fin, headers }),
        (id(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
        prop::collection::vec((any::<u8>(), 0..0x100_0000_u32, any::<u32>()), 0..5)
            .prop_map(|entries| Frame::Settings { entries }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (0..0x8000_0000_u32, any::<u32>()).prop_map(|(last_good, status)| Frame::GoAway { last_good, status }),
        (0..0x8000_0000_u32, 0..0x8000_0000_u32).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
    ]
}

const SEEDS: [&[u8]; 4] = [
    include_bytes!("../../tests/corpus/spdy/exec-client.bin"),
    include_bytes!("../../tests/corpus/spdy/exec-server.bin"),
    include_bytes!("../../tests/corpus/spdy/forward-client.bin"),
    include_bytes!("../../tests/corpus/spdy/forward-server.bin"),
];

proptest! {
    #[test]
    fn frames_come_back_however_they_are_cut(
        frames in prop::collection::vec((frame(), prop::collection::vec(any::<u8>(), 1..100)), 1..10),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut encoder = Encoder::new();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (frame, data) in frames {
            bytes.extend_from_slice(&encoder.frame(&frame));
            bytes.extend_from_slice(&data_head(5, data.len(), true));
            bytes.extend_from_slice(&data);
            expected.extend([Found::Frame(frame), Found::Data(5, data, true)]);
        }
        prop_assert_eq!(decode(&bytes, &cuts).unwrap(), expected);
    }

    #[test]
    fn garbage_is_an_error_or_nothing_and_cuts_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        prop_assert_eq!(decode(&bytes, &[]), decode(&bytes, &cuts));
    }

    #[test]
    fn recordings_with_wrong_bytes_are_an_error_or_something_else(
        seed in prop::sample::select(SEEDS.to_vec()),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut bytes = seed.to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        prop_assert_eq!(decode(&bytes, &[]), decode(&bytes, &cuts));
    }

    #[test]
    fn packed_garbage_is_an_error(packed in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut unpacker = super::headers::Unpacker::new();
        if let Ok(unpacked) = unpacker.unpack(&[b"\x78\x01", packed.as_slice()].concat()) {
            prop_assert!(unpacked.len() <= super::headers::UNPACKED_MAX);
        }
    }
}
