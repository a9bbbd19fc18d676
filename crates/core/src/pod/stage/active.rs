//! A pod that runs or shall run: ground, sandbox, init containers in their order, then the others.

use rubelet_api::ids::{ContainerName, SandboxId};

use crate::pod::container::{ContainerRecord, Launch, exit_code, is_alive};
use crate::pod::decide::Planner;
use crate::pod::event::PodEvent;
use crate::pod::fact::StepFailure;
use crate::pod::look::PATIENCE;
use crate::pod::needs::{self, Lack, Need};
use crate::pod::observed::{ContainerState, ObservedContainer, ObservedSandbox};
use crate::pod::record::{ClaimStage, PodRecord, SandboxNeed};
use crate::pod::restart::is_restarted;
use crate::pod::spec::{self, Role, Wanted};
use crate::pod::step::{
    HookKind, ImageVolume, ImageWish, PullFormat, PullPolicy, PullSecret, Step, StepKey, VolumeKind,
};
use crate::pod::volumes::Attaching;
use crate::pod::{kill, resize, volumes};
use crate::render::{self, ContainerView, RenderError};
use crate::resources::cgroup::pod_cgroup;

pub(in crate::pod) fn decide(p: &mut Planner<'_>) {
    kill::decide(p);
    prune(p);
    if let Some(at) = p.record.deadline(p.now) {
        p.wake(at);
    }
    let is_ground_ready = lay_ground(p);
    match p.record.sandbox_need() {
        SandboxNeed::Keep(sandbox) if is_ground_ready => {
            let has_room = resize::decide::decide(p, &sandbox.id);
            launch_all(p, sandbox, has_room);
        }
        SandboxNeed::Keep(_) => {}
        SandboxNeed::Make { attempt } => make_sandbox(p, attempt, is_ground_ready),
        SandboxNeed::Await => {
            if let Some((_, since)) = p.record.sandbox.awaited {
                p.wake(since + PATIENCE);
            }
        }
    }
}

/// The pod's cgroup, directories and volumes. Says whether all of it is there.
fn lay_ground(p: &mut Planner<'_>) -> bool {
    let record = p.record;
    let needs_cgroup = p.node.cgroup.per_qos && !record.ground.has_cgroup;
    if needs_cgroup {
        p.issue(Step::EnsureCgroup(pod_cgroup(&record.pod, p.node)));
    }
    if !record.ground.has_dirs {
        p.issue(Step::PrepareDirs);
    }
    let has_volumes = record.ground.has_dirs && mount_volumes(p);
    !needs_cgroup && has_volumes
}

/// Mounts what is not mounted yet, and writes again what shows something old. Says whether all of it is mounted.
fn mount_volumes(p: &mut Planner<'_>) -> bool {
    let record = p.record;
    let ips = render::effective_ips(&record.pod, p.node, &record.sandbox.ips);
    let view = volumes::View { pod: &record.pod, node: p.node, pod_ips: ips, inputs: &record.inputs };
    if let Some((volume, failure)) = lacks_room(record, &view) {
        p.refuse(StepKey::Mount(volume), failure);
        return false;
    }
    let known = &record.ground.volumes;
    let mut is_all = true;
    for volume in record.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let shown = known.mounted.get(&volume.name);
        is_all &= shown.is_some();
        let is_stale = match shown {
            None => true,
            Some(shown) if volumes::is_written(volume) => shown.revision < known.revision,
            Some(shown) if volumes::is_republished(&view, volume) => {
                let due = shown.at + volumes::REPUBLISH_AFTER;
                if due > p.now.mono {
                    p.wake(due);
                }
                shown.revision < known.revision || due <= p.now.mono
            }
            Some(_) => false,
        };
        let is_due = is_stale && volumes::is_ready(&view, volume);
        if is_due && p.may_issue(&StepKey::Mount(volume.name.clone())) {
            let plan = volumes::plan(&view, volume);
            p.issue(Step::Mount(Box::new(if shown.is_some() { plan.again() } else { plan })));
        } else if shown.is_some() {
            expand(p, &view, volume);
        }
    }
    is_all
}

/// Reason of a pod that the node has no room for, because of its volumes.
pub(in crate::pod) const NO_ROOM: &str = "VolumeAttachmentLimitExceeded";

