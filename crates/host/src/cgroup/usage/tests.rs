use super::*;

/// Files as a kernel wrote them, by controller and name.
struct Sample(&'static [(&'static str, &'static str)]);

impl Files for Sample {
    fn read<T>(&mut self, controller: &'static str, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let path = format!("{controller}/{file}");
        self.0.iter().find(|(name, _)| *name == path).and_then(|(_, text)| parse(text))
    }
}

/// Linux 6.18, version 1.
const V1: Sample = Sample(&[
    ("cpuacct/cpuacct.usage", "13374712345\n"),
    ("cpuacct/cpuacct.stat", "user 1026\nsystem 311\n"),
    ("cpu/cpu.stat", "nr_periods 40\nnr_throttled 3\nthrottled_time 123456789\nnr_bursts 0\nburst_time 0\n"),
    ("memory/memory.usage_in_bytes", "50331648\n"),
    ("memory/memory.limit_in_bytes", "134217728\n"),
    (
        "memory/memory.stat",
        "cache 10498048\nrss 13283328\nrss_huge 0\nmapped_file 7512064\npgpgin 128689\npgfault 152661\npgmajfault 12\n\
         inactive_file 69632\nhierarchical_memory_limit 134217728\ntotal_cache 33380188\ntotal_rss 24190976\n\
         total_rss_huge 0\ntotal_swap 4096\ntotal_pgfault 357653\ntotal_pgmajfault 177\ntotal_inactive_file 20170342\n",
    ),
    ("pids/pids.current", "7\n"),
    ("pids/pids.max", "max\n"),
    (
        "blkio/blkio.throttle.io_service_bytes_recursive",
        "254:0 Read 8192\n254:0 Write 4096\n254:0 Sync 12288\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 12288\n\
         7:1 Read 512\n7:1 Write 0\nTotal 12800\n",
    ),
    ("blkio/blkio.throttle.io_serviced_recursive", "254:0 Read 2\n254:0 Write 1\n7:1 Read 1\n7:1 Write 0\nTotal 4\n"),
    ("hugetlb/hugetlb.2MB.usage_in_bytes", "4194304\n"),
    ("hugetlb/hugetlb.2MB.limit_in_bytes", "9223372036852678656\n"),
]);

/// Linux 6.12, version 2.
const V2: Sample = Sample(&[
    (
        "cpu/cpu.stat",
        "usage_usec 13374712\nuser_usec 10266610\nsystem_usec 3108102\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
         nr_periods 40\nnr_throttled 3\nthrottled_usec 123456\nnr_bursts 0\nburst_usec 0\n",
    ),
    ("memory/memory.current", "50331648\n"),
    ("memory/memory.max", "134217728\n"),
    ("memory/memory.swap.current", "4096\n"),
    ("memory/memory.swap.max", "8192\n"),
    (
        "memory/memory.stat",
        "anon 24190976\nfile 22319104\nkernel 3821568\nkernel_stack 131072\nanon_thp 0\ninactive_anon 24186880\n\
         active_anon 4096\ninactive_file 20170342\nactive_file 2148762\npgfault 357653\npgmajfault 177\n",
    ),
    ("pids/pids.current", "7\n"),
    ("pids/pids.max", "4096\n"),
    (
        "io/io.stat",
        "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n\
         7:1 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n\
         8:0 cost.usage=3\n8:16\n",
    ),
    (
        "cpu/cpu.pressure",
        "some avg10=1.53 avg60=0.87 avg300=0.22 total=5823912\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=912\n",
    ),
    ("memory/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
    ("hugetlb/hugetlb.2MB.current", "4194304\n"),
    ("hugetlb/hugetlb.2MB.max", "max\n"),
    ("hugetlb/hugetlb.1GB.current", "0\n"),
    ("hugetlb/hugetlb.1GB.max", "1073741824\n"),
]);

/// What both samples say.
const USAGE: Usage = Usage {
    cpu_nanos: Some(13_374_712_000),
    cpu_user_nanos: Some(10_266_610_000),
    cpu_system_nanos: Some(3_108_102_000),
    throttling: Some(Throttling { periods: 40, throttled_periods: 3, throttled_nanos: 123_456_000 }),
    memory_bytes: Some(50_331_648),
    working_set_bytes: Some(50_331_648 - 20_170_342),
    rss_bytes: Some(24_190_976),
    cache_bytes: Some(22_319_104),
    memory_limit_bytes: Some(134_217_728),
    page_faults: Some(357_653),
    major_page_faults: Some(177),
    swap_bytes: Some(4096),
    swap_limit_bytes: Some(8192),
    processes: Some(7),
    processes_max: Some(4096),
};

#[test]
fn version_1() {
    let wanted = Usage {
        cpu_nanos: Some(13_374_712_345),
        cpu_user_nanos: Some(10_260_000_000),
        cpu_system_nanos: Some(3_110_000_000),
        throttling: Some(Throttling { periods: 40, throttled_periods: 3, throttled_nanos: 123_456_789 }),
        cache_bytes: Some(33_380_188),
        // Upstream takes the cgroup's own faults here, and all of it below for the rest.
        page_faults: Some(152_661),
        major_page_faults: Some(12),
        swap_limit_bytes: None,
        processes_max: None,
        ..USAGE
    };
    assert_eq!(parse::usage_v1(&mut { V1 }), wanted);
}

#[test]
fn version_2() {
    assert_eq!(parse::usage_v2(&mut { V2 }), USAGE);
}

#[test]
fn the_root_of_version_2_has_no_total() {
    let root = Sample(&[("memory/memory.stat", "anon 100\nfile 50\ninactive_file 20\n")]);
    let usage = parse::usage_v2(&mut { root });
    assert_eq!((usage.memory_bytes, usage.working_set_bytes, usage.cpu_nanos), (Some(150), Some(130), None));
}

#[test]
fn what_is_available() {
    assert_eq!(USAGE.memory_available_bytes(), Some(134_217_728 - 50_331_648 + 20_170_342));
    assert_eq!(USAGE.swap_available_bytes(), Some(4096));
    assert_eq!(Usage { memory_limit_bytes: None, ..USAGE }.memory_available_bytes(), None);
    let over = Usage { memory_limit_bytes: Some(1), ..USAGE };
    assert_eq!(over.memory_available_bytes(), Some(0));
}

#[test]
fn no_limits() {
    for text in ["max\n", "9223372036854771712\n", "18446744073709551615\n"] {
        let sample = Sample(Vec::leak(vec![("memory/memory.max", text)]));
        assert_eq!(parse::usage_v2(&mut { sample }).memory_limit_bytes, None, "{text}");
    }
}

#[test]
fn the_working_set_is_never_negative() {
    let sample = Sample(&[("memory/memory.current", "5\n"), ("memory/memory.stat", "inactive_file 9\n")]);
    assert_eq!(parse::usage_v2(&mut { sample }).working_set_bytes, Some(0));
}

#[test]
fn devices() {
    let disk = DeviceIo { major: 254, minor: 0, read_bytes: 8192, written_bytes: 4096, reads: 2, writes: 1 };
    let loopback = DeviceIo { major: 7, minor: 1, read_bytes: 512, written_bytes: 0, reads: 1, writes: 0 };
    assert_eq!(parse::io_v1(&mut { V1 }), [disk, loopback]);
    let bytes = ("blkio/blkio.bfq.io_service_bytes_recursive", "254:0 Read 8192\n254:0 Write 4096\nTotal 12288\n");
    let times = ("blkio/blkio.bfq.io_serviced_recursive", "254:0 Read 2\n254:0 Write 1\nTotal 3\n");
    let scheduled = |rest: &[(&'static str, &'static str)]| Sample([&[bytes, times], rest].concat().leak());
    let throttled = ("blkio/blkio.throttle.io_service_bytes_recursive", "7:1 Read 512\nTotal 512\n");
    assert_eq!(parse::io_v1(&mut scheduled(&[throttled])), [disk]);
    let idle = ("blkio/blkio.bfq.io_service_bytes_recursive", "Total 0\n");
    assert_eq!(parse::io_v1(&mut Sample(vec![idle, throttled].leak()))[0].read_bytes, 512);
    assert_eq!(parse::io_v2(&mut { V2 }), [disk, loopback]);
}

#[test]
fn pressure() {
    let pressures = parse::pressures(&mut { V2 });
    let cpu = pressures.cpu.unwrap();
    assert_eq!(cpu.some, Stall { avg10: 1.53, avg60: 0.87, avg300: 0.22, total_micros: 5_823_912 });
    assert_eq!(cpu.full, Stall { avg10: 0.1, avg60: 0.0, avg300: 0.0, total_micros: 912 });
    assert_eq!(pressures.memory, Some(Pressure::default()), "a line that is missing is zero");
    assert_eq!(pressures.io, None);
}

#[test]
fn huge_pages() {
    let [small, big] = [2 << 20, 1 << 30];
    let of = |files: &mut Sample, version, size| parse::hugetlb(files, version, size, &page_size_name(size));
    let used = HugetlbUsage { page_bytes: small, used_bytes: 4 << 20, limit_bytes: None };
    assert_eq!(of(&mut { V1 }, Version::V1, small), Some(used));
    assert_eq!(of(&mut { V1 }, Version::V1, big), None);
    assert_eq!(of(&mut { V2 }, Version::V2, small), Some(used));
    let none = HugetlbUsage { page_bytes: big, used_bytes: 0, limit_bytes: Some(1 << 30) };
    assert_eq!(of(&mut { V2 }, Version::V2, big), Some(none));
}

fn tree(version: Version, folder: &Path) -> Tree {
    let controllers = match version {
        Version::V1 => ["cpu", "memory"].map(str::to_owned).to_vec(),
        Version::V2 => Vec::new(),
    };
    let hierarchies = vec![super::super::Hierarchy { mount: folder.to_owned(), controllers }];
    Tree { version, driver: super::super::Driver::Cgroupfs, root: Vec::new(), hierarchies, beside: None }
}

#[test]
fn from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(Version::V2, folder.path());
    assert_eq!(tree.usage("pod"), None, "it is not there");
    assert_eq!((tree.io("pod"), tree.pressure("pod"), tree.hugetlb("pod", &[1 << 21])), (None, None, None));
    std::fs::create_dir(folder.path().join("pod")).unwrap();
    assert_eq!(tree.usage("pod"), Some(Usage::default()), "it is there and the kernel tells nothing");
    assert_eq!(tree.pressure("pod"), Some(Pressures::default()));
    let mut io = String::new();
    for minor in 0..700 {
        io.push_str(&format!("8:{minor} rbytes=1000000 wbytes=4096 rios=20 wios=1 dbytes=0 dios=0\n"));
    }
    assert!(io.len() > 2 * BUFFER_BYTES, "more than one read");
    std::fs::write(folder.path().join("pod/io.stat"), io).unwrap();
    let devices = tree.io("pod").unwrap();
    assert_eq!((devices.len(), devices[699].minor, devices[699].read_bytes), (700, 699, 1_000_000));
}

/// What this machine's kernel says of the cgroup in which the test runs.
#[test]
fn this_machines_own() {
    let Ok(tree) = Tree::detect(super::super::Driver::Cgroupfs, "/") else {
        eprintln!("not run: no cgroups here");
        return;
    };
    assert_eq!(tree.usage("no/such/cgroup"), None);
    let usage = tree.usage("").expect("the root is there");
    assert!(usage.working_set_bytes <= usage.memory_bytes, "{usage:?}");
    assert!(tree.io("").is_some());
}
