//! Creating, starting, ending, finding again.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rubelet_shim::birth::Birth;
use rubelet_shim::spec::Namespace;
use rubelet_shim::wire::Phase;
use rubelet_shim::{Shim, ShimError, Standing};

use crate::box_::{Box_, Cgroups, ended, until, within};

#[test]
fn a_container_runs_and_its_end_is_recorded() {
    let Some(box_) = Box_::script("hostname; echo oops >&2; exit 7") else { return };
    let (exit, _) = box_.run();
    assert_eq!((exit.code, exit.signal, exit.oom_kills), (7, None, 0));
    assert!(exit.started_at_nanos.unwrap() <= exit.finished_at_nanos);
    let log = fs::read_to_string(box_.path().join("0.log")).unwrap();
    assert!(log.contains(" stdout F box\n") && log.contains(" stderr F oops\n"), "{log}");
    until("the shim is gone", || {
        Shim::attach(box_.path()).is_ok_and(|standing| matches!(standing, Standing::Ended(_)))
    });
    assert_eq!(ended(box_.path()), Some(exit));
    assert!(!box_.path().join("shim.sock").exists());
    assert_eq!(fs::read_to_string(box_.path().join("shim.log")).unwrap(), "");
}

#[test]
fn a_signal_ends_it() {
    let Some(box_) = Box_::script("trap 'exit 3' TERM; echo up; while true; do sleep 0.01; done") else { return };
    let shim = box_.start();
    box_.until_logged("up");
    let watch = shim.watch_exit().unwrap();
    shim.kill(libc::SIGTERM, false).unwrap();
    assert_eq!(within(watch).code, 3);
    let Some(box_) = Box_::script("sleep 1000") else { return };
    let shim = box_.start();
    let watch = shim.watch_exit().unwrap();
    assert!(matches!(shim.kill(99, false), Err(ShimError::Refused(_))));
    shim.kill(libc::SIGKILL, true).unwrap();
    let exit = within(watch);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    shim.kill(libc::SIGKILL, true).unwrap();
}

#[test]
fn what_cannot_start_says_so_in_known_words() {
    let Some(mut box_) = Box_::script("") else { return };
    let mut text = |args: &[&str]| {
        box_.spec.process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        box_.create().unwrap_err().to_string()
    };
    let prefix = "unable to start container process: ";
    assert_eq!(text(&["nope"]), format!("{prefix}exec: \"nope\": executable file not found in $PATH"));
    assert_eq!(text(&["/nope"]), format!("{prefix}exec: \"/nope\": stat /nope: no such file or directory"));
    assert_eq!(text(&["/etc/passwd"]), format!("{prefix}exec: \"/etc/passwd\": permission denied"));
    box_.spec.process.cwd = "/etc/passwd/x".to_owned();
    assert!(box_.create().unwrap_err().to_string().contains("not a directory"));
    box_.spec.process.cwd = "/".to_owned();
    let mounts = box_.spec.mounts.clone();
    box_.spec.mounts.push(crate::box_::bind(Path::new("/no/such"), "/mnt", "bind"));
    assert!(box_.create().unwrap_err().to_string().contains("stat /no/such: no such file or directory"));
    box_.spec.mounts = mounts;
    box_.spec.linux.namespaces[1].path = "/no/such".to_owned();
    assert!(box_.create().unwrap_err().to_string().contains("open namespace /no/such"));
    assert!(matches!(Shim::attach(box_.path()).unwrap(), Standing::Unborn));
    assert!(!box_.path().join("shim.sock").exists());
}

#[test]
fn what_is_no_program_ends_with_255_and_a_word_in_the_log() {
    let Some(mut box_) = Box_::script("") else { return };
    fs::write(box_.root().join("bin/odd"), "odd").unwrap();
    assert!(Command::new("chmod").arg("755").arg(box_.root().join("bin/odd")).status().unwrap().success());
    box_.spec.process.args = vec!["odd".to_owned()];
    let (exit, log) = box_.run();
    assert_eq!((exit.code, log.as_str()), (255, "exec /bin/odd: exec format error\n"));
}

#[test]
fn a_created_container_waits_and_can_be_ended() {
    let Some(box_) = Box_::script("echo never") else { return };
    let shim = box_.create().unwrap();
    assert_eq!(shim.state().unwrap().phase, Phase::Created);
    let watch = shim.watch_exit().unwrap();
    shim.kill(libc::SIGKILL, false).unwrap();
    let exit = within(watch);
    assert_eq!((exit.code, exit.started_at_nanos), (137, None));
    assert_eq!(box_.log(), "");
}

