use super::*;

#[test]
fn processors_are_counted() {
    for (text, want) in
        [("0", Some(1)), ("0-3\n", Some(4)), ("0-1,4,6-7", Some(5)), ("", None), ("3-1", None), ("x", None)]
    {
        assert_eq!(parse_cpu_list(text), want, "{text:?}");
    }
}

#[test]
fn memory_is_in_bytes() {
    let text = "MemTotal:       16384 kB\nSwapTotal:           0 kB\n";
    assert_eq!((meminfo(text, "MemTotal:"), meminfo(text, "SwapTotal:")), (Some(16 << 20), Some(0)));
    assert_eq!(meminfo(text, "Nothing:"), None);
}

#[test]
fn page_sizes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n"), ("other", "1")] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
    }
    let mut found = huge_pages_in(dir.path()).unwrap();
    found.sort_by_key(|p| p.size_bytes);
    let want = [HugePages { size_bytes: 2 << 20, count: 3 }, HugePages { size_bytes: 1 << 30, count: 0 }];
    assert_eq!(found, want);
    assert_eq!(huge_pages_in(&dir.path().join("none")).unwrap(), []);
}

#[test]
fn releases_are_understood() {
    for (release, want) in [("6.12.3-cloud-amd64", (6, 12)), ("5.15", (5, 15)), ("7", (7, 0)), ("odd", (0, 0))] {
        assert_eq!(kernel_version(release), want, "{release}");
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let error = read_bounded(Path::new("/dev/zero"), 100).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero is larger than 100 bytes");
}

#[test]
fn this_machine_answers() {
    assert!(cpu_count().unwrap() > 0);
    assert!(memory().unwrap().total > 1 << 20);
    assert!(disk(Path::new("/")).unwrap().capacity > 1 << 20);
    assert_eq!(boot_id().unwrap().len(), 36);
    assert!(kernel_version(&kernel_release()).0 > 0);
    assert!(!hostname().is_empty());
    swaps().unwrap();
    huge_pages().unwrap();
    has_apparmor();
}
