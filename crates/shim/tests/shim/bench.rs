//! How long creating and starting takes beside runc, and how much memory an idle pod takes. `--ignored`, with `--nocapture`; `SHIM_TEST_DIR` is where
//! bundles are: a tmpfs, as they are on a node.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::box_::{Box_, Cgroups, within};

/// `SHIM_PROGRAM`: a `rubelet` to measure instead of the small program of this crate.
fn other_program(box_: &mut Box_) {
    if let Some(path) = std::env::var_os("SHIM_PROGRAM") {
        box_.program = rubelet_shim::Program::at(Path::new(&path), &["shim"]).unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

const ROUNDS: usize = 30;

#[test]
#[ignore = "a measurement"]
fn create_and_start_beside_runc() {
    let Some(mut box_) = Box_::script("") else { return };
    other_program(&mut box_);
    box_.spec.process.args = vec!["/bin/sleep".to_owned(), "1000".to_owned()];
    box_.spec.linux.masked_paths =
        ["/proc/acpi", "/proc/keys", "/proc/scsi", "/proc/timer_list", "/sys/firmware"].map(str::to_owned).to_vec();
    box_.spec.linux.readonly_paths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(str::to_owned).to_vec();
    let names = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"];
    let mut ours = (Vec::new(), Vec::new());
    let mut theirs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let Some(cgroups) = Cgroups::make(&names) else { return };
        box_.setup.cgroups = cgroups.0.clone();
        let begin = Instant::now();
        let shim = box_.create().unwrap();
        ours.0.push(begin.elapsed());
        shim.start().unwrap();
        ours.1.push(begin.elapsed());
        let watch = shim.watch_exit().unwrap();
        shim.kill(9, false).unwrap();
        within(watch);
        let id = format!("rubelet-shim-bench-{}-{round}", std::process::id());
        let runc = |args: &[&str]| {
            let status = Command::new("runc")
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(status.unwrap().success(), "runc {args:?}");
        };
        let begin = Instant::now();
        runc(&["create", "--bundle", box_.path().to_str().unwrap(), &id]);
        theirs.0.push(begin.elapsed());
        runc(&["start", &id]);
        theirs.1.push(begin.elapsed());
        runc(&["delete", "--force", &id]);
    }
    let (ours, theirs) = ((median(ours.0), median(ours.1)), (median(theirs.0), median(theirs.1)));
    println!(
        "create {:.2} ms (runc {:.2}), create and start {:.2} ms (runc {:.2}): {:.2} of runc's",
        ours.0,
        theirs.0,
        ours.1,
        theirs.1,
        ours.1 / theirs.1
    );
}

fn memory(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kb = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    format!(
        "Rss {} kB, Pss {} kB, Pss_Anon {} kB, Private_Dirty {} kB",
        kb("Rss:"),
        kb("Pss:"),
        kb("Pss_Anon:"),
        kb("Private_Dirty:")
    )
}

#[test]
#[ignore = "a measurement"]
fn memory_of_idle_pods() {
    let mut pods: Vec<(Box_, rubelet_shim::Shim)> = Vec::new();
    for _ in 0..10 {
        let Some(mut pause) = Box_::script("") else { return };
        pause.setup.pause = true;
        pause.setup.log_path = None;
        pause.spec.root = None;
        pause.spec.mounts.clear();
        other_program(&mut pause);
        // All are of one agent.
        if let Some((first, _)) = pods.first_mut() {
            std::mem::swap(&mut first.program, &mut pause.program);
        }
        let shim = pause.start();
        if let Some((first, _)) = pods.first_mut() {
            std::mem::swap(&mut first.program, &mut pause.program);
        }
        pods.push((pause, shim));
    }
    for (pause, shim) in &pods {
        let birth: rubelet_shim::birth::Birth =
            serde_json::from_slice(&fs::read(pause.path().join("birth.json")).unwrap()).unwrap();
        println!("shim: {}; pause: {}", memory(birth.shim), memory(birth.pid));
        let watch = shim.watch_exit().unwrap();
        if pods.len() == 10 && std::ptr::eq(pause, &pods[9].0) {
            for (_, shim) in &pods {
                shim.kill(9, false).unwrap();
            }
            within(watch);
        }
    }
}
