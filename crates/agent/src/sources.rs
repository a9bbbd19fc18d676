//! Where static pods come from: a directory (or one file), and a URL. Each source tells its whole wish, again and again.

use std::sync::Arc;

use rubelet_api::ids::PodKey;
use rubelet_api::pod::StaticPod;
use rubelet_api::v1;
use rubelet_core::pod::Source;

mod claims;
pub mod cluster;
mod file;
mod http;

pub use file::FileSource;
pub use http::HttpSource;

/// All pods that one source wants at a moment.
#[derive(Clone, Debug)]
pub struct DesiredSet {
    pub source: Source,
    /// Pods that are not in it are wanted no more. Sources here send nothing else.
    pub complete: bool,
    /// At most one per name and per UID.
    pub pods: Vec<DesiredPod>,
    /// What of the source cannot be used, for logs and for whoever asks.
    pub problems: Vec<Problem>,
}

/// One pod that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    pub pod: Arc<v1::Pod>,
    /// Fingerprint of the manifest, wherever it lies.
    pub digest: String,
    /// Path of the file, or the URL.
    pub origin: String,
    /// How often its file was deleted and was back at once: each time the pod starts over.
    pub removals: u32,
}

/// A file (or URL) that does not do what it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Path of the file, or the URL.
    pub file: String,
    pub message: String,
    /// The pod in it, when another one has its name.
    pub double: Option<Arc<v1::Pod>>,
}

impl Problem {
    fn new(file: impl Into<String>, message: String) -> Self {
        Self { file: file.into(), message, double: None }
    }
}

impl DesiredPod {
    fn from_static(decoded: StaticPod, origin: &str) -> Self {
        Self { pod: Arc::new(decoded.pod), digest: decoded.digest.to_string(), origin: origin.to_owned(), removals: 0 }
    }

    /// Namespace and name.
    pub fn key(&self) -> PodKey {
        let meta = &self.pod.metadata;
        PodKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The same manifest under the same identity: only the time of reading may differ.
    fn is_same(&self, other: &Self) -> bool {
        let is_same_run = self.uid() == other.uid() && self.removals == other.removals;
        self.digest == other.digest && self.origin == other.origin && is_same_run
    }
}

/// Whether two sets say the same.
fn is_same_wish(a: &DesiredSet, b: &DesiredSet) -> bool {
    a.problems == b.problems && a.pods.len() == b.pods.len() && a.pods.iter().zip(&b.pods).all(|(a, b)| a.is_same(b))
}
