//! From files and flags to one configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::eviction::DEFAULT_HARD;
use super::validate::{Invalid, Moment, Surroundings, aggregate, validate};
use super::{API_VERSION, CONFIG_BYTES, KIND, KubeletConfiguration, SHAPE, fill_in_sections};
use crate::gates::{Gate, GateError, Gates};
use crate::gather::Gather;
use crate::problem::{Path, Position, Problem, bounded, located};
use crate::quote::quoted;
use crate::suggest::near_field;
use crate::walk::{Walk, at, locate};
use crate::yaml::{self, Contents, Node, text};

/// Why a configuration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file without a byte.
    #[error("kubelet config file {} was empty", quoted(.0))]
    Empty(String),
    /// A file that is not read; one line each, with file, line, column and field.
    #[error("{}", .lines.join("; "))]
    File {
        /// What is wrong.
        lines: Vec<String>,
    },
    /// Values that cannot be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Gates that cannot be as asked by file and flags together.
    #[error("failed to set feature gates from initial flags-based config: {}", gate_words(.0))]
    Gates(Vec<GateError>),
}

fn gate_words(errors: &[GateError]) -> String {
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    aggregate(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Something to be logged once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The message.
    pub words: String,
    /// What it is about: lines with file and position, or a field.
    pub about: String,
}

/// A configuration on its way: complete after every step, but not checked.
#[derive(Debug, Clone)]
pub struct Draft {
    value: Value,
    files: Vec<File>,
    warnings: Vec<Warning>,
}

/// What a file said, for positions.
#[derive(Debug, Clone)]
struct File {
    name: String,
    node: Node,
}

/// A configuration that may be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All fields.
    pub config: KubeletConfiguration,
    /// Its gates.
    pub gates: Gates,
    /// To be logged once.
    pub warnings: Vec<Warning>,
}

impl Draft {
    /// The configuration without a file: the older defaults of the flags, less strict, without eviction
    /// (kubelet 1.36).
    pub fn without_file() -> Self {
        let mut map = Map::new();
        for (path, value) in [
            ("authentication.anonymous.enabled", Value::from(true)),
            ("authentication.webhook.enabled", Value::from(false)),
            ("authorization.mode", Value::from("AlwaysAllow")),
            ("readOnlyPort", Value::from(10255)),
        ] {
            put(&mut map, path, value);
        }
        fill_in(&mut map, &Gates::default());
        Self { value: Value::Object(map), files: Vec::new(), warnings: Vec::new() }
    }

    /// The configuration of a file. `name` is its absolute path: relative paths in it start from its directory.
    ///
    /// Fields that do not exist are left out with a warning; upstream does the same after its strict reading failed.
    ///
    /// # Errors
    /// What keeps the file from being read, all of it, with positions.
    pub fn from_file(name: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        let mut draft = Self { value: Value::Null, files: Vec::new(), warnings: Vec::new() };
        let mut map = draft.read(name, bytes)?;
        let gates = draft.gates_of(&map)?;
        fill_in(&mut map, &gates);
        resolve_paths(&mut map, name);
        fill_in_thresholds(&mut map);
        draft.value = Value::Object(map);
        Ok(draft)
    }

    /// The configuration of a file that says nothing.
    pub(super) fn of_nothing() -> KubeletConfiguration {
        let mut map = Map::new();
        fill_in(&mut map, &Gates::default());
        fill_in_thresholds(&mut map);
        // Defaults have the types of their fields; a test reads them.
        KubeletConfiguration::from_value(&Value::Object(map)).unwrap_or_default()
    }

