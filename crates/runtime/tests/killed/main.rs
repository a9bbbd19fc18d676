//! SIGKILL of the agent at every point at which something is half done: whatever ran goes on, and in the end nothing is left.
//!
//! For each point this program is started again in a network namespace that plays the host, as an agent that leads a pod through its life and
//! kills itself when it gets there, be it the first time or a later one; then as one that finds what is left, and removes it. Needs root and
//! busybox.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it is its own harness, and speaks as the usual one")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rubelet_host::netns;
use rubelet_runtime::FAULT_POINTS;

mod agent;
#[path = "../shared/archive.rs"]
mod archive;
mod life;
mod registry;

/// The agent's part, and where things are, by the environment.
const PART: &str = "KILLED_TEST_PART";
const PLACE: &str = "KILLED_TEST_DIR";
/// What creates containers; nothing: our own shim does.
const CREATOR: &str = "KILLED_TEST_CREATOR";
const RUNC: &str = "runc";
/// The verbs that are other ones with an OCI runtime.
const WITH_RUNC: [&str; 8] = ["create", "end", "exec", "start", "stop", "stop-pod", "sweep", "update-container"];
const SIGKILL: i32 = 9;
/// What ends, ends in this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the agent kills itself.
static DEATH: Mutex<Option<Death>> = Mutex::new(None);
static REACHED: OnceLock<PathBuf> = OnceLock::new();

/// A point, and how often it is passed before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Death {
    point: String,
    passes: usize,
}

impl Death {
    /// `POINT/PASSES`; nothing: none.
    fn parse(text: &str) -> Option<Self> {
        let (point, passes) = text.split_once('/')?;
        Some(Self { point: point.to_owned(), passes: passes.parse().unwrap() })
    }

    /// Counts a point that was reached.
    fn is_now(death: &mut Option<Self>, point: &str) -> bool {
        let Some(death) = death.as_mut().filter(|death| death.point == point) else { return false };
        death.passes = death.passes.wrapping_sub(1);
        death.passes == usize::MAX
    }

    /// All of which a life has that passed these points.
    fn all(reached: &[String]) -> Vec<Self> {
        let before = |at: usize| reached[..at].iter().filter(|other| **other == reached[at]).count();
        (0..reached.len()).map(|at| Self { point: reached[at].clone(), passes: before(at) }).collect()
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.point, self.passes)
    }
}

fn main() -> ExitCode {
    if let Some(arguments) = rubelet_shim::called() {
        return rubelet_shim::main(&arguments);
    }
    if let Ok(part) = std::env::var(PART) {
        return agent::play(&part, Path::new(&std::env::var_os(PLACE).unwrap()));
    }
    println!("\nrunning 1 test");
    let is_ok = std::panic::catch_unwind(every_point).is_ok();
    let verdict = if is_ok { "ok" } else { "FAILED" };
    println!("test every_point ... {verdict}");
    let (passed, failed) = (usize::from(is_ok), usize::from(!is_ok));
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_point() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/busybox").exists() {
        println!("not run: it needs root and /usr/bin/busybox (apt-get install busybox-static)");
        return;
    }
    // In memory where there is such a place: images are synced to the disk again and again.
    let memory = Path::new("/dev/shm");
    let top = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let top = top.unwrap();
    let host = top.path().join("host");
    netns::make(&host, || Command::new("ip").args(["link", "set", "lo", "up"]).status().map(drop)).unwrap();
    let done = std::panic::catch_unwind(|| {
        netns::within(&host, || {
            let whole = top.path().join("whole");
            run("live:", &whole, Ending::Well);
            let passed = reached(&whole);
            let known: BTreeSet<String> = FAULT_POINTS.iter().map(|point| (*point).to_owned()).collect();
            let seen: BTreeSet<String> = passed.iter().cloned().collect();
            assert_eq!(seen, known, "the points that a pod's life passes are those that are listed");
            assert_nothing_left(&whole, "a life without a kill");
            let mut killed = BTreeSet::new();
            for death in Death::all(&passed) {
                let dir = top.path().join(death.to_string().replace('/', "-"));
                // How often something is passed may depend on who is faster.
                let ending = if death.passes == 0 { Ending::Killed } else { Ending::Either };
                if run(&format!("live:{death}"), &dir, ending) {
                    killed.insert(death.point.clone());
                    let after = if death.passes == 0 { death.to_string() } else { "later./0".to_owned() };
                    run(&format!("find:{after}"), &dir, Ending::Well);
                }
                assert_nothing_left(&dir, &death.to_string());
                fs::remove_dir_all(dir).unwrap();
            }
            assert_eq!(killed, known, "the agent was killed at each of them");
            println!("killed at {} points, {} times", killed.len(), passed.len());
            twice(top.path());
            if is_installed(RUNC) {
                with_runc(top.path());
            }
            let dir = top.path().join("boot");
            run("live:start.started/0", &dir, Ending::Killed);
            end_the_boot(&dir);
            run("boot:", &dir, Ending::Well);
            assert_nothing_left(&dir, "a boot");
            Ok(())
        })
        .unwrap();
    });
    netns::remove(&host).unwrap();
    agent::remove_cgroups();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// Who finds what a killed agent has left may be killed over that.
