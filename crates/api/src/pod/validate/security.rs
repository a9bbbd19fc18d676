//! Security contexts of the pod and of its containers.

use std::collections::BTreeSet;

use super::{mounts, one_of};
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::v1;

const ID_RULE: &str = "must be between 0 and 2147483647, inclusive";
/// Longest name of a sysctl, bytes.
const SYSCTL: usize = 253;
const SYSCTL_RULE: &str = "must have at most 253 characters and match regex \
     ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(number: Option<i64>, path: &Path, problems: &mut Problems) {
    if let Some(number) = number
        && !(0..=i64::from(i32::MAX)).contains(&number)
    {
        problems.invalid(path, &number, ID_RULE);
    }
}

/// The pod's own security context, and namespaces shared with the host.
pub(super) fn validate_pod(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    namespaces(spec, gates, path, problems);
    let Some(context) = &spec.security_context else { return };
    let path = path.field("securityContext");
    id(context.fs_group, &path.field("fsGroup"), problems);
    id(context.run_as_user, &path.field("runAsUser"), problems);
    id(context.run_as_group, &path.field("runAsGroup"), problems);
    for (nth, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &path.field("supplementalGroups").index(nth), problems);
    }
    let choices: [(&str, &Option<String>, &[&str]); 3] = [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, &["MountOption", "Recursive"]),
    ];
    for (field, value, supported) in choices {
        if let Some(value) = value.as_deref()
            && !supported.contains(&value)
        {
            problems.unsupported(&path.field(field), value, supported);
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), problems);
    apparmor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), problems);
    windows(context.windows_options.is_some(), spec, &path, problems);
    sysctls(context, spec, &path.field("sysctls"), problems);
}

fn namespaces(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    let host_network = spec.host_network == Some(true);
    let (host_pid, host_ipc) = (spec.host_pid == Some(true), spec.host_ipc == Some(true));
    if spec.share_process_namespace == Some(true) && host_pid {
        problems.invalid(
            &path.field("shareProcessNamespace"),
            &true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", host_network && !gates.user_namespaces_host_network),
        ("hostPID", host_pid),
        ("hostIPC", host_ipc),
    ];
    for (field, _) in shared.iter().filter(|(_, shared)| *shared) {
        problems.forbidden(&path.field(field), "when `hostUsers` is false");
    }
}

fn sysctls(context: &v1::PodSecurityContext, spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (nth, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.index(nth).field("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            problems.required(&path, "");
        } else if !sysctl_name(name) {
            problems.invalid(&path, name, SYSCTL_RULE);
        } else if !seen.insert(name.replace('/', ".")) {
            problems.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        if dotted.starts_with("net.") && spec.host_network == Some(true) {
            problems.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|head| dotted.starts_with(head));
        if ipc && spec.host_ipc == Some(true) {
            problems.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn sysctl_name(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SYSCTL
        && name.split(['.', '/']).all(|part| {
            part.bytes().next().is_some_and(edge)
                && part.bytes().last().is_some_and(edge)
                && part.bytes().all(|b| edge(b) || b == b'-' || b == b'_')
        })
}

/// A container's security context.
pub(super) fn validate_container(
    context: &v1::SecurityContext,
    spec: &v1::PodSpec,
    path: &Path,
    problems: &mut Problems,
) {
    id(context.run_as_user, &path.field("runAsUser"), problems);
    id(context.run_as_group, &path.field("runAsGroup"), problems);
    if let Some(mount) = context.proc_mount.as_deref() {
        const MOUNTS: [&str; 2] = ["Default", "Unmasked"];
        if !MOUNTS.contains(&mount) {
            problems.unsupported(&path.field("procMount"), mount, &MOUNTS);
        }
        if mount == "Unmasked" && spec.host_users != Some(false) {
            problems.invalid(&path.field("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            problems.invalid(path, "", detail);
        }
        let added = context.capabilities.as_ref().and_then(|all| all.add.as_ref());
        if added.is_some_and(|all| all.iter().any(|name| name == "CAP_SYS_ADMIN" || name == "SYS_ADMIN")) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            problems.invalid(path, "", detail);
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), problems);
    apparmor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), problems);
    windows(context.windows_options.is_some(), spec, path, problems);
}

fn windows(given: bool, spec: &v1::PodSpec, path: &Path, problems: &mut Problems) {
    if given && spec.os.as_ref().is_some_and(|os| os.name == "linux") {
        problems.forbidden(&path.field("windowsOptions"), "windows options cannot be set for a linux pod");
    }
}

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn seccomp(profile: Option<&v1::SeccompProfile>, path: &Path, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    one_of(&profile.type_, &PROFILES, &path.field("type"), problems);
    let local = path.field("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => problems.required(&local, "must be set when seccomp type is Localhost"),
        ("Localhost", Some("")) => problems.required(&local, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => {
            if file.starts_with('/') {
                problems.invalid(&local, file, "must be a relative path");
            } else if mounts::climbs(file) {
                problems.invalid(&local, file, "must not contain '..'");
            }
        }
        (_, Some(file)) => problems.invalid(&local, file, "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

fn apparmor(profile: Option<&v1::AppArmorProfile>, path: &Path, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    one_of(&profile.type_, &PROFILES, &path.field("type"), problems);
    let local = path.field("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => problems.required(&local, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(name)) if name.trim().is_empty() => {
            problems.required(&local, "must be set when AppArmor type is Localhost");
        }
        ("Localhost", Some(name)) if name.trim() != name => {
            problems.invalid(&local, name, "must not be padded with whitespace");
        }
        ("Localhost", Some(name)) if name.len() > 4095 => problems.too_long(&local, 4095),
        ("Localhost", Some(_)) | (_, None) => {}
        (_, Some(name)) => problems.invalid(&local, name, "can only be set when AppArmor type is Localhost"),
    }
}
