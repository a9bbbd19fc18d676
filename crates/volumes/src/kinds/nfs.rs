//! nfs: a directory of another machine, mounted by the host's `mount` and its helper for NFS.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use rubelet_core::pod::step::VolumePlan;
use rubelet_host::exec::{self, Order};
use rubelet_host::{chain, mount as host_mount};

use super::empty_dir::make_dirs;
use crate::mount::Cause;

/// A server that does not answer must not hold up the pod for ever; the step is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
const OUTPUT_MAX: usize = 4096;
/// Where distributions have `mount` and its helpers.
const PROGRAMS: [&str; 2] = ["/bin/mount", "/usr/bin/mount"];
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts it unless it is mounted.
pub(crate) fn mount(plan: &VolumePlan, pod_dir: &Path, source: &str, options: &[String]) -> Result<(), Cause> {
    make_dirs(&plan.path, pod_dir, 0o750)?;
    if host_mount::is_mount_point(&plan.path)? {
        return Ok(());
    }
    let joined = options.join(",");
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("-t"), OsStr::new("nfs")];
    if !joined.is_empty() {
        arguments.extend([OsStr::new("-o"), OsStr::new(&joined)]);
    }
    arguments.extend([OsStr::new(source), plan.path.as_os_str()]);
    let program = PROGRAMS.iter().map(Path::new).find(|program| program.exists()).unwrap_or(Path::new(PROGRAMS[0]));
    let environment = [(OsString::from("PATH"), OsString::from(SEARCH_PATH))];
    let order = Order {
        program,
        arguments: &arguments,
        environment: &environment,
        input: &[],
        patience: PATIENCE,
        output_max: OUTPUT_MAX,
    };
    let answer = exec::run(&order).map_err(|e| Cause::Refused { message: format!("mount failed: {}", chain(&e)) })?;
    if answer.status.success() {
        return Ok(());
    }
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let output = [answer.stdout, answer.stderr].concat();
    let status = answer.status.code().map_or_else(|| answer.status.to_string(), |code| format!("exit status {code}"));
    // kubelet 1.36: the words.
    Err(Cause::Refused {
        message: format!(
            "mount failed: {status}\nMounting command: mount\nMounting arguments: {}\nOutput: {}",
            words.join(" "),
            String::from_utf8_lossy(&output)
        ),
    })
}

#[cfg(test)]
mod tests {
    use rubelet_core::pod::step::VolumeKind;

    use super::*;
    use crate::testing::in_private_namespace;

    #[test]
    fn a_server_that_is_not_there_is_told_of_as_upstream_does() {
        in_private_namespace(|| {
            let dir = tempfile::tempdir().unwrap();
            let pod_dir = dir.path().join("pods/1");
            let path = pod_dir.join("volumes/kubernetes.io~nfs/v");
            let (source, options) = ("127.0.0.1:/nothing".to_owned(), vec!["ro".to_owned(), "retry=0".to_owned()]);
            let kind = VolumeKind::Nfs { source: source.clone(), options: options.clone() };
            let (volume, name) = ("v".to_owned(), "v".to_owned());
            let plan = VolumePlan { volume, name, path, kind, fs_group: None, fs_group_on_root_mismatch: false };
            let error = mount(&plan, &pod_dir, &source, &options).unwrap_err().to_string();
            let wanted = format!(
                "mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs -o ro,retry=0 \
                 127.0.0.1:/nothing {}\nOutput: mount",
                plan.path.display()
            );
            assert!(error.starts_with(&wanted), "{error}");
        });
    }
}
