//! Options of the policy.

use std::collections::BTreeMap;

use super::topology::{Level, Topology};
use crate::resources::numa;
use crate::resources::numa::settings::parse_bool;

#[cfg(test)]
mod tests;

/// What the policy is told to do otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `full-pcpus-only`: no two containers share a core.
    pub whole_cores: bool,
    /// `distribute-cpus-across-numa`: evenly of several NUMA nodes, if one is not enough.
    pub across_nodes: bool,
    /// `align-by-socket`: the CPUs of a socket are near each other.
    pub by_socket: bool,
    /// `distribute-cpus-across-cores`: rather of several cores.
    pub across_cores: bool,
    /// `strict-cpu-reservation`: containers without CPUs of their own do not run on reserved ones either.
    pub strict_reservation: bool,
    /// `prefer-align-cpus-by-uncorecache`: rather at one cache.
    pub by_uncore: bool,
}

const WHOLE_CORES: &str = "full-pcpus-only";
const ACROSS_NODES: &str = "distribute-cpus-across-numa";
const BY_SOCKET: &str = "align-by-socket";
const ACROSS_CORES: &str = "distribute-cpus-across-cores";
const STRICT_RESERVATION: &str = "strict-cpu-reservation";
const BY_UNCORE: &str = "prefer-align-cpus-by-uncorecache";

/// Which options may be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gates {
    /// `CPUManagerPolicyAlphaOptions`.
    pub alpha: bool,
    /// `CPUManagerPolicyBetaOptions`.
    pub beta: bool,
}

impl Options {
    /// From the configuration's `cpuManagerPolicyOptions`.
    ///
    /// # Errors
    /// They cannot be, alone, together, or on this machine; in upstream's words.
    pub fn parse(
        given: &BTreeMap<String, String>,
        gates: Gates,
        topology: &Topology,
        policy: numa::Policy,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        for (name, value) in given {
            is_available(name, gates)?;
            let Some(option) = options.named(name) else { return Err(unknown(name)) };
            *option = parse_bool(value).map_err(|why| format!("bad value for option {name:?}: {why}"))?;
        }
        let Self { whole_cores, across_nodes, across_cores, by_uncore, .. } = options;
        for (are_both, one, other) in [
            (whole_cores && across_cores, WHOLE_CORES, ACROSS_CORES),
            (across_nodes && across_cores, ACROSS_NODES, ACROSS_CORES),
            (by_uncore && across_cores, BY_UNCORE, ACROSS_CORES),
            (by_uncore && across_nodes, BY_UNCORE, ACROSS_NODES),
        ] {
            if are_both {
                return Err(format!("static policy options {one} and {other} can not be used at the same time"));
            }
        }
        options.fit(topology, policy)?;
        Ok(options)
    }

    fn named(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            WHOLE_CORES => &mut self.whole_cores,
            ACROSS_NODES => &mut self.across_nodes,
            BY_SOCKET => &mut self.by_socket,
            ACROSS_CORES => &mut self.across_cores,
            STRICT_RESERVATION => &mut self.strict_reservation,
            BY_UNCORE => &mut self.by_uncore,
            _ => return None,
        })
    }

    /// kubelet 1.36: the words, as they are spelled.
    fn fit(self, topology: &Topology, policy: numa::Policy) -> Result<(), String> {
        if !self.by_socket {
            return Ok(());
        }
        if policy == numa::Policy::SingleNumaNode {
            return Err(format!(
                "Topolgy manager single-numa-node policy is incompatible with CPUManager {BY_SOCKET} policy option"
            ));
        }
        if topology.count(Level::Socket) > topology.count(Level::Node) {
            return Err(
                "Align by socket is not compatible with hardware where number of sockets are more than number of NUMA"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What the policy `none` says of options. kubelet 1.36: the words.
///
/// # Errors
/// There are some.
pub fn none_given(given: &BTreeMap<String, String>) -> Result<(), String> {
    if given.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = given.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    Err(format!("None policy: received unsupported options=map[{}]", all.join(" ")))
}

fn unknown(name: &str) -> String {
    format!("unknown CPU Manager Policy option: {name:?}")
}

fn is_available(name: &str, gates: Gates) -> Result<(), String> {
    let (stage, is_open) = match name {
        WHOLE_CORES | STRICT_RESERVATION | BY_UNCORE => return Ok(()),
        ACROSS_NODES => ("Beta", gates.beta),
        BY_SOCKET | ACROSS_CORES => ("Alpha", gates.alpha),
        _ => return Err(unknown(name)),
    };
    if is_open {
        return Ok(());
    }
    Err(format!("CPU Manager Policy {stage}-level Options not enabled, but option {name:?} provided"))
}
