//! What outlives the agent and the machine's boots: one small file for each sandbox and container.
//!
//! They are written beside their place and renamed, without waiting for the disk. A killed agent loses nothing by that; after a power failure
//! nothing runs, and a record that did not arrive is one pod less to clean up: what else there is of it is swept. Values of
//! environment variables are never in a record.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use rubelet_proto::cri;

/// A sandbox.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<cri::PodSandboxConfig>,
    #[prost(string, tag = "3")]
    pub(crate) runtime_handler: String,
    #[prost(int64, tag = "4")]
    pub(crate) created_at_nanos: i64,
    /// The boot during which it ran.
    #[prost(string, tag = "5")]
    pub(crate) boot_id: String,
    /// Of its own network namespace, the primary one first.
    #[prost(string, repeated, tag = "6")]
    pub(crate) addresses: Vec<String>,
    /// Its network namespace, if it has one of its own.
    #[prost(string, tag = "7")]
    pub(crate) netns: String,
    /// Stopped to the end: nothing but this record and its directory is left.
    #[prost(bool, tag = "8")]
    pub(crate) is_stopped: bool,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) sandbox: String,
    /// Without its environment.
    #[prost(message, optional, tag = "3")]
    pub(crate) config: Option<cri::ContainerConfig>,
    #[prost(int64, tag = "4")]
    pub(crate) created_at_nanos: i64,
    #[prost(string, tag = "5")]
    pub(crate) boot_id: String,
    /// The image's id.
    #[prost(string, tag = "6")]
    pub(crate) image_id: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) user: Option<cri::ContainerUser>,
    /// Number of the signal that stops it.
    #[prost(int32, tag = "8")]
    pub(crate) stop_signal: i32,
    #[prost(message, optional, tag = "9")]
    pub(crate) end: Option<End>,
    /// Its log, on the host; empty: none.
    #[prost(string, tag = "10")]
    pub(crate) log_path: String,
    /// Whether it has a PID namespace of its own, so that all its processes end with the first one.
    #[prost(bool, tag = "11")]
    pub(crate) has_pid_namespace: bool,
}

/// How a container ended.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct End {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    #[prost(string, tag = "3")]
    pub(crate) message: String,
    /// 0: it never ran.
    #[prost(int64, tag = "4")]
    pub(crate) started_at_nanos: i64,
    #[prost(int64, tag = "5")]
    pub(crate) finished_at_nanos: i64,
}

impl SandboxRecord {
    /// The configuration; an empty one never gets into a record.
    pub(crate) fn config(&self) -> cri::PodSandboxConfig {
        self.config.clone().unwrap_or_default()
    }

    pub(crate) fn metadata(&self) -> cri::PodSandboxMetadata {
        self.config.as_ref().and_then(|c| c.metadata.clone()).unwrap_or_default()
    }

    /// What the pod's namespaces are.
    pub(crate) fn namespaces(&self) -> cri::NamespaceOption {
        let linux = self.config.as_ref().and_then(|c| c.linux.as_ref());
        let security = linux.and_then(|l| l.security_context.as_ref());
        security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        let linux = self.config.as_ref().and_then(|c| c.linux.as_ref());
        linux.map(|l| l.cgroup_parent.clone()).unwrap_or_default()
    }
}

/// What a record needs to be one.
pub(crate) trait Record: Message + Default {
    fn is_whole(&self) -> bool;
}

impl Record for SandboxRecord {
    fn is_whole(&self) -> bool {
        !self.id.is_empty() && self.config.as_ref().is_some_and(|c| c.metadata.is_some())
    }
}

impl Record for ContainerRecord {
    fn is_whole(&self) -> bool {
        !self.id.is_empty() && !self.sandbox.is_empty() && self.config.as_ref().is_some_and(|c| c.metadata.is_some())
    }
}

/// Records of one kind: files `ID` in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    /// Called where a kill leaves a record half written. For tests.
    fault: Option<fn(&'static str)>,
}

const UNFINISHED: &str = ".new-";

impl Records {
    pub(crate) fn open(dir: PathBuf, fault: Option<fn(&'static str)>) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove_any(&entry.path())?;
            }
        }
        Ok(Self { dir, fault })
    }

    pub(crate) fn write<R: Record>(&self, id: &str, record: &R) -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let beside = self.dir.join(format!("{UNFINISHED}{id}"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&record.encode_to_vec())?;
        if let Some(fault) = self.fault {
            fault("record.written");
        }
        fs::rename(beside, self.dir.join(id))
    }

    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// All that are whole. Others are removed with a word in the log.
    pub(crate) fn read<R: Record>(&self) -> io::Result<Vec<(String, R)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                // Being written just now.
                continue;
            }
            let record = fs::read(&path).ok().and_then(|bytes| R::decode(bytes.as_slice()).ok());
            match record.filter(Record::is_whole) {
                Some(record) => found.push((name, record)),
                None => {
                    tracing::warn!("the record {} is damaged, so what it told of is cleaned up", path.display());
                    remove_any(&path)?;
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_records_are_read_and_others_go() {
        let dir = tempfile::tempdir().unwrap();
        drop(Records::open(dir.path().join("sandboxes"), None).unwrap());
        let config = cri::PodSandboxConfig { metadata: Some(cri::PodSandboxMetadata::default()), ..Default::default() };
        let one = SandboxRecord { id: "a".into(), config: Some(config), is_stopped: true, ..Default::default() };
        for (name, bytes) in [("b", &b""[..]), ("c", b"\xff\xff"), (".new-d", b"half")] {
            fs::write(dir.path().join("sandboxes").join(name), bytes).unwrap();
        }
        let records = Records::open(dir.path().join("sandboxes"), None).unwrap();
        records.write("a", &one).unwrap();
        assert_eq!(records.read::<SandboxRecord>().unwrap(), [("a".to_owned(), one)]);
        assert_eq!(fs::read_dir(dir.path().join("sandboxes")).unwrap().count(), 1);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert!(records.read::<SandboxRecord>().unwrap().is_empty());
    }
}
