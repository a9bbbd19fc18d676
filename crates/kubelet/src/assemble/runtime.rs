//! Which container runtime serves this node.

use super::Remark;
use crate::surroundings::Program;

/// containerd's socket: what upstream uses when nothing is said.
pub(super) const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";

/// The word for the runtime inside this program.
const EMBEDDED: &str = "embedded";

/// The embedded runtime was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "failed to run Kubelet: containerRuntimeEndpoint \"embedded\": this build has no embedded runtime yet; name the socket of containerd or CRI-O"
)]
pub(crate) struct NoEmbeddedRuntime;

/// The endpoint for what the configuration says; `None`: it says nothing.
///
/// # Errors
/// The embedded runtime is named.
pub(super) fn choose(program: Program, said: Option<&str>) -> Result<(String, Option<Remark>), NoEmbeddedRuntime> {
    match (said.filter(|text| !text.is_empty()), program) {
        (Some(EMBEDDED), _) => Err(NoEmbeddedRuntime),
        (Some(endpoint), _) => Ok((endpoint.to_owned(), None)),
        (None, Program::Kubelet) => Ok((CONTAINERD.to_owned(), None)),
        (None, Program::Rubelet) => Ok((
            CONTAINERD.to_owned(),
            Some(Remark::Info {
                words: "No container runtime is configured and this build has no embedded one yet; using containerd's socket"
                    .to_owned(),
                about: CONTAINERD.to_owned(),
            }),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_and_what_is_not() {
        for program in [Program::Kubelet, Program::Rubelet] {
            assert_eq!(choose(program, Some("embedded")), Err(NoEmbeddedRuntime));
            assert_eq!(choose(program, Some("unix:///run/x.sock")), Ok(("unix:///run/x.sock".to_owned(), None)));
            for said in [None, Some("")] {
                let (endpoint, remark) = choose(program, said).unwrap();
                assert_eq!(endpoint, CONTAINERD);
                assert_eq!(remark.is_some(), program == Program::Rubelet);
            }
        }
    }
}
