//! Version 1: one directory per hierarchy, values by controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, Hierarchy, Lack, Values, page_size_name, write_file};
use crate::mount::Mount;

/// Every mounted hierarchy of version 1 once, `name=systemd` included; other named ones are left alone.
pub(super) fn hierarchies(mounts: &[Mount]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.iter().filter(|m| m.fs_type == "cgroup") {
        let options: Vec<&str> = mount.super_options.split(',').collect();
        let controllers: Vec<String> =
            options.iter().filter(|o| is_controller(o) || **o == "name=systemd").map(|&o| o.to_owned()).collect();
        let is_known = found.iter().any(|h| h.controllers == controllers);
        if !controllers.is_empty() && !is_known {
            found.push(Hierarchy { mount: mount.target.clone(), controllers });
        }
    }
    found
}

fn is_controller(option: &str) -> bool {
    matches!(
        option,
        "cpu"
            | "cpuacct"
            | "cpuset"
            | "memory"
            | "pids"
            | "hugetlb"
            | "devices"
            | "freezer"
            | "blkio"
            | "net_cls"
            | "net_prio"
            | "perf_event"
            | "rdma"
            | "misc"
    )
}

/// Makes `name` below the hierarchy, level by level; a cpuset takes over its parent's CPUs and memory nodes.
pub(super) fn make(hierarchy: &Hierarchy, name: &str) -> Result<(), CgroupError> {
    let is_cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
    let mut dir = hierarchy.mount.clone();
    for part in name.split('/').filter(|p| !p.is_empty()) {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError::Create { path: dir, source }),
        }
        if is_cpuset {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&parent, &dir, file)?;
            }
        }
    }
    Ok(())
}

/// kubelet 1.36: the controllers without which a cgroup of version 1 is none.
const NEEDED: [&str; 7] = ["cpu", "cpuacct", "cpuset", "memory", "name=systemd", "pids", "hugetlb"];

/// The directories that a whole cgroup has and this one has not.
pub(super) fn lack(hierarchies: &[Hierarchy], name: &str) -> Option<Lack> {
    let needed = hierarchies.iter().filter(|h| h.controllers.iter().any(|c| NEEDED.contains(&c.as_str())));
    let mut missing: Vec<PathBuf> = needed.map(|h| h.mount.join(name)).filter(|path| !path.exists()).collect();
    missing.sort();
    (!missing.is_empty()).then_some(Lack::Paths(missing))
}

/// Copies a file's value from the parent where the child's is empty.
fn inherit(parent: &Path, dir: &Path, file: &str) -> Result<(), CgroupError> {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source });
    if !read(dir.join(file))?.trim().is_empty() {
        return Ok(());
    }
    let value = read(parent.join(file))?;
    write_file(dir.join(file), value.trim())
}

/// Writes the values into the hierarchies that serve them.
pub(super) fn write(hierarchies: &[Hierarchy], name: &str, values: &Values) -> Result<(), CgroupError> {
    let dir = |controller: &'static str| {
        hierarchies
            .iter()
            .find(|h| h.controllers.iter().any(|c| c == controller))
            .map(|h| h.mount.join(name))
            .ok_or(CgroupError::MissingController(controller))
    };
    if let Some(shares) = values.cpu_shares {
        write_file(dir("cpu")?.join("cpu.shares"), &shares.to_string())?;
    }
    if values.cpu_quota_us.is_some() || values.cpu_period_us.is_some() {
        write_quota(&dir("cpu")?, values)?;
    }
    if values.memory_limit_bytes.is_some() || values.memory_swap_limit_bytes.is_some() {
        write_memory(&dir("memory")?, values)?;
    }
    for (file, value) in [("cpuset.cpus", &values.cpuset_cpus), ("cpuset.mems", &values.cpuset_mems)] {
        if let Some(value) = value {
            write_file(dir("cpuset")?.join(file), value)?;
        }
    }
    if let Some((file, _)) = values.unified.first() {
        return Err(CgroupError::File(file.clone()));
    }
    if let Some(max) = values.pids_max {
        let text = if max > 0 { max.to_string() } else { "max".to_owned() };
        write_file(dir("pids")?.join("pids.max"), &text)?;
    }
    if let (false, Ok(dir)) = (values.hugetlb.is_empty(), dir("hugetlb")) {
        for &(size, limit) in &values.hugetlb {
            write_file(dir.join(format!("hugetlb.{}.limit_in_bytes", page_size_name(size))), &limit.to_string())?;
        }
    }
    Ok(())
}

/// Memory alone is never above memory with swap: which is written first depends on which way they go.
fn write_memory(dir: &Path, values: &Values) -> Result<(), CgroupError> {
    let both = dir.join("memory.memsw.limit_in_bytes");
    let both = values.memory_swap_limit_bytes.filter(|_| both.exists()).map(|limit| (both, limit.max(-1).to_string()));
    let memory = values.memory_limit_bytes.map(|limit| (dir.join("memory.limit_in_bytes"), limit.max(-1).to_string()));
    let put = |file: &Option<(std::path::PathBuf, String)>| match file {
        Some((path, value)) => write_file(path.clone(), value),
        None => Ok(()),
    };
    if put(&memory).is_err() {
        put(&both)?;
        return put(&memory);
    }
    put(&both)
}

/// Period and quota are checked together by the kernel; when the period alone does not fit, the quota goes first.
fn write_quota(dir: &Path, values: &Values) -> Result<(), CgroupError> {
    let quota = values.cpu_quota_us.map(|q| q.max(-1).to_string());
    let period = values.cpu_period_us.map(|p| p.to_string());
    let put = |file: &str, value: &Option<String>| match value {
        Some(value) => write_file(dir.join(file), value),
        None => Ok(()),
    };
    if let Err(first) = put("cpu.cfs_period_us", &period) {
        if quota.is_none() {
            return Err(first);
        }
        put("cpu.cfs_quota_us", &quota)?;
        return put("cpu.cfs_period_us", &period);
    }
    put("cpu.cfs_quota_us", &quota)
}
