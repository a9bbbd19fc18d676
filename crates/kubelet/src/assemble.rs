//! From the command line to one effective configuration.
//!
//! Defaults, then the configuration file, then drop-ins, then flags: each wins over the one before; feature gates add
//! up key by key. Without `--config` the older, less strict defaults of the flags apply (kubelet 1.36).

mod overlay;
mod runtime;

use serde_json::Value;

use crate::flags::{self, FlagError, Given};
use crate::host_checks::HostSettings;
use crate::own::{OwnFlagError, OwnFlags};
use crate::surroundings::Surroundings;
use crate::{klog, version};

/// Why the program does not start, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("failed to parse kubelet flag: {0}")]
    Flag(#[from] FlagError),
    #[error("unknown command {0}")]
    Command(String),
    #[error("failed to validate kubelet flags: {0}")]
    OwnFlag(#[from] OwnFlagError),
    #[error(transparent)]
    Runtime(#[from] runtime::NoEmbeddedRuntime),
    #[error("failed to run Kubelet: the host has no name; give one with --hostname-override")]
    NoName,
    #[error("failed to run Kubelet: this build does not read its configuration yet")]
    Unfinished,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Call {
    /// Write this to stdout and end.
    Show(String),
    /// Run the agent.
    Run(Box<Assembled>),
}

/// Everything that the program was told, in one place.
#[derive(Clone, Debug)]
pub(crate) struct Assembled {
    /// The flags without a field.
    pub(crate) flags: OwnFlags,
    /// What the configuration says about the host.
    pub(crate) host: HostSettings,
    /// The node's name.
    pub(crate) node_name: String,
    /// Socket of the container runtime.
    pub(crate) runtime_endpoint: String,
    /// `makeIPTablesUtilChains`.
    pub(crate) keeps_iptables_chains: bool,
    /// How to log.
    pub(crate) logging: Logging,
    /// To be logged once.
    pub(crate) remarks: Vec<Remark>,
    /// What the program found around it.
    pub(crate) around: Surroundings,
}

/// Something to be logged once, when the configuration is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Remark {
    /// The user may want to change something.
    Warning { words: String, about: String },
    /// Good to know.
    Info { words: String, about: String },
}

impl Remark {
    /// Logs it.
    pub(crate) fn log(&self) {
        match self {
            Self::Warning { words, about } => tracing::warn!(about = about.as_str(), "{words}"),
            Self::Info { words, about } => tracing::info!(about = about.as_str(), "{words}"),
        }
    }
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
    if let Some(operand) = given.operands.first() {
        return Err(StartError::Command(operand.clone()));
    }
    if let Some(text) = shown(&given, around) {
        return Ok(Call::Show(text));
    }
    let mut own = OwnFlags::read(&given)?;
    own.resolve(&around.working_dir);
    Err(StartError::Unfinished)
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
