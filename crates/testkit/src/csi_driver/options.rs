//! The command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rubelet_proto::csi::node_service_capability::rpc::Type;

pub use crate::program::OptionsError;

/// What `--help` says.
pub const USAGE: &str = "\
csi-driver: a CSI driver for tests; volumes are folders (or files) below DATA, made when they are first used.

usage: csi-driver --registry DIR --data DIR [OPTION ...]

  --registry DIR      <root-dir>/plugins_registry of the node
  --data DIR          where volumes and the record of calls are (see below)
  --name NAME         the driver's name (default: csi.test.rubelet.io)
  --node-id ID        its name for the node (default: here)
  --socket PATH       where it does its work (default: <registry>/../plugins/NAME/csi.sock)
  --with LIST         capabilities beside stage,stats,expand,modes: mount-group, condition; separated by commas
  --without LIST      capabilities that it does not have
  --volumes-max N     how many volumes the node takes (default: 0, not said)
  --topology KEY=VAL  where the node is; more than once

  --hold              end when standard input ends, too

It says `ready` on standard output and serves until SIGTERM.

  DATA/calls.jsonl         each call: {\"method\", \"request\", \"refused\"}; NodeGetCapabilities and Probe are left out
  DATA/fail/METHOD         while it is there, METHOD fails; content: number of the gRPC code, blank, message
  DATA/volumes/HANDLE      the volume: a folder, or a file of 16 MiB behind a loop device
  DATA/sizes/HANDLE        its size in bytes, as NodeExpandVolume set it (1 GiB without)
  DATA/abnormal/HANDLE     while it is there, the volume's condition is abnormal; content: message
  DATA/volumes-max         a number in place of --volumes-max

PersistentVolumes for it: `csi: {driver: NAME, volumeHandle: HANDLE}`. Volumes need no attachment: make a CSIDriver object
with `attachRequired: false`, or VolumeAttachments by hand.
";

/// What a driver is and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub registry: PathBuf,
    pub data: PathBuf,
    pub name: String,
    pub node_id: String,
    pub socket: PathBuf,
    pub capabilities: BTreeSet<i32>,
    pub volumes_max: i64,
    pub topology: Vec<(String, String)>,
    /// Ends with its standard input.
    pub is_held: bool,
}

impl Options {
    /// The usual driver.
    pub fn new(registry: &Path, data: &Path) -> Self {
        let name = "csi.test.rubelet.io".to_owned();
        let capabilities =
            [Type::StageUnstageVolume, Type::GetVolumeStats, Type::ExpandVolume, Type::SingleNodeMultiWriter];
        Self {
            registry: registry.to_owned(),
            data: data.to_owned(),
            socket: usual_socket(registry, &name),
            name,
            node_id: "here".to_owned(),
            capabilities: capabilities.into_iter().map(i32::from).collect(),
            volumes_max: 0,
            topology: Vec::new(),
            is_held: false,
        }
    }

    /// By the words of a command line.
    ///
    /// # Errors
    /// The word that is wrong.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, OptionsError> {
        let mut options = Self::new(Path::new(""), Path::new(""));
        let mut socket = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--hold" {
                options.is_held = true;
                continue;
            }
            let mut value = || words.next().ok_or_else(|| OptionsError(format!("{word} needs a value")));
            match word.as_str() {
                "--registry" => options.registry = value()?.into(),
                "--data" => options.data = value()?.into(),
                "--name" => options.name = value()?,
                "--node-id" => options.node_id = value()?,
                "--socket" => socket = Some(PathBuf::from(value()?)),
                "--with" => options.capabilities.extend(capabilities(&value()?)?),
                "--without" => {
                    for one in capabilities(&value()?)? {
                        options.capabilities.remove(&one);
                    }
                }
                "--volumes-max" => {
                    options.volumes_max = value()?.parse().map_err(|_| OptionsError(format!("{word}: no number")))?;
                }
                "--topology" => {
                    let pair = value()?;
                    let (key, place) =
                        pair.split_once('=').ok_or_else(|| OptionsError(format!("{word}: no KEY=VAL")))?;
                    options.topology.push((key.to_owned(), place.to_owned()));
                }
                other => return Err(OptionsError(format!("unknown option {other}"))),
            }
        }
        if options.registry.as_os_str().is_empty() || options.data.as_os_str().is_empty() {
            return Err(OptionsError("--registry and --data are needed".to_owned()));
        }
        options.socket = socket.unwrap_or_else(|| usual_socket(&options.registry, &options.name));
        Ok(options)
    }

    pub(super) fn registration_socket(&self) -> PathBuf {
        self.registry.join(format!("{}-reg.sock", self.name))
    }

    pub(super) fn has(&self, capability: Type) -> bool {
        self.capabilities.contains(&i32::from(capability))
    }
}

fn usual_socket(registry: &Path, name: &str) -> PathBuf {
    let root = registry.parent().unwrap_or(registry);
    root.join("plugins").join(name).join("csi.sock")
}

fn capabilities(list: &str) -> Result<Vec<i32>, OptionsError> {
    let named = |name: &str| match name {
        "stage" => Ok(Type::StageUnstageVolume.into()),
        "stats" => Ok(Type::GetVolumeStats.into()),
        "expand" => Ok(Type::ExpandVolume.into()),
        "condition" => Ok(Type::VolumeCondition.into()),
        "modes" => Ok(Type::SingleNodeMultiWriter.into()),
        "mount-group" => Ok(Type::VolumeMountGroup.into()),
        other => Err(OptionsError(format!("unknown capability {other}"))),
    };
    list.split(',').filter(|name| !name.is_empty()).map(named).collect()
}