    /// Merges drop-ins over it, in the order given: maps join by key, lists are replaced, `null` takes away
    /// (RFC 7386). What is not said afterwards gets its default once more.
    ///
    /// # Errors
    /// What keeps a file from being read; version and kind must be there.
    pub fn merge<'a>(&mut self, drop_ins: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<(), ConfigError> {
        let mut merged = without_zeros(std::mem::take(&mut self.value));
        for (name, bytes) in drop_ins {
            let wrap = |error: ConfigError| match error {
                ConfigError::File { lines } => ConfigError::File {
                    lines: lines
                        .iter()
                        .map(|line| format!("failed to load kubelet dropin file, path: {name}, error: {line}"))
                        .collect(),
                },
                other => other,
            };
            self.read(name, bytes).map_err(wrap)?;
            // `read` has put the file there.
            if let Some(file) = self.files.last() {
                merge_patch(&mut merged, &file.node.to_json());
            }
        }
        let mut map = typed(&merged);
        let gates = self.gates_of(&map)?;
        fill_in(&mut map, &gates);
        self.value = Value::Object(map);
        Ok(())
    }

    /// The configuration as a file would say it, for flags to be laid over. What is put there must have the type of
    /// its field.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All that is wrong with the values, in upstream's words.
    pub fn finish(mut self, surroundings: Surroundings) -> Result<Loaded, ConfigError> {
        let config = KubeletConfiguration::from_value(&self.value).map_err(|error| {
            // Files are checked field by field; this is a value laid over them.
            ConfigError::File { lines: vec![format!("the configuration with its flags cannot be read: {error}")] }
        })?;
        let gates = Gates::from_map(&config.runtime.feature_gates).map_err(ConfigError::Gates)?;
        let found = validate(&config, &gates, surroundings);
        if !found.refusals.is_empty() {
            let mut refusals = found.refusals;
            for refusal in refusals.iter_mut().filter(|refusal| refusal.moment == Moment::Never) {
                if let Some(place) = self.place(refusal.field) {
                    refusal.place = Some(place);
                }
            }
            return Err(Invalid(refusals).into());
        }
        for refusal in found.doubts {
            let about = self.place(refusal.field).unwrap_or_else(|| refusal.field.to_owned());
            self.warnings.push(Warning { words: refusal.words, about });
        }
        for (gate, value, words) in gates.remarks() {
            self.warnings.push(Warning { words: words.to_owned(), about: format!("{gate}={value}") });
        }
        Ok(Loaded { config, gates, warnings: self.warnings })
    }

    /// `FILE:LINE:COLUMN` of a field by its dotted path, from the last file that says it.
    pub fn place(&self, field: &str) -> Option<String> {
        let path = Path::root().at(field);
        let written = |file: &&File| {
            path.segments()
                .iter()
                .try_fold(&file.node, |node, step| match step {
                    crate::problem::Segment::Field(name) | crate::problem::Segment::Key(name) => {
                        node.entry(name).map(|entry| &entry.value)
                    }
                    crate::problem::Segment::Index(index) => node.item(*index),
                })
                .is_some()
        };
        let file = self.files.iter().rev().find(written)?;
        let Position { line, column } = locate(&file.node, &Path::root(), &path)?;
        Some(format!("{}:{line}:{column}", file.name))
    }

    /// Reads one file: fields in their types, without what says nothing.
    fn read(&mut self, name: &str, bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
        if bytes.is_empty() {
            return Err(ConfigError::Empty(name.to_owned()));
        }
        let fail = |problems: Vec<Problem>| ConfigError::File {
            lines: bounded(problems).iter().map(|problem| located(name, problem)).collect(),
        };
        let one = |position: Option<Position>, message: String| {
            fail(vec![Problem { position, ..Problem::new(Path::root(), message) }])
        };
        if bytes.len() > CONFIG_BYTES {
            return Err(one(None, format!("too large: {} bytes, at most {CONFIG_BYTES}", bytes.len())));
        }
        let text = text::decode(bytes).map_err(|error| one(error.position, error.message))?;
        let document =
            yaml::parse(&text).map_err(|error| one(Some(error.position), format!("not valid YAML: {error}")))?;
        let Some(node) = document.root.filter(|root| root.contents != Contents::Null) else {
            return Err(one(None, text::empty(&text).to_owned()));
        };
        check_type(&node).map_err(|problem| fail(vec![problem]))?;
        let mut walk = Walk::new(|name, shape| near_field(name, shape).map(|near| format!("did you mean {near:?}?")));
        let map = walk.object(&node, &SHAPE, &Path::root());
        if !walk.problems.is_empty() {
            return Err(fail(walk.problems));
        }
        let repeated = document
            .warnings
            .into_iter()
            .map(|(position, message)| Problem { position: Some(position), ..Problem::new(Path::root(), message) });
        let lenient: Vec<Problem> = repeated.chain(walk.warnings).collect();
        if !lenient.is_empty() {
            let lines: Vec<String> = bounded(lenient).iter().map(|problem| located(name, problem)).collect();
            let words = "Using lenient decoding as strict decoding failed".to_owned();
            self.warnings.push(Warning { words, about: lines.join("; ") });
        }
        self.files.push(File { name: name.to_owned(), node });
        Ok(map)
    }

    /// The gates that the files ask for.
    fn gates_of(&self, map: &Map<String, Value>) -> Result<Gates, ConfigError> {
        let said = match map.get("featureGates") {
            Some(Value::Object(said)) => said,
            _ => return Ok(Gates::default()),
        };
        let said: BTreeMap<String, bool> =
            said.iter().map(|(name, value)| (name.clone(), value.as_bool().unwrap_or(false))).into_map();
        Gates::from_map(&said).map_err(|errors| {
            let line = |error: &GateError| {
                let field = format!("featureGates.{}", error.name());
                let place = self.place(&field).or_else(|| self.place("featureGates"));
                let path = Path::root().field("featureGates").key(error.name());
                format!("{}: {path}: {error}", place.unwrap_or_else(|| "command line".to_owned()))
            };
            ConfigError::File { lines: errors.iter().map(line).collect() }
        })
    }
}

