//! What must survive a restart: under which UID each static pod was started, and from which manifest.
//!
//! `<root-dir>/rubelet/ledger.json`, written before anything is started.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rubelet_api::ids::{PodKey, PodUid};
use rubelet_core::pod::Source;
use rubelet_host::paths::{self, PathError, Unsynced};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Largest ledger that is read.
const BYTES_MAX: u64 = 16 << 20;
/// Grows when older programs could misread the file.
const VERSION: u32 = 1;

/// One static pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The UID it runs under.
    pub uid: PodUid,
    /// Digest of the manifest it was started from.
    pub digest: String,
}

/// All static pods that were wanted last. One task owns it.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    pods: BTreeMap<(Source, PodKey), Known>,
    is_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    pods: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    source: String,
    namespace: String,
    name: String,
    uid: String,
    digest: String,
}

impl Ledger {
    /// Reads the ledger below `root_dir`. One that cannot be used is renamed aside and logged, and the ledger starts empty:
    /// running pods are compared with the runtime instead.
    pub fn load(root_dir: &Path) -> Self {
        let path = root_dir.join("rubelet/ledger.json");
        let pods = match read(&path) {
            Ok(pods) => pods,
            Err(problem) => {
                let aside = path.with_extension(format!("json.bad-{}", jiff::Timestamp::now().as_second()));
                match std::fs::rename(&path, &aside) {
                    Ok(()) => {
                        tracing::error!(path = %path.display(), err = problem, aside = %aside.display(), "ledger can't be used, moved aside")
                    }
                    Err(e) => {
                        tracing::error!(path = %path.display(), err = problem, rename = %e, "ledger can't be used and can't be moved aside")
                    }
                }
                BTreeMap::new()
            }
        };
        Self { path, pods, is_changed: false }
    }

    /// The static pod of this name and source as it was written down.
    pub fn find(&self, source: Source, key: &PodKey) -> Option<&Known> {
        self.pods.get(&(source, key.clone()))
    }

    /// Notes one pod; in memory until [`Self::save`].
    pub fn put(&mut self, source: Source, key: &PodKey, digest: &str, uid: &PodUid) {
        let known = Known { uid: uid.clone(), digest: digest.to_owned() };
        let before = self.pods.insert((source, key.clone()), known.clone());
        self.is_changed |= before.is_none_or(|b| b != known);
    }

    /// Notes all pods that a source wants; in memory until [`Self::save`]. Of those that it wants no more, the ones in
    /// `alive` stay noted: until they are gone, what they were started from must be known.
    pub fn replace<'a>(
        &mut self,
        source: Source,
        rows: impl IntoIterator<Item = (PodKey, &'a str, &'a PodUid)>,
        alive: impl Fn(&PodUid) -> bool,
    ) {
        let mut pods = self.pods.clone();
        pods.retain(|(of, _), known| *of != source || alive(&known.uid));
        for (key, digest, uid) in rows {
            pods.insert((source, key), Known { uid: uid.clone(), digest: digest.to_owned() });
        }
        self.is_changed |= pods != self.pods;
        self.pods = pods;
    }

    /// Forgets a pod that is gone.
    pub fn remove(&mut self, uid: &PodUid) {
        let before = self.pods.len();
        self.pods.retain(|_, known| known.uid != *uid);
        self.is_changed |= self.pods.len() != before;
    }

    /// Whether there is something to save.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Writes the ledger (mode 0600, whole or not at all) when it changed since the last time.
    ///
    /// Who is killed after it finds it written. That the disk has it is not waited for: a loss of power ends the pods, too, and
    /// a ledger that is empty then is like none.
    pub fn save(&mut self) -> Result<Option<Unsynced>, PathError> {
        if !self.is_changed {
            return Ok(None);
        }
        let rows = self.pods.iter().map(|((source, key), known)| Row {
            source: source.as_str().to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: known.uid.to_string(),
            digest: known.digest.clone(),
        });
        let file = File { version: VERSION, pods: rows.collect() };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|e| PathError::Write { path: self.path.clone(), source: io::Error::other(e) })?;
        if let Some(dir) = self.path.parent() {
            paths::ensure_dir(dir, 0o700)?;
        }
        let written = paths::write_unsynced(&self.path, &text, 0o600)?;
        self.is_changed = false;
        Ok(Some(written))
    }
}

/// An absent file is an empty ledger, and so is one that the disk never got: see [`Ledger::save`].
fn read(path: &Path) -> Result<BTreeMap<(Source, PodKey), Known>, String> {
    let text = match rubelet_host::proc::read_bounded(path, BYTES_MAX) {
        Ok(text) => text,
        Err(rubelet_host::proc::ProcError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(BTreeMap::new());
        }
        Err(e) => return Err(rubelet_host::chain(&e)),
    };
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let file: File = serde_json::from_slice(text.as_bytes()).map_err(|e| e.to_string())?;
    if file.version != VERSION {
        return Err(format!("version {} is not known, {VERSION} is", file.version));
    }
    let mut pods = BTreeMap::new();
    for row in file.pods {
        let source = [Source::File, Source::Http].into_iter().find(|s| s.as_str() == row.source);
        let source = source.ok_or_else(|| format!("unknown source {:?}", row.source))?;
        let known = Known { uid: PodUid::from(row.uid), digest: row.digest };
        pods.insert((source, PodKey::new(row.namespace, row.name)), known);
    }
    Ok(pods)
}
