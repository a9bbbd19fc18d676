//! The network of pods on one machine: by CNI plugins where they are configured, otherwise by a bridge of our own.
//!
//! Everything here blocks. Who attaches a pod says under which id; by that id alone it is detached, also after a restart of this
//! program or of the machine, and by it [`Network::sweep`] knows what belongs to nobody any more.
//!
//! Which of the two it is depends on `/etc/cni/net.d` at the moment a pod is attached; how a pod was attached is remembered.
//!
//! | file | what |
//! |---|---|
//! | `cni` | configurations, calls of plugins, what is remembered of them |
//! | `bridge` | the built-in network: who gets what, in which order |
//! | `link`, `rules`, `doors`, `conntrack`, `sysctl` | its effects on the kernel |
//! | `book` | who has which address |

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rubelet_host::{chain, netns, proc};

mod book;
mod bridge;
mod cni;
mod conntrack;
mod doors;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod leaving;
mod link;
mod nft;
mod options;
mod rules;
mod subnet;
mod sysctl;

#[cfg(test)]
mod tests;

pub use error::NetworkError;
pub use options::{Attached, Options, PortMapping, Protocol, Wanted};
pub use subnet::{Subnet, SubnetError};

use book::Book;
use bridge::Bridge;
use error::{file_error, kernel_error};

/// Letters of an id at most.
const ID_MAX: usize = 128;

/// The network of all pods.
#[derive(Debug)]
pub struct Network {
    options: Options,
    bridge: Mutex<Bridge>,
}

/// What a sweep has found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Sandboxes of which something was there, and is no more.
    pub removed: Vec<String>,
    /// What is still there, and why: by sandbox, or of the network as a whole.
    pub failed: Vec<(String, NetworkError)>,
}

impl Swept {
    fn fail(&mut self, what: String, error: NetworkError) {
        tracing::warn!(what, err = %chain(&error), "something is left of a pod's network; the next sweep tries again");
        self.failed.push((what, error));
    }
}

impl Network {
    /// Reads who has which address. Nothing of the machine is changed yet.
    ///
    /// # Errors
    /// A directory cannot be made, or the list of addresses not be read.
    pub fn open(options: Options) -> Result<Self, NetworkError> {
        for dir in [&options.state_dir, &options.netns_dir] {
            fs::create_dir_all(dir).map_err(file_error("create", dir))?;
        }
        let boot = proc::boot_id().unwrap_or_default();
        let book = Book::open(&options.state_dir, &boot)?;
        let bridge = Bridge::new(book, options.subnets.clone());
        Ok(Self { options, bridge: Mutex::new(bridge) })
    }

