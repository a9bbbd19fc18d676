use std::os::unix::fs::PermissionsExt as _;

use super::*;

const IMAGE: &str = "r.test/app:1";
const ID: &str = "sha256:1";

struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn open(&self) -> PullRecords {
        self.open_with(Room::of(110, None))
    }

    fn open_with(&self, room: Room) -> PullRecords {
        let metrics = Arc::new(Metrics::default());
        PullRecords::open(self.dir.path(), Policy::NeverVerifyPreloaded, room, metrics).expect("it opens")
    }

    fn files(&self, folder: &str) -> Vec<(String, String)> {
        let dir = self.dir.path().join("image_manager").join(folder);
        let mut all: Vec<_> = std::fs::read_dir(dir)
            .expect("the folder")
            .map(|entry| {
                let entry = entry.expect("a file");
                assert_eq!(entry.metadata().expect("its mode").permissions().mode() & 0o777, 0o600);
                let text = std::fs::read_to_string(entry.path()).expect("its text");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        all.sort();
        all
    }

    fn write(&self, folder: &str, of: &str, text: &str) {
        let dir = self.dir.path().join("image_manager").join(folder);
        std::fs::create_dir_all(&dir).expect("a folder");
        std::fs::write(dir.join(name(of)), text).expect("a file");
    }
}

fn secret(hash: &str) -> Secret {
    Secret { namespace: "ns".into(), name: "a".into(), uid: "u-1".into(), hash: hash.into() }
}

fn here(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn later() -> Timestamp {
    Timestamp::now() + std::time::Duration::from_secs(5)
}

#[test]
fn a_pull_is_written_down_as_upstream_writes_it() {
    let disk = Disk::new();
    let records = disk.open();
    for dir in ["image_manager", "image_manager/pulling", "image_manager/pulled"] {
        let mode = disk.dir.path().join(dir).metadata().expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
    assert!(records.may_have(IMAGE, ID, &[]), "it was here before");
    records.begin(IMAGE).expect("it is written");
    let intent =
        "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",\"image\":\"r.test/app:1\"}\n";
    let file = "sha256-c0e034d9acdffd5904e314aedd0772fb1fc4db2efe8f927145fc6077d4bd2f69";
    assert_eq!(disk.files("pulling"), [(file.to_owned(), intent.to_owned())]);
    assert!(!records.may_have(IMAGE, ID, &[]), "while it is pulled, nobody knows");
    records.pulled(IMAGE, ID, &Credentials::of_secret(secret("h1")));
    assert_eq!(disk.files("pulling"), []);
    let files = disk.files("pulled");
    let [(_, text)] = &files[..] else { panic!("one record, not {files:?}") };
    let (before, rest) = text.split_once("\"lastUpdatedTime\":\"").expect("a time");
    let (time, after) = rest.split_once('"').expect("its end");
    assert_eq!(before, "{\"kind\":\"ImagePulledRecord\",\"apiVersion\":\"kubelet.config.k8s.io/v1beta1\",");
    assert_eq!((time.len(), time.ends_with('Z')), (20, true), "{time}");
    assert_eq!(
        after,
        ",\"imageRef\":\"sha256:1\",\"credentialMapping\":{\"r.test/app\":{\"kubernetesSecrets\":[{\"uid\":\"u-1\",\
         \"namespace\":\"ns\",\"name\":\"a\",\"credentialHash\":\"h1\"}]}}}\n"
    );
    for records in [records, disk.open(), disk.open_with(Room { intents: 0, records: 0 })] {
        assert!(records.may_have(IMAGE, ID, &[secret("h1")]));
        assert!(!records.may_have(IMAGE, ID, &[]));
        assert!(records.may_have("r.test/app:2", "sha256:2", &[]), "another image was here before");
    }
}

#[test]
fn a_pull_that_fails_leaves_nothing_when_it_was_the_last_one() {
    let disk = Disk::new();
    let records = disk.open();
    records.begin(IMAGE).expect("it is written");
    records.begin(IMAGE).expect("it is written");
    records.ended(IMAGE);
    assert_eq!(disk.files("pulling").len(), 1, "one is under way");
    records.ended(IMAGE);
    assert_eq!((disk.files("pulling"), disk.files("pulled")), (vec![], vec![]));
    assert!(records.may_have(IMAGE, ID, &[]));
}

#[test]
fn a_pull_whose_end_nobody_saw_gives_its_image_to_nobody() {
    let disk = Disk::new();
    for image in [IMAGE, "r.test/never-came:1"] {
        disk.open().begin(image).expect("it is written");
    }
    let records = disk.open();
    assert!(records.has_intents());
    assert!(!records.may_have(IMAGE, ID, &[]));
    records.settle(&[cri::Image { id: ID.into(), repo_tags: vec![IMAGE.into()], ..Default::default() }]);
    assert_eq!(disk.files("pulling").len(), 1, "of the image that is not here");
    let files = disk.files("pulled");
    assert!(files.len() == 1 && files[0].1.ends_with("\"imageRef\":\"sha256:1\"}\n"), "{files:?}");
    assert!(!records.may_have(IMAGE, ID, &[secret("h1")]));
    records.begin(IMAGE).expect("it is written");
    records.pulled(IMAGE, ID, &Credentials::for_all());
    assert!(records.may_have(IMAGE, ID, &[]), "it could be pulled without credentials");
    assert!(
        disk.files("pulled")[0].1.ends_with(",\"credentialMapping\":{\"r.test/app\":{\"nodePodsAccessible\":true}}}\n")
    );
}

#[test]
fn what_upstream_wrote_is_read_and_kept() {
    let disk = Disk::new();
    let record = |version: &str| {
        format!(
            "{{\"kind\":\"ImagePulledRecord\",\"apiVersion\":\"kubelet.config.k8s.io/{version}\",\
             \"lastUpdatedTime\":\"2026-01-02T03:04:05Z\",\"imageRef\":\"sha256:1\",\"credentialMapping\":{{\"r.test/app\":\
             {{\"kubernetesSecrets\":[{{\"uid\":\"u-1\",\"namespace\":\"ns\",\"name\":\"a\",\"credentialHash\":\"h1\"}}],\
             \"kubernetesServiceAccounts\":[{{\"uid\":\"u-2\",\"namespace\":\"ns\",\"name\":\"sa\"}}]}}}}}}\n"
        )
    };
    disk.write("pulled", ID, &record("v1alpha1"));
    disk.write(
        "pulling",
        "x",
        "{\"kind\":\"ImagePullIntent\",\"apiVersion\":\"kubelet.config.k8s.io/v1alpha1\",\"image\":\"x\"}\n",
    );
    let records = PullRecords::open(disk.dir.path(), Policy::NeverVerifyPreloaded, Room::of(9, None), Arc::default())
        .expect("it opens");
    assert!(records.may_have(IMAGE, ID, &[secret("h1")]));
    let texts = |folder| -> Vec<String> {
        let dir = disk.dir.path().join("image_manager").join(folder);
        let files = std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("a file").path());
        files.map(|path| std::fs::read_to_string(path).expect("its text")).collect()
    };
    assert_eq!(texts("pulled"), [record("v1beta1")]);
    assert!(texts("pulling")[0].contains("v1beta1"));
    assert!(records.may_have(IMAGE, ID, &[secret("h2")]), "the secret's content has changed");
    let now = &texts("pulled")[0];
    assert!(now.contains("\"credentialHash\":\"h2\"") && now.contains("\"name\":\"sa\""), "{now}");
}

#[test]
fn what_cannot_be_read_gives_nothing_away() {
    let disk = Disk::new();
    disk.write("pulled", ID, "{\"kind\":\"ImagePulledRecord\",\"surprise\":1}");
    let records = disk.open();
    assert!(!records.may_have(IMAGE, ID, &[secret("h1")]));
    records.begin(IMAGE).expect("it is written");
    records.pulled(IMAGE, ID, &Credentials::for_all());
    assert!(records.may_have(IMAGE, ID, &[]), "written anew");
}

#[test]
fn records_go_with_their_images() {
    let disk = Disk::new();
    let records = disk.open();
    for (image, id) in [("a", "sha256:a"), ("b", "sha256:b")] {
        records.begin(image).expect("it is written");
        records.pulled(image, id, &Credentials::of_secret(secret("h1")));
    }
    records.forget(&here(&["sha256:a"]), Timestamp::UNIX_EPOCH);
    assert_eq!(disk.files("pulled").len(), 2, "both came after the look");
    records.forget(&here(&["sha256:a"]), later());
    assert_eq!(disk.files("pulled").len(), 1);
    assert!(!records.may_have("a", "sha256:a", &[]));
    assert!(records.may_have("b", "sha256:b", &[]), "who brings it by other ways now has it preloaded");
}
