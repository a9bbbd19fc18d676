//! Remembers how images came to the node (`<root-dir>/image_manager`), so that a private one is given only to pods that could pull
//! it. The rules are in `rubelet_core::pulled`; files, names and modes are kubelet 1.36's, which reads and writes the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rubelet_core::pulled::{Credentials, Origin, Policy, Record, Secret, Verdict, judge};
use rubelet_host::proc::{self, ProcError};
use rubelet_host::{chain, paths};
use rubelet_proto::cri;

use crate::credentials::digest;
use crate::metrics::Metrics;

mod file;
mod kept;
#[cfg(test)]
mod tests;

use kept::Kept;

/// Largest record that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;
const PREFIX: &str = "sha256-";

/// How many records are in memory, at most. kubelet 1.36: by the pods that there may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    intents: usize,
    records: usize,
}

impl Room {
    pub fn of(pods_max: i64, pulls_at_once: Option<usize>) -> Self {
        let pods = usize::try_from(pods_max).unwrap_or(0);
        let intents = (2 * pods).max(2 * pulls_at_once.unwrap_or(0)).min(1024);
        Self { intents, records: (5 * pods).min(2000) }
    }
}

/// How images came. Shared by all workers. All but [`Self::open`] takes little time; most of it blocks on the disk.
#[derive(Debug)]
pub struct PullRecords {
    policy: Policy,
    intents_dir: PathBuf,
    records_dir: PathBuf,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Pulls under way, by image.
    under_way: BTreeMap<String, u32>,
    intents: Kept<()>,
    records: Kept<Arc<Record>>,
}

impl PullRecords {
    /// Reads what there is below the root directory. What cannot be read is logged; images that it may be about must be pulled
    /// again before they are given away.
    ///
    /// # Errors
    /// The folder that could not be made.
    pub fn open(root_dir: &Path, policy: Policy, room: Room, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (intents_dir, records_dir) =
            (root_dir.join("image_manager/pulling"), root_dir.join("image_manager/pulled"));
        for dir in [&intents_dir, &records_dir] {
            paths::ensure_dir(dir, 0o700).map_err(|e| chain(&e))?;
        }
        let state =
            State { under_way: BTreeMap::new(), intents: Kept::new(room.intents), records: Kept::new(room.records) };
        let this = Self { policy, intents_dir, records_dir, metrics, state: Mutex::new(state) };
        this.load();
        Ok(this)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) {
        let mut state = self.state();
        for path in listed(&self.intents_dir).unwrap_or_else(|why| {
            tracing::error!(err = why, "listing begun pulls failed, they are looked for one by one");
            state.intents.lacks_some();
            Vec::new()
        }) {
            match read(&path).and_then(|text| file::read_intent(&text.unwrap_or_default())) {
                Ok(read) => {
                    state.intents.put(&read.said, ());
                    if !read.is_current
                        && let Err(why) = self.write_intent(&read.said)
                    {
                        tracing::error!(err = why, image = read.said, "bringing a begun pull into today's form failed");
                    }
                }
                Err(why) => {
                    tracing::error!(path = %path.display(), err = why, "a begun pull can't be read, it is left as it is");
                    state.intents.lacks_some();
                }
            }
        }
        for path in listed(&self.records_dir).unwrap_or_else(|why| {
            tracing::error!(err = why, "listing the records of pulls failed, they are looked for one by one");
            state.records.lacks_some();
            Vec::new()
        }) {
            match read(&path).and_then(|text| file::read_record(&text.unwrap_or_default())) {
                Ok(read) => {
                    if !read.is_current
                        && let Err(why) = self.write_record(&read.said)
                    {
                        tracing::error!(
                            err = why,
                            image = read.said.image_ref,
                            "bringing a record into today's form failed"
                        );
                    }
                    state.records.put(&read.said.image_ref.clone(), Arc::new(read.said));
                }
                Err(why) => {
                    tracing::error!(path = %path.display(), err = why, "a record of a pull can't be read, it is left as it is");
                    state.records.lacks_some();
                }
            }
        }
        self.measure(&state);
    }

