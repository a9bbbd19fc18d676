//! The command line.

use std::path::{Path, PathBuf};

pub use crate::program::OptionsError;

/// What `--help` says.
pub const USAGE: &str = "\
dra-driver: a driver of resource claims (DRA) for tests; it has 8 devices, dev-0 to dev-7, and each claim gets one or more.

usage: dra-driver --registry DIR --data DIR --cdi DIR [OPTION ...]

  --registry DIR      <root-dir>/plugins_registry of the node
  --data DIR          where its records are (see below)
  --cdi DIR           where container runtimes look for CDI files
  --name NAME         the driver's name (default: dra.test.rubelet.io)
  --pool NAME         the pool of its devices (default: here)
  --socket PATH       where it does its work (default: <registry>/../plugins/NAME/dra.sock)
  --endpoint PATH     where it says that it does its work, when somebody stands before it
  --requests LIST     claims get a device for each of these requests, separated by commas (default: one device for all)
  --version VERSION   v1 or v1beta1 (default: v1)
  --no-health         it does not tell how its devices are
  --hold              end when standard input ends, too

It says `ready` on standard output and serves until SIGTERM.

  DATA/calls.jsonl    each call: {\"method\", \"request\", \"refused\"}
  DATA/fail/METHOD    while it is there, METHOD fails; content: number of the gRPC code, blank, message
  DATA/prepared/UID   a claim that is prepared; content: its devices
  DATA/health/DEVICE  while it is there, the device is not well; content: message

A container with a device sees DRA_<REQUEST>=<device> of <claim>, and /dev/<device>, which is /dev/null.
";

/// What a driver is and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub registry: PathBuf,
    pub data: PathBuf,
    pub cdi: PathBuf,
    pub name: String,
    pub pool: String,
    pub socket: PathBuf,
    pub endpoint: Option<PathBuf>,
    pub requests: Vec<String>,
    pub version: String,
    pub has_health: bool,
    /// Ends with its standard input.
    pub is_held: bool,
}

impl Options {
    /// The usual driver.
    pub fn new(registry: &Path, data: &Path, cdi: &Path) -> Self {
        let name = "dra.test.rubelet.io".to_owned();
        Self {
            registry: registry.to_owned(),
            data: data.to_owned(),
            cdi: cdi.to_owned(),
            socket: usual_socket(registry, &name),
            name,
            endpoint: None,
            pool: "here".to_owned(),
            requests: Vec::new(),
            version: "v1".to_owned(),
            has_health: true,
            is_held: false,
        }
    }

    /// By the words of a command line.
    ///
    /// # Errors
    /// The word that is wrong.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, OptionsError> {
        let mut options = Self::new(Path::new(""), Path::new(""), Path::new(""));
        let mut socket = None;
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--hold" => {
                    options.is_held = true;
                    continue;
                }
                "--no-health" => {
                    options.has_health = false;
                    continue;
                }
                _ => {}
            }
            let mut value = || words.next().ok_or_else(|| OptionsError(format!("{word} needs a value")));
            match word.as_str() {
                "--registry" => options.registry = value()?.into(),
                "--data" => options.data = value()?.into(),
                "--cdi" => options.cdi = value()?.into(),
                "--name" => options.name = value()?,
                "--pool" => options.pool = value()?,
                "--socket" => socket = Some(PathBuf::from(value()?)),
                "--endpoint" => options.endpoint = Some(value()?.into()),
                "--requests" => options.requests = value()?.split(',').map(str::to_owned).collect(),
                "--version" => options.version = value()?,
                other => return Err(OptionsError(format!("unknown option {other}"))),
            }
        }
        if [&options.registry, &options.data, &options.cdi].iter().any(|dir| dir.as_os_str().is_empty()) {
            return Err(OptionsError("--registry, --data and --cdi are needed".to_owned()));
        }
        if !matches!(options.version.as_str(), "v1" | "v1beta1") {
            return Err(OptionsError(format!("unknown version {}", options.version)));
        }
        options.socket = socket.unwrap_or_else(|| usual_socket(&options.registry, &options.name));
        Ok(options)
    }

    pub(super) fn registration_socket(&self) -> PathBuf {
        self.registry.join(format!("{}-reg.sock", self.name))
    }
}

fn usual_socket(registry: &Path, name: &str) -> PathBuf {
    let root = registry.parent().unwrap_or(registry);
    root.join("plugins").join(name).join("dra.sock")
}
