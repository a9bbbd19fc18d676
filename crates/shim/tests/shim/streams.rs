//! Standard streams, logs, terminals, and programs that are run in a container.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rubelet_shim::{ExecStreams, ShimError, resize_terminal};

use crate::box_::{Box_, Cgroups, until, within};

fn text_of(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn args(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn long_lines_are_logged_in_parts_and_nothing_is_lost() {
    let Some(box_) = Box_::script("seq 1 20000 | tr '\\n' ' '; echo; seq 1 50000; echo -n end") else { return };
    let (exit, _) = box_.run();
    assert_eq!(exit.code, 0);
    let log = fs::read_to_string(box_.path().join("0.log")).unwrap();
    let rows: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 4 && row[0].ends_with('Z') && row[1] == "stdout"));
    let first: Vec<_> = rows.iter().take_while(|row| row[2] == "P").collect();
    assert_eq!(first.len(), 6, "108894 bytes in parts of 16384");
    assert!(first.iter().all(|row| row[3].len() == 16384));
    let numbers: Vec<usize> = rows[7..rows.len() - 1].iter().map(|row| row[3].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=50000).collect::<Vec<_>>());
    assert_eq!(rows.last().unwrap()[2..], ["P", "end"]);
}

#[test]
fn a_log_is_opened_anew_on_request() {
    let Some(mut box_) = Box_::script("echo one; cat; echo two") else { return };
    box_.setup.stdin = true;
    let shim = box_.start();
    box_.until_logged("one");
    fs::rename(box_.path().join("0.log"), box_.path().join("0.log.1")).unwrap();
    shim.reopen_log().unwrap();
    let watch = shim.watch_exit().unwrap();
    shim.close_stdin().unwrap();
    within(watch);
    assert_eq!(box_.log(), "two\n");
    assert!(fs::read_to_string(box_.path().join("0.log.1")).unwrap().ends_with(" F one\n"));
}

#[test]
fn who_is_attached_types_and_reads() {
    let Some(mut box_) = Box_::script("echo up; cat; echo done >&2") else { return };
    (box_.setup.stdin, box_.setup.stdin_once) = (true, true);
    let shim = box_.start();
    box_.until_logged("up");
    let attached = shim.attach_streams(true, true, true).unwrap();
    let watch = shim.watch_exit().unwrap();
    let big = "line of text\n".repeat(30_000);
    let mut typed = File::from(attached.stdin.unwrap());
    let to_type = big.clone();
    let typist = std::thread::spawn(move || typed.write_all(to_type.as_bytes()).unwrap());
    assert_eq!(text_of(attached.stdout.unwrap()), big);
    typist.join().unwrap();
    assert_eq!(text_of(attached.stderr.unwrap()), "done\n");
    assert_eq!(within(watch).code, 0);
    // The streams are logged each in its order.
    assert!(box_.log().replacen("done\n", "", 1) == format!("up\n{big}"));
}

#[test]
fn who_detaches_does_not_disturb() {
    let Some(mut box_) = Box_::script("echo up; while read x; do echo got $x; done; echo end") else { return };
    box_.setup.stdin = true;
    let shim = box_.start();
    box_.until_logged("up");
    let attached = shim.attach_streams(true, true, false).unwrap();
    File::from(attached.stdin.unwrap()).write_all(b"first\n").unwrap();
    drop(attached.stdout);
    box_.until_logged("got first");
    let again = shim.attach_streams(true, true, false).unwrap();
    File::from(again.stdin.unwrap()).write_all(b"second\n").unwrap();
    box_.until_logged("got second");
    let watch = shim.watch_exit().unwrap();
    shim.close_stdin().unwrap();
    assert_eq!(text_of(again.stdout.unwrap()), "got second\nend\n");
    assert_eq!(within(watch).code, 0);
    let Some(box_) = Box_::script("cat; sleep 1000") else { return };
    let shim = box_.start();
    assert!(matches!(shim.attach_streams(true, false, false), Err(ShimError::Refused(_))));
    let watch = shim.watch_exit().unwrap();
    shim.kill(9, false).unwrap();
    within(watch);
}

