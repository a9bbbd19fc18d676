//! What the program finds around it: its name, its environment, its folder, its host's name. Read once, in `main`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rubelet_api::gather::Gather;
use rubelet_host::cgroup;

/// The name under which the program was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Program {
    /// `kubelet`: exactly upstream's command line.
    Kubelet,
    /// Any other name.
    #[default]
    Rubelet,
}

impl Program {
    /// From the first argument, by its last part.
    pub(crate) fn named(argument: &str) -> Self {
        if argument.rsplit('/').next() == Some("kubelet") { Self::Kubelet } else { Self::Rubelet }
    }

    /// The name in help and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Rubelet => "rubelet",
        }
    }
}

/// What the program finds around it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Surroundings {
    pub(crate) program: Program,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) working_dir: PathBuf,
    pub(crate) hostname: String,
    /// `None` when the host does not say.
    pub(crate) has_cgroup_v1: Option<bool>,
}

impl Surroundings {
    /// Reads all of it from the process.
    pub(crate) fn of_this_process() -> Self {
        let program = std::env::args_os().next().map_or(Program::Rubelet, |arg| Program::named(&arg.to_string_lossy()));
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .into_map();
        // Without a working directory relative paths start at the root, as in a service.
        let working_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let has_cgroup_v1 = cgroup::detect_version().ok().map(|version| version == cgroup::Version::V1);
        Self { program, variables, working_dir, hostname: hostname.trim().to_owned(), has_cgroup_v1 }
    }

    /// An environment variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        for (argument, program) in [
            ("kubelet", Program::Kubelet),
            ("/usr/bin/kubelet", Program::Kubelet),
            ("./rubelet", Program::Rubelet),
            ("kubelet.old", Program::Rubelet),
            ("", Program::Rubelet),
        ] {
            assert_eq!(Program::named(argument), program, "{argument}");
        }
        let here = Surroundings::of_this_process();
        assert!(!here.hostname.is_empty() && here.working_dir.is_absolute());
    }
}
