//! The program as it is started by people and scripts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

fn start(name: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rubelet")).arg0(name).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn version_and_help_go_to_stdout() {
    let plain = start("kubelet", &["--version", "--port=1"]);
    assert!(plain.status.success());
    assert_eq!(text(&plain.stdout), "Kubernetes v1.36.3+rubelet.1\n");
    let raw = start("kubelet", &["--version=raw"]);
    assert!(text(&raw.stdout).starts_with("version.Info{Major:\"1\", Minor:\"36\""));
    let help = start("kubelet", &["-h"]);
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(text(&help.stdout).contains("\nUsage:\n  kubelet [flags]\n"));
    assert!(text(&start("/opt/rubelet", &["--help"]).stdout).contains("\nUsage:\n  rubelet [flags]\n"));
}

/// The lines on stderr without klog's header.
fn refusal(name: &str, arguments: &[&str]) -> Vec<String> {
    let output = start(name, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty());
    text(&output.stderr).lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn refusals_go_to_stderr_and_end_with_1() {
    for name in ["kubelet", "rubelet"] {
        assert_eq!(
            refusal(name, &["--network-plugin=cni"]),
            ["\"command failed\" err=\"failed to parse kubelet flag: unknown flag: --network-plugin\""]
        );
        assert_eq!(refusal(name, &["-v=2", "serve"]), ["\"command failed\" err=\"unknown command serve\""]);
    }
    let lines = refusal("kubelet", &["--max_pods=3", "--max-pods=4", "--bogus"]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("Flag --max-pods has been deprecated, This parameter should be set via the config file")
    );
}

#[test]
fn the_header_is_klog_s() {
    let output = start("kubelet", &["--bogus"]);
    let line = text(&output.stderr);
    let (header, _) = line.split_once("] ").unwrap();
    let words: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(words.len(), 4, "{header}");
    assert!(words[0].starts_with('E') && words[0].len() == 5, "{header}");
    assert_eq!(words[1].len(), "17:19:54.123456".len(), "{header}");
    assert!(words[2].parse::<u32>().is_ok() && words[3].contains(".rs:"), "{header}");
}
