//! Which system calls a container may make.

use std::fs;
use std::path::Path;

use rubelet_proto::cri::security_profile::ProfileType;
use rubelet_proto::cri::{LinuxContainerSecurityContext, LinuxSandboxSecurityContext, SecurityProfile};
use rubelet_shim::spec::{Seccomp, SeccompArg, SeccompRule};

use super::SpecError;

/// Bytes of a profile at most.
const PROFILE_MAX: u64 = 1 << 20;
const ALLOW: &str = "SCMP_ACT_ALLOW";
/// What may be called: a condition, and names. The profile's kernel versions are all older than the oldest that the shim runs on.
const USUAL: &str = include_str!("seccomp/usual.txt");
const ENOSYS: u32 = 38;

/// The profile of a container with these capabilities; `None`: everything may be called.
pub(super) fn profile(
    security: &LinuxContainerSecurityContext,
    capabilities: &[String],
) -> Result<Option<Seccomp>, SpecError> {
    if security.privileged {
        return Ok(None);
    }
    of(security.seccomp.as_ref(), &security.seccomp_profile_path, capabilities)
}

/// The profile of a pause process.
pub(super) fn of_pause(security: &LinuxSandboxSecurityContext) -> Result<Option<Seccomp>, SpecError> {
    if security.privileged {
        return Ok(None);
    }
    of(security.seccomp.as_ref(), &security.seccomp_profile_path, &[])
}

fn of(wanted: Option<&SecurityProfile>, older: &str, capabilities: &[String]) -> Result<Option<Seccomp>, SpecError> {
    let wanted = wanted.cloned().map_or_else(|| parse(older), Ok)?;
    match wanted.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(usual(capabilities))),
        ProfileType::Localhost => read(wanted.localhost_ref.trim_start_matches("localhost/")).map(Some),
    }
}

/// The older field: `runtime/default`, `docker/default`, `unconfined`, `localhost/PATH`, or nothing.
fn parse(text: &str) -> Result<SecurityProfile, SpecError> {
    let profile = |kind: ProfileType, path: &str| {
        Ok(SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() })
    };
    match text {
        "" | "unconfined" => profile(ProfileType::Unconfined, ""),
        "runtime/default" | "docker/default" => profile(ProfileType::RuntimeDefault, ""),
        path => match path.strip_prefix("localhost/") {
            Some(path) => profile(ProfileType::Localhost, path),
            None => Err(SpecError::new(format!("invalid profile {text:?}"))),
        },
    }
}

/// A file as OCI's `linux.seccomp`. What Docker's files have beyond that (`archMap`, `includes`) is not looked at, as with containerd.
fn read(path: &str) -> Result<Seccomp, SpecError> {
    let refused = |why: String| SpecError::new(format!("cannot load seccomp profile {path:?}: {why}"));
    let io = |e: std::io::Error| refused(SpecError::go(&format!("open {path}"), &e));
    if !path.is_empty() && !Path::new(path).is_absolute() {
        return Err(refused("the path is not absolute".to_owned()));
    }
    let stat = fs::metadata(path).map_err(io)?;
    if !stat.is_file() || stat.len() > PROFILE_MAX {
        return Err(refused(format!("it is not a file of at most {PROFILE_MAX} bytes")));
    }
    let text = fs::read(path).map_err(io)?;
    let profile: Seccomp = serde_json::from_slice(&text)
        .map_err(|e| SpecError::new(format!("decoding seccomp profile failed {path:?}: {e}")))?;
    if profile.default_action.is_empty() {
        return Err(refused("it has no defaultAction".to_owned()));
    }
    Ok(profile)
}

/// The usual profile for a container with these capabilities.
fn usual(capabilities: &[String]) -> Seccomp {
    let machine = if cfg!(target_arch = "aarch64") { "arm" } else { "x86" };
    let has = |condition: &str| {
        condition == "always" || condition == machine || capabilities.iter().any(|name| name == condition)
    };
    let lines = USUAL.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    let allowed = lines.filter(|(condition, _)| has(condition));
    let names = allowed.flat_map(|(_, names)| names.split(' ')).map(str::to_owned).collect();
    let mut syscalls = vec![rule(names, ALLOW, None, Vec::new())];
    syscalls.extend(conditional(has("CAP_SYS_ADMIN")));
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        architectures: architectures().iter().map(|name| (*name).to_owned()).collect(),
        syscalls,
        ..Seccomp::default()
    }
}