    /// Images whose pulls had begun when the agent ended, and that are here: nobody knows by whose credentials they came.
    pub fn settle(&self, images: &[cri::Image]) {
        let mut state = self.state();
        for image in images {
            for name in image.repo_digests.iter().chain(&image.repo_tags) {
                if state.under_way.contains_key(name) || !self.has_begun(&mut state, name).unwrap_or(false) {
                    continue;
                }
                if let Err(err) = self.note(&mut state, name, &image.id, None) {
                    tracing::error!(err, image = image.id, "writing down that an image was pulled failed");
                } else if let Err(err) = self.remove_intent(&mut state, name) {
                    tracing::info!(err, image = name, "removing the note of a begun pull failed");
                }
            }
        }
    }

    /// Whether there is a note of a pull whose end is not known.
    pub fn has_intents(&self) -> bool {
        !listed(&self.intents_dir).is_ok_and(|all| all.is_empty())
    }

    /// A pull begins: whatever becomes of it, the image is not one that was here before.
    ///
    /// # Errors
    /// It could not be written down; then the pull must not begin.
    pub fn begin(&self, image: &str) -> Result<(), String> {
        let mut state = self.state();
        self.write_intent(image)?;
        state.intents.put(image, ());
        *state.under_way.entry(image.to_owned()).or_default() += 1;
        self.measure(&state);
        Ok(())
    }

    /// A pull has succeeded. `image` is the pod's name for it, `image_ref` the runtime's.
    pub fn pulled(&self, image: &str, image_ref: &str, credentials: &Credentials) {
        let mut state = self.state();
        if let Err(err) = self.note(&mut state, image, image_ref, Some(credentials)) {
            // The note of the begun pull stays, so that the image does not count as one that was here before.
            tracing::error!(err, image, "writing down how an image was pulled failed");
            return;
        }
        self.one_less(&mut state, image);
    }

    /// A pull has failed, or nobody waits for it any more.
    pub fn ended(&self, image: &str) {
        self.one_less(&mut self.state(), image);
    }

    /// Whether a pod may have an image that is here without pulling it; `shown` is what it has that fits the image.
    pub fn may_have(&self, image: &str, image_ref: &str, shown: &[Secret]) -> bool {
        let mut state = self.state();
        let record = self.record(&mut state, image_ref);
        let origin = match &record {
            Ok(Some(record)) => Ok(Origin::Pulled(record)),
            Ok(None) => self.has_begun(&mut state, image).map(|is| if is { Origin::Begun } else { Origin::Preloaded }),
            Err(err) => Err(err.clone()),
        };
        let origin = origin.unwrap_or_else(|err| {
            tracing::error!(err, image, "records of pulls can't be read, the image must be pulled again");
            Origin::Unreadable
        });
        let verdict = judge(&self.policy, image, origin, shown);
        self.metrics.storage.must_pull_checks.of(&[verdict.word()]).add_one();
        match verdict {
            Verdict::Allowed | Verdict::Proven(None) => true,
            Verdict::Proven(Some(secret)) => {
                let credentials = Credentials::of_secret(secret);
                if let Err(err) = self.note(&mut state, image, image_ref, Some(&credentials)) {
                    tracing::error!(err, image, "adding a secret to the record of a pull failed");
                }
                true
            }
            Verdict::MustPull | Verdict::Unknown => false,
        }
    }

    /// Forgets images that are not here any more. `here`: those that were when it was `looked_at` them, without those that were
    /// removed since.
    pub fn forget(&self, here: &BTreeSet<String>, looked_at: Timestamp) {
        let mut state = self.state();
        let all = listed(&self.records_dir).unwrap_or_else(|err| {
            tracing::error!(err, "listing the records of pulls failed, none is removed");
            Vec::new()
        });
        for path in all {
            let record = match read(&path).and_then(|text| text.map(|text| file::read_record(&text)).transpose()) {
                Ok(Some(read)) => read.said,
                Ok(None) => continue,
                Err(err) => {
                    tracing::error!(path = %path.display(), err, "a record of a pull can't be read, it is left as it is");
                    continue;
                }
            };
            if !record.is_over(here.contains(&record.image_ref), looked_at) {
                continue;
            }
            match remove(&path) {
                Ok(()) => state.records.remove(&record.image_ref),
                Err(err) => tracing::error!(err, image = record.image_ref, "removing the record of a pull failed"),
            }
        }
        self.measure(&state);
    }

