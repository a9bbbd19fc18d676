use super::*;

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn layout(sample: &Sample, name: Option<&str>) -> Vec<u8> {
    tar(&layout_files(sample, name))
}

fn layout_files(sample: &Sample, name: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let manifest = sample.manifest.unwrap();
    let mut entry = serde_json::json!({"mediaType": document::OCI_MANIFEST, "digest": manifest, "size": sample.blobs[&manifest].len()});
    if let Some(name) = name {
        entry["annotations"] =
            serde_json::json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".into(), index.to_string().into_bytes()),
    ];
    files.extend(sample.blobs.iter().map(|(d, c)| (format!("blobs/sha256/{}", d.hex()), c.clone())));
    files
}

fn import(ground: &Ground, archive: &[u8]) -> Result<Vec<cri::Image>, ImageError> {
    // Blocking work has no place on the executor's threads.
    std::thread::scope(|scope| scope.spawn(|| ground.images.import(archive, "test", false)).join().unwrap())
}

#[tokio::test]
async fn an_oci_layout_plain_and_packed() {
    let sample = Sample::two_layers();
    let archive = layout(&sample, Some("docker.io/library/x:1"));
    let zstd = ruzstd::encoding::compress_to_vec(archive.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for packed in [gzip(&archive), zstd, archive] {
        let ground = Ground::new();
        let images = import(&ground, &packed).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(
            (images[0].id.as_str(), images[0].repo_tags.as_slice()),
            (sample.id().as_str(), ["docker.io/library/x:1".to_owned()].as_slice())
        );
        assert!(images[0].repo_digests.is_empty());
        assert!(ground.images.status(&format!("docker.io/library/x@{}", sample.manifest.unwrap())).is_some());
        assert_eq!(ground.files("x:1").await["etc/c"], "C");
        assert_eq!(ground.images.store.blobs.list().unwrap().len(), 2);
    }
}

/// Nothing else gets to run before the process may end: there is one thread for what blocks.
#[test]
fn what_an_import_unpacked_is_gone_when_it_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let ground = Ground::new();
        let (images, ingest) = (ground.images.clone(), ground.images.root().join("ingest"));
        let good = layout(&Sample::two_layers(), Some("docker.io/library/x:1"));
        for (archive, is_good) in [(good.clone(), true), (good[..good.len() / 2].to_vec(), false)] {
            let (images, ingest) = (images.clone(), ingest.clone());
            let import = move || {
                assert_eq!(images.import(archive.as_slice(), "test", false).is_ok(), is_good);
                assert_eq!(fs::read_dir(&ingest).unwrap().count(), 0);
            };
            tokio::task::spawn_blocking(import).await.unwrap();
        }
    });
}

#[tokio::test]
async fn what_docker_save_writes() {
    let layers = [Tar::new().file("a", "A").end(), Tar::new().file("b", "B").end()];
    let sample = Sample::new(&layers);
    let config = sample.blobs[&sample.config.unwrap()].clone();
    let list = serde_json::json!([{"Config": "c.json", "RepoTags": ["x:2", "y.test/z:3"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let mut builder = tar::Builder::new(tar(&[
        ("1/layer.tar".into(), layers[0].clone()),
        ("shared/layer.tar".into(), layers[1].clone()),
        ("c.json".into(), config),
        ("manifest.json".into(), list.to_string().into_bytes()),
    ]));
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    // The first archive's end is cut off, so that the link comes after its files.
    let length = builder.get_ref().len() - 1024;
    builder.get_mut().truncate(length);
    builder.append_link(&mut link, "2/layer.tar", "../shared/layer.tar").unwrap();
    let archive = builder.into_inner().unwrap();
    let ground = Ground::new();
    let images = import(&ground, &archive).unwrap();
    assert_eq!(images[0].repo_tags, ["docker.io/library/x:2", "y.test/z:3"]);
    assert!(images[0].repo_digests.is_empty());
    assert_eq!(ground.files("y.test/z:3").await["b"], "B");
}

#[tokio::test]
async fn both_lists_are_one_image_with_all_names() {
    let sample = Sample::two_layers();
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let list = serde_json::json!([{"Config": path(&sample.config.unwrap()), "RepoTags": ["x:1", "x:2"],
        "Layers": sample.layers.iter().map(path).collect::<Vec<_>>()}]);
    let mut files = layout_files(&sample, Some("docker.io/library/x:1"));
    files.push(("manifest.json".into(), list.to_string().into_bytes()));
    let ground = Ground::new();
    let images = import(&ground, &tar(&files)).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].repo_tags, ["docker.io/library/x:1", "docker.io/library/x:2"]);
    assert!(images[0].repo_digests.is_empty());
    assert!(ground.images.status(&format!("docker.io/library/x@{}", sample.manifest.unwrap())).is_some());
}

#[tokio::test]
async fn a_directory_of_archives_is_pinned_and_one_bad_one_does_not_matter() {
    let ground = Ground::new();
    let dir = ground.dir.path().join("archives");
    fs::create_dir(&dir).unwrap();
    let (one, two) = (Sample::two_layers(), Sample::new(&[Tar::new().file("z", "Z").end()]));
    fs::write(dir.join("1.tar"), layout(&one, Some("a.test/one:1"))).unwrap();
    fs::write(dir.join("2.tar.gz"), gzip(&layout(&two, None))).unwrap();
    fs::write(dir.join("3.tar"), "no archive").unwrap();
    fs::write(dir.join("readme.txt"), "not read").unwrap();
    let images = ground.images.clone();
    let (images, failures) = std::thread::spawn(move || images.import_dir(&dir)).join().unwrap().unwrap();
    assert_eq!(
        images.iter().map(|i| (i.id.clone(), i.pinned, i.repo_tags.len())).collect::<Vec<_>>(),
        [(one.id(), true, 1), (two.id(), true, 0)]
    );
    assert_eq!(failures.len(), 1);
    let words = rubelet_host::chain(&failures[0]);
    assert!(words.contains("3.tar"), "{words}");
}

#[tokio::test]
async fn archives_that_lie_are_refused() {
    let sample = Sample::two_layers();
    let ground = Ground::new();
    let refused = |archive: &[u8]| rubelet_host::chain(&import(&ground, archive).unwrap_err());
    assert!(refused(&tar(&[("x".into(), vec![])])).contains("neither index.json nor manifest.json"));
    let mut wrong = sample.clone();
    let layer = wrong.layers[0];
    wrong.blobs.get_mut(&layer).unwrap()[50] ^= 1;
    assert!(refused(&layout(&wrong, None)).contains("has not the content that its digest names"));
    let mut missing = sample.clone();
    missing.blobs.remove(&layer);
    assert!(refused(&layout(&missing, None)).contains("is not in the archive"));
    let outside = [("manifest.json".to_owned(), br#"[{"Config":"../../../etc/passwd","Layers":[]}]"#.to_vec())];
    assert!(refused(&tar(&outside)).contains("../../../etc/passwd is not in the archive"));
    assert!(refused(&layout(&sample, Some("Bad/NAME"))).contains("must be lowercase"));
    assert_eq!(ground.images.list(None), []);
}
