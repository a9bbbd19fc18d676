//! The network of pods on one machine: by CNI plugins where they are configured, otherwise by a bridge of our own.
//!
//! Everything here blocks. Who attaches a pod says under which id; by that id alone it is detached, also after a restart of this
//! program or of the machine, and by it [`Network::sweep`] knows what belongs to nobody any more.
//!
//! Which of the two it is depends on `/etc/cni/net.d` at the moment a pod is attached; how a pod was attached is remembered.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rubelet_host::netns;

mod book;
mod bridge;
mod cni;
mod link;
mod nft;
mod rules;
mod subnet;

pub use subnet::{Subnet, SubnetError};

use book::{Book, Entry, How};

/// How a network is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configurations of CNI; the first in the order of their names counts. Looked at anew for each pod.
    pub cni_conf_dir: PathBuf,
    /// Where its plugins are, in this order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where its results are kept, in libcni's form.
    pub cni_cache_dir: PathBuf,
    /// Who has which address.
    pub state_dir: PathBuf,
    /// Files that keep the pods' namespaces.
    pub netns_dir: PathBuf,
    /// Name of the bridge; the table of nftables is named after it.
    pub bridge: String,
    /// At most one of IPv4 and one of IPv6.
    pub subnets: Vec<Subnet>,
}

impl Options {
    /// The machine's usual places but for these two.
    pub fn at(state_dir: &Path, netns_dir: &Path) -> Self {
        Self {
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(PathBuf::from).to_vec(),
            cni_cache_dir: "/var/lib/cni".into(),
            state_dir: state_dir.to_owned(),
            netns_dir: netns_dir.to_owned(),
            bridge: "rubelet0".to_owned(),
            subnets: Subnet::defaults(),
        }
    }
}

/// Transport of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the host that leads to one of the pod.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// `None`: all addresses of the host.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// A pod that is to have a network.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub id: &'a str,
    pub uid: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub ports: Vec<PortMapping>,
    pub annotations: &'a BTreeMap<String, String>,
    pub dns_servers: &'a [String],
    pub dns_searches: &'a [String],
    pub dns_options: &'a [String],
}

/// What a pod has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Why a pod has no network, or keeps a part of it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what}")]
    Kernel { what: String, source: io::Error },
    #[error("no address is left in {0}")]
    Exhausted(Subnet),
    #[error("{protocol:?} port {port} of the host is taken by pod {holder}")]
    PortTaken { protocol: Protocol, port: u16, holder: String },
    #[error("{0}")]
    Unsupported(String),
    #[error("CNI configuration {path}: {problem}")]
    Configuration { path: PathBuf, problem: String },
    #[error("plugin type={plugin:?} name={network:?} failed ({verb}): {said}")]
    Plugin { plugin: String, network: String, verb: &'static str, said: String },
}

pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError + use<> {
    let path = path.to_owned();
    move |source| NetworkError::File { what, path, source }
}

pub(crate) fn kernel_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let what = what.into();
    move |source| NetworkError::Kernel { what, source }
}

/// The network of all pods.
#[derive(Debug)]
pub struct Network {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    book: Book,
    subnets: Vec<Subnet>,
    /// Whether bridge and rules are known to be there.
    is_laid: bool,
}

