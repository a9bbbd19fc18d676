//! Edits of real files, in the ways in which people and programs save them, with kills of the agent in between: what the file source makes of
//! them reaches the pods, and in the end what runs is the directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rubelet_agent::roster::RosterNote;
use rubelet_agent::sources::{DesiredSet, FileSource};
use rubelet_api::pod::Gates;
use rubelet_testkit::Temper;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::edits::{
    Directory, OWN_UID, PODS, VERBS, VERSIONS, cases, check, crash, lists_and_starts, name, spec, wait,
};
use crate::world::{Agent, World};

/// How a manifest gets into its file.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Written over.
    InPlace,
    /// The same in two halves, so many milliseconds apart.
    Slowly(u64),
    /// Written beside and renamed.
    Renamed,
    /// The old file becomes a backup, which goes, and a new one is made.
    Anew,
    /// Deleted, and so many milliseconds later there again.
    Deleted(u64),
    /// A link to a file elsewhere.
    Linked,
}

#[derive(Clone, Debug)]
enum Edit {
    /// Which pod, which version of it, in its second file or its first.
    Write(u8, u8, bool, Way),
    Remove(u8),
    /// A file that is no manifest, or one no more.
    Spoil(u8, bool),
    /// The directory itself is away for so many milliseconds.
    Away(u64),
}

#[derive(Clone, Debug)]
enum Happening {
    Edit(Edit),
    /// Milliseconds.
    Wait(u64),
    /// SIGKILL of the agent, perhaps an edit, and after so many milliseconds a new one.
    Kill(u64, Option<Edit>),
    /// A container of that pod ends by itself.
    Crash(u8, i32),
    /// The next calls of a verb fail.
    Fail(&'static str, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let way = prop_oneof![
        Just(Way::InPlace),
        (0..3000u64).prop_map(Way::Slowly),
        Just(Way::Renamed),
        Just(Way::Anew),
        (0..400u64).prop_map(Way::Deleted),
        Just(Way::Linked),
    ];
    prop_oneof![
        10 => (0..PODS, 0..VERSIONS, prop::bool::weighted(0.2), way)
            .prop_map(|(pod, version, is_second, way)| Edit::Write(pod, version, is_second, way)),
        5 => (0..PODS).prop_map(Edit::Remove),
        2 => (0..PODS, any::<bool>()).prop_map(|(pod, is_second)| Edit::Spoil(pod, is_second)),
        1 => (0..1000u64).prop_map(Edit::Away),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => edit().prop_map(Happening::Edit),
        5 => wait().prop_map(Happening::Wait),
        3 => (0..300u64, prop::option::of(edit())).prop_map(|(millis, edit)| Happening::Kill(millis, edit)),
        1 => (0..PODS, 0..2i32).prop_map(|(pod, code)| Happening::Crash(pod, code)),
        1 => (0..VERBS.len(), 1..4usize).prop_map(|(verb, times)| Happening::Fail(VERBS[verb], times)),
    ]
}

/// The manifests' directory, and what ought to be in it.
struct Folder {
    path: PathBuf,
    wanted: Directory,
}

impl Folder {
    fn in_world(world: &World) -> Self {
        let path = world.path().join("manifests");
        fs::create_dir(&path).expect("a new folder");
        fs::create_dir(world.path().join("linked")).expect("a new folder");
        Self { path, wanted: Directory::new() }
    }

    fn file(&self, pod: u8, is_second: bool) -> PathBuf {
        self.path.join(if is_second { format!("{pod}.json") } else { format!("pod-{pod}.yaml") })
    }

    /// Beside the directory: what the agent does not look at.
    fn beside(&self, file: &str) -> PathBuf {
        self.path.with_file_name(file)
    }

