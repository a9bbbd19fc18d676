//! From the command line to one effective configuration.
//!
//! Defaults, then the configuration file, then drop-ins, then flags: each wins over the one before; feature gates add
//! up key by key. Without `--config` the older, less strict defaults of the flags apply (kubelet 1.36).

mod files;
mod overlay;
mod remarks;
mod runtime;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rubelet_api::config::{ConfigError, Draft, KubeletConfiguration, Loaded};
use rubelet_api::gates::Gates;
use serde_json::Value;

use crate::commands::Command;
use crate::flags::{self, FlagError, Given};
use crate::host_checks::HostSettings;
use crate::own::{OwnFlagError, OwnFlags};
use crate::surroundings::{Program, Surroundings};
use crate::{klog, version};

use files::FileError;
pub(crate) use remarks::Remark;
pub(crate) use runtime::EMBEDDED;

/// Why the program does not start, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("failed to parse kubelet flag: {0}")]
    Flag(#[from] FlagError),
    #[error("unknown command {0}")]
    Command(String),
    #[error("failed to validate kubelet flags: {0}")]
    OwnFlag(#[from] OwnFlagError),
    #[error("failed to load kubelet config file, path: {}, error: {source}", .path.display())]
    ConfigFile { path: PathBuf, source: LoadError },
    #[error("failed to merge kubelet configs: {0}")]
    DropIns(LoadError),
    #[error("{0}")]
    Config(#[source] ConfigError),
    #[error("failed to run Kubelet: the host has no name; give one with --hostname-override")]
    NoName,
    #[error(
        "failed to run Kubelet: --bootstrap-kubeconfig needs --kubeconfig, the file that is to hold what the node joins the cluster with"
    )]
    NoKubeconfig,
}

impl StartError {
    /// What helps, where upstream's words do not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        let is_about_v1 = matches!(self, Self::Config(error) if error.to_string().contains("using cgroup v1"));
        is_about_v1.then_some(
            "To run on this host all the same, set failCgroupV1: false in the configuration, or --fail-cgroupv1=false",
        )
    }
}

/// Why a file of the configuration is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Call {
    /// Write this to stdout and end.
    Show(String),
    /// Run the agent.
    Run(Box<Assembled>),
    /// Do something else with the embedded runtime.
    Command(Box<Command>),
}

/// Everything that the program was told, in one place.
#[derive(Clone, Debug)]
pub(crate) struct Assembled {
    /// The flags without a field.
    pub(crate) flags: OwnFlags,
    /// The effective configuration, complete.
    pub(crate) config: KubeletConfiguration,
    /// Its gates.
    pub(crate) gates: Gates,
    /// What the configuration says about the host.
    pub(crate) host: HostSettings,
    /// The node's name.
    pub(crate) node_name: String,
    /// Socket of the container runtime; [`EMBEDDED`] for the one in this program.
    pub(crate) runtime_endpoint: String,
    /// How to log.
    pub(crate) logging: Logging,
    /// To be logged once.
    pub(crate) remarks: Vec<Remark>,
    /// Upstream's flags with their values.
    pub(crate) shown_flags: BTreeMap<String, String>,
    /// What the program found around it.
    pub(crate) around: Surroundings,
}

/// How to log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Logging {
    pub(crate) format: klog::Format,
    pub(crate) verbosity: u32,
    pub(crate) patterns: Vec<(String, u32)>,
}

/// Reads the command line and everything that it names.
///
/// `notices` gets the lines about deprecated flags, also when the command line is refused.
///
/// # Errors
/// The first thing that is wrong; all that is wrong in the values of the configuration at once.
pub(crate) fn assemble(
    arguments: &[String],
    around: &Surroundings,
    notices: &mut Vec<String>,
) -> Result<Call, StartError> {
    let given = flags::parse(arguments, notices)?;
    if let (Program::Kubelet, Some(name)) = (around.program, given.rubelets()) {
        return Err(FlagError::Unknown(name.to_owned()).into());
    }
    if let Some(operand) = given.operands.first() {
        let command = Command::read(&given, around).ok_or_else(|| StartError::Command(operand.clone()))?;
        return Ok(Call::Command(Box::new(command)));
    }
    if let Some(text) = shown(&given, around) {
        return Ok(Call::Show(text));
    }
    let mut own = OwnFlags::read(&given)?;
    own.resolve(&around.working_dir);
    let mut draft = load(&own)?;
    overlay::lay_over(draft.value_mut(), &given);
    if given.text(RUNTIME_FLAG).is_empty() && given.value(RUNTIME_FLAG).is_some() {
        // An empty flag says as little as an empty field.
        overlay::put(draft.value_mut(), RUNTIME_FIELD, runtime::choose(around.program, None).into());
    }
    // Only files have a place: what says something about the runtime is one of them or the flag.
    let is_given = given.value(RUNTIME_FLAG).is_some() && !given.text(RUNTIME_FLAG).is_empty();
    let is_said = is_given || draft.place(RUNTIME_FIELD).is_some();
    let surroundings = rubelet_api::config::Surroundings { has_cgroup_v1: around.has_cgroup_v1 };
    let loaded = draft.finish(surroundings).map_err(StartError::Config)?;
    check_joining(&own)?;
    complete(own, loaded, is_said, &given, around).map(|assembled| Call::Run(Box::new(assembled)))
}

