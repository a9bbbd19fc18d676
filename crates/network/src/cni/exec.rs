//! Running one plugin.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a plugin may take; then it is killed.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is read of its output.
const OUTPUT_MAX: u64 = 1 << 20;

/// The program of a type, which is no path.
pub(super) fn find(dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
        return None;
    }
    let is_program =
        |path: &PathBuf| path.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0);
    dirs.iter().map(|dir| dir.join(kind)).find(is_program)
}

/// Its standard output; or why it failed, in its own words where it has some.
pub(super) fn run(program: &Path, environment: &[(&str, OsString)], configuration: Vec<u8>) -> Result<Vec<u8>, String> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut child = Command::new(program)
        .env_clear()
        .env("PATH", path)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let handle = rubelet_host::process::Handle::open(child.id()).map_err(|e| e.to_string())?;
    let read = |from: Option<Box<dyn Read + Send>>| {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            let _ = from.take(OUTPUT_MAX).read_to_end(&mut bytes);
        }
        bytes
    };
    let (stdout, stderr, is_late) = std::thread::scope(|scope| {
        // A plugin that does not read its configuration says why by its exit.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(&configuration)));
        let out = scope.spawn(move || read(stdout.map(|s| Box::new(s) as _)));
        let err = scope.spawn(move || read(stderr.map(|s| Box::new(s) as _)));
        let is_late = !handle.wait_until(Instant::now() + PATIENCE);
        if is_late {
            handle.kill();
        }
        (out.join().unwrap_or_default(), err.join().unwrap_or_default(), is_late)
    });
    let status = child.wait().map_err(|e| e.to_string())?;
    if is_late {
        return Err(format!("it did not end within {} s and was killed", PATIENCE.as_secs()));
    }
    if status.success() {
        return Ok(stdout);
    }
    Err(complaint(&stdout, &stderr).unwrap_or_else(|| format!("it ended with {status}")))
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
