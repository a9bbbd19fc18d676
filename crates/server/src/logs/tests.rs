//! Real files, followed while they are written, rotated and removed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rubelet_logline::Wanted;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Bells;
use super::follow::{ReadError, Reading, read};

struct Log {
    dir: TempDir,
    file: File,
    bells: Bells,
    lives: Arc<AtomicBool>,
}

/// Someone who reads it.
struct Reader {
    bytes: mpsc::Receiver<Bytes>,
    text: String,
    task: JoinHandle<Result<(), ReadError>>,
}

fn line(text: &str) -> String {
    format!("2024-01-01T00:00:00Z stdout F {text}\n")
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("0.log")).unwrap();
        Self { dir, file, bells: Bells::default(), lives: Arc::new(AtomicBool::new(true)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("0.log")
    }

    fn write(&mut self, text: &str) {
        self.file.write_all(line(text).as_bytes()).unwrap();
    }

    /// As a kubelet and a runtime rotate.
    fn rotate(&mut self, stamp: &str) {
        fs::rename(self.path(), self.dir.path().join(format!("0.log.{stamp}"))).unwrap();
        self.file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
    }

    fn read(&self, tail: Option<u64>, follow: bool) -> Reader {
        let reading = Reading {
            path: self.path(),
            wanted: Wanted { stdout: true, stderr: true, ..Wanted::default() },
            tail,
            follow,
        };
        let (sender, bytes) = mpsc::channel(super::Lanes::default().take(false).pieces());
        let (bells, lives) = (self.bells.clone(), self.lives.clone());
        let task = tokio::spawn(async move {
            read(reading, &bells, || std::future::ready(lives.load(Ordering::SeqCst)), &sender).await
        });
        Reader { bytes, text: String::new(), task }
    }
}

