use super::*;

fn file(path: &str, content: &str, mode: u32) -> VolumeFile {
    VolumeFile { path: path.into(), content: content.into(), mode, owner: None }
}

/// Everything in `dir` as the recordings show it: mode, path, target of links; the stamp is a name.
fn tree(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut ahead = vec![dir.to_owned()];
    let stamp = fs::read_link(dir.join(DATA)).unwrap().to_string_lossy().into_owned();
    while let Some(at) = ahead.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let link = fs::read_link(&path).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
            let name = path.strip_prefix(dir).unwrap().display();
            out.push(format!("{:o} {name}{link}", meta.mode()).replace(&stamp, "..<stamp>"));
            if meta.is_dir() {
                ahead.push(path);
            }
        }
    }
    out.sort();
    out
}

#[test]
fn the_layout_is_the_recorded_one() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        file("labels", "a=\"b\"\n", 0o440),
        file("annotations", "", 0o440),
        file("deep/name", "pod", 0o400),
        file("mem", "64", 0o440),
    ];
    write(dir.path(), &files, |_| Ok(())).unwrap();
    let want = [
        "100400 ..<stamp>/deep/name",
        "100440 ..<stamp>/annotations",
        "100440 ..<stamp>/labels",
        "100440 ..<stamp>/mem",
        "120777 ..data -> ..<stamp>",
        "120777 annotations -> ..data/annotations",
        "120777 deep -> ..data/deep",
        "120777 labels -> ..data/labels",
        "120777 mem -> ..data/mem",
        "40755 ..<stamp>",
        "40755 ..<stamp>/deep",
    ];
    assert_eq!(tree(dir.path()), want);
    assert_eq!(fs::read_to_string(dir.path().join("deep/name")).unwrap(), "pod");
    let stamp = fs::read_link(dir.path().join(DATA)).unwrap().to_string_lossy().into_owned();
    let (time, number) = stamp.trim_start_matches("..").split_once('.').unwrap();
    assert!(time.len() == 19 && number.chars().all(|c| c.is_ascii_digit()), "{stamp}");
}

#[test]
fn the_same_content_touches_nothing_and_new_content_replaces_all() {
    let dir = tempfile::tempdir().unwrap();
    let data = || fs::read_link(dir.path().join(DATA)).unwrap();
    write(dir.path(), &[file("a", "1", 0o644), file("b/c", "2", 0o644)], |_| Ok(())).unwrap();
    let first = data();
    write(dir.path(), &[file("a", "1", 0o644), file("b/c", "2", 0o644)], |_| panic!("nothing to prepare")).unwrap();
    assert_eq!(data(), first);
    write(dir.path(), &[file("a", "1", 0o644), file("d", "3", 0o600)], |_| Ok(())).unwrap();
    assert_ne!(data(), first);
    assert!(!dir.path().join("b").is_symlink() && !dir.path().join(&first).exists());
    assert_eq!(fs::read_to_string(dir.path().join("d")).unwrap(), "3");
    write(dir.path(), &[], |_| Ok(())).unwrap();
    assert_eq!(tree(dir.path()), ["120777 ..data -> ..<stamp>", "40755 ..<stamp>"]);
}

#[test]
fn a_failure_leaves_the_old_content() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[file("a", "old", 0o644)], |_| Ok(())).unwrap();
    let before = tree(dir.path());
    let refuse = |_: &Path| Err(Cause::Refused { message: "no".into() });
    assert!(write(dir.path(), &[file("a", "new", 0o644)], refuse).is_err());
    assert_eq!(tree(dir.path()), before);
    assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
    // What a crash left behind is cleared by the next change.
    symlink("nowhere", dir.path().join(DATA_NEXT)).unwrap();
    fs::create_dir(dir.path().join("..2001_01_01_00_00_00.1")).unwrap();
    write(dir.path(), &[file("a", "new", 0o644)], |_| Ok(())).unwrap();
    assert_eq!(tree(dir.path()).len(), 4);
}

#[test]
fn paths_stay_inside() {
    for path in ["../x", "/x", "a/../b", "..data", "..x", "", "./x"] {
        let result = check(&[file(path, "", 0o644)]);
        assert!(matches!(result, Err(Cause::FilePath { .. })), "{path:?}");
    }
    check(&[file(".hidden", "", 0o644), file("a/..b", "", 0o644)]).unwrap();
}
