//! From the bytes of a manifest to a pod of this node.
//!
//! The way is: bytes → tree with positions → fields that a Pod has ([`decode`]) → identity ([`identity`]) → defaults
//! ([`defaults`]) → rules ([`validate`]) → no references to the API server ([`references`]). Whatever is wrong on the
//! way is said with file, line, column, field path and reason, as much of it at once as can be known.
//!
//! Nothing here touches the world: the time is an argument, the bytes are given.

mod canonical;
mod decode;
mod defaults;
mod hint;
mod identity;
mod references;
mod requests;
mod schema;
mod validate;

use jiff::Timestamp;

pub use crate::problem::{ManifestError, Path, Position, Problem, Segment};
pub use canonical::{Digest, canonical_json};
pub use defaults::{GRACE_SECONDS, set_defaults};
pub use identity::{
    CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, Origin, Source, manifest_digest, static_pod_name,
    static_pod_uid,
};
pub use references::references;
pub use validate::{Gates, label_value_problems, qualified_name_problems, validate};

use crate::yaml::{self, Contents, Node, text};
use crate::{problem, v1, walk};

/// Most bytes a manifest may have, from a file as from a URL. kubelet 1.36: 10 MiB.
pub const MANIFEST_BYTES: usize = 10 << 20;

/// A pod that may run.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticPod {
    /// Complete: identity, defaults, phase `Pending`.
    pub pod: v1::Pod,
    /// The fingerprint of the manifest alone, see [`manifest_digest`].
    pub digest: Digest,
    /// What was dropped or looks wrong, one line each, beginning with the file or URL and the position.
    pub warnings: Vec<String>,
}

/// Reads a manifest that holds one Pod.
///
/// # Errors
///
/// Everything that keeps the manifest from being a pod.
pub fn static_pod(bytes: &[u8], origin: &Origin, now: Timestamp, gates: Gates) -> Result<StaticPod, ManifestError> {
    let (tree, warnings) = read(bytes, origin)?;
    let mut pod = one(&tree, &Path::root(), true, origin, now, gates)?;
    pod.warnings.splice(0..0, warnings);
    Ok(pod)
}

/// Reads what a static pod URL gives: one Pod, or a PodList of which every item stands for itself.
///
/// # Errors
///
/// That it is neither; what is wrong with an item is in its place.
pub fn static_pods(
    bytes: &[u8],
    origin: &Origin,
    now: Timestamp,
    gates: Gates,
) -> Result<Vec<Result<StaticPod, ManifestError>>, ManifestError> {
    let (tree, warnings) = read(bytes, origin)?;
    let fail = |problems| ManifestError::new(&origin.path_or_url, problems, Vec::new());
    let root = Path::root();
    let kind = match &tree.contents {
        Contents::Map(_) => {
            decode::type_field(&tree, &root, "kind").map_err(|problem| fail(vec![problem]))?.map(|(kind, _)| kind)
        }
        _ => None,
    };
    if kind != Some("PodList") {
        let mut pod = one(&tree, &root, true, origin, now, gates);
        if let Ok(pod) = &mut pod {
            pod.warnings.splice(0..0, warnings);
        }
        return pod.map(|pod| vec![Ok(pod)]);
    }
    let base = root.field("items");
    let items = match tree.entry("items").map(|entry| &entry.value) {
        None => return Ok(Vec::new()),
        Some(node) => match &node.contents {
            Contents::Null => return Ok(Vec::new()),
            Contents::List(items) => items,
            _ => {
                let problem = Problem::new(base, "expected a list of Pods");
                return Err(fail(vec![Problem { position: Some(node.position), ..problem }]));
            }
        },
    };
    let pods = items.iter().enumerate().map(|(nth, item)| one(item, &base.index(nth), false, origin, now, gates));
    Ok(pods.collect())
}

/// The tree of a manifest, and warnings about the text.
fn read(bytes: &[u8], origin: &Origin) -> Result<(Node, Vec<String>), ManifestError> {
    let fail = |position: Option<Position>, message: String| ManifestError {
        origin: origin.path_or_url.clone(),
        problems: vec![Problem { position, ..Problem::new(Path::root(), message) }],
        ignored: Vec::new(),
    };
    if bytes.len() > MANIFEST_BYTES {
        let message = format!("too large: {} bytes, a manifest may have {MANIFEST_BYTES} (10 MiB)", bytes.len());
        return Err(fail(None, message));
    }
    let text = text::decode(bytes).map_err(|error| fail(error.position, error.message))?;
    let document =
        yaml::parse(&text).map_err(|error| fail(Some(error.position), format!("not valid YAML: {error}")))?;
    let Some(root) = document.root.filter(|root| root.contents != Contents::Null) else {
        let what =
            if document.more { "the first document is empty, and only the first is read" } else { text::empty(&text) };
        return Err(fail(None, what.to_owned()));
    };
    let located = |(position, message): (Position, String)| {
        let problem = Problem { position: Some(position), ..Problem::new(Path::root(), message) };
        problem::located(&origin.path_or_url, &problem)
    };
    Ok((root, document.warnings.into_iter().map(located).collect()))
}

fn one(
    node: &Node,
    base: &Path,
    kind_needed: bool,
    origin: &Origin,
    now: Timestamp,
    gates: Gates,
) -> Result<StaticPod, ManifestError> {
    let fail = |problems, ignored| ManifestError::new(&origin.path_or_url, problems, ignored);
    let mut decoded = match decode::decode_pod(node, base, kind_needed) {
        Ok(decoded) => decoded,
        Err(refused) => return Err(fail(refused.problems, refused.warnings)),
    };
    if decoded.pod.metadata.name.as_deref().unwrap_or_default().is_empty() {
        let detail = match decoded.pod.metadata.generate_name {
            Some(_) => "a static pod needs a fixed name, generateName is not enough",
            None => "a static pod needs a name (the node's name is appended to it)",
        };
        let path = Path::root().at("metadata.name");
        let problem = Problem::new(path, format!("Required value: {detail}"));
        return Err(fail(placed(vec![problem], node, base), decoded.warnings));
    }
    identity::give_identity(&mut decoded.pod, &decoded.manifest, origin, now);
    set_defaults(&mut decoded.pod);
    let mut problems = validate(&decoded.pod, gates);
    problems.extend(references(&decoded.pod, gates.prevent_static_pod_api_references));
    if !problems.is_empty() {
        return Err(fail(placed(problems, node, base), decoded.warnings));
    }
    let digest = manifest_digest(&decoded.manifest);
    let warnings = problem::bounded(decoded.warnings);
    let warnings = warnings.iter().map(|warning| problem::located(&origin.path_or_url, warning)).collect();
    Ok(StaticPod { pod: decoded.pod, digest, warnings })
}

/// Gives problems of a pod the place of its manifest in the file, and their positions; sorts them by these.
fn placed(problems: Vec<Problem>, node: &Node, base: &Path) -> Vec<Problem> {
    let mut problems: Vec<Problem> = problems
        .into_iter()
        .map(|mut problem| {
            let spot = base.join(problem.spot.as_ref().unwrap_or(&problem.path));
            problem.position = walk::locate(node, base, &spot);
            problem.path = base.join(&problem.path);
            problem
        })
        .collect();
    problems.sort_by_key(|problem| problem.position);
    problems
}
