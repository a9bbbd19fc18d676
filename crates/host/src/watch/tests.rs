use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

async fn until(watcher: &mut Watcher, want: impl Fn(&Event) -> bool) {
    let look = async { while !watcher.next().await.unwrap().iter().any(&want) {} };
    tokio::time::timeout(Duration::from_secs(10), look).await.expect("the event comes");
}

fn is(name: &str, change: Change) -> impl Fn(&Event) -> bool {
    move |e| matches!(e, Event::Name { name: n, change: c, .. } if n == name && *c == change)
}

#[tokio::test(flavor = "current_thread")]
async fn names_are_reported_until_the_directory_goes() {
    let dir = tempfile::tempdir().unwrap();
    let watched = dir.path().join("w");
    fs::create_dir(&watched).unwrap();
    let mut watcher = Watcher::new().unwrap();
    let dirs = BTreeSet::from([watched.clone()]);
    assert!(watcher.set(&dirs).is_empty());
    fs::write(watched.join("a"), "x").unwrap();
    until(&mut watcher, is("a", Change::Closed)).await;
    fs::rename(watched.join("a"), watched.join("b")).unwrap();
    until(&mut watcher, is("b", Change::MovedIn)).await;
    fs::remove_file(watched.join("b")).unwrap();
    until(&mut watcher, is("b", Change::Removed)).await;
    fs::remove_dir(&watched).unwrap();
    until(&mut watcher, |e| *e == Event::DirGone { dir: watched.clone() }).await;
    let refused = watcher.set(&dirs);
    assert_eq!(refused[0].1.kind(), io::ErrorKind::NotFound);
    fs::create_dir(&watched).unwrap();
    assert!(watcher.set(&dirs).is_empty());
    fs::write(watched.join("c"), "x").unwrap();
    until(&mut watcher, is("c", Change::Closed)).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_directory_that_was_replaced_is_watched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let watched = dir.path().join("w");
    fs::create_dir(&watched).unwrap();
    let mut watcher = Watcher::new().unwrap();
    let dirs = BTreeSet::from([watched.clone()]);
    watcher.set(&dirs);
    fs::rename(&watched, dir.path().join("old")).unwrap();
    fs::create_dir(&watched).unwrap();
    watcher.set(&dirs);
    fs::write(watched.join("new"), "").unwrap();
    until(&mut watcher, is("new", Change::Closed)).await;
    assert_eq!(watcher.by_id.len(), 1);
}

#[test]
fn the_chain_names_every_link_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    fs::create_dir_all(root.join("real/..1")).unwrap();
    fs::write(root.join("real/..1/key"), "").unwrap();
    symlink("..1", root.join("real/..data")).unwrap();
    symlink("..data/key", root.join("real/key")).unwrap();
    symlink(root.join("real"), root.join("link")).unwrap();

    let found = chain(&root.join("link/key"));
    assert_eq!(found.end, Some(root.join("real/..1/key")));
    for (at, name) in
        [("", "link"), ("", "real"), ("real", "key"), ("real", "..data"), ("real", "..1"), ("real/..1", "key")]
    {
        let at = if at.is_empty() { root.clone() } else { root.join(at) };
        assert!(found.concerns(&at, OsStr::new(name)), "{}/{name}", at.display());
    }
    assert!(!found.concerns(&root, OsStr::new("other")));

    let missing = chain(&root.join("not/there"));
    assert_eq!(missing.end, None);
    assert!(missing.concerns(&root, OsStr::new("not")));
    assert!(!missing.names.contains_key(&root.join("not")));

    symlink("loop", root.join("loop")).unwrap();
    assert_eq!(chain(&root.join("loop")).end, None);
    assert_eq!(chain(&root.join("real/../real/..1")).end, Some(root.join("real/..1")));
}
