use super::*;
use crate::snapshot::usage::of_tree;

/// Waits until what was removed in the background is gone.
pub(super) async fn settled(dir: &Path) {
    for _ in 0..1000 {
        let busy = fs::read_dir(dir).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".tmp-"));
        if !busy {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} is not tidied", dir.display());
}

fn layer_dirs(ground: &Ground) -> usize {
    fs::read_dir(ground.dir.path().join("store/layers")).unwrap().count() - 2
}

#[tokio::test]
async fn what_a_container_uses_stays_until_it_is_released() {
    let sample = Sample::two_layers();
    let server = Server::of(&sample).await;
    let ground = Ground::new();
    let id = ground.pull(&server).await.unwrap().id;
    let rootfs = ground.images.prepare("c1", &id).await.unwrap();
    ground.images.view("v1", &id).await.unwrap();
    assert!(ground.images.prepare("c1", &id).await.is_err(), "the name is taken");
    for name in ["", "..", "a/b", ".x", &"x".repeat(201)] {
        assert!(ground.images.prepare(name, &id).await.is_err(), "{name}");
    }
    assert_eq!(ground.images.remove(&id).await.unwrap().layers, 0);
    assert_eq!(ground.images.list(None), []);
    assert!(rootfs.lower.iter().all(|l| l.join("etc").is_dir()));
    ground.images.release("c1").await.unwrap();
    assert_eq!(ground.images.collect().await.unwrap().layers, 0);
    ground.images.release("v1").await.unwrap();
    ground.images.release("v1").await.unwrap();
    assert_eq!(ground.images.collect().await.unwrap().layers, 2);
    settled(&ground.dir.path().join("store/layers")).await;
    assert_eq!(layer_dirs(&ground), 0);
    assert_eq!(ground.images.store.blobs.list().unwrap(), []);
}

#[tokio::test]
async fn removing_one_image_leaves_the_layers_of_another() {
    let below = Tar::new().file("a", "A").end();
    let first = Sample::new(std::slice::from_ref(&below));
    let second = Sample::new(&[below, Tar::new().file("b", "B").end()]);
    let (one, two) = (Server::of(&first).await, Server::of(&second).await);
    let ground = Ground::new();
    ground.pull(&one).await.unwrap();
    ground.pull(&two).await.unwrap();
    let removed = ground.images.remove(&two.image()).await.unwrap();
    assert_eq!((removed.layers, removed.blobs), (1, 2));
    assert_eq!(ground.files(&first.id()).await["a"], "A");
    ground.images.remove("not-there").await.unwrap();
}

#[tokio::test]
async fn leftovers_of_downloads_go_when_they_are_old() {
    let ground = Ground::new();
    let blobs = &ground.images.store.blobs;
    let (old, young) = (Digest::of(b"old"), Digest::of(b"young"));
    for digest in [old, young] {
        fs::write(blobs.ingest_path(digest), "part").unwrap();
    }
    let then = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().append(true).open(blobs.ingest_path(old)).unwrap().set_modified(then).unwrap();
    blobs.put(b"nobody's").unwrap();
    let lease = Lease::new(&ground.images.store);
    let leased = blobs.put(b"of a pull under way").unwrap();
    lease.add([leased]);
    let collected = ground.images.collect().await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (2, 12));
    assert_eq!((blobs.list().unwrap(), blobs.list_ingests().unwrap()), (vec![leased], vec![young]));
}

