//! What is tried.

use std::path::Path;
use std::sync::Arc;

use rubelet_api::pod::{Gates, Origin, Source, static_pods};
use rubelet_runtime::image::reference::Reference;
use rubelet_runtime::snapshot::extract::{Limits, Rules, extract};
use rubelet_server::fuzzing::{Node, connection};
use rubelet_streaming::{spdy, websocket};
use rubelet_testkit::FakeRuntime;
use rubelet_testkit::runtime::Temper;

/// Something that reads what strangers wrote.
pub struct Target {
    pub name: &'static str,
    /// Directories with inputs beside `corpus/NAME`.
    pub more: &'static [&'static str],
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target { name: "layers", more: &[], run: layers },
    Target {
        name: "documents",
        more: &["../crates/runtime/tests/corpus/documents"],
        run: rubelet_runtime::fuzzing::document,
    },
    Target { name: "references", more: &[], run: references },
    Target { name: "spdy", more: &[], run: spdy_frames },
    Target { name: "websocket", more: &[], run: websocket_frames },
    Target { name: "logs", more: &[], run: rubelet_server::fuzzing::log },
    Target { name: "requests", more: &[], run: requests },
    Target { name: "cni", more: &[], run: rubelet_network::fuzzing::cni },
    Target { name: "hosts", more: &[], run: hosts },
    Target { name: "manifests", more: &["../tests/manifests/odd", "../tests/manifests/bad"], run: manifests },
];

/// A directory in memory, where there is one.
fn room() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A layer's archive: nothing of it may get out of its directory.
fn layers(bytes: &[u8]) {
    let dir = room();
    let (into, beside) = (dir.path().join("layer"), dir.path().join("beside"));
    std::fs::create_dir(&into).expect("a directory");
    std::fs::write(&beside, "untouched").expect("a file");
    let limits = Limits { layer_bytes_max: 1 << 20, layer_entries_max: 1000 };
    let _ = extract(bytes, &into, &[], &Rules { limits, is_privileged: false });
    assert_eq!(std::fs::read(&beside).expect("the file beside is there"), b"untouched");
    let names = std::fs::read_dir(dir.path()).expect("the directory is there").count();
    assert_eq!(names, 2, "something was made outside");
    make_removable(&into);
}

/// Modes of strangers may keep who is not root from removing it.
fn make_removable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_removable(&entry.path());
        }
    }
}

/// What is a reference is the same one again when it is written.
fn references(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = Reference::parse(text) {
        let written = reference.to_string();
        let again = Reference::parse(&written).unwrap_or_else(|e| panic!("{text:?} was written as {written:?}: {e}"));
        assert_eq!(again.to_string(), written);
    }
}

/// In one piece and in small ones: the same frames.
fn spdy_frames(bytes: &[u8]) {
    let read = |piece: usize| {
        let (mut decoder, mut found) = (spdy::Decoder::new(), Vec::new());
        for mut input in bytes.chunks(piece.max(1)) {
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(event)) => match event {
                        // Data comes in the pieces in which it came.
                        spdy::Event::Data { .. } => {}
                        other => found.push(format!("{other:?}")),
                    },
                    Ok(None) => break,
                    Err(error) => {
                        found.push(format!("{error:?}"));
                        return found;
                    }
                }
            }
        }
        found
    };
    assert_eq!(read(bytes.len()), read(3));
}

fn websocket_frames(bytes: &[u8]) {
    let (role, bytes) = match bytes.split_first() {
        Some((first, rest)) if first & 1 == 0 => (rubelet_streaming::websocket::Role::Client, rest),
        _ => (rubelet_streaming::websocket::Role::Server, bytes),
    };
    for piece in [bytes.len().max(1), 3] {
        let mut decoder = websocket::Decoder::new(role);
        'all: for mut input in bytes.chunks(piece) {
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }
}

/// What the server answers shows nothing from outside of the directory of logs, and no request has two answers.
fn requests(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let dir = room();
    let log_dir = dir.path().join("log");
    std::fs::create_dir(&log_dir).expect("a directory");
    std::fs::write(log_dir.join("own"), "a line\n").expect("a file");
    std::fs::write(dir.path().join("beside"), SECRET).expect("a file");
    std::os::unix::fs::symlink("../beside", log_dir.join("link")).expect("a link");
    let pod = serde_json::json!({
        "metadata": {"namespace": "ns", "name": "web", "uid": "u"}, "spec": {"containers": [{"name": "c"}]},
        "status": {"containerStatuses": [{"name": "c", "containerID": "fake://x", "state": {"running": {}}}]},
    });
    let pods = vec![Arc::new(serde_json::from_value(pod).expect("a pod"))];
    let node = Node { pods, runtime: Arc::new(FakeRuntime::new(Temper::default())), log_dir };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let answered = runtime.expect("a runtime").block_on(connection(bytes, first & 1 == 1, node));
    let is_in = |part: &[u8], whole: &[u8]| whole.windows(part.len()).filter(|piece| *piece == part).count();
    assert!(is_in(SECRET, &answered) == 0 || is_in(SECRET, bytes) > 0, "{}", String::from_utf8_lossy(&answered));
    let words: usize = [b"HTTP/1.1", b"HTTP/1.0"].iter().map(|version| is_in(*version, bytes)).sum();
    let answers = is_in(b"HTTP/1.1 ", &answered) + is_in(b"HTTP/1.0 ", &answered);
    // One more: what is no request is refused.
    assert!(answers <= words + 1, "{answers} answers to {words} requests: {}", String::from_utf8_lossy(&answered));
}

const SECRET: &[u8] = b"of the host only";

fn hosts(bytes: &[u8]) {
    let dir = room();
    let own = dir.path().join("registry.test");
    std::fs::create_dir(&own).expect("a directory");
    std::fs::write(own.join("hosts.toml"), bytes).expect("a file");
    rubelet_runtime::fuzzing::hosts(dir.path());
}

/// A manifest, as from a file and from a URL.
fn manifests(bytes: &[u8]) {
    let origin = Origin { source: Source::Http, path_or_url: "http://x/".to_owned(), node_name: "node".to_owned() };
    let _ = static_pods(bytes, &origin, jiff::Timestamp::UNIX_EPOCH, Gates::default());
}
