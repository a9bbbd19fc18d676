use std::process::{Child, Command};

use super::*;

/// A root of this test's own, removed at the end whatever happens.
struct Scratch {
    tree: Tree,
    root: String,
}

impl Scratch {
    fn new(test: &str) -> Option<Self> {
        let root = format!("rubelet-test-{}-{test}", std::process::id());
        let tree = Tree::detect(Driver::Cgroupfs, &root).ok()?;
        let is_usable = rustix::process::geteuid().is_root() && tree.ensure("probe", &Values::default()).is_ok();
        if !is_usable {
            eprintln!("not run: no writable cgroup hierarchy");
            return None;
        }
        Some(Self { tree, root })
    }

    fn read(&self, controller: &'static str, path: &str, file: &str) -> String {
        fs::read_to_string(self.tree.dir(controller, path).unwrap().join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let top = Tree { root: Vec::new(), ..self.tree.clone() };
        top.remove(&self.root).unwrap();
    }
}

fn guaranteed() -> Values {
    Values {
        cpu_shares: Some(768),
        cpu_quota_us: Some(75_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(100_663_296),
        pids_max: Some(100),
        hugetlb: vec![(2 << 20, 0)],
        ..Values::default()
    }
}

#[test]
fn a_pod_gets_its_values() {
    let Some(scratch) = Scratch::new("values") else { return };
    let tree = &scratch.tree;
    if tree.version != Version::V1 {
        eprintln!("not run: version 2 here");
        return;
    }
    tree.ensure("kubepods", &Values { cpu_shares: Some(2048), ..Values::default() }).unwrap();
    tree.ensure("kubepods/podx", &guaranteed()).unwrap();
    assert!(tree.exists("kubepods/podx"));
    assert_eq!(scratch.read("cpu", "kubepods", "cpu.shares"), "2048");
    for (controller, file, want) in [
        ("cpu", "cpu.shares", "768"),
        ("cpu", "cpu.cfs_quota_us", "75000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("memory", "memory.limit_in_bytes", "100663296"),
        ("pids", "pids.max", "100"),
    ] {
        assert_eq!(scratch.read(controller, "kubepods/podx", file), want, "{file}");
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        assert!(!scratch.read("cpuset", "kubepods/podx", file).is_empty(), "{file} is inherited");
    }
    // Changed in place, to no limits.
    let free = Values {
        cpu_shares: Some(2),
        cpu_quota_us: Some(-1),
        memory_limit_bytes: Some(-1),
        pids_max: Some(-1),
        ..Values::default()
    };
    tree.ensure("kubepods/podx", &free).unwrap();
    assert_eq!(scratch.read("cpu", "kubepods/podx", "cpu.cfs_quota_us"), "-1");
    assert_eq!(scratch.read("memory", "kubepods/podx", "memory.limit_in_bytes"), "9223372036854771712");
    assert_eq!(scratch.read("pids", "kubepods/podx", "pids.max"), "max");
}

#[test]
fn a_pod_is_whole_where_every_hierarchy_has_it() {
    let Some(scratch) = Scratch::new("whole") else { return };
    let tree = &scratch.tree;
    assert!(tree.list_whole_pods().is_err(), "no level is there: nothing is known");
    tree.ensure("kubepods/podx", &Values::default()).unwrap();
    tree.ensure("kubepods/burstable/pody", &Values::default()).unwrap();
    assert_eq!(tree.list_whole_pods().unwrap(), ["x", "y"].map(str::to_owned).into());
    fs::remove_dir(tree.dir("memory", "kubepods/podx").unwrap()).unwrap();
    assert_eq!(tree.list_whole_pods().unwrap(), ["y"].map(str::to_owned).into());
    if tree.hierarchies.len() > 1 {
        let last = tree.hierarchies.last().unwrap();
        remove_tree(&last.mount.join(&scratch.root), 0).unwrap();
        assert!(tree.list_whole_pods().is_err(), "as if it had been unmounted");
    }
}

#[test]
fn every_mounted_hierarchy_gets_the_directory() {
    let Some(scratch) = Scratch::new("all") else { return };
    scratch.tree.ensure("kubepods/burstable/podx", &Values::default()).unwrap();
    for hierarchy in &scratch.tree.hierarchies {
        let dir = hierarchy.mount.join(&scratch.root).join("kubepods/burstable/podx");
        assert!(dir.is_dir(), "{}", dir.display());
    }
    // A half of a cgroup does not count as one.
    let first = &scratch.tree.hierarchies[0];
    fs::remove_dir(first.mount.join(&scratch.root).join("kubepods/burstable/podx")).unwrap();
    assert!(!scratch.tree.exists("kubepods/burstable/podx"));
    assert!(scratch.tree.has_traces("kubepods/burstable/podx"));
}

#[test]
fn pods_are_listed() {
    let Some(scratch) = Scratch::new("list") else { return };
    let tree = &scratch.tree;
    for path in ["kubepods/poda", "kubepods/burstable/pod1-2", "kubepods/besteffort", "kubepods/other", "kubepods/pod"]
    {
        tree.ensure(path, &Values::default()).unwrap();
    }
    assert_eq!(tree.list_pods(), ["1-2", "a"]);
    assert!(!tree.pod_has_processes("a"));
    let mut child = spawn_in(tree, "kubepods/poda");
    assert!(tree.pod_has_processes("a") && !tree.pod_has_processes("1-2"));
    tree.remove("kubepods/poda").unwrap();
    child.wait().unwrap();
}

#[test]
fn pods_are_found_under_the_names_of_the_other_driver() {
    let Some(scratch) = Scratch::new("names") else { return };
    let other = scratch.tree.named_by(Driver::Systemd);
    let slice = other.fs_name("kubepods/burstable/pod1-2").unwrap();
    assert!(slice.ends_with("-kubepods-burstable-pod1_2.slice"), "{slice}");
    // Directories as systemd calls them, made by hand: no systemd is asked.
    let by_hand = Tree { root: Vec::new(), ..scratch.tree.clone() };
    by_hand.ensure(&slice, &Values::default()).unwrap();
    assert_eq!((scratch.tree.list_pods(), other.list_pods()), (Vec::new(), vec!["1-2".to_owned()]));
    assert!(!other.pod_has_processes("1-2"));
    let mut child = spawn_in(&by_hand, &slice);
    assert!(other.pod_has_processes("1-2"));
    by_hand.remove(slice.split('/').next().unwrap()).unwrap();
    child.wait().unwrap();
}

#[test]
fn the_levels_are_made() {
    let Some(scratch) = Scratch::new("levels") else { return };
    scratch.tree.ensure_levels(2048).unwrap();
    assert!(LEVELS.iter().all(|level| scratch.tree.exists(level)));
    if scratch.tree.version == Version::V1 {
        assert_eq!(scratch.read("cpu", "kubepods", "cpu.shares"), "2048");
        assert_eq!(scratch.read("cpu", "kubepods/besteffort", "cpu.shares"), "2");
    }
}

fn spawn_in(tree: &Tree, path: &str) -> Child {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let name = tree.fs_name(path).unwrap();
    for hierarchy in &tree.hierarchies {
        fs::write(hierarchy.mount.join(&name).join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    child
}

#[test]
fn removal_kills_what_is_left_inside() {
    let Some(scratch) = Scratch::new("kill") else { return };
    let tree = &scratch.tree;
    tree.ensure("kubepods/podx/container/deeper", &Values::default()).unwrap();
    let mut children = [spawn_in(tree, "kubepods/podx"), spawn_in(tree, "kubepods/podx/container/deeper")];
    let mut want: Vec<u32> = children.iter().map(Child::id).collect();
    want.sort_unstable();
    assert_eq!(tree.pids("kubepods/podx").unwrap(), want);
    tree.remove("kubepods/podx").unwrap();
    for child in &mut children {
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
    assert!(tree.hierarchies.iter().all(|h| !h.mount.join(&scratch.root).join("kubepods/podx").exists()));
    assert!(!tree.exists("kubepods/podx"));
    assert!(tree.exists("kubepods"), "the parent stays");
    tree.remove("kubepods/podx").unwrap();
}

#[test]
fn dangerous_paths_are_refused() {
    let mounts = mount::parse(b"1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
    let tree = Tree::from_mounts(Version::V1, Driver::Cgroupfs, "/", &mounts).unwrap();
    for path in ["", "/", "a/../..", ".."] {
        assert!(matches!(tree.remove(path), Err(CgroupError::Path(_))), "{path:?}");
    }
    assert!(matches!(tree.ensure("../x", &Values::default()), Err(CgroupError::Path(_))));
}

#[test]
fn hierarchies_are_found_in_the_mount_table() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:29 / /other/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:39 / /sys/fs/cgroup/mine rw - cgroup cgroup rw,name=mine\n\
        42 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let mounts = mount::parse(hybrid.as_bytes());
    assert_eq!(version_of(&mounts), Version::V1);
    let tree = Tree::from_mounts(Version::V1, Driver::Cgroupfs, "/", &mounts).unwrap();
    let dirs: Vec<_> = tree.hierarchies.iter().map(|h| h.mount.to_str().unwrap()).collect();
    assert_eq!(dirs, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"]);
    let error = tree.dir("memory", "kubepods").unwrap_err();
    assert_eq!(error.to_string(), "the cgroup controller memory is not available");

    let unified = mount::parse(b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    assert_eq!(version_of(&unified), Version::V2);
    assert!(matches!(Tree::from_mounts(Version::V2, Driver::Cgroupfs, "/", &[]), Err(CgroupError::NotMounted)));
}

#[test]
fn the_runtime_is_told_the_drivers_names() {
    let mounts = mount::parse(b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    let tree = |driver, root| Tree::from_mounts(Version::V2, driver, root, &mounts).unwrap();
    let path = "kubepods/besteffort/podac8-09";
    assert_eq!(tree(Driver::Cgroupfs, "/").cri_parent(path).unwrap(), "/kubepods/besteffort/podac8-09");
    assert_eq!(tree(Driver::Cgroupfs, "/a/b").cri_parent("kubepods").unwrap(), "/a/b/kubepods");
    let systemd = tree(Driver::Systemd, "/");
    assert_eq!(
        systemd.cri_parent(path).unwrap(),
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podac8_09.slice"
    );
    let parent = "kubepods.slice/kubepods-besteffort.slice";
    let uid = |child| systemd.pod_uid(parent, child);
    assert_eq!(uid("kubepods-besteffort-podac8_09.slice").as_deref(), Some("ac8-09"));
    assert_eq!(uid("kubepods-besteffort-pod.slice"), None);
    assert_eq!(uid("system.slice"), None);
}

/// The unified hierarchy of a hybrid host has few controllers or none, but directories and processes work.
#[test]
fn version_2_makes_and_removes_directories() {
    let mounts = mount::table().unwrap();
    let root = format!("rubelet-test-{}-v2", std::process::id());
    let Ok(tree) = Tree::from_mounts(Version::V2, Driver::Cgroupfs, &root, &mounts) else {
        eprintln!("not run: no cgroup2 is mounted");
        return;
    };
    let top = Tree { root: Vec::new(), ..tree.clone() };
    if let Err(error) = tree.ensure("kubepods/podx", &Values::default()) {
        eprintln!("not run: {error}");
        return;
    }
    let mut child = spawn_in(&tree, "kubepods/podx");
    assert_eq!(tree.pids("kubepods").unwrap(), [child.id()]);
    tree.remove("kubepods/podx").unwrap();
    child.wait().unwrap();
    assert!(!tree.exists("kubepods/podx"));
    top.remove(&root).unwrap();
    assert!(!top.exists(&root));
}

/// runc and crun make directories there, on a host that mounts both.
#[test]
fn what_is_in_version_2_beside_version_1_goes_along() {
    let Some(scratch) = Scratch::new("beside") else { return };
    let Some(beside) = scratch.tree.beside.clone() else {
        eprintln!("not run: one version only is mounted");
        return;
    };
    scratch.tree.ensure("kubepods/podx", &Values::default()).unwrap();
    let pod = beside.join(scratch.tree.fs_name("kubepods/podx").unwrap());
    fs::create_dir_all(pod.join("container")).unwrap();
    scratch.tree.remove("kubepods/podx").unwrap();
    assert!(!pod.exists() && pod.parent().unwrap().exists());
}

#[test]
fn a_process_is_moved_out_of_the_top() {
    let Some(scratch) = Scratch::new("home") else { return };
    let top = scratch.tree.top();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let moved = top.move_into(&format!("/{}/home", scratch.root), child.id());
    let lists: Vec<String> = scratch
        .tree
        .dirs("home")
        .unwrap()
        .iter()
        .map(|(_, dir)| fs::read_to_string(dir.join("cgroup.procs")).unwrap())
        .collect();
    let homeless = top.homeless().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    moved.unwrap();
    assert!(lists.iter().all(|list| list.trim() == child.id().to_string()), "{lists:?}");
    assert!(!homeless.contains(&child.id()) && !homeless.contains(&1), "{homeless:?}");
}