/// kubelet 1.36: a pod whose volumes the node cannot take is given back to the scheduler, in these words.
fn lacks_room(record: &PodRecord, view: &volumes::View<'_>) -> Option<(String, StepFailure)> {
    let all = || record.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let is_mounted = |volume: &rubelet_api::v1::Volume| record.ground.volumes.mounted.contains_key(&volume.name);
    let lacking =
        all().find(|volume| !is_mounted(volume) && volumes::attaching(view, volume) == Some(Attaching::NoRoom))?;
    let names = |which: &dyn Fn(&rubelet_api::v1::Volume) -> bool| {
        let mut names: Vec<&str> = all().filter(|v| which(v)).map(|v| v.name.as_str()).collect();
        names.sort_unstable();
        names.join(" ")
    };
    let unmounted = names(&|v| !is_mounted(v));
    let unattached = names(&|v| volumes::attaching(view, v).is_some());
    let message = format!(
        "Node has reached its volume attachment limit, rejecting pod. unmounted volumes=[{unmounted}], \
         unattached volumes=[{unattached}], failed to process volumes=[]: context deadline exceeded"
    );
    Some((lacking.name.clone(), StepFailure { reason: NO_ROOM.to_owned(), message }))
}

/// A mounted volume whose claim has grown is grown, unless its driver did so or has nothing to do for it.
fn expand(p: &mut Planner<'_>, view: &volumes::View<'_>, volume: &rubelet_api::v1::Volume) {
    let grown = p.record.ground.volumes.grown.get(&volume.name);
    let is_wanted = volumes::growth(view, volume).is_some_and(|bytes| grown.is_none_or(|grown| *grown < bytes));
    if is_wanted && volumes::is_ready(view, volume) && p.may_issue(&StepKey::Expand(volume.name.clone())) {
        let plan = volumes::plan(view, volume);
        // What is only read does not grow here.
        if matches!(&plan.kind, VolumeKind::Csi(csi) if csi.expansion.is_some()) {
            p.issue(Step::Expand(Box::new(plan)));
        }
    }
}

/// A new sandbox, after everything in the old ones has ended.
fn make_sandbox(p: &mut Planner<'_>, attempt: u32, is_ground_ready: bool) {
    let record = p.record;
    if record.alive().next().is_some() {
        return;
    }
    super::stopping::stop_sandboxes(p);
    if !is_ground_ready || !record.sandbox.to_stop.is_empty() {
        return;
    }
    if let Some(problem) = p.node.runtime.network_problem.as_ref().filter(|_| !render::is_host_network(&record.pod)) {
        if !record.is_trouble_told {
            p.events.push(PodEvent::warning("", "NetworkNotReady", format!("network is not ready: {problem}")));
        }
        return;
    }
    if !prepare_claims(p, attempt) {
        return;
    }
    let handler = match record.inputs.runtime_handler(&record.pod) {
        Ok(handler) => handler,
        Err(Lack::NotYet | Lack::NoServer) => return,
        Err(Lack::NotFound(why) | Lack::Failed(why)) => {
            return p.refuse(StepKey::CreateSandbox(attempt), RenderError::sandbox(why).into());
        }
    };
    let rendered = render::sandbox::check_handler(&record.pod, handler, p.node);
    match rendered.and_then(|()| render::sandbox_config(&record.pod, attempt, p.node)) {
        Ok(config) => {
            let runtime_handler = handler.to_owned();
            let step = Step::CreateSandbox { attempt, runtime_handler, config: Box::new(config) };
            if p.issue(step) {
                let problems = render::dns::dns(&record.pod, p.node).problems;
                p.events.extend(problems.into_iter().map(|d| PodEvent::warning("", d.reason, d.message)));
            }
        }
        Err(error) => p.refuse(StepKey::CreateSandbox(attempt), error.into()),
    }
}

/// Has the pod's resource claims prepared before each sandbox. Says whether they are.
fn prepare_claims(p: &mut Planner<'_>, attempt: u32) -> bool {
    let record = p.record;
    if !record.holds_claims() || record.claims == (ClaimStage::Prepared { attempt }) {
        return true;
    }
    let wishes = match record.inputs.claim_wishes(&record.pod, p.node.settings.gates.dra_extended_resource) {
        Ok(wishes) => wishes,
        Err(Lack::NotYet | Lack::NoServer) => return false,
        Err(Lack::NotFound(message) | Lack::Failed(message)) => {
            p.refuse(StepKey::PrepareClaims(attempt), StepFailure { reason: String::new(), message });
            return false;
        }
    };
    if wishes.is_empty() {
        return true;
    }
    p.issue(Step::PrepareClaims { attempt, wishes });
    false
}