    fn one_less(&self, state: &mut State, image: &str) {
        match state.under_way.get_mut(image) {
            Some(pulls) if *pulls > 1 => *pulls -= 1,
            _ => {
                if let Err(err) = self.remove_intent(state, image) {
                    tracing::error!(err, image, "removing the note of a begun pull failed");
                    return;
                }
                state.under_way.remove(image);
            }
        }
    }

    /// The record of an image.
    fn record(&self, state: &mut State, image_ref: &str) -> Result<Option<Arc<Record>>, String> {
        if let Some(record) = state.records.get(image_ref) {
            return Ok(Some(record));
        }
        if state.records.is_whole() {
            return Ok(None);
        }
        let Some(text) = read(&self.records_dir.join(name(image_ref)))? else { return Ok(None) };
        let record = file::read_record(&text)?.said;
        if record.image_ref != image_ref {
            return Ok(None);
        }
        let record = Arc::new(record);
        state.records.put(image_ref, record.clone());
        Ok(Some(record))
    }

    fn has_begun(&self, state: &mut State, image: &str) -> Result<bool, String> {
        if state.under_way.contains_key(image) || state.intents.get(image).is_some() {
            return Ok(true);
        }
        if state.intents.is_whole() {
            return Ok(false);
        }
        let Some(text) = read(&self.intents_dir.join(name(image)))? else { return Ok(false) };
        let has_begun = file::read_intent(&text)?.said == image;
        if has_begun {
            state.intents.put(image, ());
        }
        Ok(has_begun)
    }

    /// Writes down how an image came, if that is new.
    fn note(
        &self,
        state: &mut State,
        image: &str,
        image_ref: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), String> {
        let known = self.record(state, image_ref).unwrap_or_else(|err| {
            tracing::info!(err, image, "the record of a pull can't be read, it is written anew");
            None
        });
        let changed = Record::after_pull(known.as_deref(), image, image_ref, credentials, Timestamp::now());
        let Some(changed) = changed else { return Ok(()) };
        self.write_record(&changed)?;
        state.records.put(image_ref, Arc::new(changed));
        self.measure(state);
        Ok(())
    }

    fn write_record(&self, record: &Record) -> Result<(), String> {
        let text = file::record_text(record).map_err(|e| e.to_string())?;
        write(&self.records_dir, &record.image_ref, &text)
    }

    fn write_intent(&self, image: &str) -> Result<(), String> {
        let text = file::intent_text(image).map_err(|e| e.to_string())?;
        write(&self.intents_dir, image, &text)
    }

    fn remove_intent(&self, state: &mut State, image: &str) -> Result<(), String> {
        remove(&self.intents_dir.join(name(image)))?;
        state.intents.remove(image);
        self.measure(state);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of files are small")]
    fn measure(&self, state: &State) {
        let counts = &self.metrics.storage;
        counts.intents_percent.set(state.intents.percent() as f64);
        counts.records_percent.set(state.records.percent() as f64);
        for (dir, gauge) in [(&self.intents_dir, &counts.intents), (&self.records_dir, &counts.records)] {
            match listed(dir) {
                Ok(all) => gauge.set(all.len() as f64),
                Err(err) => tracing::debug!(err, "counting records of pulls failed"),
            }
        }
    }
}

/// The name of the file about an image.
fn name(of: &str) -> String {
    format!("{PREFIX}{}", digest(of))
}

/// The files with records in a folder.
fn listed(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: io::Error| format!("list {}: {e}", dir.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && !name.ends_with(".tmp") && !entry.file_type().map_err(failed)?.is_dir() {
            all.push(entry.path());
        }
    }
    Ok(all)
}

/// `None`: there is no such file.
fn read(path: &Path) -> Result<Option<String>, String> {
    match proc::read_bounded(path, FILE_BYTES_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(ProcError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(chain(&e)),
    }
}

fn write(dir: &Path, of: &str, text: &str) -> Result<(), String> {
    paths::ensure_dir(dir, 0o700).map_err(|e| chain(&e))?;
    paths::write_atomic(&dir.join(name(of)), text.as_bytes(), 0o600).map_err(|e| chain(&e))
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("remove {}: {e}", path.display())),
        _ => Ok(()),
    }
}
