//! A container runtime in memory, in virtual time.
//!
//! It outlives agents: a test kills an agent and starts another one on the same runtime, and what the dead agent had asked
//! for is carried out all the same. It keeps a list of violations: two live instances of one container, two ready
//! sandboxes of one pod name, a sandbox that is stopped while containers run in it.

mod state;
mod verbs;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rubelet_api::ids::ContainerId;
use rubelet_proto::cri;
use tokio::sync::broadcast;

pub(crate) use state::State;

/// Where the fake runtime's wall clock starts: 2023-11-14T22:13:20Z.
pub const EPOCH_NANOS: i64 = 1_700_000_000_000_000_000;

/// What a container does once it is started.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// Runs until it is stopped; ends at once on its stop signal.
    Runs,
    /// Runs until it is killed: its whole grace passes.
    Stubborn,
    /// Ends by itself.
    Exits { after: Duration, code: i32 },
}

impl Script {
    /// The script that a command names: `["exits", "<millis>", "<code>"]`, `["stubborn"]`, anything else runs.
    pub fn of(command: &[String]) -> Self {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["exits", millis, code] => match (millis.parse(), code.parse()) {
                (Ok(millis), Ok(code)) => Self::Exits { after: Duration::from_millis(millis), code },
                _ => Self::Runs,
            },
            ["stubborn"] => Self::Stubborn,
            _ => Self::Runs,
        }
    }
}

/// How a runtime behaves.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Virtual time that a verb takes at least; at most it is four times as much.
    pub latency: Duration,
    /// Decides how long each verb takes.
    pub seed: u64,
    /// Whether `GetContainerEvents` is there.
    pub has_events: bool,
}

impl Default for Temper {
    fn default() -> Self {
        Self { latency: Duration::from_millis(3), seed: 0, has_events: true }
    }
}

/// The runtime; clones share it.
#[derive(Clone, Debug)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    temper: Temper,
}

impl FakeRuntime {
    /// A runtime without pods.
    pub fn new(temper: Temper) -> Self {
        Self { state: Arc::default(), events: broadcast::channel(1024).0, temper }
    }

    /// The calls that changed something, in order, e.g. `RunPodSandbox default/web`.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Broken rules, in order. Must be empty at the end of every test.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Live containers as `namespace/pod/container` with their command, sorted.
    pub fn running(&self) -> Vec<(String, Vec<String>)> {
        self.lock().running()
    }

    /// Number of sandboxes that are ready.
    pub fn ready_sandboxes(&self) -> usize {
        self.lock().sandboxes.values().filter(|s| s.is_ready).count()
    }

    /// UIDs of pods that have a sandbox, ready or not, or a container.
    pub fn uids(&self) -> BTreeSet<String> {
        let uid = |s: &state::Sandbox| s.config.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
        self.lock().sandboxes.values().map(uid).collect()
    }

    /// Calls of any verb so far, whether they changed something or not.
    pub fn verbs(&self) -> u64 {
        self.lock().count
    }

    /// Logs of the containers that are there, below their pods' directories, sorted.
    pub fn log_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock().containers.values().map(|c| c.config.log_path.clone()).collect();
        names.sort();
        names
    }

    /// Forgets every sandbox and container.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.sandboxes.clear();
        state.containers.clear();
    }

    /// Lets the next calls of a verb fail, `times` times.
    pub fn fail(&self, verb: &'static str, times: usize) {
        self.lock().failures.insert(verb, times);
    }

    /// From now on calls of this verb about this pod (`namespace/name`) do not answer, until [`Self::unhang`].
    pub fn hang(&self, verb: &'static str, pod: &str) {
        self.lock().hanging.insert((verb, pod.to_owned()));
    }

    /// All calls answer again; what hung goes on, whether somebody still waits or not.
    pub fn unhang(&self) {
        self.lock().hanging.clear();
    }

    /// From now on whoever calls this verb about this pod (`namespace/name`) panics: the fault is the agent's own.
    pub fn panic_on(&self, verb: &'static str, pod: &str) {
        self.lock().panicking.insert((verb, pod.to_owned()));
    }

    /// Nobody panics any more.
    pub fn calm(&self) {
        self.lock().panicking.clear();
    }

    /// An image lies there that was not pulled by the agent.
    pub fn has_image(&self, id: &str, bytes: u64, pinned: bool) {
        let image = cri::Image { id: id.to_owned(), size: bytes, pinned, ..Default::default() };
        self.lock().images.insert(id.to_owned(), image);
    }

    /// From now on the container (`namespace/pod/container`) uses so many bytes of memory.
    pub fn uses(&self, container: &str, bytes: u64) {
        self.lock().usage.insert(container.to_owned(), bytes);
    }

    /// Ends a pod's ready sandbox from outside: everything in it dies.
    pub fn kill_sandbox(&self, pod: &str) {
        let killed: Vec<ContainerId> = {
            let mut state = self.lock();
            let ids: Vec<_> = state.ready(pod).cloned().collect();
            for id in &ids {
                if let Some(sandbox) = state.sandboxes.get_mut(id) {
                    sandbox.is_ready = false;
                }
            }
            let dies = |c: &state::Container| c.is_running() && ids.contains(&c.sandbox);
            state.containers.iter().filter(|(_, c)| dies(c)).map(|(id, _)| id.clone()).collect()
        };
        for id in killed {
            self.ended(&id, 137);
        }
    }

    /// Ends a running container from outside, like a crash.
    pub fn crash(&self, name: &str, code: i32) {
        let ids: Vec<ContainerId> = {
            let state = self.lock();
            state
                .containers
                .iter()
                .filter(|(_, c)| c.is_running() && c.path() == name)
                .map(|(id, _)| id.clone())
                .collect()
        };
        for id in ids {
            self.ended(&id, code);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a container as ended and tells those who listen.
    pub(crate) fn ended(&self, id: &ContainerId, code: i32) {
        let event = self.lock().end(id, code);
        if let Some(event) = event
            && self.events.send(event).is_err()
        {
            // Nobody listens: relists will show it.
        }
    }
}
