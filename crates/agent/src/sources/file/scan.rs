//! One look at the static pod path: blocking, complete, remembering what was good.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rubelet_api::pod::{MANIFEST_BYTES, Origin, Source as ApiSource, static_pod};
use rubelet_core::pod::Source;
use sha2::{Digest, Sha256};

use super::FileSource;
use super::routes::Routes;
use crate::sources::claims::Claims;
use crate::sources::{DesiredPod, DesiredSet, Problem};

/// Most entries of a directory that are read; further ones are a problem.
const ENTRIES_MAX: usize = 4096;
/// Endings of files that editors and packagers leave behind.
const LEFTOVERS: [&str; 9] = ["~", ".bak", ".backup", ".old", ".orig", ".swp", ".tmp", ".rpmsave", ".dpkg-old"];

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    /// Of the bytes that were read last.
    hash: Option<[u8; 32]>,
    /// The last version that was a pod; it stays wanted while the file is there and cannot be used.
    good: Option<DesiredPod>,
    problem: Option<String>,
}

/// Reads the path again and again.
#[derive(Debug)]
pub(super) struct Scanner {
    source: FileSource,
    files: BTreeMap<PathBuf, Known>,
    claims: Claims,
    /// What was logged about which file, so that it is said once.
    logged: BTreeMap<String, String>,
}

/// What a name leads to.
enum Entry {
    Manifest(Vec<u8>),
    /// Directories are passed over without a word.
    Ignored,
    Gone,
    Unusable(String),
}

impl Scanner {
    pub(super) fn new(source: FileSource) -> Self {
        Self { source, files: BTreeMap::new(), claims: Claims::default(), logged: BTreeMap::new() }
    }

    /// What to watch, as things are now.
    pub(super) fn routes(&self) -> Routes {
        Routes::new(&self.source.path, &list(&self.source.path).map(|l| l.paths).unwrap_or_default())
    }

    /// These were deleted since they were read: those that are there again start over.
    pub(super) fn forget_runs(&mut self, deleted: &BTreeSet<PathBuf>) {
        let kept = self.files.iter_mut().filter(|(path, _)| deleted.contains(*path));
        for good in kept.filter_map(|(_, known)| known.good.as_mut()) {
            good.removals += 1;
        }
    }

    /// Reads everything but the files in `busy`, which keep their last version.
    pub(super) fn look(&mut self, busy: &BTreeSet<PathBuf>, now: Timestamp) -> DesiredSet {
        let mut problems = Vec::new();
        match list(&self.source.path) {
            Ok(listed) => {
                self.files.retain(|path, _| listed.paths.contains(path));
                if listed.left_out > 0 {
                    let message = format!("{} entries beyond the first {ENTRIES_MAX} are ignored", listed.left_out);
                    problems.push(Problem::new(self.source.path.display().to_string(), message));
                }
                for path in listed.paths.into_iter().filter(|p| !busy.contains(p)) {
                    self.read(path, now);
                }
            }
            // Nothing is known of the files then: all stay as they were.
            Err(message) => problems.push(Problem::new(self.source.path.display().to_string(), message)),
        }
        let of_files = self
            .files
            .iter()
            .filter_map(|(path, known)| Some(Problem::new(path.display().to_string(), known.problem.clone()?)));
        problems.extend(of_files);
        let candidates = self.files.values().filter_map(|k| k.good.clone()).collect();
        let (pods, conflicts) = self.claims.settle(candidates);
        problems.extend(conflicts);
        self.log(&problems);
        DesiredSet { source: Source::File, complete: true, pods, problems }
    }

