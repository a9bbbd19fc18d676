use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn manifest(name: &str, version: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: c\n    image: i:v{version}\n"
    )
}

/// A source at work, and all that it told.
struct Rig {
    dir: tempfile::TempDir,
    told: mpsc::Receiver<DesiredSet>,
    history: Vec<DesiredSet>,
}

impl Rig {
    /// Watches `pods` in a folder of its own; `prepare` fills the folder first.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let path = dir.path().join("pods");
        let source = FileSource { path, check_every: LONG, node_name: "node-a".into(), gates: Gates::default() };
        let (out, told) = mpsc::channel(64);
        source.spawn(out);
        Self { dir, told, history: Vec::new() }
    }

    /// With `pods` a directory.
    fn with_dir() -> Self {
        Self::start(|dir| fs::create_dir(dir.join("pods")).unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("pods").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// Waits for a set with just these pods, as `name:version`.
    async fn pods(&mut self, want: &[&str]) -> DesiredSet {
        self.until(&format!("pods {want:?}"), |set| show(set) == want).await
    }

    /// Waits for a problem of this file whose message contains the text.
    async fn problem(&mut self, file: &str, text: &str) -> DesiredSet {
        let file = file.to_owned();
        let is_it = |p: &super::super::Problem| p.file.ends_with(&file) && p.message.contains(text);
        self.until(&format!("problem of {file}: {text}"), |set| set.problems.iter().any(is_it)).await
    }

    async fn until(&mut self, what: &str, is_wanted: impl Fn(&DesiredSet) -> bool) -> DesiredSet {
        let last = self.history.last().filter(|s| is_wanted(s)).cloned();
        if let Some(last) = last {
            return last;
        }
        let wait = async {
            loop {
                let set = self.told.recv().await.expect("the source lives");
                self.history.push(set.clone());
                if is_wanted(&set) {
                    return set;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(10), wait).await {
            Ok(set) => set,
            Err(_) => panic!("waited for {what}, last was {:#?}", self.history.last().map(|s| (show(s), &s.problems))),
        }
    }
}

/// `name:version` of each pod.
fn show(set: &DesiredSet) -> Vec<String> {
    let version = |pod: &super::super::DesiredPod| {
        let image = pod.pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        image.trim_start_matches("i:v").to_owned()
    };
    set.pods.iter().map(|p| format!("{}:{}", p.key().name.trim_end_matches("-node-a"), version(p))).collect()
}

#[tokio::test]
async fn files_come_change_and_go() {
    let mut rig = Rig::with_dir();
    let first = rig.pods(&[]).await;
    assert!(first.complete && first.problems.is_empty());
    rig.write("a.yaml", &manifest("a", 1));
    let set = rig.pods(&["a:1"]).await;
    let pod = &set.pods[0];
    assert_eq!(pod.origin, rig.at("a.yaml").display().to_string());
    let annotations = pod.pod.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    rig.write("b.json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"i:v1"}]}}"#);
    rig.pods(&["a:1", "b:1"]).await;
    rig.write("a.yaml", &manifest("a", 2));
    rig.pods(&["a:2", "b:1"]).await;
    fs::rename(rig.at("a.yaml"), rig.at("z.yaml")).unwrap();
    let set = rig.pods(&["b:1", "a:2"]).await;
    assert_eq!(set.pods[1].origin, rig.at("z.yaml").display().to_string());
    fs::remove_file(rig.at("b.json")).unwrap();
    rig.pods(&["a:2"]).await;
}

/// Ways in which people and tools replace `a.yaml`; each is one change, and the pod is never missing.
#[tokio::test]
async fn every_way_of_saving_is_one_change() {
    type Save = fn(&Path, &str);
    fn write(path: PathBuf, text: &str) {
        fs::write(path, text).unwrap();
    }
    let ways: [(&str, Save); 9] = [
        ("in place", |d, t| write(d.join("a.yaml"), t)),
        ("vim", |d, t| {
            write(d.join("4913"), "");
            fs::remove_file(d.join("4913")).unwrap();
            fs::rename(d.join("a.yaml"), d.join("a.yaml~")).unwrap();
            write(d.join("a.yaml"), t);
            fs::remove_file(d.join("a.yaml~")).unwrap();
        }),
        ("vim that keeps its backup", |d, t| {
            fs::rename(d.join("a.yaml"), d.join("a.yaml~")).unwrap();
            write(d.join("a.yaml"), t);
        }),
        ("emacs", |d, t| {
            symlink("me@host.1", d.join(".#a.yaml")).unwrap();
            fs::copy(d.join("a.yaml"), d.join("a.yaml~")).unwrap();
            write(d.join("a.yaml"), t);
            fs::remove_file(d.join(".#a.yaml")).unwrap();
        }),
        ("sed -i", |d, t| {
            write(d.join("sedXyZ12"), t);
            fs::rename(d.join("sedXyZ12"), d.join("a.yaml")).unwrap();
        }),
        ("rsync", |d, t| {
            write(d.join(".a.yaml.Xy12"), t);
            fs::rename(d.join(".a.yaml.Xy12"), d.join("a.yaml")).unwrap();
        }),
        ("git checkout", |d, t| {
            fs::remove_file(d.join("a.yaml")).unwrap();
            write(d.join("a.yaml"), t);
        }),
        ("a write in pieces", |d, t| {
            let mut file = File::create(d.join("a.yaml")).unwrap();
            t.bytes().for_each(|b| file.write_all(&[b]).unwrap());
        }),
        ("a link to a new file", |d, t| {
            write(d.join("../new"), t);
            symlink("../new", d.join("a.next")).unwrap();
            fs::rename(d.join("a.next"), d.join("a.yaml")).unwrap();
        }),
    ];
    for (way, save) in ways {
        let mut rig = Rig::start(|dir| {
            fs::create_dir(dir.join("pods")).unwrap();
            fs::write(dir.join("pods/a.yaml"), manifest("a", 1)).unwrap();
        });
        rig.pods(&["a:1"]).await;
        save(&rig.at(""), &manifest("a", 2));
        rig.pods(&["a:2"]).await;
        // Something that comes after it: until here nothing else was told.
        rig.write("b.yaml", &manifest("b", 1));
        rig.pods(&["a:2", "b:1"]).await;
        let mut seen: Vec<Vec<String>> = rig.history.iter().map(show).collect();
        seen.dedup();
        assert_eq!(seen, [vec!["a:1"], vec!["a:2"], vec!["a:2", "b:1"]], "{way}");
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_waits_for_its_writer() {
    let mut rig = Rig::with_dir();
    rig.write("a.yaml", &manifest("a", 1));
    rig.pods(&["a:1"]).await;
    let text = manifest("a", 2);
    let (start, end) = text.split_at(20);
    let mut writer = File::create(rig.at("a.yaml")).unwrap();
    writer.write_all(start.as_bytes()).unwrap();
    rig.write("b.yaml", &manifest("b", 1));
    let set = rig.pods(&["a:1", "b:1"]).await;
    assert_eq!(set.problems, []);
    writer.write_all(end.as_bytes()).unwrap();
    drop(writer);
    rig.pods(&["a:2", "b:1"]).await;
    assert!(rig.history.iter().all(|s| s.problems.is_empty()));
}

#[tokio::test]
async fn a_writer_that_never_closes_is_not_waited_for_forever() {
    let mut rig = Rig::with_dir();
    rig.pods(&[]).await;
    let mut writer = File::create(rig.at("a.yaml")).unwrap();
    writer.write_all(manifest("a", 1).as_bytes()).unwrap();
    rig.pods(&["a:1"]).await;
    drop(writer);
}

#[tokio::test]
async fn a_file_that_becomes_bad_keeps_its_last_good_version() {
    let mut rig = Rig::with_dir();
    rig.write("a.yaml", &manifest("a", 1));
    rig.pods(&["a:1"]).await;
    for bad in ["", "apiVersion: v1\nkind: P", "kind: ConfigMap\napiVersion: v1", "\u{0}\u{1}"] {
        rig.write("a.yaml", bad);
        let set = rig.problem("a.yaml", "its last good version stays in force").await;
        assert_eq!(show(&set), ["a:1"], "{bad:?}");
        rig.write("a.yaml", &manifest("a", 1));
        rig.until("no problem", |set| set.problems.is_empty()).await;
    }
    rig.write("a.yaml", "nonsense");
    rig.problem("a.yaml", "stays in force").await;
    fs::remove_file(rig.at("a.yaml")).unwrap();
    let set = rig.pods(&[]).await;
    assert!(set.problems.is_empty());
    // One that was never good gives nothing but its problem.
    rig.write("a.yaml", "nonsense");
    let set = rig.problem("a.yaml", "a.yaml").await;
    assert!(set.pods.is_empty() && !set.problems[0].message.contains("in force"));
}

#[tokio::test]
async fn linked_files_are_followed() {
    let mut rig = Rig::start(|dir| {
        fs::create_dir_all(dir.join("pods")).unwrap();
        fs::create_dir_all(dir.join("elsewhere")).unwrap();
        fs::write(dir.join("elsewhere/m"), manifest("a", 1)).unwrap();
        symlink("../elsewhere/m", dir.join("pods/a.yaml")).unwrap();
    });
    let target = rig.dir.path().join("elsewhere/m");
    rig.pods(&["a:1"]).await;
    fs::write(&target, manifest("a", 2)).unwrap();
    rig.pods(&["a:2"]).await;
    fs::write(target.with_extension("new"), manifest("a", 3)).unwrap();
    fs::rename(target.with_extension("new"), &target).unwrap();
    rig.pods(&["a:3"]).await;
    fs::remove_file(&target).unwrap();
    let set = rig.pods(&[]).await;
    assert!(set.problems[0].message.contains("link to a file that does not exist"), "{:?}", set.problems);
    fs::write(&target, manifest("a", 4)).unwrap();
    rig.pods(&["a:4"]).await;
}

#[tokio::test]
async fn a_swapped_directory_of_links_is_one_change() {
    let mut rig = Rig::start(|dir| {
        let pods = dir.join("pods");
        fs::create_dir_all(pods.join("..1")).unwrap();
        for name in ["a", "b"] {
            fs::write(pods.join("..1").join(name), manifest(name, 1)).unwrap();
            symlink(Path::new("..data").join(name), pods.join(name)).unwrap();
        }
        symlink("..1", pods.join("..data")).unwrap();
    });
    rig.pods(&["a:1", "b:1"]).await;
    fs::create_dir(rig.at("..2")).unwrap();
    for name in ["a", "b"] {
        fs::write(rig.at("..2").join(name), manifest(name, 2)).unwrap();
    }
    symlink("..2", rig.at("..data_tmp")).unwrap();
    fs::rename(rig.at("..data_tmp"), rig.at("..data")).unwrap();
    fs::remove_dir_all(rig.at("..1")).unwrap();
    rig.pods(&["a:2", "b:2"]).await;
    assert_eq!(rig.history.len(), 2);
}

#[tokio::test]
async fn a_directory_may_come_late_go_and_come_back() {
    let mut rig = Rig::start(|_| ());
    rig.pods(&[]).await;
    fs::create_dir(rig.at("")).unwrap();
    rig.write("a.yaml", &manifest("a", 1));
    rig.pods(&["a:1"]).await;
    fs::remove_dir_all(rig.at("")).unwrap();
    rig.pods(&[]).await;
    let next = rig.dir.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("b.yaml"), manifest("b", 1)).unwrap();
    fs::rename(&next, rig.at("").parent().unwrap().join("pods")).unwrap();
    rig.pods(&["b:1"]).await;
    rig.write("b.yaml", &manifest("b", 2));
    rig.pods(&["b:2"]).await;
}

#[tokio::test]
async fn the_path_may_be_a_link_to_a_directory_or_a_file() {
    let mut rig = Rig::start(|dir| {
        for version in [1, 2] {
            fs::create_dir(dir.join(format!("v{version}"))).unwrap();
            fs::write(dir.join(format!("v{version}/a.yaml")), manifest("a", version)).unwrap();
        }
        symlink("v1", dir.join("pods")).unwrap();
    });
    let set = rig.pods(&["a:1"]).await;
    assert_eq!(set.pods[0].origin, rig.at("a.yaml").display().to_string());
    let turn_to = |rig: &Rig, target: &str| {
        symlink(target, rig.dir.path().join("next")).unwrap();
        fs::rename(rig.dir.path().join("next"), rig.dir.path().join("pods")).unwrap();
    };
    turn_to(&rig, "v2");
    rig.pods(&["a:2"]).await;
    rig.write("b.yaml", &manifest("b", 1));
    rig.pods(&["a:2", "b:1"]).await;
    turn_to(&rig, "v1/a.yaml");
    let set = rig.pods(&["a:1"]).await;
    assert_eq!(set.pods[0].origin, rig.dir.path().join("pods").display().to_string());
    fs::write(rig.dir.path().join("v1/a.yaml"), manifest("a", 3)).unwrap();
    rig.pods(&["a:3"]).await;
}

#[tokio::test]
async fn strange_entries_do_not_block_the_others() {
    let mut rig = Rig::start(|dir| {
        let pods = dir.join("pods");
        fs::create_dir_all(pods.join("directory")).unwrap();
        fs::write(pods.join("directory/inner.yaml"), manifest("inner", 1)).unwrap();
        symlink("directory", pods.join("link-to-directory")).unwrap();
        fs::write(pods.join(".hidden.yaml"), manifest("hidden", 1)).unwrap();
        let fifo = pods.join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        symlink("fifo", pods.join("link-to-fifo")).unwrap();
        symlink("/dev/zero", pods.join("zero")).unwrap();
        symlink("loop", pods.join("loop")).unwrap();
        File::create(pods.join("large")).unwrap().set_len(20 << 20).unwrap();
        fs::write(pods.join("a.yaml"), manifest("a", 1)).unwrap();
    });
    let set = rig.pods(&["a:1"]).await;
    let mut problems: Vec<String> = set
        .problems
        .iter()
        .map(|p| format!("{}: {}", Path::new(&p.file).file_name().unwrap().display(), p.message))
        .collect();
    problems.sort();
    assert_eq!(problems.len(), 5, "{problems:?}");
    for (problem, want) in problems.iter().zip([
        "fifo: is a named pipe, not a regular file",
        "large: is larger than 10485760 bytes",
        "link-to-fifo: is a named pipe",
        "loop: can't be looked at",
        "zero: is a character device",
    ]) {
        assert!(problem.starts_with(want), "{problem}");
    }
}

#[tokio::test]
async fn of_two_files_for_one_pod_the_first_stays() {
    let mut rig = Rig::with_dir();
    rig.write("m.yaml", &manifest("a", 1));
    rig.pods(&["a:1"]).await;
    rig.write("a-copy.yaml", &manifest("a", 2));
    let set = rig.problem("a-copy.yaml", "is already defined in").await;
    assert_eq!(show(&set), ["a:1"]);
    for path in ["m.yaml", "a-copy.yaml"] {
        assert!(set.problems[0].message.contains(&rig.at(path).display().to_string()), "{:?}", set.problems);
    }
    let double = set.problems[0].double.as_ref().unwrap();
    assert_ne!(double.metadata.uid, set.pods[0].pod.metadata.uid, "the one that is ignored");
    rig.write("m.yaml", &manifest("a", 3));
    rig.pods(&["a:3"]).await;
    fs::remove_file(rig.at("m.yaml")).unwrap();
    let set = rig.pods(&["a:2"]).await;
    assert!(set.problems.is_empty());
}

#[tokio::test]
async fn the_same_manifest_in_other_words_is_no_change() {
    let mut rig = Rig::with_dir();
    rig.write("a.yaml", &manifest("a", 1));
    rig.pods(&["a:1"]).await;
    rig.write("a.yaml", &format!("# a comment\n{}", manifest("a", 1)));
    File::open(rig.at("a.yaml")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    rig.write("b.yaml", &manifest("b", 1));
    rig.pods(&["a:1", "b:1"]).await;
    assert_eq!(rig.history.iter().filter(|s| show(s) == ["a:1"]).count(), 1);
    let kept = |nth: usize| std::sync::Arc::as_ptr(&rig.history[nth].pods[0].pod);
    let last = rig.history.len() - 1;
    assert_eq!(kept(last), kept(last - 1));
}

fn task(path: &Path, watcher: Option<Watcher>, check_every: Duration) -> Task {
    let source = FileSource { path: path.to_owned(), check_every, node_name: "node-a".into(), gates: Gates::default() };
    Task {
        check_every,
        scanner: Some(Scanner::new(source)),
        watcher,
        routes: Routes::default(),
        writing: BTreeMap::new(),
        told: None,
        deleted: BTreeSet::new(),
        refused: BTreeSet::new(),
    }
}

#[tokio::test]
async fn without_inotify_the_period_finds_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (out, mut told) = mpsc::channel(4);
    tokio::spawn(task(dir.path(), None, Duration::from_millis(20)).run(out));
    assert!(told.recv().await.unwrap().pods.is_empty());
    fs::write(dir.path().join("a.yaml"), manifest("a", 1)).unwrap();
    let look = async { while show(&told.recv().await.unwrap()) != ["a:1"] {} };
    tokio::time::timeout(Duration::from_secs(10), look).await.unwrap();
}

#[tokio::test]
async fn after_lost_events_everything_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let mut task = task(dir.path(), Some(Watcher::new().unwrap()), LONG);
    task.look().await.unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let now = Instant::now();
    let name = |change| Event::Name { dir: root.clone(), name: "a.yaml".into(), change };
    assert_eq!(task.weigh(&[name(Change::Modified)], now), None, "it is not closed yet");
    assert_eq!(task.writing.len(), 1);
    assert_eq!(task.weigh(&[Event::Overflow], now), Some(QUIET));
    assert!(task.writing.is_empty());
    let hidden = Event::Name { dir: root.clone(), name: ".a.yaml.swp".into(), change: Change::Closed };
    let elsewhere = Event::Name { dir: "/".into(), name: "unrelated".into(), change: Change::Created };
    assert_eq!(task.weigh(&[hidden, elsewhere], now), None);
    assert_eq!(task.weigh(&[name(Change::MovedIn)], now), Some(Duration::ZERO), "it is whole");
    assert_eq!(task.weigh(&[name(Change::MovedOut), name(Change::MovedIn)], now), Some(QUIET_GONE), "more may follow");
    assert_eq!(task.weigh(&[Event::DirGone { dir: root }], now), Some(QUIET_GONE));
}

/// More events than the kernel keeps for one who does not read them: what changed afterwards is not among them.
#[tokio::test]
async fn a_queue_that_overflows_ends_with_what_the_directory_holds() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let mut rig = Rig::with_dir();
    rig.write("old.yaml", &manifest("old", 1));
    rig.write("kept.yaml", &manifest("kept", 1));
    rig.pods(&["kept:1", "old:1"]).await;
    // The source has this thread only, and does not get it meanwhile. Each new name is at least one event.
    for number in 0..=limit {
        File::create(rig.at(&format!(".noise-{number}"))).unwrap();
    }
    rig.write("kept.yaml", &manifest("kept", 2));
    rig.write("new.yaml", &manifest("new", 1));
    fs::remove_file(rig.at("old.yaml")).unwrap();
    rig.pods(&["kept:2", "new:1"]).await;
    // It hears of what comes later as before.
    rig.write("later.yaml", &manifest("later", 1));
    rig.pods(&["kept:2", "later:1", "new:1"]).await;
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let (out, mut told) = mpsc::channel(4);
    let task = tokio::spawn(task(dir.path(), Some(Watcher::new().unwrap()), LONG).run(out));
    told.recv().await.unwrap();
    drop(told);
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
}

#[test]
fn a_directory_that_cannot_be_listed_keeps_its_pods() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pods");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), manifest("a", 1)).unwrap();
    let source = FileSource { path: path.clone(), check_every: LONG, node_name: "n".into(), gates: Gates::default() };
    let mut scanner = Scanner::new(source);
    let now = jiff::Timestamp::now();
    assert_eq!(scanner.look(&BTreeSet::new(), now).pods.len(), 1);
    // A loop of links is an error that is no "not found", for root as well.
    fs::rename(&path, dir.path().join("away")).unwrap();
    symlink("pods", &path).unwrap();
    let set = scanner.look(&BTreeSet::new(), now);
    assert_eq!((set.pods.len(), set.problems.len()), (1, 1));
    fs::remove_file(&path).unwrap();
    assert_eq!(scanner.look(&BTreeSet::new(), now).pods.len(), 0);
}

#[tokio::test]
async fn a_pod_whose_file_was_deleted_and_is_back_starts_over() {
    let mut rig = Rig::start(|dir| {
        fs::create_dir(dir.join("pods")).unwrap();
        fs::write(dir.join("pods/a.yaml"), manifest("a", 1)).unwrap();
    });
    rig.pods(&["a:1"]).await;
    // An editor that writes the same again deletes nothing but its own copy.
    fs::rename(rig.at("a.yaml"), rig.at("a.yaml~")).unwrap();
    rig.write("a.yaml", &manifest("a", 1));
    fs::remove_file(rig.at("a.yaml~")).unwrap();
    rig.write("b.yaml", &manifest("b", 1));
    let set = rig.pods(&["a:1", "b:1"]).await;
    assert_eq!(set.pods.iter().map(|p| p.removals).collect::<Vec<_>>(), [0, 0]);
    fs::remove_file(rig.at("a.yaml")).unwrap();
    rig.write("a.yaml", &manifest("a", 1));
    let set = rig.until("a starts over", |set| set.pods.iter().any(|p| p.removals > 0)).await;
    assert_eq!(show(&set), ["a:1", "b:1"]);
    assert_eq!(set.pods.iter().map(|p| p.removals).collect::<Vec<_>>(), [1, 0]);
}