/// Whether this says that it is a kubelet's configuration.
fn check_type(node: &Node) -> Result<(), Problem> {
    let root = Path::root();
    if !matches!(node.contents, Contents::Map(_)) {
        return Err(at(node, &root, format!("expected a {KIND}")));
    }
    for (field, wanted) in [("kind", KIND), ("apiVersion", API_VERSION)] {
        let path = root.field(field);
        match node.entry(field).map(|entry| &entry.value) {
            Some(Node { contents: Contents::Text(text), .. }) if text == wanted => {}
            Some(Node { contents: Contents::Text(text), position, .. }) if !text.is_empty() => {
                let message = format!("Unsupported value: {}: this file says `{field}: {wanted}`", quoted(text));
                return Err(Problem { position: Some(*position), ..Problem::new(path, message) });
            }
            Some(_) | None => {
                return Err(at(node, &path, format!("Required value: this file says `{field}: {wanted}`")));
            }
        }
    }
    Ok(())
}

/// The fields of a merged value, in their types, without what says nothing.
fn typed(value: &Value) -> Map<String, Value> {
    // Every part has been checked for itself; merging objects and replacing the rest keeps that.
    Walk::new(|_, _| None).object(&yaml::from_json(value), &SHAPE, &Path::root())
}

/// As the configuration is written: without zeros where they are the same as nothing.
fn without_zeros(value: Value) -> Value {
    match KubeletConfiguration::from_value(&value) {
        Ok(config) => config.to_value(),
        Err(_) => value,
    }
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let map = super::field::object(target);
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge_patch(map.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// The defaults, also those that follow from other fields and from gates.
fn fill_in(map: &mut Map<String, Value>, gates: &Gates) {
    let missing = |map: &Map<String, Value>, field: &str| !map.contains_key(field);
    if missing(map, "nodeStatusReportFrequency") {
        let value = map.get("nodeStatusUpdateFrequency").cloned().unwrap_or_else(|| "5m0s".into());
        map.insert("nodeStatusReportFrequency".to_owned(), value);
    }
    if missing(map, "serializeImagePulls") {
        let parallel = map.get("maxParallelImagePulls").and_then(Value::as_i64).unwrap_or(0);
        map.insert("serializeImagePulls".to_owned(), (parallel < 2).into());
    }
    if map.get("podPidsLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
        map.insert("podPidsLimit".to_owned(), (-1).into());
    }
    if gates.is_on(Gate::KubeletEnsureSecretPulledImages) && missing(map, "imagePullCredentialsVerificationPolicy") {
        map.insert("imagePullCredentialsVerificationPolicy".to_owned(), "NeverVerifyPreloadedImages".into());
    }
    fill_in_sections(map);
    if gates.is_on(Gate::KubeletCrashLoopBackOffMax) {
        let back_off = super::field::object(map.entry("crashLoopBackOff").or_insert(Value::Null));
        back_off.entry("maxContainerRestartPeriod").or_insert_with(|| "5m0s".into());
    }
}

/// `evictionHard` of a file: the defaults when it says nothing, else what it says, with the defaults beside it when
/// it asks for that.
fn fill_in_thresholds(map: &mut Map<String, Value>) {
    let merge = map.get("mergeDefaultEvictionSettings").and_then(Value::as_bool).unwrap_or(false);
    if map.contains_key("evictionHard") && !merge {
        return;
    }
    let hard = super::field::object(map.entry("evictionHard").or_insert(Value::Null));
    for (signal, threshold) in DEFAULT_HARD {
        hard.entry(signal).or_insert_with(|| threshold.into());
    }
}

/// The fields that hold a path.
const PATHS: [&str; 7] = [
    "staticPodPath",
    "authentication.x509.clientCAFile",
    "tlsCertFile",
    "tlsPrivateKeyFile",
    "resolvConf",
    "volumePluginDir",
    "podLogsDir",
];

/// Lets relative paths start from the file's directory.
fn resolve_paths(map: &mut Map<String, Value>, file: &str) {
    let directory = file.rsplit_once('/').map_or(".", |(directory, _)| directory);
    for path in PATHS {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let place = match rest {
            "" => map.get_mut(first),
            rest => map.get_mut(first).and_then(|inner| inner.pointer_mut(&format!("/{}", rest.replace('.', "/")))),
        };
        if let Some(Value::String(text)) = place
            && !text.is_empty()
            && !text.starts_with('/')
        {
            *text = clean(&format!("{directory}/{text}"));
        }
    }
}

/// A path without `.`, `..` and doubled slashes, by its words alone.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => {
                parts.pop();
            }
            ("..", None) if rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((first, rest)) => put(super::field::object(map.entry(first).or_insert(Value::Null)), rest, value),
    }
}
