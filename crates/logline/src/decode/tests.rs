use proptest::prelude::*;

use super::*;

fn all() -> Wanted {
    Wanted { stdout: true, stderr: true, ..Wanted::default() }
}

/// Decodes a file that comes in pieces of these lengths, then in one.
fn decode(wanted: Wanted, content: &[u8], pieces: &[usize]) -> Result<String, DecodeError> {
    let mut decoder = Decoder::new(wanted);
    let (mut out, mut rest) = (Vec::new(), content);
    for &len in pieces.iter().chain([&usize::MAX]) {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        if decoder.feed(piece, &mut out)? == Flow::Enough {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        rest = after;
    }
    decoder.finish(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

const LOG: &str = "2024-01-01T00:00:01.5Z stdout F one\n\
                   2024-01-01T00:00:02Z stderr F two\n\
                   2024-01-01T00:00:03Z stdout P thr\n\
                   2024-01-01T00:00:04Z stdout F:x ee\n\
                   2024-01-01T00:00:05Z stdout F \n\
                   not a line\n\
                   2024-01-01T00:00:06Z stdout F six";

#[test]
fn lines_are_put_together() {
    assert_eq!(decode(all(), LOG.as_bytes(), &[]).unwrap(), "one\ntwo\nthree\n\nsix");
    let timed = Wanted { timestamps: true, ..all() };
    let wanted = "2024-01-01T00:00:01.500000000Z one\n2024-01-01T00:00:02.000000000Z two\n\
                  2024-01-01T00:00:03.000000000Z three\n2024-01-01T00:00:05.000000000Z \n2024-01-01T00:00:06.000000000Z six";
    assert_eq!(decode(timed, LOG.as_bytes(), &[]).unwrap(), wanted);
}

#[test]
fn only_what_is_wanted_comes() {
    let since = Moment { secs: 1_704_067_204, nanos: 0 };
    for (wanted, text) in [
        (Wanted { stderr: true, ..Wanted::default() }, "two\n"),
        (Wanted { stdout: true, ..Wanted::default() }, "one\nthree\n\nsix"),
        (Wanted { since: Some(since), ..all() }, "ee\n\nsix"),
        (Wanted { bytes_max: Some(6), ..all() }, "one\ntw"),
        (Wanted { bytes_max: Some(4), ..all() }, "one\n"),
        (Wanted { bytes_max: Some(1000), ..all() }, "one\ntwo\nthree\n\nsix"),
        (Wanted { lines_max: Some(3), ..all() }, "one\ntwo\nthr"),
        (Wanted { lines_max: Some(0), ..all() }, ""),
        (Wanted { bytes_max: Some(33), timestamps: true, ..all() }, "2024-01-01T00:00:01.500000000Z on"),
        // What is not shown does not count.
        (Wanted { stderr: true, bytes_max: Some(3), ..Wanted::default() }, "two"),
    ] {
        assert_eq!(decode(wanted.clone(), LOG.as_bytes(), &[]).unwrap(), text, "{wanted:?}");
    }
}

#[test]
fn dockers_lines_are_read() {
    let log = "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"2016-10-20T18:39:20.57606443Z\"}\n\
               nonsense\n\
               {\"log\":\"b\\n\",\"stream\":\"stderr\",\"time\":\"2016-10-20T18:39:21Z\"}\n";
    assert_eq!(decode(all(), log.as_bytes(), &[3, 40]).unwrap(), "a\nb\n");
    let other = log.replace("stderr", "other");
    assert_eq!(decode(all(), other.as_bytes(), &[]), Err(DecodeError::Stream("other".into())));
}

#[test]
fn what_is_no_log_is_an_error() {
    assert_eq!(decode(all(), b"hello\n", &[]), Err(DecodeError::Format("hello\n".into())));
    assert_eq!(decode(all(), b"hello", &[2]), Err(DecodeError::Format("hello".into())));
    assert!(decode(all(), &vec![b'x'; JSON_MAX + 2], &[]).is_err());
}

#[test]
fn a_line_of_any_length_takes_no_memory() {
    let mut decoder = Decoder::new(all());
    let mut out = Vec::new();
    decoder.feed(b"2024-01-01T00:00:02Z stdout F ", &mut out).unwrap();
    for _ in 0..1000 {
        decoder.feed(&[b'x'; 1000], &mut out).unwrap();
        assert_eq!(out.len(), 1000);
        out.clear();
    }
    assert!(decoder.head.capacity() <= HEAD_MAX);
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        lines in prop::collection::vec((any::<bool>(), any::<bool>(), "[a-z ]{0,12}"), 0..12),
        pieces in prop::collection::vec(1usize..40, 0..60),
        timestamps: bool,
        bytes_max in prop::option::of(1u64..300),
        lines_max in prop::option::of(0u64..10),
        has_end: bool,
    ) {
        let mut content: Vec<u8> = lines.iter().enumerate().flat_map(|(at, (out, whole, text))| {
            let (stream, tag) = (if *out { "stdout" } else { "stderr" }, if *whole { "F" } else { "P" });
            format!("2024-01-01T00:00:{at:02}.25Z {stream} {tag} {text}\n").into_bytes()
        }).collect();
        if !has_end {
            content.pop();
        }
        let wanted = Wanted { timestamps, bytes_max, lines_max, ..all() };
        prop_assert_eq!(decode(wanted.clone(), &content, &[]), decode(wanted, &content, &pieces));
    }

    #[test]
    fn garbage_does_no_harm(content: Vec<u8>, pieces in prop::collection::vec(0usize..20, 0..20)) {
        let whole = decode(all(), &content, &[]).is_ok();
        prop_assert_eq!(decode(all(), &content, &pieces).is_ok(), whole);
    }
}
