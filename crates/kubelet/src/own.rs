//! The flags that have no field in the configuration: what they say and whether they may be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rubelet_api::pod::{label_value_problems, qualified_name_problems};

use crate::flags::Given;

#[cfg(test)]
mod tests;

/// Why a flag without a field was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum OwnFlagError {
    #[error(
        "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
        .0.join(" "), ALLOWED_PREFIXES.join(", "), ALLOWED_LABELS.join(", ")
    )]
    ForeignLabels(Vec<String>),
    #[error("invalid node labels: {0}")]
    InvalidLabels(String),
    #[error("--cloud-provider must be empty or \"external\", got {0:?}: in-tree cloud providers were removed")]
    CloudProvider(String),
}

/// The flags without a field.
#[derive(Clone, Debug)]
pub(crate) struct OwnFlags {
    /// `--config`, as given.
    pub(crate) config: Option<PathBuf>,
    /// `--config-dir`, as given.
    pub(crate) config_dir: Option<PathBuf>,
    /// `--kubeconfig`; without it the node is standalone.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `--bootstrap-kubeconfig`.
    pub(crate) bootstrap_kubeconfig: Option<PathBuf>,
    /// `--cert-dir`.
    pub(crate) cert_dir: PathBuf,
    /// `--root-dir`.
    pub(crate) root_dir: PathBuf,
    /// `--lock-file`.
    pub(crate) lock_file: Option<PathBuf>,
    /// `--exit-on-lock-contention`.
    pub(crate) exit_on_lock_contention: bool,
    /// `--image-credential-provider-config`.
    pub(crate) credential_provider_config: Option<PathBuf>,
    /// `--image-credential-provider-bin-dir`.
    pub(crate) credential_provider_bin_dir: Option<PathBuf>,
    /// `--runtime-cgroups`, empty when not given.
    pub(crate) runtime_cgroups: String,
    /// Where the embedded runtime keeps things.
    pub(crate) embedded: EmbeddedFlags,
    /// How the node presents itself.
    pub(crate) node: NodeFlags,
    /// What is kept of dead containers.
    #[allow(dead_code, reason = "read and checked; named in the log as without effect so far")]
    pub(crate) dead: DeadContainers,
}

/// Where the embedded runtime keeps things.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedFlags {
    /// `--embedded-root-dir`.
    pub(crate) root_dir: PathBuf,
    /// `--embedded-run-dir`.
    pub(crate) run_dir: PathBuf,
    /// `--embedded-import-dir`.
    pub(crate) import_dir: PathBuf,
    /// `--embedded-hosts-dirs`.
    pub(crate) hosts_dirs: Vec<PathBuf>,
    /// `--embedded-pod-cidrs`, as given.
    pub(crate) pod_cidrs: Vec<String>,
    /// `--oci-runtime`.
    pub(crate) oci_runtime: String,
    /// `--runtime-handler`.
    pub(crate) handlers: BTreeMap<String, String>,
}

impl EmbeddedFlags {
    /// Reads the given flags; paths are as they were given.
    pub(crate) fn read(given: &Given) -> Self {
        let list = |name: &str| -> Vec<String> {
            given.text(name).split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect()
        };
        Self {
            hosts_dirs: list("embedded-hosts-dirs").into_iter().map(PathBuf::from).collect(),
            root_dir: given.text("embedded-root-dir").into(),
            run_dir: given.text("embedded-run-dir").into(),
            import_dir: given.text("embedded-import-dir").into(),
            pod_cidrs: list("embedded-pod-cidrs"),
            oci_runtime: given.text("oci-runtime"),
            handlers: given.pairs("runtime-handler"),
        }
    }
}

/// How the node presents itself.
#[derive(Clone, Debug)]
pub(crate) struct NodeFlags {
    /// `--hostname-override`, trimmed and in lower case; empty when not given.
    pub(crate) hostname_override: String,
    /// `--node-ip`, as given: none, one or two comma-separated addresses.
    pub(crate) ip: String,
    /// `--node-labels`.
    pub(crate) labels: BTreeMap<String, String>,
    /// `--cloud-provider=external`.
    pub(crate) is_cloud_external: bool,
}