/// Removes all instances of a container that ended but for the newest, with their logs, and old sandboxes without containers.
pub(super) fn prune(p: &mut Planner<'_>) {
    let record = p.record;
    let Some(observed) = &record.observed else { return };
    let names: std::collections::BTreeSet<&ContainerName> = observed.containers.iter().map(|c| &c.name).collect();
    for name in names {
        let is_dead = |c: &&ObservedContainer| exit_code(&c.state).is_some();
        let is_left = |c: &&ObservedContainer| c.state == ContainerState::Created && !is_launched(record, c);
        let dead = record.instances(name.as_str()).filter(is_dead).skip(1);
        let left = record.instances(name.as_str()).skip(1).filter(is_left);
        for instance in dead.chain(left) {
            let (container, id) = (instance.name.clone(), instance.id.clone());
            p.issue(Step::RemoveContainer { container, id, keep_logs: false });
        }
    }
    let is_empty = |id: &SandboxId| observed.containers.iter().all(|c| c.sandbox != *id);
    for old in observed.sandboxes.iter().skip(1).filter(|s| !s.is_ready && is_empty(&s.id)) {
        if !record.sandbox.to_stop.contains(&old.id) {
            p.issue(Step::RemoveSandbox { id: old.id.clone() });
        }
    }
}

fn is_launched(record: &PodRecord, instance: &ObservedContainer) -> bool {
    let launch = record.container(instance.name.as_str()).and_then(|c| c.launch.as_ref());
    match launch {
        Some(Launch::Start { id, .. } | Launch::Hook { id } | Launch::Await { id, .. }) => *id == instance.id,
        Some(Launch::Create { .. }) | None => false,
    }
}

/// What holds of a container with regard to those after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Those after it may go on.
    Done,
    /// It is up to it first.
    Awaited,
}

/// `has_room`: regular containers may start, too.
fn launch_all(p: &mut Planner<'_>, sandbox: &ObservedSandbox, has_room: bool) {
    let record = p.record;
    for guest in spec::guests(&record.guests) {
        launch_guest(p, &guest, sandbox);
    }
    let in_sandbox = |name| instance_in(record, name, &sandbox.id);
    let is_initialized = spec::regulars(&record.pod).any(|w| in_sandbox(w.name()).is_some());
    let inits: Vec<Wanted<'_>> = spec::inits(&record.pod).collect();
    // An init container that has an instance proves that those before it were done, even if theirs are gone.
    let reached = inits.iter().rposition(|w| w.role == Role::Init && in_sandbox(w.name()).is_some()).unwrap_or(0);
    for (nth, wanted) in inits.iter().enumerate() {
        let standing = match wanted.role {
            Role::Init if is_initialized || nth < reached => Standing::Done,
            Role::Init => run_init(p, wanted, sandbox, in_sandbox(wanted.name())),
            Role::Sidecar | Role::Regular | Role::Ephemeral => run_sidecar(p, wanted, sandbox),
        };
        if standing == Standing::Awaited && !is_initialized {
            return;
        }
    }
    // Images come side by side, containers one after the other.
    let mut may_create = has_room;
    for wanted in spec::regulars(&record.pod) {
        launch(p, &wanted, sandbox, may_create);
        may_create &= !is_holding_up(record, &wanted);
    }
}

/// Starts an ephemeral container unless it was created at any time. kubelet 1.36: init containers do not hold it up.
fn launch_guest(p: &mut Planner<'_>, wanted: &Wanted<'_>, sandbox: &ObservedSandbox) {
    let known = p.record.container(wanted.name());
    let is_new = p.record.newest(wanted.name()).is_none() && known.is_some_and(|c| c.count_max.is_none());
    if is_new || known.is_some_and(|c| c.launch.is_some()) {
        launch(p, wanted, sandbox, true);
    }
}

/// The newest instance of a container in that sandbox.
fn instance_in<'a>(record: &'a PodRecord, name: &'a str, sandbox: &SandboxId) -> Option<&'a ObservedContainer> {
    record.instances(name).find(|c| c.sandbox == *sandbox)
}

fn run_init(
    p: &mut Planner<'_>,
    wanted: &Wanted<'_>,
    sandbox: &ObservedSandbox,
    newest: Option<&ObservedContainer>,
) -> Standing {
    if newest.and_then(|c| exit_code(&c.state)) == Some(0) && p.record.newest(wanted.name()) == newest {
        return Standing::Done;
    }
    launch(p, wanted, sandbox, true);
    Standing::Awaited
}

