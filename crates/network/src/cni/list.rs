//! Configurations: which plugins, in which order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::file_error;
use crate::{NetworkError, Options};

/// Bytes of a configuration at most.
const CONFIGURATION_MAX: u64 = 1 << 20;
/// The versions that are spoken, in their order.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A configuration: one plugin after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct List {
    pub(crate) name: String,
    /// One of [`VERSIONS`].
    pub(crate) version: String,
    pub(crate) plugins: Vec<Map<String, Value>>,
    is_check_off: bool,
    is_collect_off: bool,
}

impl List {
    /// A `.conflist`, or a `.conf` with one plugin. More plugins may be in the directory `more`, if the list allows it.
    pub(crate) fn parse(text: &[u8], path: &Path, more: Option<&Path>) -> Result<Self, NetworkError> {
        let wrong = |problem: &str| NetworkError::Configuration { path: path.to_owned(), problem: problem.to_owned() };
        let value: Value = serde_json::from_slice(text).map_err(|e| wrong(&e.to_string()))?;
        let Value::Object(all) = value else { return Err(wrong("it is no object")) };
        let name = word(&all, "name").to_owned();
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !name.chars().all(is_fine) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(wrong(&format!("{name:?} is not the name of a network")));
        }
        let version = version(&all).map_err(|problem| wrong(&problem))?.to_owned();
        let (is_check_off, is_collect_off) = (is_set(&all, "disableCheck"), is_set(&all, "disableGC"));
        let is_alone = is_set(&all, "loadOnlyInlinedPlugins");
        let mut plugins = match all.get("plugins") {
            Some(Value::Array(plugins)) => {
                let objects: Option<Vec<_>> = plugins.iter().map(|p| p.as_object().cloned()).collect();
                objects.ok_or_else(|| wrong("one of its plugins is no object"))?
            }
            Some(_) => return Err(wrong("its plugins are no list")),
            None if all.contains_key("type") => vec![all],
            None => Vec::new(),
        };
        if let Some(dir) = more.filter(|_| !is_alone) {
            for file in files(&dir.join(&name), &["conf"])? {
                let value: Value =
                    serde_json::from_slice(&read(&file)?).map_err(|e| wrong(&format!("{file:?}: {e}")))?;
                plugins.extend(value.as_object().cloned());
            }
        }
        if plugins.is_empty() || plugins.iter().any(|plugin| word(plugin, "type").is_empty()) {
            return Err(wrong("it has no plugin, or one without a type"));
        }
        Ok(Self { name, version, plugins, is_check_off, is_collect_off })
    }

    /// As a `.conflist` that gives the same again.
    pub(crate) fn document(&self) -> Value {
        serde_json::json!({
            "name": self.name,
            "cniVersion": self.version,
            "disableCheck": self.is_check_off,
            "disableGC": self.is_collect_off,
            "loadOnlyInlinedPlugins": true,
            "plugins": self.plugins,
        })
    }

    pub(crate) fn types(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| word(plugin, "type"))
    }

    fn is_at_least(&self, version: &str) -> bool {
        let rank = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        rank(&self.version) >= rank(version)
    }

    /// Whether what was added can be checked.
    pub(crate) fn may_check(&self) -> bool {
        !self.is_check_off && self.is_at_least("0.4.0")
    }

    /// Whether plugins can say that they are ready.
    pub(crate) fn may_ask_status(&self) -> bool {
        self.is_at_least("1.1.0")
    }

    /// Whether plugins can remove what belongs to nobody.
    pub(crate) fn may_collect(&self) -> bool {
        !self.is_collect_off && self.is_at_least("1.1.0")
    }
}

pub(super) fn word<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// libcni also takes the word for the truth value.
fn is_set(object: &Map<String, Value>, name: &str) -> bool {
    match object.get(name) {
        Some(Value::Bool(is_set)) => *is_set,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        Some(_) | None => false,
    }
}

/// The latest version that the configuration offers and that is spoken here.
fn version(all: &Map<String, Value>) -> Result<&'static str, String> {
    let mut offered: Vec<&str> =
        all.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    offered.extend(all.get("cniVersion").and_then(Value::as_str));
    let spoken = VERSIONS.into_iter().rev().find(|known| offered.contains(known));
    spoken.ok_or_else(|| match offered.as_slice() {
        [] => "it has no cniVersion".to_owned(),
        offered => format!("its cniVersion {} is none of {}", offered.join(", "), VERSIONS.join(", ")),
    })
}

fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, NetworkError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(file_error("read", dir))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| endings.iter().any(|k| e == *k)) && path.is_file());
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, NetworkError> {
    let size = fs::metadata(path).map_err(file_error("look at", path))?.len();
    if size > CONFIGURATION_MAX {
        let problem = format!("{size} bytes, at most {CONFIGURATION_MAX}");
        return Err(NetworkError::Configuration { path: path.to_owned(), problem });
    }
    fs::read(path).map_err(file_error("read", path))
}

/// The first configuration of the directory, in the order of the files' names.
pub(crate) fn configured(options: &Options) -> Result<Option<List>, NetworkError> {
    let dir = &options.cni_conf_dir;
    let Some(path) = files(dir, &["conf", "conflist", "json"])?.into_iter().next() else { return Ok(None) };
    List::parse(&read(&path)?, &path, Some(dir)).map(Some)
}
