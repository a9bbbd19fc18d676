//! Which container runtime serves this node.

use crate::surroundings::Program;

/// containerd's socket: what upstream uses when nothing is said.
pub(super) const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";

/// The word for the runtime inside this program.
pub(crate) const EMBEDDED: &str = "embedded";

/// The endpoint for what the configuration says; `None`: it says nothing. What is said holds, whatever is found on the node.
pub(super) fn choose(program: Program, said: Option<&str>) -> &str {
    match (said.filter(|text| !text.is_empty()), program) {
        (Some(endpoint), _) => endpoint,
        (None, Program::Kubelet) => CONTAINERD,
        (None, Program::Rubelet) => EMBEDDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_and_what_is_not() {
        for program in [Program::Kubelet, Program::Rubelet] {
            assert_eq!(choose(program, Some("embedded")), EMBEDDED);
            assert_eq!(choose(program, Some("unix:///run/x.sock")), "unix:///run/x.sock");
        }
        for said in [None, Some("")] {
            assert_eq!(choose(Program::Kubelet, said), CONTAINERD);
            assert_eq!(choose(Program::Rubelet, said), EMBEDDED);
        }
    }
}