fn run_sidecar(p: &mut Planner<'_>, wanted: &Wanted<'_>, sandbox: &ObservedSandbox) -> Standing {
    let record = p.record;
    launch(p, wanted, sandbox, true);
    let Some(running) = record.newest(wanted.name()).filter(|c| c.state.is_running()) else { return Standing::Awaited };
    let is_started = record.container(wanted.name()).is_some_and(|c| {
        !c.awaits_hook(&running.id) && c.probes.as_ref().is_some_and(|p| p.id == running.id && p.is_started())
    });
    if is_started { Standing::Done } else { Standing::Awaited }
}

/// Whether the containers after this one wait for it: its image is being fetched, or its start is between two steps.
fn is_holding_up(record: &PodRecord, wanted: &Wanted<'_>) -> bool {
    let name = ContainerName::new(wanted.name());
    record.steps.is_under_way(&StepKey::EnsureImage(name.clone()))
        || record.containers.get(&name).is_some_and(ContainerRecord::is_launching)
        || (record.newest(wanted.name()).is_none()
            && record.containers.get(&name).is_none_or(|c| c.failure.is_none() && c.launch.is_none()))
}

/// Brings a container up by one step, if it is down and shall run.
fn launch(p: &mut Planner<'_>, wanted: &Wanted<'_>, sandbox: &ObservedSandbox, may_create: bool) {
    let record = p.record;
    let name = ContainerName::new(wanted.name());
    let Some(container) = record.containers.get(&name) else { return };
    match &container.launch {
        Some(Launch::Create { .. }) if !may_create => return,
        Some(Launch::Create { image }) => return create(p, wanted, sandbox, image),
        Some(Launch::Start { id, count }) => {
            let log = render::log_link(&record.pod, wanted.name(), *count, id, p.node);
            p.issue(Step::StartContainer { container: name, id: id.clone(), log });
            return;
        }
        Some(Launch::Hook { id }) => return run_post_start(p, wanted, id),
        Some(Launch::Await { since, .. }) => return p.wake(*since + PATIENCE),
        None => {}
    }
    if record.instances(wanted.name()).any(|c| is_alive(&c.state)) {
        return;
    }
    if record.kills.values().any(|k| k.name == name) || stays_down(record, wanted, container, sandbox) {
        return;
    }
    if let Some(at) = container.failure.as_ref().and_then(|f| f.retry_at).filter(|at| *at > p.now.mono) {
        return p.wake(at);
    }
    if waits_after_crash(p, wanted, container) {
        return;
    }
    ensure_image(p, wanted, sandbox);
}

/// It ended, and nothing starts it again. kubelet 1.36: what was initialized in another sandbox is initialized again.
fn stays_down(record: &PodRecord, wanted: &Wanted<'_>, container: &ContainerRecord, sandbox: &ObservedSandbox) -> bool {
    let Some(newest) = record.newest(wanted.name()) else { return false };
    if wanted.role == Role::Sidecar && record.is_winding_down() {
        return true;
    }
    if matches!(wanted.role, Role::Init | Role::Sidecar) && newest.sandbox != sandbox.id {
        return false;
    }
    let Some(code) = record.end_of(newest) else { return false };
    !is_restarted(&record.pod, wanted, container, newest.id.as_str(), code)
}

/// Whether its last end is too fresh; it is told once for each end.
fn waits_after_crash(p: &mut Planner<'_>, wanted: &Wanted<'_>, container: &ContainerRecord) -> bool {
    let Some((until, _)) = p.record.crash_wait(wanted, p.node, p.now) else { return false };
    let left = std::time::Duration::try_from(until.duration_since(p.now.wall)).unwrap_or_default();
    p.wake(p.now.mono + left);
    let newest = p.record.newest(wanted.name()).map(|c| &c.id);
    if container.back_off_told.as_ref() != newest {
        let pod = crate::pod::review::full_name(&p.record.pod);
        let message = format!("Back-off restarting failed container {} in pod {pod}", wanted.name());
        p.events.push(PodEvent::warning(wanted.field_path(), "BackOff", message));
    }
    true
}