#[tokio::test]
async fn everything_is_found_again_after_a_restart() {
    let sample = Sample::two_layers();
    let server = Server::of(&sample).await;
    let Ground { dir, images } = Ground::new();
    let root = dir.path().join("store");
    let id = images.pull(&server.image(), None, None).await.unwrap().id;
    images.pin(&id, true).await.unwrap();
    let rootfs = images.prepare("c1", &id).await.unwrap();
    assert!(matches!(Images::open(&root, options()), Err(ImageError::Locked { .. })));
    let before = images.status(&id);
    assert!(before.as_ref().unwrap().pinned);
    drop(images);
    // A layer that was being unpacked, and one whose record is missing.
    fs::create_dir_all(root.join("layers/.tmp-new-1-1/fs")).unwrap();
    fs::create_dir_all(root.join("layers/0123456789abcdef/fs")).unwrap();
    let images = Images::open(&root, options()).unwrap();
    assert_eq!(
        (images.status(&id), images.rootfs("c1"), images.claimed()),
        (before, Some(rootfs), vec!["c1".to_owned()])
    );
    settled(&root.join("layers")).await;
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), 4);
    drop(images);
    // A layer of the image is lost: the image has to be pulled again.
    let lost =
        fs::read_dir(root.join("layers")).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("layer.json").exists());
    fs::remove_file(lost.unwrap().join("layer.json")).unwrap();
    let images = Images::open(&root, options()).unwrap();
    assert_eq!(images.status(&id), None);
    images.pull(&server.image(), None, None).await.unwrap();
    assert!(images.status(&id).is_some());
}

#[tokio::test]
async fn a_container_sees_one_file_system_and_changes_only_its_own() {
    let below =
        Tar::new().dir("./", 0o750).dir("d", 0o755).file("d/old", "1").file("gone", "x").file("o/hidden", "x").end();
    let above = Tar::new().file(".wh.gone", "").file("o/.wh..wh..opq", "").file("o/new", "2").end();
    let sample = Sample::new(&[below, above, Tar::new().hard("x", "y").end()]);
    // The last layer has a hard link to a file that it does not have.
    let server = Server::of(&sample).await;
    let ground = Ground::new();
    let error = ground.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains("failed to extract layer"), "{error}");
    let below =
        Tar::new().dir("./", 0o750).dir("d", 0o755).file("d/old", "1").file("gone", "x").file("o/hidden", "x").end();
    let above = Tar::new().file(".wh.gone", "").file("o/.wh..wh..opq", "").file("o/new", "2").end();
    let sample = Sample::new(&[below, above]);
    let server = Server::of(&sample).await;
    let id = ground.pull(&server).await.unwrap().id;
    let rootfs = ground.images.prepare("c1", &id).await.unwrap();
    let view = ground.images.view("v1", &id).await.unwrap();
    let empty = Sample::new(&[]);
    let server = Server::of(&empty).await;
    let nothing = ground.images.view("v2", &ground.pull(&server).await.unwrap().id).await.unwrap();
    let target = ground.dir.path().join("merged");
    fs::create_dir(&target).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let mounted = move || {
        rubelet_host::mount::enter_private_namespace().unwrap();
        rootfs.attach(&target).unwrap();
        let names = |dir: &Path| {
            let mut names: Vec<String> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!((names(&target), names(&target.join("o"))), (vec!["d".into(), "o".into()], vec!["new".to_owned()]));
        // The layer above does not say what `./` is like; what it implies is as below.
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o750);
        fs::write(target.join("d/old"), "changed").unwrap();
        fs::remove_file(target.join("o/new")).unwrap();
        assert!(rootfs.usage().unwrap().inodes >= 4);
        rubelet_host::mount::unmount(&target, rubelet_host::mount::Unmount::Plain).unwrap();
        view.attach(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("d/old")).unwrap(), "1");
        assert!(fs::write(target.join("d/old"), "2").is_err());
        rubelet_host::mount::unmount(&target, rubelet_host::mount::Unmount::Plain).unwrap();
        nothing.attach(&target).unwrap();
        assert!(names(&target).is_empty());
        rubelet_host::mount::unmount(&target, rubelet_host::mount::Unmount::Plain).unwrap();
    };
    std::thread::spawn(mounted).join().unwrap();
    let usage = ground.images.usage("c1").await.unwrap().unwrap();
    assert_eq!(usage, of_tree(&ground.dir.path().join("store/containers/c1/fs")).unwrap());
    let info = ground.images.fs_info().await.unwrap();
    let used = info.image_filesystems[0].clone();
    assert!(used.used_bytes.unwrap().value > usage.bytes && used.inodes_used.unwrap().value > 6);
    assert!(used.fs_id.unwrap().mountpoint.ends_with("/store"));
}
