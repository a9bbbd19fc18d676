//! Who has which CPUs.

use std::collections::BTreeMap;

use rubelet_api::ids::PodUid;
use rubelet_api::v1;

use super::take::{Order, TakeError, take_distributed, take_packed};
use super::topology::{Level, Topology};
use super::{Assignments, CpuSet, Options, State, wanted};
use crate::render::uid_of;
use crate::resources::Refusal;
use crate::resources::amount::Amount;
use crate::resources::numa::{Hint, Nodes};
use crate::resources::sum::is_sidecar;

#[cfg(test)]
mod tests;

/// The policy's name.
pub const STATIC: &str = "static";

/// The reason of a pod that wants parts of cores where it may not.
pub const SMT_ALIGNMENT: &str = "SMTAlignmentError";

/// What a container was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// It shares what is left.
    Shared,
    /// It has CPUs since an earlier time.
    Kept,
    /// CPUs of its own.
    New {
        /// Whether they are at one cache.
        is_uncore_aligned: bool,
    },
}

/// The policy, and what it has given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Static {
    pub(super) topology: Topology,
    pub(super) options: Options,
    /// Nobody has them for himself.
    reserved: CpuSet,
    /// The same, with all CPUs of their cores.
    reserved_cores: CpuSet,
    /// What all those share who have none of their own.
    shared: CpuSet,
    held: Assignments,
    /// What a pod's init containers had and later ones may have. kubelet 1.36: of the pod that asked last.
    reusable: Option<(PodUid, CpuSet)>,
}

/// How many CPUs are reserved. kubelet 1.36: `systemReserved` and `kubeReserved` together, rounded up; the words.
///
/// # Errors
/// There must be some.
pub fn reserved_count(reserved: Option<Amount>) -> Result<usize, String> {
    let Some(reserved) = reserved else {
        return Err("[cpumanager] unable to determine reserved CPU resources for static policy".to_owned());
    };
    if reserved.is_zero() {
        return Err(
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
                .to_owned(),
        );
    }
    let milli = usize::try_from(reserved.milli()).unwrap_or(0);
    Ok(milli.div_ceil(1000))
}