    async fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Write(pod, version, is_second, way) => {
                // Two files of one pod would be a matter of who was first.
                gone(&self.file(*pod, !is_second));
                self.save(&self.file(*pod, *is_second), &manifest(*pod, *version), *way).await;
                self.wanted.insert(*pod, *version);
            }
            Edit::Remove(pod) => self.remove(*pod),
            Edit::Spoil(pod, is_second) => {
                // What was good stays in force as long as the agent lives that read it: the file goes before.
                self.remove(*pod);
                tokio::time::sleep(Duration::from_millis(500)).await;
                write(&self.file(*pod, *is_second), "kind: Pod\nspec: [");
            }
            Edit::Away(millis) => {
                fs::rename(&self.path, self.beside("away")).expect("it is there");
                sleep(*millis).await;
                fs::rename(self.beside("away"), &self.path).expect("it is there");
            }
        }
    }

    fn remove(&mut self, pod: u8) {
        gone(&self.file(pod, false));
        gone(&self.file(pod, true));
        self.wanted.remove(&pod);
    }

    async fn save(&self, path: &Path, text: &str, way: Way) {
        let own_name = path.file_name().and_then(|n| n.to_str()).expect("text");
        // Others of these ways would write through a link.
        if path.is_symlink() {
            gone(path);
        }
        match way {
            Way::InPlace => write(path, text),
            Way::Slowly(millis) => {
                let (first, second) = text.split_at(text.len() / 2);
                let mut file = fs::File::create(path).expect("writable");
                file.write_all(first.as_bytes()).expect("room");
                sleep(millis).await;
                file.write_all(second.as_bytes()).expect("room");
            }
            Way::Renamed => {
                let new = self.path.join(format!(".{own_name}.new"));
                write(&new, text);
                fs::rename(new, path).expect("it was there");
            }
            Way::Anew => {
                let backup = self.path.join(format!(".{own_name}~"));
                let had = fs::rename(path, &backup).is_ok();
                write(path, text);
                if had {
                    gone(&backup);
                }
            }
            Way::Deleted(millis) => {
                gone(path);
                sleep(millis).await;
                write(path, text);
            }
            Way::Linked => {
                // Each time another file: what a link leads to is not written over.
                let at = fs::read_dir(self.beside("linked")).expect("it is there").count();
                let target = self.beside("linked").join(at.to_string());
                write(&target, text);
                let link = self.path.join(format!(".{own_name}.link"));
                std::os::unix::fs::symlink(target, &link).expect("a new link");
                fs::rename(link, path).expect("it was there");
            }
        }
    }

    fn source(&self) -> FileSource {
        FileSource {
            path: self.path.clone(),
            check_every: Duration::from_secs(20),
            node_name: "node-a".into(),
            gates: Gates::default(),
        }
    }

    /// What somebody sees there who has not looked before.
    async fn look(&self) -> DesiredSet {
        let (out, mut told) = mpsc::channel(1);
        let task = self.source().spawn(out);
        let set = told.recv().await.expect("it tells what there is");
        task.abort();
        set
    }
}

async fn sleep(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("writable");
}

fn gone(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("remove {}: {e}", path.display()),
        _ => {}
    }
}

fn manifest(pod: u8, version: u8) -> String {
    let mut spec = spec(version);
    spec["terminationGracePeriodSeconds"] = json!(5);
    let uid = (pod == OWN_UID).then_some("own");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name(pod), "uid": uid}, "spec": spec}).to_string()
}

/// An agent, and the tasks that read the directory for it. Dropping it is a SIGKILL of all.
struct Living {
    _agent: Agent,
    tasks: [AbortHandle; 2],
}

impl Drop for Living {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// An agent on the world as it is. It does not start while the runtime cannot be listed.
async fn born(world: &World, folder: &Folder) -> Living {
    let agent = lists_and_starts(world).await;
    let (out, mut told) = mpsc::channel(4);
    let reading = folder.source().spawn(out);
    let roster = agent.ground.roster.clone();
    let carrying = tokio::spawn(async move {
        while let Some(set) = told.recv().await {
            if roster.send(RosterNote::Desired(set)).await.is_err() {
                return;
            }
        }
    });
    Living { _agent: agent, tasks: [reading, carrying.abort_handle()] }
}

async fn play(happenings: Vec<Happening>, temper: Temper) {
    let world = World::with(temper);
    let mut folder = Folder::in_world(&world);
    let mut living = born(&world, &folder).await;
    for happening in happenings {
        match happening {
            Happening::Edit(edit) => folder.edit(&edit).await,
            Happening::Wait(millis) => sleep(millis).await,
            Happening::Kill(millis, edit) => {
                drop(living);
                if let Some(edit) = edit {
                    folder.edit(&edit).await;
                }
                sleep(millis).await;
                living = born(&world, &folder).await;
            }
            Happening::Crash(pod, code) => crash(&world, pod, code),
            Happening::Fail(verb, times) => world.runtime.fail(verb, times),
        }
    }
    world.settle().await;
    let seen = folder.look().await;
    let pods: BTreeSet<String> = seen.pods.iter().filter_map(|d| d.pod.metadata.name.clone()).collect();
    let wanted: BTreeSet<String> = folder.wanted.keys().map(|pod| format!("{}-node-a", name(*pod))).collect();
    assert_eq!(pods, wanted, "the directory holds what was written to it: {:?}", seen.problems);
    // A manifest that moved to another file may have kept its pod, with the UID of the first.
    let uids = world.runtime.uids();
    assert_eq!(uids.len(), folder.wanted.len(), "{uids:?}\n{:#?}", world.runtime.calls());
    check(&world, &folder.wanted, &uids);
    drop(living);
}

fn play_one(happenings: Vec<Happening>, temper: Temper) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(happenings, temper));
}

#[test]
fn what_runs_in_the_end_is_what_the_files_say() {
    let config = ProptestConfig { cases: cases() / 2, max_shrink_iters: 400, ..ProptestConfig::default() };
    let stories = (prop::collection::vec(happening(), 1..30), any::<u64>(), any::<bool>());
    proptest::test_runner::TestRunner::new(config)
        .run(&stories, |(happenings, seed, has_events)| {
            play_one(happenings, Temper { seed, has_events, ..Temper::default() });
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}