    fn bridge(&self) -> MutexGuard<'_, Bridge> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that keeps a pod's namespace.
    fn netns(&self, id: &str) -> Result<PathBuf, NetworkError> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let is_id =
            id.len() <= ID_MAX && id.chars().all(is_fine) && id.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_id { Ok(self.options.netns_dir.join(id)) } else { Err(NetworkError::Id(id.to_owned())) }
    }

    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// There is one of this id already, or the kernel refuses.
    pub fn make_namespace(&self, id: &str) -> Result<PathBuf, NetworkError> {
        let path = self.netns(id)?;
        netns::make(&path, link::raise_loopback).map_err(file_error("make the network namespace", &path))?;
        self.options.reached("namespace.made");
        Ok(path)
    }

    /// Takes over the namespace that a process is in.
    ///
    /// # Errors
    /// There is one of this id already, or the kernel refuses.
    pub fn adopt_namespace(&self, id: &str, pid: u32) -> Result<PathBuf, NetworkError> {
        let path = self.netns(id)?;
        netns::keep(pid, &path).map_err(file_error("keep the network namespace", &path))?;
        self.options.reached("namespace.adopted");
        netns::within(&path, link::raise_loopback).map_err(kernel_error("raise the loopback"))?;
        Ok(path)
    }

    /// Lets go of a pod's namespace; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_namespace(&self, id: &str) -> Result<(), NetworkError> {
        let path = self.netns(id)?;
        netns::remove(&path).map_err(file_error("remove the network namespace", &path))
    }

    /// Gives a pod its interface and addresses, in the namespace that was made under the same id. What an earlier attempt has left is
    /// taken back first, what this one has begun if it fails.
    ///
    /// # Errors
    /// Whatever keeps the pod from having a network; [`Self::detach`] is then still allowed.
    pub fn attach(&self, wanted: &Wanted<'_>) -> Result<Attached, NetworkError> {
        let namespace = self.netns(wanted.id)?;
        let configured = cni::configured(&self.options)?;
        self.detach(wanted.id)?;
        match configured {
            Some(list) => cni::add(&self.options, &list, wanted, &namespace),
            None => self.bridge().attach(&self.options, wanted, &namespace),
        }
    }

    /// Whether a pod still has what it was given. What is missing of the built-in network's rules is put back.
    ///
    /// # Errors
    /// [`NetworkError::Broken`], or a plugin's complaint.
    pub fn check(&self, id: &str) -> Result<(), NetworkError> {
        let namespace = self.netns(id)?;
        match cni::check(&self.options, id, &namespace)? {
            Some(()) => Ok(()),
            None => self.bridge().check(&self.options, id, &namespace),
        }
    }

    /// Takes back what a pod was given; one that has nothing is no error. The namespace may be gone.
    ///
    /// # Errors
    /// Something is still there; to be tried again.
    pub fn detach(&self, id: &str) -> Result<(), NetworkError> {
        let namespace = self.netns(id)?;
        cni::del(&self.options, id, &namespace)?;
        self.bridge().detach(&self.options, id)
    }

    /// Takes back everything of pods that are not among the living, and what an earlier process has left half made. What cannot be taken
    /// back of one pod keeps nothing of the others; it is logged, told, and tried again with the next sweep.
    ///
    /// # Errors
    /// It is not known what there is.
    pub fn sweep(&self, living: &[&str]) -> Result<Swept, NetworkError> {
        let mut ids: BTreeSet<String> = self.bridge().book.ids();
        ids.extend(cni::ids(&self.options)?);
        let dir = &self.options.netns_dir;
        for entry in fs::read_dir(dir).map_err(file_error("read", dir))? {
            ids.insert(entry.map_err(file_error("read", dir))?.file_name().to_string_lossy().into_owned());
        }
        let mut swept = Swept::default();
        for id in ids.into_iter().filter(|id| !living.contains(&id.as_str())) {
            match self.detach(&id).and_then(|()| self.remove_namespace(&id)) {
                Ok(()) => swept.removed.push(id),
                Err(error) => swept.fail(id, error),
            }
        }
        if let Err(error) = cni::collect(&self.options, living) {
            swept.fail("plugins' garbage".to_owned(), error);
        }
        if let Err(error) = self.bridge().sweep(&self.options) {
            swept.fail("bridge".to_owned(), error);
        }
        Ok(swept)
    }

    /// Whether pods can be attached; if not, why. If pods are on the built-in network, what is missing of it is made again, and its packets
    /// are let through where other programs have shut their firewall since the last time.
    ///
    /// # Errors
    /// The message of the runtime's condition `NetworkReady`.
    pub fn ready(&self) -> Result<(), String> {
        match cni::configured(&self.options) {
            Ok(Some(list)) => cni::status(&self.options, &list),
            Ok(None) => self.bridge().ready(&self.options).map_err(|e| chain(&e)),
            Err(error) => Err(chain(&error)),
        }
    }

    /// What is configured, in a word: `cni NAME` or `bridge NAME`.
    pub fn kind(&self) -> String {
        match cni::configured(&self.options) {
            Ok(Some(list)) => format!("cni {}", list.name),
            Ok(None) | Err(_) => format!("bridge {}", self.options.bridge),
        }
    }

    /// Sets the subnets from which pods get addresses from now on, e.g. the node's pod CIDRs. Pods keep the addresses they have. No
    /// subnet is no change.
    pub fn set_subnets(&self, subnets: Vec<Subnet>) {
        if !subnets.is_empty() {
            self.bridge().subnets = subnets;
        }
    }

    /// Removes the bridge and its rules though there may be pods on it; with the last pod they go by themselves.
    ///
    /// # Errors
    /// Something is still there.
    pub fn dismantle(&self) -> Result<(), NetworkError> {
        self.bridge().dismantle(&self.options)
    }
}
