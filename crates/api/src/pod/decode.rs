//! From a tree of YAML or JSON to the manifest that is meant: the fields a Pod has, in the types they have.
//!
//! kubelet 1.36: fields that no Pod has are dropped, a wrong type refuses the manifest, `null` is the same as nothing.

use serde_json::{Map, Value};

use super::problem::{Path, Position, Problem, Segment};
use super::schema::{Kind, POD, Shape};
use super::tree::{Contents, Entry, Node};
use super::{amount, suggest};
use crate::v1;

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
    let mut walk = Walk::default();
    let mut manifest = walk.object(node, &POD, base);
    if !walk.problems.is_empty() {
        return Err(Refused { problems: walk.problems, warnings: walk.warnings });
    }
    forget(&mut manifest, node, base, &mut walk.warnings);
    let manifest = Value::Object(manifest);
    match serde_json::from_value::<v1::Pod>(with_type(&manifest)) {
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
    } else if let Some("Pod") = suggest::nearest(kind, &["Pod"]) {
        "; did you mean \"Pod\"?".to_owned()
    } else {
        String::new()
    };
    format!("Unsupported value: {kind:?}: only kind Pod is taken here{hint}")
}

fn at(node: &Node, path: &Path, message: String) -> Problem {
    Problem { position: Some(node.position), ..Problem::new(path.clone(), message) }
}

/// How a message calls what was found.
fn found(node: &Node) -> String {
    let what = match &node.contents {
        Contents::Null => "nothing".to_owned(),
        Contents::Bool(value) => format!("the boolean {value}"),
        Contents::Integer(value) => format!("the integer {value}"),
        Contents::Float(value) => format!("the number {value}"),
        Contents::Text(text) => format!("string {}", super::problem::Shown::shown(text.as_str())),
        Contents::List(items) => format!("a list of {}", items.len()),
        Contents::Map(_) => "an object".to_owned(),
    };
    match &node.written {
        Some(written) => format!("{what}, which is what {written} means in YAML"),
        None => what,
    }
}

/// What to do about a wrong type, when that is plain.
fn remedy(node: &Node, kind: &Kind) -> &'static str {
    match (kind, &node.contents) {
        (Kind::Pointer(inner), _) => remedy(node, inner),
        (Kind::Text, Contents::Bool(_) | Contents::Integer(_) | Contents::Float(_)) => {
            " (put it in quotes to make it a string)"
        }
        (Kind::Int32 | Kind::Int64, Contents::Text(text)) if text.parse::<i64>().is_ok() => " (leave out the quotes)",
        (Kind::Bool, Contents::Text(text)) if ["true", "false", "yes", "no", "on", "off"].contains(&text.as_str()) => {
            " (leave out the quotes)"
        }
        (Kind::List(_), Contents::Map(_) | Contents::Text(_)) => " (every element of a list starts with \"- \")",
        _ => "",
    }
}

#[derive(Default)]
struct Walk {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Walk {
    fn object(&mut self, node: &Node, shape: &'static Shape, path: &Path) -> Map<String, Value> {
        let mut fields = Map::new();
        for entry in node.entries() {
            let Some(kind) = shape.field(&entry.key) else {
                self.unknown(entry, shape, path);
                continue;
            };
            let value = self.value(&entry.value, kind, &path.field(&entry.key));
            match value.filter(|value| keeps(kind, value)) {
                Some(value) => fields.insert(entry.key.clone(), value),
                None => fields.remove(&entry.key),
            };
        }
        fields
    }

    fn unknown(&mut self, entry: &Entry, shape: &'static Shape, path: &Path) {
        let mut message = format!("unknown field of {}, ignored", shape.name);
        if let Some(hint) = suggest::suggestion(&entry.key, shape) {
            message = format!("{message} ({hint})");
        }
        let problem = Problem { position: Some(entry.position), ..Problem::new(path.field(&entry.key), message) };
        self.warnings.push(problem);
    }