/// What is kept of dead containers.
#[derive(Clone, Debug)]
pub(crate) struct DeadContainers {
    /// `--maximum-dead-containers`; negative: any number.
    #[allow(dead_code, reason = "read and checked; named in the log as without effect so far")]
    pub(crate) per_node: i64,
    /// `--maximum-dead-containers-per-container`.
    #[allow(dead_code, reason = "read and checked; named in the log as without effect so far")]
    pub(crate) per_container: i64,
    /// `--minimum-container-ttl-duration`, nanoseconds.
    #[allow(dead_code, reason = "read and checked; named in the log as without effect so far")]
    pub(crate) min_age_ns: i64,
}

impl OwnFlags {
    /// Reads and checks the given flags.
    ///
    /// # Errors
    /// Labels that a node may not give itself, and cloud providers that are gone.
    pub(crate) fn read(given: &Given) -> Result<Self, OwnFlagError> {
        let path = |name: &str| Some(given.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
        let labels = given.pairs("node-labels");
        check_labels(&labels)?;
        let cloud_provider = given.text("cloud-provider");
        if !["", "external"].contains(&cloud_provider.as_str()) {
            return Err(OwnFlagError::CloudProvider(cloud_provider));
        }
        Ok(Self {
            config: path("config"),
            config_dir: path("config-dir"),
            kubeconfig: path("kubeconfig"),
            bootstrap_kubeconfig: path("bootstrap-kubeconfig"),
            cert_dir: given.text("cert-dir").into(),
            root_dir: given.text("root-dir").into(),
            lock_file: path("lock-file"),
            exit_on_lock_contention: given.is_on("exit-on-lock-contention"),
            credential_provider_config: path("image-credential-provider-config"),
            credential_provider_bin_dir: path("image-credential-provider-bin-dir"),
            runtime_cgroups: given.text("runtime-cgroups"),
            embedded: EmbeddedFlags::read(given),
            node: NodeFlags {
                hostname_override: given.text("hostname-override").trim().to_lowercase(),
                ip: given.text("node-ip"),
                labels,
                is_cloud_external: cloud_provider == "external",
            },
            dead: DeadContainers {
                per_node: given.number("maximum-dead-containers"),
                per_container: given.number("maximum-dead-containers-per-container"),
                min_age_ns: given.duration_ns("minimum-container-ttl-duration"),
            },
        })
    }

    /// Makes relative paths start at the working directory.
    pub(crate) fn resolve(&mut self, working_dir: &Path) {
        let optional = [
            &mut self.config,
            &mut self.config_dir,
            &mut self.kubeconfig,
            &mut self.bootstrap_kubeconfig,
            &mut self.lock_file,
            &mut self.credential_provider_config,
            &mut self.credential_provider_bin_dir,
        ];
        let required = [
            &mut self.cert_dir,
            &mut self.root_dir,
            &mut self.embedded.root_dir,
            &mut self.embedded.run_dir,
            &mut self.embedded.import_dir,
        ];
        for path in optional.into_iter().flatten().chain(required) {
            *path = working_dir.join(&*path);
        }
    }
}

/// Domains whose labels a node may give itself, with all their subdomains; from kubelet 1.36.
const ALLOWED_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Single labels below `kubernetes.io` that a node may give itself; from kubelet 1.36.
const ALLOWED_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), OwnFlagError> {
    let foreign: Vec<String> = labels.keys().filter(|key| !may_label(key)).cloned().collect();
    if !foreign.is_empty() {
        return Err(OwnFlagError::ForeignLabels(foreign));
    }
    let mut problems = Vec::new();
    for (key, value) in labels {
        for (text, wrong) in [(key, qualified_name_problems(key)), (value, label_value_problems(value))] {
            if !wrong.is_empty() {
                problems.push(format!("'{text}' - {}", wrong.join(", ")));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(OwnFlagError::InvalidLabels(problems.join("; "))) }
}

/// Whether a node may give itself a label with this key.
fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_below =
        |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if !is_below("kubernetes.io") && !is_below("k8s.io") {
        return true;
    }
    ALLOWED_LABELS.contains(&key) || ALLOWED_PREFIXES.into_iter().any(is_below)
}
