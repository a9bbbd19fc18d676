//! Reads a log's file from some line on, to its end or to the end of its container, through rotations. What is read waits
//! until it is taken: as many pieces of [`PIECE`] bytes as the channel has places for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rubelet_logline::{DecodeError, Decoder, Flow, Wanted};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::bells::{Bell, Bells};
use super::tail::Search;

mod buffers;

use buffers::Buffers;

/// Bytes of the file that are read at once.
const PIECE: usize = 64 << 10;
/// kubelet 1.36: how long a follower waits for news before it looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What to read, and how.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) path: PathBuf,
    pub(crate) wanted: Wanted,
    /// Only the last so many lines of the file.
    pub(crate) tail: Option<u64>,
    pub(crate) follow: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("failed to try resolving symlinks in path {path:?}: {error}")]
    Resolve { path: PathBuf, error: String },
    #[error("failed to open log file {path:?}: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("failed to tail {lines} lines of log file {path:?}: {error}")]
    Tail { lines: u64, path: PathBuf, error: io::Error },
    #[error("failed to read log file {path:?}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The reader's thread is gone: the program ends.
    #[error("reading was given up")]
    GivenUp,
}

/// Reads and sends until all is read, or nobody takes it any more. `is_running` says whether the container may still write.
///
/// # Errors
/// See [`ReadError`]; what was read before was sent.
pub(crate) async fn read<R>(
    reading: Reading,
    bells: &Bells,
    is_running: impl Fn() -> R,
    out: &mpsc::Sender<Bytes>,
) -> Result<(), ReadError>
where
    R: Future<Output = bool>,
{
    let Reading { path, mut wanted, tail, follow } = reading;
    // kubelet 1.36: lines that come later count only for those who do not wait for them.
    wanted.lines_max = tail.filter(|_| !follow);
    let mut place = Place { path: path.clone(), file: None, at: 0, decoder: Decoder::new(wanted) };
    let mut place = blocking(move || {
        place.open()?;
        Ok(place)
    })
    .await?;
    if let Some(lines) = tail {
        place = place.seek_tail(lines).await?;
    }
    let mut bell: Option<Bell> = None;
    let mut is_over = false;
    loop {
        let (back, flow) = place.drain(out).await?;
        place = back;
        if flow == Flow::Enough || out.is_closed() {
            return Ok(());
        }
        if !follow {
            return place.finish(out).await;
        }
        let (back, has_moved) = place.move_on().await?;
        place = back;
        if has_moved {
            continue;
        }
        if is_over {
            return Ok(());
        }
        let bell = bell.get_or_insert_with(|| bells.hang(path.parent().unwrap_or(Path::new("/"))));
        if !is_running().await {
            // What it wrote last is read.
            is_over = true;
            continue;
        }
        tokio::select! {
            () = bell.wait() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = out.closed() => return Ok(()),
        }
    }
}

/// How sending came to an end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Poured {
    /// The file ends here.
    All,
    /// All that may be given was given, or nobody takes it.
    Enough,
    /// What was sent must be taken first.
    Full,
}

/// A place in a log.
#[derive(Debug)]
struct Place {
    /// Where the newest file is.
    path: PathBuf,
    file: Option<File>,
    at: u64,
    decoder: Decoder,
}

impl Place {
    /// Opens the newest file.
    fn open(&mut self) -> Result<(), ReadError> {
        let resolved = fs::canonicalize(&self.path).map_err(|error| ReadError::Resolve {
            path: self.path.clone(),
            error: match error.kind() {
                io::ErrorKind::NotFound => format!("lstat {}: no such file or directory", self.path.display()),
                _ => error.to_string(),
            },
        })?;
        self.path = resolved;
        let open = |error| ReadError::Open { path: self.path.clone(), error };
        self.file = Some(File::open(&self.path).map_err(open)?);
        Ok(())
    }

    async fn seek_tail(self, lines: u64) -> Result<Self, ReadError> {
        let mut place = self;
        let size = place.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        let mut search = Search::new(size, lines);
        loop {
            let found;
            (place, search, found) = blocking(move || {
                let Some(file) = &place.file else { return Ok((place, search, Some(0))) };
                let found =
                    search.step(file).map_err(|error| ReadError::Tail { lines, path: place.path.clone(), error })?;
                Ok((place, search, found))
            })
            .await?;
            if let Some(at) = found {
                place.at = at;
                return Ok(place);
            }
        }
    }

