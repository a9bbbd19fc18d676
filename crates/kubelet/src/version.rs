//! The version that clients and people are shown.

/// What stands in node status, user agents and `--version`; upstream's version that we follow, with our own as build
/// metadata.
pub(crate) const GIT_VERSION: &str = "v1.36.3+rubelet.1";
/// Upstream's major version.
pub(crate) const MAJOR: &str = "1";
/// Upstream's minor version.
pub(crate) const MINOR: &str = "36";

/// The line of `--version`.
pub(crate) fn plain() -> String {
    format!("Kubernetes {GIT_VERSION}")
}

/// The line of `--version=raw`, in the shape of Go's `%#v` of upstream's structure.
pub(crate) fn raw() -> String {
    let fields = [
        ("Major", MAJOR),
        ("Minor", MINOR),
        ("EmulationMajor", ""),
        ("EmulationMinor", ""),
        ("MinCompatibilityMajor", ""),
        ("MinCompatibilityMinor", ""),
        ("GitVersion", GIT_VERSION),
        ("GitCommit", COMMIT),
        ("GitTreeState", TREE_STATE),
        ("BuildDate", BUILD_DATE),
        ("GoVersion", ""),
        ("Compiler", COMPILER),
        ("Platform", PLATFORM),
    ];
    let shown: Vec<String> = fields.iter().map(|(name, value)| format!("{name}:{value:?}")).collect();
    format!("version.Info{{{}}}", shown.join(", "))
}

/// Values of the metric `kubernetes_build_info`, in the order of its labels' names.
pub(crate) fn build() -> [&'static str; 9] {
    [BUILD_DATE, COMPILER, COMMIT, TREE_STATE, GIT_VERSION, "", MAJOR, MINOR, PLATFORM]
}

const COMMIT: &str = match option_env!("RUBELET_COMMIT") {
    Some(commit) => commit,
    None => "",
};
const TREE_STATE: &str = match option_env!("RUBELET_TREE_STATE") {
    Some(state) => state,
    None => "",
};
const BUILD_DATE: &str = match option_env!("RUBELET_BUILD_DATE") {
    Some(date) => date,
    None => "1970-01-01T00:00:00Z",
};
const COMPILER: &str = "rustc";

/// `linux/amd64`, with Go's name of the architecture.
const PLATFORM: &str = if cfg!(target_arch = "x86_64") {
    "linux/amd64"
} else if cfg!(target_arch = "aarch64") {
    "linux/arm64"
} else if cfg!(target_arch = "arm") {
    "linux/arm"
} else if cfg!(target_arch = "riscv64") {
    "linux/riscv64"
} else if cfg!(target_arch = "s390x") {
    "linux/s390x"
} else if cfg!(target_arch = "powerpc64") {
    "linux/ppc64le"
} else {
    "linux/unknown"
};

#[cfg(test)]
mod tests {
    #[test]
    fn both_forms() {
        assert_eq!(super::plain(), "Kubernetes v1.36.3+rubelet.1");
        let raw = super::raw();
        assert!(raw.starts_with(r#"version.Info{Major:"1", Minor:"36", EmulationMajor:"""#), "{raw}");
        assert!(raw.contains(r#"GitVersion:"v1.36.3+rubelet.1""#) && raw.ends_with("\"}"), "{raw}");
    }
}