#[test]
fn a_terminal() {
    let Some(mut box_) = Box_::script("stty size; ls -l /dev/console | wc -l; read x; echo read $x; stty size; exit 4")
    else {
        return;
    };
    box_.setup.stdin = true;
    box_.spec.process.terminal = true;
    box_.spec.process.console_size = Some(rubelet_shim::spec::ConsoleSize { height: 20, width: 70 });
    let shim = box_.start();
    box_.until_logged("20 70");
    box_.until_logged("1\r");
    let attached = shim.attach_streams(true, true, false).unwrap();
    shim.resize(100, 40).unwrap();
    let watch = shim.watch_exit().unwrap();
    let mut typed = File::from(attached.stdin.unwrap());
    typed.write_all(b"hello\n").unwrap();
    assert_eq!(text_of(attached.stdout.unwrap()), "hello\r\nread hello\r\n40 100\r\n");
    assert_eq!(within(watch).code, 4);
}

#[test]
fn another_program_runs_in_the_container() {
    let Some(mut box_) = Box_::script("echo up; sleep 1000") else { return };
    let Some(cgroups) = Cgroups::make(&["pids", "systemd"]) else { return };
    box_.setup.cgroups = cgroups.0.clone();
    box_.spec.process.user.uid = 1000;
    box_.capabilities(&[]);
    let shim = box_.start();
    box_.until_logged("up");
    let run = |script: &str, input: &str| {
        let (stdin, mut typed) = std::io::pipe().unwrap();
        let (read_out, stdout) = std::io::pipe().unwrap();
        let (read_err, stderr) = std::io::pipe().unwrap();
        let streams = ExecStreams::Pipes([stdin.into(), stdout.into(), stderr.into()]);
        let running = shim.exec(&args(&["sh", "-c", script]), &args(&["MORE=more"]), streams).unwrap();
        typed.write_all(input.as_bytes()).unwrap();
        drop(typed);
        let (out, err) = (text_of(read_out.into()), text_of(read_err.into()));
        (running.wait().unwrap().code, out, err)
    };
    assert_eq!(
        run(
            "cat; hostname; id -u; echo $MORE; ls /proc | grep -c '^1$'; echo err >&2; echo x > /dev/stderr; exit 9",
            "in\n"
        ),
        (9, "in\nbox\n1000\nmore\n1\n".to_owned(), "err\nx\n".to_owned())
    );
    let (_, out, _) = run("cat /proc/self/cgroup; grep CapEff /proc/self/status", "");
    assert!(out.contains("rubelet-shim-test") && out.contains("CapEff:\t0000000000000000"), "{out}");
    assert_eq!(run("kill -9 $$", "").0, 137);
    let (reader, writer) = std::io::pipe().unwrap();
    let streams = ExecStreams::Pipes([reader.into(), writer.try_clone().unwrap().into(), writer.into()]);
    let refused = shim.exec(&args(&["nope"]), &[], streams).unwrap_err().to_string();
    assert_eq!(refused, "unable to start container process: exec: \"nope\": executable file not found in $PATH");
    let watch = shim.watch_exit().unwrap();
    shim.kill(9, true).unwrap();
    within(watch);
}

#[test]
fn a_program_with_a_terminal_of_its_own_and_one_whose_client_goes() {
    let Some(box_) = Box_::script("echo up; sleep 1000") else { return };
    let shim = box_.start();
    box_.until_logged("up");
    let script = args(&["sh", "-c", "stty size; read x; stty size; echo $x; exit 2"]);
    let mut running = shim.exec(&script, &[], ExecStreams::Terminal(Some((33, 11)))).unwrap();
    let master = running.terminal.take().unwrap();
    let mut file = File::from(master.try_clone().unwrap());
    let mut seen = String::new();
    let mut read = |until_text: &str| {
        let mut piece = [0; 256];
        while !seen.contains(until_text) {
            let count = file.read(&mut piece).unwrap();
            seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    };
    read("11 33\r\n");
    resize_terminal(&master, 44, 22).unwrap();
    File::from(master.try_clone().unwrap()).write_all(b"word\n").unwrap();
    read("22 44\r\nword\r\n");
    assert_eq!(running.wait().unwrap().code, 2);
    let running = shim.exec(&args(&["sleep", "1000"]), &[], ExecStreams::Terminal(None)).unwrap();
    let proc = std::path::PathBuf::from(format!("/proc/{}", running.pid));
    assert!(proc.exists());
    drop(running);
    until("the program without a client is gone", || !proc.exists());
    let running = shim.exec(&args(&["sleep", "1000"]), &[], ExecStreams::Terminal(None)).unwrap();
    running.kill(libc::SIGINT).unwrap();
    assert_eq!(running.wait().unwrap().signal, Some(libc::SIGINT));
    let watch = shim.watch_exit().unwrap();
    shim.kill(9, false).unwrap();
    within(watch);
}