impl Static {
    /// Nothing is given yet. kubelet 1.36: `reserved` (`reservedSystemCPUs`), or else as many of the first cores as are reserved.
    ///
    /// # Errors
    /// Those cannot be reserved, in upstream's words.
    pub fn new(topology: Topology, count: usize, reserved: &CpuSet, options: Options) -> Result<Self, String> {
        let mut all = Self { topology, options, ..Self::default() };
        let reserved = if reserved.is_empty() {
            all.take(all.topology.cpus(), count).unwrap_or_default()
        } else {
            reserved.clone()
        };
        if reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {reserved} did not equal {count})"
            ));
        }
        for cpu in reserved.numbers() {
            let Some(place) = all.topology.place(cpu) else {
                return Err(format!(
                    "[cpumanager] unable to build the reserved physical CPUs from the reserved set: unknown CPU ID: {cpu}"
                ));
            };
            all.reserved_cores = all.reserved_cores.union(&all.topology.all_in(Level::Core, place.core));
        }
        all.reserved = reserved;
        all.shared = all.ours();
        Ok(all)
    }

    /// All CPUs that the policy rules. kubelet 1.36: with `strict-cpu-reservation` without the reserved ones.
    fn ours(&self) -> CpuSet {
        let all = self.topology.cpus();
        if self.options.strict_reservation { all.difference(&self.reserved) } else { all.clone() }
    }

    /// Goes on with what an earlier life wrote down.
    ///
    /// # Errors
    /// That does not fit this machine and its options, in upstream's words.
    pub fn restored(mut self, state: State) -> Result<Self, String> {
        let State { shared, held } = state;
        if shared.is_empty() {
            let is_fresh = held.is_empty();
            return if is_fresh { Ok(self) } else { Err("default cpuset cannot be empty".to_owned()) };
        }
        let reserved = &self.reserved;
        if self.options.strict_reservation && !reserved.is_disjoint(&shared) {
            let both = reserved.intersection(&shared).to_string();
            return Err(format!(
                "some of strictly reserved cpus: {both:?} are present in defaultCpuSet: {:?}",
                shared.to_string()
            ));
        }
        if !self.options.strict_reservation && !reserved.is_subset(&shared) {
            return Err(format!(
                "not all reserved cpus: {:?} are present in defaultCpuSet: {:?}",
                reserved.to_string(),
                shared.to_string()
            ));
        }
        let mut known = shared.clone();
        for (pod, containers) in &held {
            for (container, cpus) in containers {
                if !cpus.is_disjoint(&shared) {
                    return Err(format!(
                        "pod: {pod}, container: {container} cpuset: {:?} overlaps with default cpuset {:?}",
                        cpus.to_string(),
                        shared.to_string()
                    ));
                }
                known = known.union(cpus);
            }
        }
        let ours = self.ours();
        if known != ours {
            return Err(format!(
                "current set of available CPUs {:?} doesn't match with CPUs in state {:?}",
                ours.to_string(),
                known.to_string()
            ));
        }
        (self.shared, self.held) = (shared, held);
        Ok(self)
    }

    /// What is written down.
    #[must_use]
    pub fn state(&self) -> State {
        State { shared: self.shared.clone(), held: self.held.clone() }
    }

    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// CPUs that nobody may have for himself.
    #[must_use]
    pub fn reserved(&self) -> &CpuSet {
        &self.reserved
    }

    /// CPUs that containers may have for themselves, whoever has them now.
    #[must_use]
    pub fn allocatable(&self) -> CpuSet {
        self.topology.cpus().difference(&self.reserved)
    }

    /// What containers share that have no CPUs of their own.
    #[must_use]
    pub fn shared_pool(&self) -> &CpuSet {
        &self.shared
    }

    /// CPUs that a container could get now.
    #[must_use]
    pub fn available(&self) -> CpuSet {
        self.shared.difference(&self.reserved)
    }

    /// Who has which CPUs for himself.
    #[must_use]
    pub fn held(&self) -> &Assignments {
        &self.held
    }

    /// What a container has for itself.
    #[must_use]
    pub fn exclusive_of(&self, pod: &PodUid, container: &str) -> Option<&CpuSet> {
        self.held.get(pod)?.get(container)
    }

    /// Where a container runs.
    #[must_use]
    pub fn cpus_of(&self, pod: &PodUid, container: &str) -> &CpuSet {
        self.exclusive_of(pod, container).unwrap_or(&self.shared)
    }

    /// Whether a container has CPUs for itself. kubelet 1.36: then it has no quota (gate `DisableCPUQuotaWithExclusiveCPUs`).
    #[must_use]
    pub fn has_exclusive(&self, pod: &PodUid, container: &str) -> bool {
        self.exclusive_of(pod, container).is_some_and(|cpus| !cpus.is_empty())
    }

    /// Whether any of a pod's containers has CPUs for itself. kubelet 1.36: then the pod has no quota.
    #[must_use]
    pub fn pod_has_exclusive(&self, pod: &PodUid) -> bool {
        self.held.get(pod).is_some_and(|of| of.values().any(|cpus| !cpus.is_empty()))
    }

    /// CPUs that containers have for themselves.
    #[must_use]
    pub fn exclusive(&self) -> CpuSet {
        self.held.values().flat_map(BTreeMap::values).fold(CpuSet::new(), |all, cpus| all.union(cpus))
    }

    /// How much is left for others, in thousandths of a CPU. kubelet 1.36: `cpu_manager_shared_pool_size_millicores`.
    #[must_use]
    pub fn shared_milli(&self) -> usize {
        self.available().len() * 1000
    }

    /// How many CPUs of each NUMA node containers have for themselves. kubelet 1.36: `cpu_manager_allocation_per_numa`.
    #[must_use]
    pub fn exclusive_by_node(&self) -> BTreeMap<usize, usize> {
        self.topology.count_by_node(&self.exclusive())
    }

    /// What later containers of the pod may have again.
    pub(super) fn reusable(&self, pod: &PodUid) -> CpuSet {
        match &self.reusable {
            Some((of, cpus)) if of == pod => cpus.clone(),
            _ => CpuSet::new(),
        }
    }

    /// Gives a container CPUs of its own, if it wants some, from these nodes first.
    ///
    /// # Errors
    /// It cannot have them, and so the pod cannot be.
    pub fn allocate(&mut self, pod: &v1::Pod, container: &v1::Container, affinity: Hint) -> Result<Given, Refusal> {
        let count = wanted::by_container(pod, container);
        if count == 0 || wanted::is_exempt(pod) {
            return Ok(Given::Shared);
        }
        let uid = uid_of(pod);
        self.fit_cores(count, self.has_exclusive(&uid, &container.name))?;
        if let Some(cpus) = self.exclusive_of(&uid, &container.name).cloned() {
            self.pass_on(pod, &uid, container, &cpus);
            return Ok(Given::Kept);
        }
        let cpus = self.choose(count, affinity.nodes, &self.reusable(&uid));
        let cpus = cpus.map_err(|why| Refusal::unexpected(&why.to_string()))?;
        self.shared = self.shared.difference(&cpus);
        self.pass_on(pod, &uid, container, &cpus);
        let is_uncore_aligned = self.topology.is_uncore_aligned(&cpus);
        self.held.entry(uid).or_default().insert(container.name.clone(), cpus);
        Ok(Given::New { is_uncore_aligned })
    }

    /// With `full-pcpus-only`. kubelet 1.36 also asks whether enough CPUs are free for a container that has its CPUs already, and so
    /// refuses running pods after its restart; we do not.
    fn fit_cores(&self, count: usize, has_them: bool) -> Result<(), Refusal> {
        if !self.options.whole_cores {
            return Ok(());
        }
        let refusal = |message| Err(Refusal { reason: SMT_ALIGNMENT, message });
        let per_core = self.cpus_per_core();
        if !count.is_multiple_of(per_core) {
            return refusal(format!(
                "SMT Alignment Error: requested {count} cpus not multiple cpus per core = {per_core}"
            ));
        }
        let available = self.shared.difference(&self.reserved_cores).len();
        if count > available && !has_them {
            return refusal(format!(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, \
                 requested CPUs = {count}, CPUs per core = {per_core}"
            ));
        }
        Ok(())
    }

    fn cpus_per_core(&self) -> usize {
        self.topology.cpus_per(Level::Core).max(1)
    }

    fn choose(&self, count: usize, nodes: Option<Nodes>, reusable: &CpuSet) -> Result<CpuSet, TakeError> {
        let free = self.available().union(reusable);
        let mut chosen = CpuSet::new();
        if let Some(nodes) = nodes {
            let near = self.near(nodes).intersection(&free);
            chosen = self.take(&near, count.min(near.len()))?;
        }
        let rest = self.take(&free.difference(&chosen), count - chosen.len())?;
        Ok(chosen.union(&rest))
    }

    /// CPUs of these nodes. kubelet 1.36: with `align-by-socket` those of their sockets.
    fn near(&self, nodes: Nodes) -> CpuSet {
        let (level, groups) = if self.options.by_socket {
            (Level::Socket, self.topology.sockets_of(nodes))
        } else {
            (Level::Node, nodes.numbers().collect())
        };
        groups.into_iter().fold(CpuSet::new(), |all, group| all.union(&self.topology.all_in(level, group)))
    }

    fn take(&self, available: &CpuSet, count: usize) -> Result<CpuSet, TakeError> {
        let order = if self.options.across_cores { Order::Spread } else { Order::Packed };
        if self.options.across_nodes {
            let group = if self.options.whole_cores { self.cpus_per_core() } else { 1 };
            return take_distributed(&self.topology, available, count, group, order);
        }
        take_packed(&self.topology, available, count, order, self.options.by_uncore)
    }

    /// kubelet 1.36: what an init container had, but for a sidecar's; what a later container has is gone.
    fn pass_on(&mut self, pod: &v1::Pod, uid: &PodUid, container: &v1::Container, cpus: &CpuSet) {
        let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let ends = init.find(|c| c.name == container.name).is_some_and(|c| !is_sidecar(c));
        let before = self.reusable(uid);
        let after = if ends { before.union(cpus) } else { before.difference(cpus) };
        self.reusable = Some((uid.clone(), after));
    }

    /// A container is gone: others share its CPUs, but for those that one of its pod has too. Whether it had some.
    pub fn remove(&mut self, pod: &PodUid, container: &str) -> bool {
        let Some(of_pod) = self.held.get_mut(pod) else { return false };
        let Some(cpus) = of_pod.remove(container) else { return false };
        let still = of_pod.values().fold(CpuSet::new(), |all, cpus| all.union(cpus));
        if of_pod.is_empty() {
            self.held.remove(pod);
        }
        self.shared = self.shared.union(&cpus.difference(&still));
        true
    }

    /// Only these containers keep their CPUs; whether others had some.
    pub fn retain(&mut self, is_there: &dyn Fn(&PodUid, &str) -> bool) -> bool {
        let all = self.held.iter().flat_map(|(pod, of)| of.keys().map(move |name| (pod.clone(), name.clone())));
        let gone: Vec<(PodUid, String)> = all.filter(|(pod, name)| !is_there(pod, name)).collect();
        for (pod, name) in &gone {
            self.remove(pod, name);
        }
        !gone.is_empty()
    }
}

#[cfg(test)]
impl Static {
    /// As it is, whether or not it fits.
    pub(super) fn with(self, state: State) -> Self {
        Self { shared: state.shared, held: state.held, ..self }
    }
}