fn twice(top: &Path) {
    for first in ["run.started/0", "create.bundle/0", "pull.unpacked/0"] {
        let begin = |name: &str| {
            let dir = top.join(format!("{}-{name}", first.replace('/', "-")));
            run(&format!("live:{first}"), &dir, Ending::Killed);
            fs::remove_file(dir.join("reached")).unwrap();
            dir
        };
        let whole = begin("whole");
        run("look:", &whole, Ending::Well);
        let passed = reached(&whole);
        run(&format!("find:{first}"), &whole, Ending::Well);
        for (at, death) in Death::all(&passed).iter().enumerate() {
            let dir = begin(&at.to_string());
            run(&format!("look:{death}"), &dir, Ending::Killed);
            run(&format!("find:{first}"), &dir, Ending::Well);
            assert_nothing_left(&dir, &format!("{first} and {death}"));
        }
    }
}

/// An OCI runtime has notes and processes of its own.
fn with_runc(top: &Path) {
    let verb = |point: &str| point.split('.').next().unwrap_or_default().to_owned();
    for point in FAULT_POINTS.into_iter().filter(|point| WITH_RUNC.contains(&verb(point).as_str())) {
        let (dir, death) = (top.join(format!("{RUNC}-{point}")), format!("{point}/0"));
        run_by(RUNC, &format!("live:{death}"), &dir, Ending::Killed);
        run_by(RUNC, &format!("find:{death}"), &dir, Ending::Well);
        assert_nothing_left(&dir, &format!("{death} by {RUNC}"));
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|dir| Path::new(dir).join(program).exists())
}

/// The points that agents have passed in this directory.
fn reached(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("reached")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// How a part is expected to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Well,
    Killed,
    Either,
}

/// Runs one part to its end. Whether that is a kill.
fn run(part: &str, dir: &Path, ending: Ending) -> bool {
    run_by("", part, dir, ending)
}

/// The same with what creates containers.
fn run_by(creator: &str, part: &str, dir: &Path, ending: Ending) -> bool {
    fs::create_dir_all(dir).unwrap();
    let log = fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
    let mut agent = Command::new(std::env::current_exe().unwrap());
    let status = agent.env(PART, part).env(PLACE, dir).env(CREATOR, creator).stderr(log).status().unwrap();
    let said = fs::read_to_string(dir.join("log")).unwrap();
    let is_killed = status.signal() == Some(SIGKILL);
    let is_expected = match ending {
        Ending::Well => status.success(),
        Ending::Killed => is_killed,
        Ending::Either => status.success() || is_killed,
    };
    assert!(is_expected, "{part}: {status}\n{said}");
    is_killed
}

/// Waits until it is so.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the end of a boot takes with it: processes, mounts, namespaces, links, and what was on a tmpfs.
fn end_the_boot(dir: &Path) {
    let own = std::env::current_exe().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut pids: BTreeSet<i32> = BTreeSet::new();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let is_ours = fs::read_link(process.path().join("exe")).ok().as_ref() == Some(&own);
            pids.extend(process.file_name().to_string_lossy().parse::<i32>().ok().filter(|_| is_ours));
        }
        for cgroup in agent::cgroups() {
            let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            pids.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()));
            // Refused while somebody is in it.
            let _ = fs::remove_dir(cgroup);
        }
        pids.remove(&i32::try_from(std::process::id()).unwrap());
        if pids.is_empty() && agent::cgroups().is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{:#?}", left(dir));
        for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut mounts = rubelet_host::mount::at_or_below(&dir.join("run")).unwrap();
    mounts.reverse();
    for mount in mounts {
        rubelet_host::mount::unmount(&mount.target, rubelet_host::mount::Unmount::Lazy).unwrap();
    }
    fs::remove_dir_all(dir.join("run")).unwrap();
    let _ = Command::new("ip").args(["link", "del", "rubelet0"]).output().unwrap();
}

fn assert_nothing_left(dir: &Path, after: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = left(dir);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "after {after}: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Everything of pods that there still is.
fn left(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = dir.display().to_string();
    left.extend(mounts.lines().filter(|line| line.contains(&format!(" {below}/"))).map(|l| format!("mount {l}")));
    for place in [
        "run/sandboxes",
        "run/containers",
        "run/netns",
        "root/records/sandboxes",
        "root/records/containers",
        "root/volumes",
        "root/images/containers",
    ] {
        for entry in fs::read_dir(dir.join(place)).into_iter().flatten().flatten() {
            // What is removed in the background goes on its own.
            left.push(entry.path().display().to_string());
        }
    }
    // Of images nothing is left when they are removed; two directories of layers are always there.
    for place in ["root/images/images", "root/images/blobs/sha256", "root/images/ingest", "root/images/layers"] {
        for entry in fs::read_dir(dir.join(place)).into_iter().flatten().flatten() {
            if !["empty", "bottom"].iter().any(|always| entry.file_name() == *always) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    if let Ok(rules) = Command::new("nft").args(["list", "ruleset"]).output() {
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        left.extend(rules.lines().filter(|line| line.contains("8080")).map(|line| format!("rule {line}")));
    }
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    left.extend(links.lines().filter(|l| l.contains("rbl") || l.contains("rubelet0")).map(|l| format!("link {l}")));
    left.extend(agent::cgroups().into_iter().map(|path| format!("cgroup {}", path.display())));
    let own = std::env::current_exe().unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let exe = fs::read_link(process.path().join("exe")).ok();
        let pid: Option<u32> = process.file_name().to_string_lossy().parse().ok();
        let is_other = pid.is_some_and(|pid| pid != std::process::id());
        if is_other && exe.as_ref() == Some(&own) {
            left.push(format!("process {}", process.path().display()));
        }
    }
    left
}
