use super::*;

fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let passwd =
        b"\xff\xfe:x:1:1::/:\nroot:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/:\n#\nbad:x:a:b::\n1000:x:7:7::/:\n";
    std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\nlog:x:7:web\nnone:x:y:web\n";
    std::fs::write(dir.path().join("etc/group"), group).unwrap();
    dir
}

fn seen(security: &LinuxContainerSecurityContext, image: &str, dir: &Path) -> String {
    match resolve(security, image, dir) {
        Ok(user) => format!("{}:{} {:?}", user.uid, user.gid, user.additional_gids),
        Err(error) => error.to_string(),
    }
}

fn value(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

#[test]
fn by_the_image() {
    let dir = root();
    for (image, want) in [
        ("", "0:0 [0, 10]"),
        ("web", "1000:1001 [7, 10, 1001]"),
        ("1000", "1000:1001 [7, 10, 1001]"),
        ("web:root", "1000:0 [0, 7, 10]"),
        ("web:55", "1000:55 [7, 10, 55]"),
        ("4242", "4242:0 [0]"),
        ("4242:4242", "4242:4242 [4242]"),
        (":55", "0:55 [10, 55]"),
        ("bad", "unable to find user bad: no matching entries in passwd file"),
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("web:none", "unable to find group none: no matching entries in group file"),
        ("-5", "invalid USER value \"-5\": uid out of range"),
        ("0:4294967296", "invalid USER value \"4294967296\": gid out of range"),
    ] {
        assert_eq!(seen(&LinuxContainerSecurityContext::default(), image, dir.path()), want, "{image}");
    }
}

#[test]
fn by_the_pod() {
    let dir = root();
    let own = LinuxContainerSecurityContext {
        run_as_user: value(1000),
        run_as_group: value(3000),
        supplemental_groups: vec![8, 5, 10],
        ..Default::default()
    };
    assert_eq!(seen(&own, "nobody", dir.path()), "1000:3000 [5, 7, 8, 10, 3000]");
    let strict = LinuxContainerSecurityContext {
        supplemental_groups_policy: SupplementalGroupsPolicy::Strict.into(),
        ..own.clone()
    };
    assert_eq!(seen(&strict, "", dir.path()), "1000:3000 [5, 8, 10, 3000]");
    let named = LinuxContainerSecurityContext { run_as_username: "web".into(), ..Default::default() };
    assert_eq!(seen(&named, "", dir.path()), "1000:1001 [7, 10, 1001]");
    let alone = LinuxContainerSecurityContext { run_as_group: value(3), ..Default::default() };
    let words = "failed to generate user string: user group \"3\" is specified without user";
    assert_eq!(seen(&alone, "web", dir.path()), words);
    let negative = LinuxContainerSecurityContext { supplemental_groups: vec![-5], ..Default::default() };
    assert_eq!(seen(&negative, "", dir.path()), "invalid USER value \"-5\": gid out of range");
}

#[test]
fn without_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(seen(&LinuxContainerSecurityContext::default(), "77", dir.path()), "77:0 [0]");
    assert!(
        seen(&LinuxContainerSecurityContext::default(), "root", dir.path()).starts_with("unable to find user root")
    );
}

#[test]
fn the_pause_process_is_who_the_pod_is() {
    let security = LinuxSandboxSecurityContext {
        run_as_user: value(1000),
        run_as_group: value(77),
        supplemental_groups: vec![9],
        ..Default::default()
    };
    let user = pause(&security).unwrap();
    assert_eq!((user.uid, user.gid, user.additional_gids), (1000, 77, vec![9]));
    let alone = LinuxSandboxSecurityContext { run_as_group: value(77), ..Default::default() };
    assert!(pause(&alone).unwrap_err().to_string().ends_with("user group \"77\" is specified without user"));
}

#[test]
fn the_images_links_stay_in_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = "unable to find user daemon: no matching entries in passwd file";
    let seen = || seen(&LinuxContainerSecurityContext::default(), "daemon", dir.path());
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let passwd = dir.path().join("etc/passwd");
    for to in [
        "/etc/passwd",
        "/usr/share/../../../../etc/passwd",
        "../../../../../../../../etc/passwd",
        "/proc/self/root/etc/passwd",
    ] {
        std::os::unix::fs::symlink(to, &passwd).unwrap();
        assert_eq!(seen(), daemon, "{to}");
        std::fs::remove_file(&passwd).unwrap();
    }
    // A link within the image is fine; a directory or a pipe is not read.
    std::fs::write(dir.path().join("real"), "daemon:x:1:1::/:\n").unwrap();
    std::os::unix::fs::symlink("/real", &passwd).unwrap();
    assert_eq!(seen(), "1:1 [1]");
    std::fs::remove_file(&passwd).unwrap();
    std::fs::create_dir(&passwd).unwrap();
    assert_eq!(seen(), daemon);
    std::fs::remove_dir(&passwd).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(seen(), daemon);
}
