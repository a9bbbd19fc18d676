//! The part of OCI's `config.json` (runtime specification 1.2) that containers of pods use. Other fields are ignored on reading, as
//! the specification wants it. The names are the specification's, so that another OCI runtime reads the same file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! oci {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "is_default")] pub $field: $kind,)*
        }
    )*};
}

oci! {
    /// The whole file.
    Spec {
        #[serde(rename = "ociVersion")]
        oci_version: String,
        process: Process,
        /// `None`: an empty, read-only tmpfs. That is an extension for the built-in pause process.
        root: Option<Root>,
        hostname: String,
        domainname: String,
        mounts: Vec<Mount>,
        annotations: BTreeMap<String, String>,
        /// By the moment at which they run. They are refused: kept here so that none is overlooked.
        hooks: BTreeMap<String, Vec<serde_json::Value>>,
        linux: Linux,
    }
    /// What runs, and as whom.
    Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Vec<String>,
        env: Vec<String>,
        cwd: String,
        capabilities: Option<Capabilities>,
        rlimits: Vec<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: String,
        oom_score_adj: Option<i32>,
        selinux_label: String,
    }
    /// Columns and rows.
    ConsoleSize {
        height: u16,
        width: u16,
    }
    /// Ids inside the container.
    User {
        uid: u32,
        gid: u32,
        umask: Option<u32>,
        additional_gids: Vec<u32>,
    }
    /// Names of capabilities, `CAP_…`.
    Capabilities {
        bounding: Vec<String>,
        effective: Vec<String>,
        inheritable: Vec<String>,
        permitted: Vec<String>,
        ambient: Vec<String>,
    }
    /// `RLIMIT_…`.
    Rlimit {
        #[serde(rename = "type")]
        kind: String,
        hard: u64,
        soft: u64,
    }
    /// The root file system.
    Root {
        path: String,
        readonly: bool,
    }
    /// One mount, in order.
    Mount {
        destination: String,
        #[serde(rename = "type")]
        kind: String,
        source: String,
        options: Vec<String>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
    }
    /// A range of ids.
    IdMapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
        size: u32,
    }
    /// What only Linux has.
    Linux {
        namespaces: Vec<Namespace>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        devices: Vec<Device>,
        resources: Resources,
        cgroups_path: String,
        rootfs_propagation: String,
        seccomp: Option<Seccomp>,
        sysctl: BTreeMap<String, String>,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
        mount_label: String,
    }
    /// A namespace: new, or with a path the one to join. A kind that is not listed is the host's.
    Namespace {
        #[serde(rename = "type")]
        kind: String,
        path: String,
    }
    /// A device node. `kind` is `c`, `u`, `b` or `p`.
    Device {
        path: String,
        #[serde(rename = "type")]
        kind: String,
        major: i64,
        minor: i64,
        file_mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    }
    /// Of the resources only the device rules are in force from here; cgroup values are the agent's.
    Resources {
        devices: Vec<DeviceRule>,
    }
    /// What of devices may be used; the last rule that fits wins.
    DeviceRule {
        allow: bool,
        #[serde(rename = "type")]
        kind: String,
        major: Option<i64>,
        minor: Option<i64>,
        access: String,
    }
    /// Which system calls are allowed.
    Seccomp {
        default_action: String,
        default_errno_ret: Option<u32>,
        architectures: Vec<String>,
        flags: Vec<String>,
        syscalls: Vec<SeccompRule>,
    }
    /// One rule for several system calls.
    SeccompRule {
        names: Vec<String>,
        action: String,
        errno_ret: Option<u32>,
        args: Vec<SeccompArg>,
    }
    /// A condition on an argument.
    SeccompArg {
        index: u32,
        value: u64,
        value_two: u64,
        op: String,
    }
}

impl Linux {
    /// The namespace of a kind, when it is not the host's.
    pub(crate) fn namespace(&self, kind: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }

    /// Whether a namespace of this kind is made for the container.
    pub(crate) fn has_new(&self, kind: &str) -> bool {
        self.namespace(kind).is_some_and(|namespace| namespace.path.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_file_is_read_and_what_is_default_is_not_written() {
        let text = r#"{"ociVersion":"1.0.2","process":{"terminal":false,"user":{"uid":0,"gid":0},"args":["sh"],"cwd":"/","noNewPrivileges":true,
            "apparmorProfile":"x","oomScoreAdj":-5},"root":{"path":"rootfs","readonly":true},"hooks":{"prestart":[]},"linux":{"uidMappings":
            [{"containerID":0,"hostID":65536,"size":65536}],"namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"}]}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.linux.uid_mappings[0].host_id, 65536);
        assert!(spec.process.no_new_privileges && spec.linux.has_new("pid") && !spec.linux.has_new("network"));
        let again = serde_json::to_value(&spec).unwrap();
        assert_eq!(again["linux"]["uidMappings"][0]["size"], 65536);
        assert!(again.get("hostname").is_none() && again["process"].get("env").is_none());
    }
}