    fn read(&mut self, path: PathBuf, now: Timestamp) {
        let bytes = match open(&path) {
            Entry::Manifest(bytes) => bytes,
            Entry::Ignored => {
                self.files.remove(&path);
                return;
            }
            Entry::Gone => {
                self.files.remove(&path);
                if fs::symlink_metadata(&path).is_ok() {
                    let problem = Some("is a link to a file that does not exist".to_owned());
                    self.files.insert(path, Known { problem, ..Known::default() });
                }
                return;
            }
            Entry::Unusable(message) => {
                let known = self.files.entry(path).or_default();
                known.hash = None;
                known.problem = Some(kept(message, known.good.is_some()));
                return;
            }
        };
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let known = self.files.entry(path.clone()).or_default();
        if known.hash == Some(hash) {
            return;
        }
        known.hash = Some(hash);
        let name = path.display().to_string();
        let origin =
            Origin { source: ApiSource::File, path_or_url: name.clone(), node_name: self.source.node_name.clone() };
        match static_pod(&bytes, &origin, now, self.source.gates) {
            Ok(decoded) => {
                for warning in &decoded.warnings {
                    tracing::warn!(file = %name, "{warning}");
                }
                let removals = known.good.as_ref().map_or(0, |good| good.removals);
                let fresh = DesiredPod { removals, ..DesiredPod::from_static(decoded, &name) };
                known.problem = None;
                if known.good.as_ref().is_none_or(|good| !good.is_same(&fresh)) {
                    note_accepted(&name, &fresh);
                    known.good = Some(fresh);
                }
            }
            Err(error) => known.problem = Some(kept(error.to_string(), known.good.is_some())),
        }
    }

    /// Each problem once, and a word when it is over.
    fn log(&mut self, problems: &[Problem]) {
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for Problem { file, message, .. } in problems {
            now.entry(file.clone()).and_modify(|m| *m = format!("{m}; {message}")).or_insert_with(|| message.clone());
        }
        for (file, message) in &now {
            if self.logged.get(file) != Some(message) {
                tracing::error!(file = %file, err = %message, "static pod manifest can't be used");
            }
        }
        for file in self.logged.keys().filter(|f| !now.contains_key(*f)) {
            tracing::info!(file = %file, "static pod manifest is in order again, or gone");
        }
        self.logged = now;
    }
}

fn note_accepted(name: &str, pod: &DesiredPod) {
    tracing::info!(file = %name, pod = %pod.key(), uid = pod.uid(), "read static pod manifest");
    if LEFTOVERS.iter().any(|end| name.ends_with(end)) {
        tracing::warn!(file = %name, pod = %pod.key(), "static pod manifest looks like a left-over copy, it is run all the same");
    }
}

fn kept(message: String, is_kept: bool) -> String {
    if is_kept { format!("{message} (its last good version stays in force)") } else { message }
}

struct Listed {
    /// Full paths as configured, sorted.
    paths: Vec<PathBuf>,
    left_out: usize,
}

/// Entries of the directory that do not begin with a dot, or the one file. A path that does not exist has none.
fn list(path: &Path) -> Result<Listed, String> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Listed { paths: Vec::new(), left_out: 0 });
        }
        Err(e) => return Err(format!("can't be looked at: {e}")),
    };
    if !meta.is_dir() {
        return Ok(Listed { paths: vec![path.to_owned()], left_out: 0 });
    }
    let mut names = BTreeSet::new();
    let mut left_out = 0;
    for entry in fs::read_dir(path).map_err(|e| format!("can't be listed: {e}"))? {
        let name = entry.map_err(|e| format!("can't be listed: {e}"))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.insert(name);
        }
        if names.len() > ENTRIES_MAX {
            names.pop_last();
            left_out += 1;
        }
    }
    Ok(Listed { paths: names.into_iter().map(|n| path.join(n)).collect(), left_out })
}

/// Opens without waiting for anybody: a pipe without writer, a device or a socket is no manifest.
fn open(path: &Path) -> Entry {
    let gone = |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if gone(&e) => return Entry::Gone,
        Err(e) => return Entry::Unusable(format!("can't be looked at: {e}")),
    };
    if meta.is_dir() {
        return Entry::Ignored;
    }
    if let Some(kind) = strange_kind(meta.file_type()) {
        return Entry::Unusable(format!("is a {kind}, not a regular file"));
    }
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    match read() {
        Ok(None) => Entry::Unusable("is not a regular file".to_owned()),
        Ok(Some(bytes)) if bytes.len() > MANIFEST_BYTES => {
            Entry::Unusable(format!("is larger than {MANIFEST_BYTES} bytes"))
        }
        Ok(Some(bytes)) => Entry::Manifest(bytes),
        Err(e) if gone(&e) => Entry::Gone,
        Err(e) => Entry::Unusable(format!("can't be read: {e}")),
    }
}

fn strange_kind(kind: fs::FileType) -> Option<&'static str> {
    [
        (kind.is_fifo(), "named pipe"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device(), "character device"),
        (kind.is_block_device(), "block device"),
    ]
    .into_iter()
    .find(|(is_it, _)| *is_it)
    .map(|(_, name)| name)
}
