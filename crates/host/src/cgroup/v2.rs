//! Version 2: one directory, controllers switched on from the root down.

use std::fs;
use std::io;
use std::path::Path;

use super::{CgroupError, Hierarchy, Lack, Values, page_size_name, write_file};
use crate::mount::Mount;

pub(super) fn hierarchies(mounts: &[Mount]) -> Vec<Hierarchy> {
    let unified = mounts.iter().rev().find(|m| m.fs_type == "cgroup2");
    unified.map(|m| Hierarchy { mount: m.target.clone(), controllers: Vec::new() }).into_iter().collect()
}

/// Makes `name` below `mount`, level by level, with every controller that each parent has switched on for its children.
pub(super) fn make(mount: &Path, name: &str) -> Result<(), CgroupError> {
    let mut dir = mount.to_owned();
    for part in name.split('/').filter(|p| !p.is_empty()) {
        enable_controllers(&dir)?;
        dir.push(part);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::Create { path: dir, source }),
        }
    }
    Ok(())
}

/// kubelet 1.36: the controllers that a cgroup of version 2 must have, if the machine has them.
const NEEDED: [&str; 5] = ["cpu", "cpuset", "hugetlb", "memory", "pids"];

/// The controllers that a whole cgroup has and this one has not.
pub(super) fn lack(mount: &Path, name: &str) -> Option<Lack> {
    let read =
        |path: &Path| fs::read_to_string(path).map_err(|e| Lack::Unreadable { path: path.to_owned(), kind: e.kind() });
    let (machine, own) =
        match (read(&mount.join("cgroup.controllers")), read(&mount.join(name).join("cgroup.controllers"))) {
            (Ok(machine), Ok(own)) => (machine, own),
            (Err(lack), _) | (_, Err(lack)) => return Some(lack),
        };
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    let missing = NEEDED.into_iter().filter(|c| has(&machine, c) && !has(&own, c)).map(str::to_owned);
    let missing: Vec<String> = missing.collect();
    (!missing.is_empty()).then_some(Lack::Controllers(missing))
}

