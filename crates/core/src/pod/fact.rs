//! Everything that a pod's record can learn.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;

use super::needs::{Got, Need};
use super::observed::Observed;
use super::resize::ResizeVerdict;
use super::step::StepKey;

/// Where a pod is wanted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Source {
    File,
    Http,
    Api,
    /// Found running in the runtime, wanted by nobody.
    Runtime,
}

impl Source {
    /// The value of the annotation `kubernetes.io/config.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Api => "api",
            Self::Runtime => "runtime",
        }
    }

    /// File and URL pods are static: no API object decides about them.
    pub fn is_static(self) -> bool {
        matches!(self, Self::File | Self::Http)
    }
}

/// One thing learned; the only input of a record.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The pod as its source wants it now (same UID).
    Desired(Arc<v1::Pod>),
    /// Admission looked at the sizes that the pod wants now.
    Resize(ResizeVerdict),
    /// Its source wants it no more.
    Withdrawn,
    /// A complete look at the pod in the runtime.
    Observed(Observed),
    /// A step of the last plan was taken up.
    StepStarted(StepKey),
    /// A step ended.
    StepDone { key: StepKey, outcome: Outcome },
    /// The node's level demands something of this pod.
    Order(Order),
    /// The last plan's status and events were published: they count as told.
    Published { status: Arc<v1::PodStatus>, events: usize },
    /// Another pod of the same name no longer stands before this one (or now does).
    Behind(bool),
    /// The pull of a container's image begins; only steps that pull say so.
    Pulling(ContainerName),
    /// The restart count that each container's logs on the node leave for its next instance: one more than the last log's.
    LogCounts(Vec<(ContainerName, u32)>),
    /// All that was fetched by now of what the pod needs.
    Inputs(std::collections::BTreeMap<Need, Got>),
    /// How the devices are that the containers have from plugins, by container.
    Devices(BTreeMap<String, Vec<v1::ResourceStatus>>),
    /// Time passed; `decide` is due.
    Tick,
}

/// A request from node level to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Admission said no: the pod never runs. Phase Failed with this reason and message.
    Reject { reason: String, message: String },
    /// Stop within `grace_secs` (`None`: the pod's own), then phase Failed with reason and message.
    Evict(EvictOrder),
    /// The node goes down: stop within the pod's grace, or `grace_secs` if that is less. What the pod has on the disk stays.
    ShutDown { grace_secs: Option<i64> },
}

/// How a pod is ended for the node's sake.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EvictOrder {
    /// `None`: the pod's own.
    pub grace_secs: Option<i64>,
    pub reason: String,
    pub message: String,
    /// Annotations of the event.
    pub annotations: BTreeMap<String, String>,
    /// Message of the condition `DisruptionTarget`; `None`: the pod goes for its own deeds and has none.
    pub disruption: Option<String>,
}

/// What became of a step.
pub type Outcome = Result<Done, StepFailure>;

/// What a successful step brought to light.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// Nothing to tell.
    Plain,
    Sandbox(SandboxId),
    Image(ImageFound),
    Container(ContainerId),
    /// The container was not created: somebody has removed the pod's directory.
    GroundGone,
    Probe(ProbeAnswer),
    /// Volumes are mounted.
    Mounted,
    /// The same, of a volume of which there is more to tell.
    Volume(VolumeNews),
}

/// What became of a volume beside that it is there.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct VolumeNews {
    /// A block device is bound here, and linked from there.
    pub mapped: Option<(std::path::PathBuf, std::path::PathBuf)>,
    pub growth: Option<Growth>,
}

/// What became of a volume that was to grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growth {
    /// It has so many bytes now.
    Done(i64),
    /// Its driver has nothing to do for it on the node, or not while it is in use: for so many bytes it is not asked again.
    Left(i64),
}

/// An image that is on the node.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ImageFound {
    /// What the runtime is told to create containers from: the image's id.
    pub image_ref: String,
    /// Numeric user of the image's config, if it has one.
    pub uid: Option<i64>,
    /// User name of the image's config; empty if none.
    pub username: String,
    /// `Some` when it was pulled just now.
    pub pulled: Option<Pulled>,
    /// Nobody asks whether the pod may have it.
    pub is_unchecked: bool,
    /// The images that the container has mounted, by the volumes' names in the pod.
    pub volumes: std::collections::BTreeMap<String, VolumeImage>,
}

/// An image on the node that is a volume.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct VolumeImage {
    /// As written in the pod.
    pub image: String,
    pub image_ref: String,
    pub pulled: Option<Pulled>,
}

/// How a pull went, for the event.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pulled {
    pub took: std::time::Duration,
    /// Waiting for other pulls included.
    pub took_with_waiting: std::time::Duration,
    pub size_bytes: u64,
}

/// A probe's answer. A prober error (`Unknown`) changes no result.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeAnswer {
    Success,
    /// Success with a warning (redirect to another host): event `ProbeWarning`.
    Warning(String),
    Failure(String),
    /// The probe could not be made.
    Unknown(String),
}

/// Why a step failed, in the API's words.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct StepFailure {
    /// Waiting reason or event reason where the step has a choice (`ErrImagePull`, `ErrImageNeverPull`,
    /// `ImageInspectError`, `InvalidImageName`, `RegistryUnavailable`, `CreateContainerConfigError`, `CreateContainerError`,
    /// `RunContainerError`, `PreCreateHookError` …); else empty.
    pub reason: String,
    /// The error's text with its causes, as users see it.
    pub message: String,
}