fn ensure_image(p: &mut Planner<'_>, wanted: &Wanted<'_>, sandbox: &ObservedSandbox) {
    let record = p.record;
    let container = ContainerName::new(wanted.name());
    let config = match render::sandbox_config(&record.pod, sandbox.attempt, p.node) {
        Ok(config) => config,
        Err(error) => return p.refuse(StepKey::EnsureImage(container), error.into()),
    };
    if p.node.settings.has_api_server && !record.inputs.has_all(&needs::pull_needs(&record.pod).collect()) {
        return;
    }
    let Ok(runtime_handler) = record.inputs.runtime_handler(&record.pod) else { return };
    let (pull_secrets, missing) = pull_secrets(record);
    let wish = ImageWish {
        image: wanted.spec.image.clone().unwrap_or_default(),
        policy: policy(wanted.spec.image_pull_policy.as_deref()),
        runtime_handler: runtime_handler.to_owned(),
        sandbox: Box::new(config),
        pull_secrets,
        volumes: image_volumes(record, wanted),
    };
    if p.issue(Step::EnsureImage { container, wish }) && !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        p.events.push(PodEvent::warning("", "FailedToRetrieveImagePullSecret", message));
    }
}

fn policy(named: Option<&str>) -> PullPolicy {
    match named {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) | None => PullPolicy::IfNotPresent,
    }
}

/// The images that the container has mounted. kubelet 1.36: one without a reference is left to the runtime to refuse.
fn image_volumes(record: &PodRecord, wanted: &Wanted<'_>) -> Vec<ImageVolume> {
    let is_mounted = |name: &str| wanted.spec.volume_mounts.iter().flatten().any(|m| m.name == name);
    let all = record.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    all.filter(|v| is_mounted(&v.name))
        .filter_map(|v| {
            let source = v.image.as_ref()?;
            Some(ImageVolume {
                volume: v.name.clone(),
                image: source.reference.clone().filter(|r| !r.is_empty())?,
                policy: policy(source.pull_policy.as_deref()),
            })
        })
        .collect()
}

/// The pod's pull secrets that could be had, and the names of the others. Secrets of other types hold no logins.
fn pull_secrets(record: &PodRecord) -> (Vec<PullSecret>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for need in needs::pull_needs(&record.pod) {
        let Need::Secret(of) = need else { continue };
        let Ok(secret) = record.inputs.secret(of.clone()) else {
            missing.push(of.name);
            continue;
        };
        let (key, format) = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => (".dockerconfigjson", PullFormat::DockerConfigJson),
            Some("kubernetes.io/dockercfg") => (".dockercfg", PullFormat::DockerCfg),
            Some(_) | None => continue,
        };
        if let Some(content) = secret.data.as_ref().and_then(|d| d.get(key)) {
            let uid = secret.metadata.uid.clone().unwrap_or_default();
            found.push(PullSecret { namespace: of.namespace, name: of.name, uid, format, content: content.0.clone() });
        }
    }
    (found, missing)
}

fn create(p: &mut Planner<'_>, wanted: &Wanted<'_>, sandbox: &ObservedSandbox, image: &crate::pod::fact::ImageFound) {
    let record = p.record;
    let name = ContainerName::new(wanted.name());
    // A look may show what is being created before the step has ended; then the next count is another one.
    if record.steps.under_way().any(|key| matches!(key, StepKey::CreateContainer(of, _) if *of == name)) {
        return;
    }
    // The end of fetching is a fact of its own.
    if !record.inputs.has_all(&needs::creation_needs(&record.pod, wanted.spec, record.source, p.node)) {
        return;
    }
    let count = record.containers.get(&name).map_or(0, ContainerRecord::next_count);
    let target = match render::target(&record.pod, wanted.name()).map(|name| (name, record.newest(name))) {
        None => None,
        Some((_, Some(target))) => Some(&target.id),
        Some((target, None)) => {
            let message = format!("unable to find target container {target}");
            let failure = StepFailure { reason: render::CONFIG_ERROR.to_owned(), message };
            return p.refuse(StepKey::CreateContainer(name, count), failure);
        }
    };
    let rendered = render::create_container(&ContainerView {
        pod: &record.pod,
        container: wanted.name(),
        node: p.node,
        restart_count: count,
        image,
        target,
        sandbox: &sandbox.id,
        sandbox_attempt: sandbox.attempt,
        pod_ips: &sandbox.ips,
        inputs: &record.inputs,
        now: p.now,
    });
    match rendered {
        Ok(create) => {
            p.issue(Step::CreateContainer(Box::new(create)));
        }
        Err(error) => p.refuse(StepKey::CreateContainer(name, count), error.into()),
    }
}

fn run_post_start(p: &mut Planner<'_>, wanted: &Wanted<'_>, id: &rubelet_api::ids::ContainerId) {
    let handler = wanted.spec.lifecycle.as_ref().and_then(|l| l.post_start.clone());
    let Some(handler) = handler else { return };
    p.issue(Step::RunHook {
        container: ContainerName::new(wanted.name()),
        id: id.clone(),
        kind: HookKind::PostStart,
        handler,
    });
}