/// Switches on, for the children of `dir`, all controllers that it has. One that refuses (a real-time CPU user, say) is
/// missed only when one of its values has to be written.
fn enable_controllers(dir: &Path) -> Result<(), CgroupError> {
    let read = |file: &str| {
        let path = dir.join(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
    };
    let on = read("cgroup.subtree_control")?;
    let on: Vec<&str> = on.split_whitespace().collect();
    for controller in read("cgroup.controllers")?.split_whitespace().filter(|c| !on.contains(c)) {
        if let Err(error) = write_file(dir.join("cgroup.subtree_control"), &format!("+{controller}")) {
            tracing::debug!(%error, controller, "cgroup controller not switched on");
        }
    }
    Ok(())
}

/// Writes the values, converted.
pub(super) fn write(dir: &Path, values: &Values) -> Result<(), CgroupError> {
    for (file, value) in files(values) {
        if file.contains('/') {
            return Err(CgroupError::File(file));
        }
        let path = dir.join(&file);
        let is_optional = file.starts_with("hugetlb.") || file == SWAP_FILE;
        if is_optional && !path.exists() {
            continue;
        }
        match write_file(path, &value) {
            Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound && dir.exists() => {
                return Err(CgroupError::MissingController(controller_of(&file)));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Missing where the kernel does not count swap.
const SWAP_FILE: &str = "memory.swap.max";

fn controller_of(file: &str) -> &'static str {
    match file.split('.').next() {
        Some("cpu") => "cpu",
        Some("memory") => "memory",
        Some("pids") => "pids",
        Some("cpuset") => "cpuset",
        _ => "unknown",
    }
}

/// Files and their content for these values.
fn files(values: &Values) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut put = |file: &str, value: String| out.push((file.to_owned(), value));
    if let Some(weight) = weight_of(values) {
        put("cpu.weight", weight.to_string());
    }
    match (values.cpu_quota_us, values.cpu_period_us) {
        (None, None) => {}
        (Some(quota), period) if quota > 0 => put("cpu.max", format!("{quota} {}", period.unwrap_or(100_000))),
        (_, Some(period)) => put("cpu.max", format!("max {period}")),
        (Some(_), None) => put("cpu.max", "max".to_owned()),
    }
    let or_max = |limit: i64| if limit < 0 { "max".to_owned() } else { limit.to_string() };
    if let Some(limit) = values.memory_limit_bytes {
        put("memory.max", or_max(limit));
    }
    if let Some(max) = values.pids_max {
        put("pids.max", if max > 0 { max.to_string() } else { "max".to_owned() });
    }
    if let Some(both) = values.memory_swap_limit_bytes {
        let memory = values.memory_limit_bytes.filter(|m| *m >= 0).unwrap_or(0);
        put(SWAP_FILE, if both < 0 { "max".to_owned() } else { (both - memory).max(0).to_string() });
    }
    for (file, value) in [("cpuset.cpus", &values.cpuset_cpus), ("cpuset.mems", &values.cpuset_mems)] {
        if let Some(value) = value {
            put(file, value.clone());
        }
    }
    for &(size, limit) in &values.hugetlb {
        put(&format!("hugetlb.{}.max", page_size_name(size)), limit.to_string());
    }
    for (file, value) in &values.unified {
        put(file, value.clone());
    }
    out
}

/// The weight that is said, or the one that follows from the shares.
pub(super) fn weight_of(values: &Values) -> Option<u64> {
    values.cpu_weight.or(values.cpu_shares.map(weight))
}

/// kubelet 1.36: linear, 2..=262144 shares to 1..=10000.
pub(super) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(values: &Values) -> String {
        files(values).into_iter().map(|(f, v)| format!("{f}={v}")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn values_are_written_as_recorded() {
        let guaranteed = Values {
            cpu_shares: Some(768),
            cpu_quota_us: Some(75_000),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(100_663_296),
            pids_max: Some(-1),
            hugetlb: vec![(2 << 20, 0), (1 << 30, 1 << 30)],
            ..Values::default()
        };
        assert_eq!(
            text(&guaranteed),
            "cpu.weight=30; cpu.max=75000 100000; memory.max=100663296; pids.max=max; hugetlb.2MB.max=0; \
             hugetlb.1GB.max=1073741824"
        );
        let burstable = Values { cpu_shares: Some(102), ..Values::default() };
        assert_eq!(text(&burstable), "cpu.weight=4");
        let unlimited = Values {
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(-1),
            pids_max: Some(42),
            ..Values::default()
        };
        assert_eq!(text(&unlimited), "cpu.max=max 100000; memory.max=max; pids.max=42");
        let container = Values {
            memory_limit_bytes: Some(4096),
            memory_swap_limit_bytes: Some(4096),
            cpuset_cpus: Some("0-1".to_owned()),
            unified: vec![("memory.oom.group".to_owned(), "1".to_owned())],
            ..Values::default()
        };
        assert_eq!(text(&container), "memory.max=4096; memory.swap.max=0; cpuset.cpus=0-1; memory.oom.group=1");
    }

    #[test]
    fn weight_spans_the_range() {
        for (shares, want) in [(0, 1), (2, 1), (1024, 39), (2048, 79), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), want, "{shares} shares");
        }
    }

    #[test]
    fn a_value_without_its_controller_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), &Values { pids_max: Some(5), ..Values::default() }).unwrap_err();
        assert_eq!(error.to_string(), "the cgroup controller pids is not available");
        write(dir.path(), &Values { hugetlb: vec![(2 << 20, 0)], ..Values::default() }).unwrap();
    }

    /// On a real hierarchy, also where it is there beside those of version 1.
    #[test]
    fn huge_pages_are_limited() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(top) = words.find(|words| words[2] == "cgroup2").map(|words| std::path::PathBuf::from(words[1]))
        else {
            eprintln!("not run: no cgroup v2 here");
            return;
        };
        let dir = top.join(format!("rubelet-host-huge-{}", std::process::id()));
        if std::fs::create_dir(&dir).is_err() {
            eprintln!("not run: {} cannot be written to", top.display());
            return;
        }
        let limit = dir.join("hugetlb.2MB.max");
        let before = std::fs::read_to_string(&limit);
        write(&dir, &Values { hugetlb: vec![(2 << 20, 4 << 20)], ..Values::default() }).unwrap();
        let after = std::fs::read_to_string(&limit);
        std::fs::remove_dir(&dir).unwrap();
        match before {
            Ok(before) => {
                assert_ne!(before.trim(), "4194304");
                assert_eq!(after.unwrap().trim(), "4194304");
            }
            Err(_) => eprintln!("not run: it does not count huge pages"),
        }
    }
}
