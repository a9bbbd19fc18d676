//! From a tree of YAML or JSON to the manifest that is meant: the fields a Pod has, in the types they have.
//!
//! kubelet 1.36: fields that no Pod has are dropped, a wrong type refuses the manifest, `null` is the same as nothing.

use serde_json::{Map, Value};

use super::hint::hint;
use super::schema::POD;
use crate::problem::{Path, Problem};
use crate::walk::{Walk, at, found, locate};
use crate::yaml::{Contents, Node};
use crate::{tree, v1};

/// A manifest whose fields all exist and have the right types.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    /// What is written, without unknown fields, `null`s and zero values that mean nothing; amounts in their one
    /// canonical writing. The status is left out, it is never taken from a manifest; version and kind say nothing.
    pub(crate) manifest: Value,
    /// The same as a Pod.
    pub(crate) pod: v1::Pod,
    /// What was dropped.
    pub(crate) warnings: Vec<Problem>,
}

/// Why an object is no Pod.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// Never empty.
    pub(crate) problems: Vec<Problem>,
    /// What was dropped before.
    pub(crate) warnings: Vec<Problem>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], warnings: Vec::new() }
    }
}

/// Reads one object as a Pod. `kind_needed` is false for the items of a list, which may leave it out.
///
/// # Errors
///
/// Every wrong type, or that this is no Pod.
pub(crate) fn decode_pod(node: &Node, base: &Path, kind_needed: bool) -> Result<Decoded, Refused> {
    let Contents::Map(_) = &node.contents else {
        return Err(at(node, base, format!("expected a Pod, found {}", found(node))).into());
    };
    check_type(node, base, kind_needed)?;
    let mut walk = Walk::new(hint);
    let mut manifest = walk.object(node, &POD, base);
    if !walk.problems.is_empty() {
        return Err(Refused { problems: walk.problems, warnings: walk.warnings });
    }
    forget(&mut manifest, node, base, &mut walk.warnings);
    let manifest = Value::Object(manifest);
    match tree::from_tree::<v1::Pod>(&with_type(&manifest)) {
        Ok(pod) => Ok(Decoded { manifest, pod, warnings: walk.warnings }),
        // The walk has checked every type; what is left is a disagreement of the table with the structs.
        Err(error) => Err(at(node, base, format!("cannot become a Pod: {error}")).into()),
    }
}

/// The typed Pod insists on both.
fn with_type(manifest: &Value) -> Value {
    let mut value = manifest.clone();
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".to_owned(), "v1".into());
        fields.insert("kind".to_owned(), "Pod".into());
    }
    value
}

/// Leaves out what only the API server or the kubelet may say.
fn forget(manifest: &mut Map<String, Value>, node: &Node, base: &Path, warnings: &mut Vec<Problem>) {
    let position = |path: &Path| locate(node, base, path);
    for field in ["apiVersion", "kind", "status"] {
        manifest.remove(field);
    }
    let Some(Value::Object(meta)) = manifest.get_mut("metadata") else { return };
    let path = base.field("metadata");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if meta.remove(field).is_some() {
            let path = path.field(field);
            let position = position(&path);
            warnings.push(Problem { position, ..Problem::new(path, "ignored: only an API server may set it") });
        }
    }
    let Some(Value::Object(annotations)) = meta.get_mut("annotations") else { return };
    if annotations.remove(super::identity::CONFIG_MIRROR).is_some() {
        let path = path.field("annotations").key(super::identity::CONFIG_MIRROR);
        let position = position(&path);
        warnings.push(Problem { position, ..Problem::new(path, "ignored: it marks the mirror of a static pod") });
    }
    if annotations.is_empty() {
        meta.remove("annotations");
    }
}

/// Whether this says it is a v1 Pod.
fn check_type(node: &Node, base: &Path, kind_needed: bool) -> Result<(), Problem> {
    let version = type_field(node, base, "apiVersion")?;
    let kind = type_field(node, base, "kind")?;
    let missing = |field: &str, value: &str| {
        let message = format!("Required value: a Pod's manifest says `{field}: {value}`");
        Err(at(node, &base.field(field), message))
    };
    match kind {
        None if kind_needed => missing("kind", "Pod"),
        None => Ok(()),
        Some((kind, place)) if kind != "Pod" => Err(at(place, &base.field("kind"), other_kind(kind))),
        Some(_) => match version {
            None if kind_needed => missing("apiVersion", "v1"),
            Some((version, place)) if version != "v1" => {
                let message = format!("Unsupported value: {version:?}: a Pod's manifest says `apiVersion: v1`");
                Err(at(place, &base.field("apiVersion"), message))
            }
            None | Some(_) => Ok(()),
        },
    }
}

/// `apiVersion` or `kind`, when it is there.
pub(crate) fn type_field<'a>(node: &'a Node, base: &Path, field: &str) -> Result<Option<(&'a str, &'a Node)>, Problem> {
    match node.entry(field).map(|entry| &entry.value) {
        None => Ok(None),
        Some(place) => match &place.contents {
            Contents::Null => Ok(None),
            Contents::Text(text) if text.is_empty() => Ok(None),
            Contents::Text(text) => Ok(Some((text, place))),
            _ => Err(at(place, &base.field(field), format!("expected a string, found {}", found(place)))),
        },
    }
}

fn other_kind(kind: &str) -> String {
    /// Kinds that make pods, so that people expect them to work here.
    const MAKERS: [&str; 7] =
        ["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"];
    let hint = if kind == "List" || kind == "PodList" {
        "; put every pod into a file of its own".to_owned()
    } else if MAKERS.contains(&kind) {
        format!("; what makes pods of a {kind} runs beside an API server, so write the Pod itself")
    } else if let Some("Pod") = crate::suggest::nearest(kind, &["Pod"]) {
        "; did you mean \"Pod\"?".to_owned()
    } else {
        String::new()
    };
    format!("Unsupported value: {kind:?}: only kind Pod is taken here{hint}")
}