#[test]
fn pods_share_namespaces_by_a_pause_process() {
    let Some(mut pause) = Box_::script("") else { return };
    pause.setup.pause = true;
    pause.setup.log_path = None;
    pause.spec.root = None;
    pause.spec.mounts.clear();
    let sandbox = pause.create().unwrap();
    sandbox.start().unwrap();
    let holder = sandbox.state().unwrap().pid;
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let Some(mut app) = Box_::script("hostname; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; echo $$")
    else {
        return;
    };
    for (kind, file) in kinds {
        let namespace = app.spec.linux.namespaces.iter_mut().find(|namespace| namespace.kind == kind).unwrap();
        *namespace = Namespace { kind: kind.to_owned(), path: format!("/proc/{holder}/ns/{file}") };
    }
    let (exit, log) = app.run();
    assert_eq!(exit.code, 0);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines[0], lines[5]), ("box", "1"));
    for (line, (_, file)) in lines[1..].iter().zip(kinds) {
        let link = fs::read_link(format!("/proc/{holder}/ns/{file}")).unwrap();
        assert_eq!(*line, link.to_str().unwrap());
    }
    assert_ne!(lines[4], fs::read_link(format!("/proc/{holder}/ns/pid")).unwrap().to_str().unwrap());
    // A shared PID namespace: the pause process is its first and reaps what is orphaned.
    app.spec.linux.namespaces[0].path = format!("/proc/{holder}/ns/pid");
    app.spec.process.args[2] = "echo $$; (sleep 0.05 &); true".to_owned();
    fs::remove_file(app.path().join("0.log")).unwrap();
    let (exit, log) = app.run();
    assert_eq!(exit.code, 0);
    assert_ne!(log.lines().next(), Some("1"));
    let watch = sandbox.watch_exit().unwrap();
    sandbox.kill(libc::SIGTERM, false).unwrap();
    assert_eq!(within(watch).code, 0);
}

