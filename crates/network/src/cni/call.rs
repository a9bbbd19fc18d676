//! Running plugins.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rubelet_host::chain;
use rubelet_host::exec::{self, Answer, ExecError, Order};
use serde_json::{Map, Value, json};

use super::list::{List, word};
use super::record::Record;
use crate::link::ETH0;
use crate::{NetworkError, Options};

/// What is read of a plugin's output.
const OUTPUT_MAX: usize = 1 << 20;
/// A plugin that is asked how it is has less time than one that is to do something.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);
/// What lies between two tries of a plugin that is just being written. libcni: five times a second; a daemon that installs its
/// plugin, and a child of ours between fork and exec, are done much sooner.
const BUSY_PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1200),
    Duration::from_millis(3000),
];

/// What plugins are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

impl Verb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }

    /// As libcni calls it in messages.
    fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "delete",
            Self::Check => "check",
            Self::Status => "status",
            Self::Gc => "gc",
        }
    }
}

/// The program of a type, which is no path.
pub(super) fn find(dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
        return None;
    }
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.join(kind)).find(is_program)
}

/// What is the same in all calls of one operation.
pub(super) struct Call<'a> {
    pub(super) options: &'a Options,
    pub(super) verb: Verb,
    pub(super) list: &'a List,
    /// The pod, for verbs that concern one: id, namespace, what is known of it.
    pub(super) pod: Option<(&'a str, &'a Path, &'a Record)>,
    /// Keys that go into each plugin's configuration.
    pub(super) extra: Map<String, Value>,
}

impl Call<'_> {
    /// Runs one plugin; its result, if it printed one.
    pub(super) fn run(
        &self,
        plugin: &Map<String, Value>,
        before: Option<&Value>,
    ) -> Result<Option<Value>, NetworkError> {
        let kind = word(plugin, "type");
        let dirs = &self.options.cni_bin_dirs;
        let Some(program) = find(dirs, kind) else {
            let dirs: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
            return Err(self.failed(kind, format!("failed to find plugin {kind:?} in path [{}]", dirs.join(" "))));
        };
        let input = Value::Object(self.configuration(plugin, before)).to_string();
        let patience = match self.verb {
            Verb::Status => STATUS_PATIENCE.min(self.options.cni_patience),
            Verb::Add | Verb::Del | Verb::Check | Verb::Gc => self.options.cni_patience,
        };
        let environment = self.environment();
        let order = Order {
            program: &program,
            arguments: &[],
            environment: &environment,
            input: input.as_bytes(),
            patience,
            output_max: OUTPUT_MAX,
        };
        let answer = while_busy(&order, std::thread::sleep).map_err(|e| self.failed(kind, chain(&e)))?;
        if !answer.status.success() {
            let said = complaint(&answer.stdout, &answer.stderr);
            return Err(self.failed(kind, said.unwrap_or_else(|| format!("it ended with {}", answer.status))));
        }
        if self.verb != Verb::Add || answer.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let result = serde_json::from_slice(&answer.stdout);
        result.map(Some).map_err(|e| self.failed(kind, format!("its result is not understood: {e}")))
    }

    pub(super) fn failed(&self, kind: &str, said: String) -> NetworkError {
        let pod = self.pod.map(|(_, _, record)| format!("pod {}: ", record.pod)).unwrap_or_default();
        NetworkError::Plugin {
            plugin: kind.to_owned(),
            network: self.list.name.clone(),
            verb: self.verb.word(),
            pod,
            said,
        }
    }

    /// What a plugin reads: its part of the list, and what the runtime has for the capabilities it names.
    fn configuration(&self, plugin: &Map<String, Value>, before: Option<&Value>) -> Map<String, Value> {
        let mut configuration = plugin.clone();
        configuration.insert("name".to_owned(), json!(self.list.name));
        configuration.insert("cniVersion".to_owned(), json!(self.list.version));
        let wanted = plugin.get("capabilities").and_then(Value::as_object);
        let has = |name: &str| wanted.and_then(|w| w.get(name)).and_then(Value::as_bool).unwrap_or(false);
        let all = self.pod.map(|(_, _, record)| record.capabilities.clone()).unwrap_or_default();
        let given: Map<String, Value> = all.into_iter().filter(|(name, _)| has(name)).collect();
        configuration.remove("capabilities");
        if !given.is_empty() {
            configuration.insert("runtimeConfig".to_owned(), Value::Object(given));
        }
        if let Some(before) = before {
            configuration.insert("prevResult".to_owned(), before.clone());
        }
        configuration.extend(self.extra.clone());
        configuration
    }

    /// This program's, and what the verb needs of CNI's own.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let is_cni = |name: &OsString| name.to_string_lossy().starts_with("CNI_");
        let mut all: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| !is_cni(name)).collect();
        let mut set = |name: &str, value: OsString| all.push((name.into(), value));
        set("CNI_COMMAND", self.verb.command().into());
        set("CNI_PATH", std::env::join_paths(&self.options.cni_bin_dirs).unwrap_or_default());
        if let Some((id, namespace, record)) = self.pod {
            let namespace = if namespace.exists() { namespace.as_os_str().to_owned() } else { OsString::new() };
            let arguments: Vec<String> = record.arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
            set("CNI_CONTAINERID", id.into());
            set("CNI_NETNS", namespace);
            set("CNI_IFNAME", ETH0.into());
            set("CNI_ARGS", arguments.join(";").into());
        }
        all
    }
}

/// Runs a program, again after a pause when somebody has it open for writing.
pub(super) fn while_busy(order: &Order<'_>, mut pause: impl FnMut(Duration)) -> Result<Answer, ExecError> {
    for length in BUSY_PAUSES {
        match exec::run(order) {
            Err(ExecError::Start { source, .. }) if source.kind() == ErrorKind::ExecutableFileBusy => pause(length),
            other => return other,
        }
    }
    exec::run(order)
}

/// The error that a plugin prints as a document, or else what it wrote beside.
fn complaint(stdout: &[u8], stderr: &[u8]) -> Option<String> {
    let word = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Ok(value) = serde_json::from_slice::<Value>(stdout) {
        let (message, details) = (word(&value, "msg"), word(&value, "details"));
        if !message.is_empty() {
            return Some(if details.is_empty() { message } else { format!("{message}; {details}") });
        }
    }
    let text = String::from_utf8_lossy(stderr).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