/// What depends on arguments.
fn conditional(is_admin: bool) -> Vec<SeccompRule> {
    /// The flags that make a namespace (all that `clone` can have).
    const NEW_NAMESPACES: u64 = 0x7e02_0000;
    const AF_VSOCK: u64 = 40;
    /// Linux's own, 32 bit, 2.6 as the version, both; and the question which it is.
    const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let arg = |value, op: &str| SeccompArg { index: 0, value, value_two: 0, op: op.to_owned() };
    let one = |name: &str, arg| rule(vec![name.to_owned()], ALLOW, None, vec![arg]);
    let mut rules = vec![one("socket", arg(AF_VSOCK, "SCMP_CMP_NE"))];
    rules.extend(PERSONALITIES.map(|personality| one("personality", arg(personality, "SCMP_CMP_EQ"))));
    if !is_admin {
        rules.push(one("clone", arg(NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")));
        // Its flags are in memory, where no filter can look: programs fall back to clone.
        rules.push(rule(vec!["clone3".to_owned()], "SCMP_ACT_ERRNO", Some(ENOSYS), Vec::new()));
    }
    rules
}

fn rule(names: Vec<String>, action: &str, errno_ret: Option<u32>, args: Vec<SeccompArg>) -> SeccompRule {
    SeccompRule { names, action: action.to_owned(), errno_ret, args }
}

/// The machine's architecture and those that its kernel runs besides.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(kind: ProfileType, path: &str) -> LinuxContainerSecurityContext {
        let seccomp = SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() };
        LinuxContainerSecurityContext { seccomp: Some(seccomp), ..Default::default() }
    }

    fn of_kind(kind: ProfileType, path: &str) -> Result<Option<Seccomp>, String> {
        profile(&security(kind, path), &[]).map_err(|e| e.to_string())
    }

    /// Names that may always be called.
    fn allowed(capabilities: &[&str]) -> Vec<String> {
        let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
        usual(&capabilities).syscalls[0].names.clone()
    }

    #[test]
    fn the_usual_profile() {
        let usual = of_kind(ProfileType::RuntimeDefault, "").unwrap().unwrap();
        let names = allowed(&[]);
        assert_eq!(usual.syscalls[0].names, names);
        // containerd 2.1: 352 names, three for ptrace, two of the machine.
        assert_eq!(names.len(), if cfg!(target_arch = "x86_64") { 357 } else { 361 });
        for name in ["openat", "execve", "futex", "ptrace", "landlock_create_ruleset"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        for name in "mount keyctl add_key bpf reboot clone clone3 unshare setns kexec_load init_module io_uring_setup userfaultfd chroot \
                     socket personality swapon settimeofday"
            .split_whitespace()
        {
            assert!(!names.iter().any(|n| n == name), "{name}");
        }
        assert!(usual.syscalls.iter().any(|r| r.names == ["clone3"] && r.errno_ret == Some(38)));
    }

    #[test]
    fn capabilities_bring_their_calls() {
        let plain = allowed(&[]);
        for (capability, count) in [
            ("CAP_SYS_CHROOT", 1),
            ("CAP_SYS_ADMIN", 23),
            ("CAP_SYS_PTRACE", 3),
            ("CAP_SYS_TIME", 4),
            ("CAP_BPF", 1),
            ("CAP_NET_ADMIN", 0),
        ] {
            assert_eq!(allowed(&[capability]).len() - plain.len(), count, "{capability}");
        }
        let admin = usual(&["CAP_SYS_ADMIN".to_owned()]);
        assert!(!admin.syscalls.iter().any(|r| r.names == ["clone3"] || r.names == ["clone"]));
    }

    #[test]
    fn files_and_their_faults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        let at = |path: &Path| of_kind(ProfileType::Localhost, path.to_str().unwrap());
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[],"syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","includes":{}}]}"#;
        fs::write(&path, text).unwrap();
        assert_eq!(at(&path).unwrap().unwrap().syscalls[0].names, ["chmod"]);
        let prefixed = format!("localhost/{}", path.display());
        assert!(of_kind(ProfileType::Localhost, &prefixed).unwrap().is_some());
        fs::write(&path, "{").unwrap();
        assert!(at(&path).unwrap_err().starts_with("decoding seccomp profile failed "));
        fs::write(&path, "{}").unwrap();
        assert!(at(&path).unwrap_err().ends_with("it has no defaultAction"));
        let missing = "cannot load seccomp profile \"/no/such\": open /no/such: no such file or directory";
        assert_eq!(at(Path::new("/no/such")).unwrap_err(), missing);
        assert!(at(Path::new("x.json")).unwrap_err().ends_with("the path is not absolute"));
        assert!(at(Path::new("/dev/zero")).unwrap_err().contains("not a file"));
    }

    #[test]
    fn who_has_none() {
        assert!(of_kind(ProfileType::Unconfined, "").unwrap().is_none());
        let nothing = LinuxContainerSecurityContext::default();
        assert!(profile(&nothing, &[]).unwrap().is_none(), "not asked for");
        let older = |text: &str| {
            let security = LinuxContainerSecurityContext { seccomp_profile_path: text.into(), ..Default::default() };
            profile(&security, &[]).map_err(|e| e.to_string())
        };
        assert!(older("unconfined").unwrap().is_none() && older("runtime/default").unwrap().is_some());
        assert_eq!(older("what").unwrap_err(), "invalid profile \"what\"");
        let privileged =
            LinuxContainerSecurityContext { privileged: true, ..security(ProfileType::RuntimeDefault, "") };
        assert!(profile(&privileged, &[]).unwrap().is_none());
    }
}
