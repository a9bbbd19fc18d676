//! A pod's containers by the part they play.

use rubelet_api::v1;

/// The part that a container plays in its pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Runs to its end before anything after it starts.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    Regular,
    /// Put into a running pod for a look around: started once, never again, and it counts for nothing.
    Ephemeral,
}

/// One container of the specification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) role: Role,
    pub(super) spec: &'a v1::Container,
}

impl<'a> Wanted<'a> {
    pub(super) fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// Which field of the pod events are about.
    pub(super) fn field_path(&self) -> String {
        match self.role {
            Role::Init | Role::Sidecar => format!("spec.initContainers{{{}}}", self.spec.name),
            Role::Regular => format!("spec.containers{{{}}}", self.spec.name),
            Role::Ephemeral => format!("spec.ephemeralContainers{{{}}}", self.spec.name),
        }
    }
}

/// Init containers and sidecars in their order, then the regular ones.
pub(super) fn wanted(pod: &v1::Pod) -> impl Iterator<Item = Wanted<'_>> {
    inits(pod).chain(regulars(pod))
}

/// Init containers and sidecars in their order.
pub(super) fn inits(pod: &v1::Pod) -> impl DoubleEndedIterator<Item = Wanted<'_>> {
    let all = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    all.iter().map(|spec| {
        let role = if spec.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
        Wanted { role, spec }
    })
}

/// The regular containers in their order.
pub(super) fn regulars(pod: &v1::Pod) -> impl DoubleEndedIterator<Item = Wanted<'_>> {
    let all = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    all.iter().map(|spec| Wanted { role: Role::Regular, spec })
}

/// The container of that name, unless it is an ephemeral one.
pub(super) fn find<'a>(pod: &'a v1::Pod, name: &str) -> Option<Wanted<'a>> {
    wanted(pod).find(|w| w.spec.name == name)
}

/// The ephemeral containers in their order, of those that [`crate::render::ephemeral`] made containers.
pub(super) fn guests(made: &[v1::Container]) -> impl Iterator<Item = Wanted<'_>> {
    made.iter().map(|spec| Wanted { role: Role::Ephemeral, spec })
}

/// The container of that name, ephemeral ones included.
pub(super) fn find_any<'a>(pod: &'a v1::Pod, made: &'a [v1::Container], name: &str) -> Option<Wanted<'a>> {
    wanted(pod).chain(guests(made)).find(|w| w.spec.name == name)
}

/// Grace that the pod's own specification gives, in seconds; kubelet 1.36: without one it is the least that the runtime gets.
pub(super) fn grace_secs(pod: &v1::Pod) -> i64 {
    let of_deletion = pod.metadata.deletion_grace_period_seconds;
    let of_spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    of_deletion.or(of_spec).unwrap_or(super::kill::GRACE_SECS_MIN).max(1)
}
