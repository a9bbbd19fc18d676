//! Termination messages: the file that the container wrote, or the tail of its log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rubelet_proto::cri;

/// Kubelet 1.36: a termination message is cut to this many bytes, from its end.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Kubelet 1.36: `FallbackToLogsOnError` takes at most so many bytes and lines of the log.
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;
/// How far back the log is read to find them; CRI prefixes make lines longer.
const LOG_READ_MAX: u64 = 16 * 1024;

const PATH: &str = "io.kubernetes.container.terminationMessagePath";
const POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

/// The message of a dead container; `None` leaves the runtime's own.
pub fn termination_message(status: &cri::ContainerStatus, code: i32, reason: &str, logs: &Path) -> Option<String> {
    let path = status.annotations.get(PATH)?;
    let mount = status.mounts.iter().find(|m| m.container_path == *path);
    let from_file = mount.and_then(|m| tail(Path::new(&m.host_path), MESSAGE_BYTES_MAX)).unwrap_or_default();
    let falls_back = status.annotations.get(POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if !from_file.is_empty() {
        return Some(with_runtimes(&status.message, String::from_utf8_lossy(&from_file).into_owned()));
    }
    if falls_back && code != 0 && reason != "ContainerCannotRun" && Path::new(&status.log_path).starts_with(logs) {
        let log = tail(Path::new(&status.log_path), LOG_READ_MAX).unwrap_or_default();
        return Some(log_tail(&log));
    }
    None
}

/// Kubelet 1.36: a runtime's own message stands before the container's.
fn with_runtimes(runtimes: &str, message: String) -> String {
    if runtimes.is_empty() { message } else { format!("{runtimes}: {message}") }
}

/// The last `bytes` of a regular file; links are not followed.
fn tail(path: &Path, bytes: u64) -> Option<Vec<u8>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    let skip = metadata.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(skip)).ok()?;
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The last lines of a CRI log without its prefixes (`time stream tag text`).
fn log_tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<String> = text.lines().filter_map(entry).collect();
    let kept = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
    let joined = kept.concat();
    let mut start = joined.len().saturating_sub(LOG_BYTES_MAX);
    while !joined.is_char_boundary(start) {
        start += 1;
    }
    joined[start..].to_owned()
}

/// The text of one entry; a partial entry (`P`) has no line end.
fn entry(line: &str) -> Option<String> {
    let mut parts = line.splitn(4, ' ');
    let (_time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    if stream != "stdout" && stream != "stderr" {
        return None; // the first line may be cut
    }
    let is_partial = tag.split(':').next() == Some("P");
    Some(if is_partial { text.to_owned() } else { format!("{text}\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_tail_drops_prefixes_and_joins_partial_entries() {
        let log = b"cut off\n2026-01-01T00:00:00.0Z stdout F one\n2026-01-01T00:00:00.0Z stderr P tw\n2026-01-01T00:00:00.0Z stderr F o\n";
        assert_eq!(log_tail(log), "one\ntwo\n");
    }

    #[test]
    fn log_tail_keeps_the_last_eighty_lines() {
        let log: String = (0..100).map(|i| format!("t stdout F line {i}\n")).collect();
        let tail = log_tail(log.as_bytes());
        assert!(tail.starts_with("line 20\n"), "{tail}");
        assert!(tail.ends_with("line 99\n"));
    }

    #[test]
    fn a_link_is_not_a_termination_log() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("secret"), "secret").expect("write");
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("link")).expect("link");
        assert_eq!(tail(&dir.path().join("link"), 10), None);
        assert_eq!(tail(&dir.path().join("secret"), 3), Some(b"ret".to_vec()));
    }
}