    /// The value in its type; none for `null` and for what is wrong.
    fn value(&mut self, node: &Node, kind: &'static Kind, path: &Path) -> Option<Value> {
        match (kind, &node.contents) {
            (_, Contents::Null) => None,
            (Kind::Pointer(inner), _) => self.value(node, inner, path),
            (Kind::Object(shape), Contents::Map(_)) => Some(Value::Object(self.object(node, shape, path))),
            (Kind::Map(inner), Contents::Map(_)) => Some(self.map(node, inner, path)),
            (Kind::List(inner), Contents::List(items)) => {
                let values = items.iter().enumerate().map(|(nth, item)| {
                    let path = path.index(nth);
                    self.value(item, inner, &path).unwrap_or_else(|| nothing(inner))
                });
                Some(Value::Array(values.collect()))
            }
            (Kind::Anything, _) => Some(node.to_json()),
            (Kind::Bool, Contents::Bool(value)) => Some(Value::from(*value)),
            (Kind::Text | Kind::IntOrString, Contents::Text(text)) => Some(Value::from(text.as_str())),
            (Kind::Int32 | Kind::IntOrString, _) => {
                self.integer(node, i64::from(i32::MIN), i64::from(i32::MAX), kind, path)
            }
            (Kind::Int64, _) => self.integer(node, i64::MIN, i64::MAX, kind, path),
            (Kind::Quantity, _) => self.quantity(node, path),
            (Kind::Time, Contents::Text(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    let message = format!("expected a time such as 2026-01-31T12:00:00Z, found string {text:?}");
                    self.problems.push(at(node, path, message));
                }
                Some(Value::from(text.as_str()))
            }
            (Kind::Object(_) | Kind::Map(_) | Kind::List(_) | Kind::Bool | Kind::Text | Kind::Time, _) => {
                self.wrong(node, kind, path);
                None
            }
        }
    }

    fn map(&mut self, node: &Node, inner: &'static Kind, path: &Path) -> Value {
        let mut fields = Map::new();
        for entry in node.entries() {
            let path = path.key(&entry.key);
            let value = self.value(&entry.value, inner, &path).unwrap_or_else(|| nothing(inner));
            fields.insert(entry.key.clone(), value);
        }
        Value::Object(fields)
    }

    fn integer(&mut self, node: &Node, least: i64, most: i64, kind: &Kind, path: &Path) -> Option<Value> {
        let whole = match node.contents {
            Contents::Integer(number) => Some(number),
            // JSON knows one sort of number: 80.0 is 80.
            Contents::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some(number as i128),
            _ => None,
        };
        let Some(number) = whole else {
            self.wrong(node, kind, path);
            return None;
        };
        match i64::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(Value::from(number)),
            Ok(_) | Err(_) => {
                let message = format!("expected an integer from {least} to {most}, found {number}");
                self.problems.push(at(node, path, message));
                None
            }
        }
    }

    fn quantity(&mut self, node: &Node, path: &Path) -> Option<Value> {
        let text = match &node.contents {
            Contents::Text(text) => text.trim().to_owned(),
            Contents::Integer(number) => number.to_string(),
            Contents::Float(number) => number.to_string(),
            Contents::Null | Contents::Bool(_) | Contents::List(_) | Contents::Map(_) => {
                self.wrong(node, &Kind::Quantity, path);
                return None;
            }
        };
        match amount::canonical(&text) {
            Some(canonical) => Some(Value::from(canonical)),
            None => {
                let message = format!("expected a quantity such as 500m, 2 or 1Gi, found {}", found(node));
                self.problems.push(at(node, path, message));
                None
            }
        }
    }

    fn wrong(&mut self, node: &Node, kind: &Kind, path: &Path) {
        let message = format!("expected {}, found {}{}", kind.expected(), found(node), remedy(node, kind));
        self.problems.push(at(node, path, message));
    }
}

/// What an element of a list or map is when it says `null`.
fn nothing(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::IntOrString | Kind::Time => Value::from(""),
        Kind::Quantity => Value::from("0"),
        Kind::Bool => Value::from(false),
        Kind::Int32 | Kind::Int64 => Value::from(0),
        Kind::List(_) => Value::Array(Vec::new()),
        Kind::Map(_) | Kind::Object(_) => Value::Object(Map::new()),
        Kind::Pointer(inner) => nothing(inner),
        Kind::Anything => Value::Null,
    }
}

/// Whether a field's value says something: zero values do only behind a pointer, empty objects always do.
fn keeps(kind: &Kind, value: &Value) -> bool {
    match kind {
        Kind::Pointer(_) | Kind::Object(_) | Kind::Anything => true,
        Kind::Text
        | Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::IntOrString
        | Kind::Quantity
        | Kind::Time
        | Kind::List(_)
        | Kind::Map(_) => match value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        },
    }
}

/// Where a path, or as much of it as is written, stands in the tree of the object at `base`.
pub(crate) fn locate(node: &Node, base: &Path, path: &Path) -> Option<Position> {
    let steps = path.segments().get(base.segments().len()..)?;
    let mut place = node;
    let mut position = node.position;
    for step in steps {
        let next = match step {
            Segment::Field(name) | Segment::Key(name) => place.entry(name).map(|entry| (entry.position, &entry.value)),
            Segment::Index(index) => place.item(*index).map(|item| (item.position, item)),
        };
        match next {
            Some((at, deeper)) => {
                position = at;
                place = deeper;
            }
            None => break,
        }
    }
    Some(position)
}