    /// Sends what there is up to the end of the file.
    async fn drain(self, out: &mpsc::Sender<Bytes>) -> Result<(Self, Flow), ReadError> {
        let (mut place, mut buffers) = (self, Buffers::new(out.max_capacity()));
        loop {
            let sender = out.clone();
            let poured;
            (place, buffers, poured) = blocking(move || {
                let poured = place.pour(&mut buffers, &sender)?;
                Ok((place, buffers, poured))
            })
            .await?;
            match poured {
                Poured::All => return Ok((place, Flow::More)),
                Poured::Enough => return Ok((place, Flow::Enough)),
                // Not before some are taken: a thread that is woken for each piece takes longer than the piece.
                Poured::Full => match out.reserve_many(out.max_capacity().div_ceil(2)).await {
                    Ok(_room) => {}
                    Err(_) => return Ok((place, Flow::Enough)),
                },
            }
        }
    }

    /// Reads, decodes and sends pieces while there is room for them.
    fn pour(&mut self, buffers: &mut Buffers, out: &mpsc::Sender<Bytes>) -> Result<Poured, ReadError> {
        let Some(file) = &self.file else { return Ok(Poured::All) };
        let failed = |error| ReadError::Read { path: self.path.clone(), error };
        loop {
            let room = match out.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return Ok(Poured::Full),
                Err(TrySendError::Closed(())) => return Ok(Poured::Enough),
            };
            let left = file.metadata().map_err(failed)?.len().saturating_sub(self.at);
            let read = buffers.file(usize::try_from(left).unwrap_or(PIECE).min(PIECE));
            let count = if read.is_empty() { 0 } else { file.read_at(read, self.at).map_err(failed)? };
            if count == 0 {
                return Ok(Poured::All);
            }
            self.at += count as u64;
            let mut text = buffers.take(count);
            let outcome = self.decoder.feed(buffers.file(count), &mut text);
            if !text.is_empty() {
                room.send(buffers.lend(text));
            }
            if outcome? == Flow::Enough {
                return Ok(Poured::Enough);
            }
        }
    }

    /// The end of reading: a line without an end is one, for who does not wait for its end.
    async fn finish(mut self, out: &mpsc::Sender<Bytes>) -> Result<(), ReadError> {
        let mut bytes = Vec::new();
        let outcome = self.decoder.finish(&mut bytes);
        if !bytes.is_empty() {
            // Nobody takes it any more: it is not wanted.
            let _ = out.send(Bytes::from(bytes)).await;
        }
        Ok(outcome?)
    }

    /// At the end of a file: goes on with the next, or at the beginning when it was truncated. False: it goes on here.
    async fn move_on(mut self) -> Result<(Self, bool), ReadError> {
        blocking(move || {
            let has_moved = self.find_next()?;
            Ok((self, has_moved))
        })
        .await
    }

    fn find_next(&mut self) -> Result<bool, ReadError> {
        let failed = |error| ReadError::Read { path: self.path.clone(), error };
        let Some(file) = &self.file else { return Ok(false) };
        let own = file.metadata().map_err(failed)?;
        if own.len() < self.at {
            self.at = 0;
            self.decoder.next_file();
            return Ok(true);
        }
        let newest = match fs::metadata(&self.path) {
            Ok(newest) => newest,
            // It is being renamed, and will be made anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let is_same = |other: &fs::Metadata| (other.dev(), other.ino()) == (own.dev(), own.ino());
        if is_same(&newest) || newest.len() == 0 {
            // As long as nothing is in the new file, the old one may still be written to.
            return Ok(false);
        }
        // Looked at again: only now it is certain that nothing is written to it any more.
        let own = file.metadata().map_err(failed)?;
        if own.len() > self.at {
            return Ok(true);
        }
        let rotated = rotated(&self.path);
        // A file that got its new name while names were listed may be missing, although one after it is there.
        match fs::metadata(&self.path) {
            Ok(now) if (now.dev(), now.ino()) == (newest.dev(), newest.ino()) => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        let mut rotated = rotated.into_iter();
        // One that was removed since (it is compressed now) is older than all that are left.
        let next =
            if own.nlink() == 0 { rotated.next() } else { rotated.skip_while(|(_, meta)| !is_same(meta)).nth(1) };
        let (next, seen) = next.unwrap_or_else(|| (self.path.clone(), newest));
        match File::open(&next) {
            Ok(file) => {
                let opened = file.metadata().map_err(failed)?;
                if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
                    // Rotated once more meanwhile: between them there is another one.
                    return Ok(true);
                }
                self.file = Some(file);
                self.at = 0;
                self.decoder.next_file();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ReadError::Open { path: next, error }),
        }
    }
}

/// The rotated files of a log that are not compressed, oldest first: their names end with the time.
fn rotated(path: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|other| other.strip_prefix(&prefix))
                .is_some_and(|rest| !rest.contains('.'))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().filter_map(|path| fs::metadata(&path).ok().map(|meta| (path, meta))).collect()
}

/// Work that may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    rubelet_host::task::blocking(work).await.unwrap_or(Err(ReadError::GivenUp))
}