const RUNTIME_FLAG: &str = "container-runtime-endpoint";
const RUNTIME_FIELD: &str = "containerRuntimeEndpoint";

/// The configuration of the file, or the older defaults of the flags, with the drop-ins merged over it.
fn load(own: &OwnFlags) -> Result<Draft, StartError> {
    let mut draft = match &own.config {
        None => Draft::without_file(),
        Some(path) => {
            let wrap = |source| StartError::ConfigFile { path: path.clone(), source };
            let bytes = files::read(path).map_err(|error| wrap(error.into()))?;
            Draft::from_file(&path.to_string_lossy(), &bytes).map_err(|error| wrap(error.into()))?
        }
    };
    if let Some(dir) = &own.config_dir {
        merge_drop_ins(&mut draft, dir).map_err(StartError::DropIns)?;
    }
    Ok(draft)
}

fn merge_drop_ins(draft: &mut Draft, dir: &Path) -> Result<(), LoadError> {
    let mut texts = Vec::new();
    for path in files::drop_ins(dir)? {
        texts.push((path.to_string_lossy().into_owned(), files::read(&path)?));
    }
    Ok(draft.merge(texts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))?)
}

/// A node that is told to join a cluster and runs on its own would be a surprise.
fn check_joining(own: &OwnFlags) -> Result<(), StartError> {
    match (&own.kubeconfig, &own.bootstrap_kubeconfig) {
        (None, Some(_)) => Err(StartError::NoKubeconfig),
        (Some(_), _) | (None, None) => Ok(()),
    }
}

/// Everything from the checked configuration on.
fn complete(
    own: OwnFlags,
    loaded: Loaded,
    says_runtime: bool,
    given: &Given,
    around: &Surroundings,
) -> Result<Assembled, StartError> {
    let Loaded { mut config, gates, warnings } = loaded;
    let remarks = remarks::all(warnings, &config, &gates, given);
    let said = says_runtime.then_some(config.runtime.endpoint.as_str());
    let runtime_endpoint = runtime::choose(around.program, said).to_owned();
    config.runtime.endpoint.clone_from(&runtime_endpoint);
    config.runtime.seccomp_default |= given.is_on("seccomp-default");
    let node_name = match own.node.hostname_override.as_str() {
        "" => around.hostname.trim().to_lowercase(),
        name => name.to_owned(),
    };
    if node_name.is_empty() {
        return Err(StartError::NoName);
    }
    let logging = &config.logs.logging;
    let logging = Logging {
        format: if logging.format == "json" { klog::Format::Json } else { klog::Format::Text },
        verbosity: logging.verbosity,
        patterns: logging.vmodule.iter().map(|one| (one.file_pattern.clone(), one.verbosity)).collect(),
    };
    let host = HostSettings {
        fail_cgroup_v1: config.host.fail_cgroup_v1,
        fail_swap_on: config.host.fail_swap_on,
        protect_kernel_defaults: config.host.protect_kernel_defaults,
        // Not negative: checked.
        max_open_files: u64::try_from(config.host.max_open_files).unwrap_or(0),
        oom_score_adj: config.host.oom_score_adj,
    };
    Ok(Assembled {
        flags: own,
        config,
        gates,
        host,
        node_name,
        runtime_endpoint,
        logging,
        remarks,
        shown_flags: given.shown(),
        around: around.clone(),
    })
}

/// The text of `--help` and `--version`.
fn shown(given: &Given, around: &Surroundings) -> Option<String> {
    if given.is_on("help") {
        return Some(flags::help(around.program.name()));
    }
    match given.value("version") {
        Some(Value::Bool(true)) => Some(version::plain() + "\n"),
        Some(Value::String(_)) => Some(version::raw() + "\n"),
        _ => None,
    }
}