impl Network {
    /// Reads who has which address. Nothing of the machine is changed yet.
    pub fn open(options: Options) -> Result<Self, NetworkError> {
        for dir in [&options.state_dir, &options.netns_dir] {
            fs::create_dir_all(dir).map_err(file_error("create", dir))?;
        }
        let book = Book::open(&options.state_dir)?;
        let state = State { book, subnets: options.subnets.clone(), is_laid: false };
        Ok(Self { options, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that keeps a pod's namespace.
    fn netns(&self, id: &str) -> PathBuf {
        self.options.netns_dir.join(id)
    }

    /// Makes a namespace with its loopback up.
    pub fn make_namespace(&self, id: &str) -> Result<PathBuf, NetworkError> {
        let path = self.netns(id);
        netns::make(&path, link::raise_loopback).map_err(file_error("make the network namespace", &path))?;
        Ok(path)
    }

    /// Takes over the namespace that a process is in.
    pub fn adopt_namespace(&self, id: &str, pid: u32) -> Result<PathBuf, NetworkError> {
        let path = self.netns(id);
        netns::keep(pid, &path).map_err(file_error("keep the network namespace", &path))?;
        netns::within(&path, link::raise_loopback).map_err(kernel_error("raise the loopback"))?;
        Ok(path)
    }

    /// Lets go of a pod's namespace; one that is not there is no error.
    pub fn remove_namespace(&self, id: &str) -> Result<(), NetworkError> {
        let path = self.netns(id);
        netns::remove(&path).map_err(file_error("remove the network namespace", &path))
    }

    /// Gives a pod its interface and addresses, in the namespace that was made under the same id.
    pub fn attach(&self, wanted: &Wanted<'_>) -> Result<Attached, NetworkError> {
        match cni::configured(&self.options)? {
            Some(list) => {
                let entry = Entry { how: How::Cni { network: list.name.clone() }, ..Entry::of(wanted) };
                self.state().book.write(wanted.id, Some(entry))?;
                let addresses = cni::add(&self.options, &list, wanted, &self.netns(wanted.id))?;
                Ok(Attached { addresses })
            }
            None => bridge::attach(&self.options, &mut self.state(), wanted, &self.netns(wanted.id)),
        }
    }

    /// Takes back what a pod was given; one that has nothing is no error.
    pub fn detach(&self, id: &str) -> Result<(), NetworkError> {
        let Some(entry) = self.state().book.get(id).cloned() else { return Ok(()) };
        match &entry.how {
            How::Cni { .. } => {
                cni::del(&self.options, id, &self.netns(id))?;
                self.state().book.write(id, None)
            }
            How::Bridge => bridge::detach(&self.options, &mut self.state(), id, &entry),
        }
    }

    /// Takes back everything of pods that are not among the living. The first failure is told, the rest is done.
    pub fn sweep(&self, living: &[&str]) -> Result<(), NetworkError> {
        let mut ids = self.state().book.ids();
        let dir = &self.options.netns_dir;
        for entry in fs::read_dir(dir).map_err(file_error("read", dir))? {
            ids.insert(entry.map_err(file_error("read", dir))?.file_name().to_string_lossy().into_owned());
        }
        let mut failure = None;
        for id in ids.iter().filter(|id| !living.contains(&id.as_str())) {
            let done = self.detach(id).and_then(|()| self.remove_namespace(id));
            if let Err(error) = done {
                failure.get_or_insert(error);
            }
        }
        bridge::sweep(&self.options, &mut self.state())?;
        failure.map_or(Ok(()), Err)
    }

    /// Whether pods can be attached; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        match cni::configured(&self.options) {
            Ok(Some(list)) => cni::check_plugins(&self.options, &list),
            Ok(None) if self.state().subnets.is_empty() => Err("the built-in network has no subnet".to_owned()),
            Ok(None) => Ok(()),
            Err(error) => Err(rubelet_host::chain(&error)),
        }
    }

    /// What is configured, in a word: `cni NAME` or `bridge`.
    pub fn kind(&self) -> String {
        match cni::configured(&self.options) {
            Ok(Some(list)) => format!("cni {}", list.name),
            Ok(None) | Err(_) => format!("bridge {}", self.options.bridge),
        }
    }

    /// Sets the subnets from which pods get addresses from now on, e.g. the node's pod CIDRs.
    pub fn set_subnets(&self, subnets: Vec<Subnet>) {
        let mut state = self.state();
        if !subnets.is_empty() && state.subnets != subnets {
            state.subnets = subnets;
            state.is_laid = false;
        }
    }
}
