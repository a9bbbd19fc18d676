use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_scan_counts_each_file_once_and_follows_no_link() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/one"), vec![1; 8192]).unwrap();
    fs::hard_link(dir.path().join("a/one"), dir.path().join("a/b/same")).unwrap();
    symlink(outside.path(), dir.path().join("a/away")).unwrap();
    let all = Scan::new(dir.path()).unwrap().go_on(&mut usize::MAX.clone()).unwrap();
    assert_eq!(all.inodes, 5, "the root, two directories, one file, one link");
    assert!(all.bytes >= 8192 && all.bytes < 1 << 20, "{all:?}");

    let mut scan = Scan::new(dir.path()).unwrap();
    let mut turns = 0;
    let slow = loop {
        turns += 1;
        if let Some(done) = scan.go_on(&mut 1) {
            break done;
        }
    };
    assert_eq!(slow, all);
    assert!(turns > 1);
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut scan = Scan::new(dir.path()).unwrap();
    assert_eq!(scan.go_on(&mut 1), None);
    fs::remove_dir(dir.path().join("a")).unwrap();
    symlink(outside.path(), dir.path().join("a")).unwrap();
    let done = scan.go_on(&mut usize::MAX.clone()).unwrap();
    assert!(done.bytes < 1 << 20, "{done:?}");
}

#[test]
fn only_files_right_here_count_as_logs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0.log"), vec![1; 10]).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/1.log"), vec![1; 10]).unwrap();
    assert_eq!(files_in(dir.path()).inodes, 1);
    assert_eq!(files_in(&dir.path().join("none")), Use::default());
}

#[test]
fn the_root_has_a_size_and_no_project() {
    let root = file_system(Path::new("/")).unwrap();
    assert!(root.capacity_bytes > root.used_bytes() && root.available_bytes <= root.free_bytes, "{root:?}");
    assert!(device(Path::new("/")).is_some());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(counted(dir.path()), None);
}