#[test]
fn an_agent_may_die_and_come_back() {
    let Some(box_) = Box_::script("echo up; cat; exit 5") else { return };
    let mut box_ = box_;
    box_.setup.stdin = true;
    rubelet_shim::setup::write_bundle(box_.path(), &box_.spec, &box_.setup).unwrap();
    // A process that stands for the agent creates and starts it, then is killed.
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::stands_for_an_agent", "--nocapture", "--include-ignored"])
        .env("SHIM_TEST_BUNDLE", box_.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    box_.until_logged("up");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let Standing::Kept(shim) = Shim::attach(box_.path()).unwrap() else { panic!("not kept") };
    assert!(matches!(shim.state().unwrap().phase, Phase::Running { .. }));
    let watch = shim.watch_exit().unwrap();
    shim.close_stdin().unwrap();
    assert_eq!(within(watch).code, 5);
}

/// Run by the test above in a process of its own.
#[test]
#[ignore = "a part of an_agent_may_die_and_come_back"]
fn stands_for_an_agent() {
    let Some(bundle) = std::env::var_os("SHIM_TEST_BUNDLE") else { return };
    let program = rubelet_shim::Program::at(Path::new(env!("CARGO_BIN_EXE_rubelet-shim")), &[]).unwrap();
    let (shim, _) = Shim::create(&program, Path::new(&bundle)).unwrap();
    shim.start().unwrap();
    shim.watch_exit().unwrap().wait().unwrap();
}

#[test]
fn a_killed_shim_leaves_word_of_who_was_there() {
    let Some(mut box_) = Box_::script("echo up; sleep 1000") else { return };
    let Some(cgroups) = Cgroups::make(&["pids"]) else { return };
    box_.setup.cgroups = cgroups.0.clone();
    let _shim = box_.start();
    box_.until_logged("up");
    let birth: Birth = serde_json::from_slice(&fs::read(box_.path().join("birth.json")).unwrap()).unwrap();
    assert!(birth.is_shim_alive() && birth.is_container_alive());
    kill(birth.shim);
    until("the shim is dead", || !birth.is_shim_alive());
    let Standing::Lost(lost) = Shim::attach(box_.path()).unwrap() else { panic!("not lost") };
    assert_eq!(lost, birth);
    let exit = Shim::end_lost(box_.path(), &lost).unwrap();
    assert_eq!(exit.code, 255);
    assert!(!lost.is_container_alive() && cgroups.is_empty());
    assert_eq!(ended(box_.path()), Some(exit));
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Kills the agent, or the shim, at many moments of a creation. Whatever was reached, it is found again and can be ended, and nobody is left.
#[test]
fn whoever_is_killed_while_it_is_created() {
    const MOMENTS: u32 = 24;
    for round in 0..2 * MOMENTS {
        let Some(mut box_) = Box_::script("sleep 1000") else { return };
        let Some(cgroups) = Cgroups::make(&["pids", "devices", ""]) else { return };
        let Some(shims) = Cgroups::make(&["pids"]) else { return };
        box_.setup.cgroups = cgroups.0.clone();
        box_.setup.shim_cgroups = vec![shims.0[0].dir.clone()];
        rubelet_shim::setup::write_bundle(box_.path(), &box_.spec, &box_.setup).unwrap();
        let mut agent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "life::stands_for_an_agent", "--include-ignored"])
            .env("SHIM_TEST_BUNDLE", box_.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the agent has begun", || box_.path().join("shim.log").exists());
        if round < MOMENTS {
            until("the shim is there", || {
                fs::read_to_string(shims.0[0].dir.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
            });
        }
        std::thread::sleep(Duration::from_micros(u64::from(round % MOMENTS) * 300));
        let shim = fs::read_to_string(shims.0[0].dir.join("cgroup.procs")).unwrap();
        if let (true, Some(pid)) = (round < MOMENTS, shim.lines().next()) {
            kill(pid.parse().unwrap());
        }
        agent.kill().unwrap();
        agent.wait().unwrap();
        loop {
            let standing = Shim::attach(box_.path()).unwrap();
            println!("{round}: {standing:?}");
            match standing {
                Standing::Kept(shim) => match shim.kill(libc::SIGKILL, true) {
                    Err(ShimError::Gone { .. }) => continue, // it was about to die
                    other => other.unwrap(),
                },
                Standing::Lost(birth) => drop(Shim::end_lost(box_.path(), &birth).unwrap()),
                Standing::Ended(_) | Standing::Unborn => {}
            }
            break;
        }
        until("the container is gone", || cgroups.is_empty());
        until("the shim is gone", || shims.is_empty());
    }
}

#[test]
fn shims_outlive_the_process_that_they_are_copies_of() {
    let Some(mut box_) = Box_::script("sleep 1000") else { return };
    let shim = box_.start();
    let parent = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse::<u32>().unwrap()
    };
    let birth: Birth = serde_json::from_slice(&fs::read(box_.path().join("birth.json")).unwrap()).unwrap();
    let nursery = parent(birth.shim);
    assert_eq!(parent(nursery), std::process::id());
    kill(nursery);
    until("the shim has another parent", || parent(birth.shim) != nursery);
    assert!(matches!(shim.state().unwrap().phase, Phase::Running { .. }));
    // Another one is started for the next container.
    let Some(mut next) = Box_::script("exit 6") else { return };
    std::mem::swap(&mut next.program, &mut box_.program);
    assert_eq!(next.run().0.code, 6);
}

#[test]
fn a_bundle_has_one_shim() {
    let Some(box_) = Box_::script("sleep 1000") else { return };
    let shim = box_.start();
    assert!(matches!(Shim::create(&box_.program, box_.path()), Err(ShimError::Start { .. })));
    let watch = shim.watch_exit().unwrap();
    // A signal without a name: 34 is the first real-time signal.
    shim.kill(34, false).unwrap();
    shim.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(within(watch).signal, Some(libc::SIGKILL));
}

#[test]
fn nothing_of_a_container_is_left() {
    let Some(mut box_) = Box_::script("sleep 1000 & sleep 1000 & exit 0") else { return };
    let Some(cgroups) = Cgroups::make(&["pids", "devices", "memory", "systemd"]) else { return };
    let Some(shims) = Cgroups::make(&["pids", ""]) else { return };
    box_.setup.cgroups = cgroups.0.clone();
    box_.setup.shim_cgroups = shims.0.iter().map(|cgroup| cgroup.dir.clone()).collect();
    // With the host's PIDs the first process does not take the others along: the shim does.
    box_.spec.linux.namespaces.retain(|namespace| namespace.kind != "pid");
    let mounts_before = fs::read_to_string("/proc/self/mounts").unwrap().matches(box_.path().to_str().unwrap()).count();
    let shim = box_.create().unwrap();
    let birth: Birth = serde_json::from_slice(&fs::read(box_.path().join("birth.json")).unwrap()).unwrap();
    let inside = fs::read_to_string(cgroups.0[0].dir.join("cgroup.procs")).unwrap();
    assert_eq!(inside.trim(), birth.pid.to_string());
    for cgroup in &shims.0 {
        let pids = fs::read_to_string(cgroup.dir.join("cgroup.procs")).unwrap();
        assert!(pids.lines().any(|pid| pid == birth.shim.to_string()), "{} has {pids}", cgroup.dir.display());
    }
    let watch = shim.watch_exit().unwrap();
    shim.start().unwrap();
    assert_eq!(within(watch).code, 0);
    until("the cgroups are empty", || cgroups.is_empty());
    until("the shim is gone", || !birth.is_shim_alive());
    assert!(shims.is_empty());
    let mounts_after = fs::read_to_string("/proc/self/mounts").unwrap().matches(box_.path().to_str().unwrap()).count();
    assert_eq!((mounts_before, mounts_after), (0, 0));
    fs::remove_dir_all(box_.root()).unwrap();
}

#[test]
fn the_kernel_kills_for_memory_and_it_is_told() {
    let Some(mut box_) = Box_::script("dd if=/dev/zero of=/dev/null bs=64M count=1") else { return };
    let Some(cgroups) = Cgroups::make(&["memory"]) else { return };
    fs::write(cgroups.0[0].dir.join("memory.limit_in_bytes"), "16M").unwrap();
    box_.setup.cgroups = cgroups.0.clone();
    box_.spec.process.args = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"].map(str::to_owned).to_vec();
    let (exit, _) = box_.run();
    assert_eq!((exit.code, exit.signal, exit.oom_kills), (137, Some(9), 1));
}
