//! What the configuration says of NUMA nodes.

use std::collections::BTreeMap;

use super::{Machine, Merging, NODES_MAX, Policy, Scope};

const CLOSEST: &str = "prefer-closest-numa-nodes";
const ALLOWED: &str = "max-allowable-numa-nodes";

impl Merging {
    /// Of `topologyManagerPolicy`, `topologyManagerScope` and `topologyManagerPolicyOptions`.
    ///
    /// # Errors
    /// Why kubelet 1.36 does not start with them on this machine, in its words.
    pub fn of(policy: &str, scope: &str, options: &BTreeMap<String, String>, machine: Machine) -> Result<Self, String> {
        let policy = match policy {
            "none" => return Ok(Self { machine, ..Self::default() }),
            "best-effort" => Policy::BestEffort,
            "restricted" => Policy::Restricted,
            "single-numa-node" => Policy::SingleNumaNode,
            other => return Err(format!("unknown policy: {other:?}")),
        };
        let scope = match scope {
            "container" => Scope::Container,
            "pod" => Scope::Pod,
            other => return Err(format!("unknown scope: {other:?}")),
        };
        let (mut prefers_closest, mut most) = (false, NODES_MAX);
        for (name, value) in options {
            match name.as_str() {
                CLOSEST => {
                    let parsed = parse_bool(value);
                    prefers_closest = parsed.map_err(|why| format!("bad value for option {name:?}: {why}"))?;
                }
                ALLOWED => {
                    most = value.parse().map_err(|_| {
                        format!(
                            "unable to convert policy option to integer {name:?}: strconv.Atoi: parsing {value:?}: invalid syntax"
                        )
                    })?;
                    if most < NODES_MAX {
                        return Err(format!("the minimum value of {name:?} should not be less than {NODES_MAX}"));
                    }
                }
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        if prefers_closest && machine.distances.values().any(Vec::is_empty) {
            return Err("cannot discover NUMA topology: error getting NUMA distances from cadvisor".to_owned());
        }
        if machine.distances.len() > most {
            return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
        }
        Ok(Self { policy, scope, prefers_closest, machine })
    }
}

/// As Go reads it.
///
/// # Errors
/// Go's words.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}
