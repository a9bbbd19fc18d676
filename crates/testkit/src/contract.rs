//! What any runtime must do, as scenarios that are played on the contract: on runtimes behind a socket, on the embedded one,
//! and, as far as it goes, on [`FakeRuntime`](crate::FakeRuntime).
//!
//! A scenario makes its own pods on a [`Bench`] and answers what was not as it must be. Afterwards everything that it made is
//! removed. [`play`] tells what became of each: a verb that the runtime does not have is told apart from a wrong answer.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rubelet_api::ids::SandboxId;
use rubelet_cri::{Runtime, RuntimeError};

mod checks;
mod containers;
mod ends;
mod events;
mod exec;
mod images;
mod info;
mod logs;
mod mounts;
mod names;
mod namespaces;
mod network;
mod newer;
mod pod;
mod process;
mod resources;
mod sandboxes;
mod seccomp;
mod security;
mod streams;
mod usage;
mod websocket;

use checks::until;
use pod::Pod;

/// What a scenario is played on.
pub struct Bench {
    runtime: Arc<dyn Runtime>,
    settings: Settings,
    /// Of pods so far: each has a number in its name.
    pods: AtomicU64,
    made: Mutex<Vec<SandboxId>>,
}

/// What a runtime and its machine have.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An image with busybox and no entrypoint, which is on the node.
    pub image: String,
    /// For logs and volumes: a directory of the runtime's machine.
    pub folder: PathBuf,
    /// Parent of the pods' cgroups, as CRI takes it, e.g. `/contract`; empty: the runtime's own.
    pub cgroup_parent: String,
    /// What there is of which a scenario may have need.
    pub has: Vec<Need>,
    /// `host:port` of a registry without encryption, with the images that [`REGISTRY_IMAGES`] names; empty without one.
    pub registry: String,
}

/// What a scenario may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Containers are processes: they write, and commands run in them.
    Processes,
    /// Pods have a network of their own, which this process reaches.
    Network,
    /// Images can be pulled.
    Registry,
    /// Some rights of the machine's administrator: to mount.
    Root,
}

/// How containerd tells that a shim ended while it was asked.
const SHIM_IS_GONE: &str = "ttrpc: closed";

/// Names in the registry that scenarios pull. All are busybox; what differs stands behind them.
pub const REGISTRY_IMAGES: [(&str, &str); 11] = [
    ("contract/first:1", "FIRST=yes"),
    ("contract/first:latest", "FIRST=yes"),
    ("contract/second:1", "SECOND=yes"),
    ("contract/third:1", "THIRD=yes"),
    ("contract/tags:a", "TAGS=yes"),
    ("contract/tags:b", "TAGS=yes"),
    ("contract/tags:c", "TAGS=yes"),
    ("contract/user:1", "user 1002"),
    ("contract/username:1", "user www-data (33), in groups www-data (33), audio (29)"),
    (
        "contract/entry:1",
        "entrypoint echo, command `of the image`, directory /var/log, NAME=image KEPT=kept, stop signal SIGUSR1",
    ),
    ("contract/signal:1", "stop signal SIGUSR1"),
];

/// One thing that a runtime must do.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// A sentence that says it.
    pub name: &'static str,
    needs: &'static [Need],
    run: fn(Arc<Bench>) -> Played,
}

type Played = Pin<Box<dyn Future<Output = Result>>>;

/// What became of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Passed,
    /// What was not as it must be.
    Failed(String),
    /// The runtime does not have a verb.
    Lacks(String),
    /// The bench does not have what it takes.
    NotPlayed(Need),
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => out.write_str("passed"),
            Self::Failed(why) => write!(out, "FAILED: {why}"),
            Self::Lacks(verb) => write!(out, "lacks {verb}"),
            Self::NotPlayed(need) => write!(out, "not played: needs {need:?}"),
        }
    }
}

/// Why a scenario did not go on.
pub(crate) enum Failure {
    Said(String),
    Runtime(RuntimeError),
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Said(format!("the scenario's own file: {error}"))
    }
}

pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// How long one scenario may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Names scenarios: a sentence, what they need, the function.
macro_rules! suite {
    ($($name:literal $([$($need:ident),*])? => $run:expr;)*) => {
        pub(super) const ALL: &[super::Scenario] = &[
            $(super::Scenario {
                name: $name,
                needs: &[$($(super::Need::$need),*)?],
                run: |bench| Box::pin($run(bench)),
            }),*
        ];
    };
}
use suite;

/// All scenarios.
pub fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [
        info::ALL,
        sandboxes::ALL,
        names::ALL,
        containers::ALL,
        process::ALL,
        ends::ALL,
        logs::ALL,
        exec::ALL,
        usage::ALL,
        resources::ALL,
        mounts::ALL,
        namespaces::ALL,
        network::ALL,
        security::ALL,
        seccomp::ALL,
        events::ALL,
        images::ALL,
        streams::ALL,
        newer::ALL,
    ]
    .into_iter()
    .flatten()
}

impl Bench {
    /// A bench for a runtime.
    pub fn new(runtime: Arc<dyn Runtime>, settings: Settings) -> Arc<Self> {
        Arc::new(Self { runtime, settings, pods: AtomicU64::new(0), made: Mutex::default() })
    }

    fn has(&self, need: Need) -> bool {
        self.settings.has.contains(&need)
    }

    fn number(&self) -> u64 {
        self.pods.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&self, id: SandboxId) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Removes the sandboxes that were made here.
    async fn sweep(&self) -> Result {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for id in made {
            match self.runtime.stop_pod_sandbox(&id).await {
                // containerd asked a shim that was just ending by itself; a kubelet asks again.
                Err(error) if error.to_string().contains(SHIM_IS_GONE) => self.runtime.stop_pod_sandbox(&id).await?,
                stopped => stopped?,
            }
            self.runtime.remove_pod_sandbox(&id).await?;
        }
        Ok(())
    }

    /// An image of the registry.
    fn in_registry(&self, name: &str) -> String {
        format!("{}/{name}", self.settings.registry)
    }
}

/// Plays one scenario and takes down what it made.
pub async fn play(bench: &Arc<Bench>, scenario: &Scenario) -> Outcome {
    if let Some(need) = scenario.needs.iter().find(|need| !bench.has(**need)) {
        return Outcome::NotPlayed(*need);
    }
    let played = match tokio::time::timeout(PATIENCE, (scenario.run)(bench.clone())).await {
        Ok(played) => played,
        Err(_) => Err(Failure::Said(format!("it took longer than {PATIENCE:?}"))),
    };
    let swept = match tokio::time::timeout(PATIENCE, bench.sweep()).await {
        Ok(swept) => swept,
        Err(_) => Err(Failure::Said("what it made could not be removed in time".to_owned())),
    };
    match (played, swept) {
        (Ok(()), Ok(())) => Outcome::Passed,
        (Err(Failure::Runtime(error)), _) if error.is_unimplemented() => Outcome::Lacks(error.verb().to_owned()),
        (Err(failure), _) => Outcome::Failed(failure.to_string()),
        (Ok(()), Err(failure)) => Outcome::Failed(format!("while taking down: {failure}")),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(said) => out.write_str(said),
            Self::Runtime(error) => write!(out, "{}: {error}", error.verb()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_case_of_critest_has_its_scenario() {
        let names: Vec<&str> = super::scenarios().map(|scenario| scenario.name).collect();
        let rows = include_str!("contract/critest.tsv").lines().filter(|line| !line.starts_with('#'));
        let cases: Vec<(&str, &str)> = rows.filter_map(|row| row.split_once('\t')).collect();
        assert_eq!(cases.len(), 85);
        for (case, scenario) in cases {
            assert!(names.contains(&scenario), "{case}: no scenario {scenario:?}");
        }
    }

    #[test]
    fn names_are_given_once() {
        let mut names: Vec<&str> = super::scenarios().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