impl Reader {
    /// Until this much has come.
    async fn until(&mut self, text: &str) {
        while !self.text.ends_with(text) {
            let more = self.bytes.recv().await.unwrap_or_else(|| panic!("it ended with {:?}", self.text));
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    async fn rest(mut self) -> String {
        while let Some(more) = self.bytes.recv().await {
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
        self.task.await.unwrap().unwrap();
        self.text
    }
}

#[tokio::test]
async fn a_log_is_read_to_its_end() {
    let mut log = Log::new();
    assert_eq!(log.read(None, false).rest().await, "");
    for text in ["one", "two", "three"] {
        log.write(text);
    }
    log.file.write_all(b"2024-01-01T00:00:00Z stdout F fo").unwrap();
    assert_eq!(log.read(None, false).rest().await, "one\ntwo\nthree\nfo");
    // kubelet 1.36: a line without an end does not count as one.
    assert_eq!(log.read(Some(2), false).rest().await, "two\nthree\n");
    assert_eq!(log.read(Some(0), false).rest().await, "");
    assert_eq!(log.read(Some(99), false).rest().await, "one\ntwo\nthree\nfo");
}

#[tokio::test]
async fn a_large_log_comes_whole() {
    let mut log = Log::new();
    let text = "x".repeat(3000);
    let count = 1000;
    let mut wanted = String::new();
    for number in 0..count {
        let text = format!("{number} {text}");
        log.write(&text);
        wanted.push_str(&text);
        wanted.push('\n');
    }
    assert_eq!(log.read(None, false).rest().await, wanted);
}

#[tokio::test]
async fn a_follower_sees_what_is_written_until_the_container_ends() {
    let mut log = Log::new();
    log.write("one");
    log.write("two");
    let mut reader = log.read(Some(1), true);
    reader.until("two\n").await;
    log.write("three");
    reader.until("three\n").await;
    log.file.write_all(b"2024-01-01T00:00:00Z std").unwrap();
    log.file.write_all(b"out P fo").unwrap();
    log.file.write_all(b"ur\n2024-01-01T00:00:00Z stdout F teen\n").unwrap();
    reader.until("fourteen\n").await;
    log.write("last");
    log.lives.store(false, Ordering::SeqCst);
    assert_eq!(reader.rest().await, "two\nthree\nfourteen\nlast\n");
}

#[tokio::test]
async fn rotation_loses_nothing() {
    let mut log = Log::new();
    let mut reader = log.read(None, true);
    log.write("a");
    reader.until("a\n").await;
    // Written to the old file between the renaming and the new file.
    fs::rename(log.path(), log.dir.path().join("0.log.1")).unwrap();
    log.write("b");
    let new = OpenOptions::new().create(true).append(true).open(log.path()).unwrap();
    log.write("c");
    log.file = new;
    log.write("d");
    reader.until("d\n").await;
    log.rotate("2");
    log.write("e");
    reader.until("e\n").await;
    log.lives.store(false, Ordering::SeqCst);
    assert_eq!(reader.rest().await, "a\nb\nc\nd\ne\n");
}

#[tokio::test]
async fn a_slow_follower_goes_through_all_rotated_files() {
    let mut log = Log::new();
    log.write("a");
    let mut reader = log.read(None, true);
    reader.until("a\n").await;
    // Without a pause: the reader's task does not run in between.
    for stamp in ["1", "2", "3"] {
        log.write(&format!("before {stamp}"));
        log.rotate(stamp);
    }
    log.write("z");
    reader.until("z\n").await;
    assert_eq!(reader.text, "a\nbefore 1\nbefore 2\nbefore 3\nz\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_missed_by_one_who_looks_while_it_is_rotated() {
    const FILES: usize = 400;
    let mut log = Log::new();
    let mut reader = log.read(None, true);
    // Who comes after a rotation begins with the newest file.
    log.write("first");
    reader.until("first\n").await;
    let path = log.path();
    let writer = std::thread::spawn(move || {
        for stamp in 0..FILES {
            let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            for line in 0..50 {
                writeln!(file, "2024-01-01T00:00:00Z stdout F {stamp} {line}").unwrap();
            }
            if stamp + 1 < FILES {
                fs::rename(&path, path.with_file_name(format!("0.log.{stamp:06}"))).unwrap();
            }
        }
    });
    reader.until(&format!("\n{} 49\n", FILES - 1)).await;
    writer.join().unwrap();
    let lines = (0..FILES).flat_map(|stamp| (0..50).map(move |line| format!("{stamp} {line}\n")));
    let wanted: String = std::iter::once("first\n".to_owned()).chain(lines).collect();
    assert!(reader.text == wanted, "{} of {} bytes", reader.text.len(), wanted.len());
}

#[tokio::test]
async fn a_truncated_log_is_read_anew() {
    let mut log = Log::new();
    log.write("a long line");
    let mut reader = log.read(None, true);
    reader.until("line\n").await;
    log.file.set_len(0).unwrap();
    log.file = OpenOptions::new().append(true).open(log.path()).unwrap();
    // Less than there was.
    log.write("b");
    reader.until("b\n").await;
}

#[tokio::test]
async fn nobody_reads_for_one_who_is_gone() {
    let mut log = Log::new();
    log.write("a");
    let mut reader = log.read(None, true);
    reader.until("a\n").await;
    let Reader { bytes, task, .. } = reader;
    drop(bytes);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_hundred_follow_at_once() {
    let mut log = Log::new();
    let mut readers: Vec<Reader> = (0..200).map(|_| log.read(None, true)).collect();
    for number in 0..50 {
        log.write(&number.to_string());
    }
    for reader in &mut readers {
        reader.until("\n49\n").await;
    }
    log.lives.store(false, Ordering::SeqCst);
    let wanted: String = (0..50).map(|number| format!("{number}\n")).collect();
    for reader in readers {
        assert_eq!(reader.rest().await, wanted);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let missing = |path: &Path| Reading { path: path.to_owned(), wanted: Wanted::default(), tail: None, follow: false };
    let (sender, _bytes) = mpsc::channel(super::Lanes::default().take(false).pieces());
    let (bells, dir) = (Bells::default(), tempfile::tempdir().unwrap());
    let path = dir.path().join("0.log");
    let error = read(missing(&path), &bells, || std::future::ready(true), &sender).await.unwrap_err();
    let shown = path.display();
    let wanted =
        format!("failed to try resolving symlinks in path {shown:?}: lstat {shown}: no such file or directory");
    assert_eq!(error.to_string(), wanted.replace(&format!("{shown:?}"), &format!("\"{shown}\"")));
    fs::write(&path, "nonsense\n").unwrap();
    let error = read(missing(&path), &bells, || std::future::ready(true), &sender).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to get parse function: unsupported log format: \"nonsense\\n\"");
}
