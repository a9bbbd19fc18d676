//! The clients of Kubernetes (client-go, in Go) against the server.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::*;

/// The program in `tests/counterpart`, built once.
pub(super) async fn counterpart() -> Command {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let program = BUILT
        .get_or_init(|| async {
            let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("counterpart");
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counterpart");
            let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(folder).status();
            assert!(built.await.expect("go is installed").success());
            program
        })
        .await;
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

/// What a client of Kubernetes makes of an exec.
pub(super) async fn exec(flags: &[&str], url: &str) -> Value {
    let output = counterpart().await.arg("exec").args(flags).arg(url).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const BOTH: [&[&str]; 2] = [&[], &["-websocket"]];

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn output_and_exit_code() {
    let server = server().await;
    for transport in BOTH {
        let url = server.exec(&exec_request(&["sh", "-c", "echo out; echo err >&2; exit 42"])).unwrap();
        let expected = json!({
            "Stdout": "out\n", "Stderr": "err\n", "Error": "command terminated with exit code 42", "Code": 42,
        });
        assert_eq!(exec(transport, &url).await, expected, "{transport:?}");
        let url = server.exec(&exec_request(&["true"])).unwrap();
        let expected = json!({"Stdout": "", "Stderr": "", "Error": "", "Code": 0});
        assert_eq!(exec(transport, &url).await, expected, "{transport:?}");
        let url = server.exec(&exec_request(&["/does/not/exist"])).unwrap();
        let error = &exec(transport, &url).await["Error"];
        let text = "Internal error occurred: error executing command in container: /does/not/exist: No such file";
        assert!(error.as_str().unwrap().starts_with(text), "{transport:?}: {error}");
    }
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn input_and_its_end() {
    let server = server().await;
    let request = ExecRequest { stdin: true, ..exec_request(&["sh", "-c", "wc -c; echo done >&2"]) };
    for transport in BOTH {
        let url = server.exec(&request).unwrap();
        let flags = [transport, &["-stdin", "0123456789", "-repeat", "500000"]].concat();
        let expected = json!({"Stdout": "5000000\n", "Stderr": "done\n", "Error": "", "Code": 0});
        assert_eq!(exec(&flags, &url).await, expected, "{transport:?}");
        // What comes back while it is still being sent.
        let url = server.exec(&ExecRequest { cmd: vec!["cat".to_owned()], ..request.clone() }).unwrap();
        let answer = exec(&flags, &url).await;
        assert!(answer["Stdout"] == "0123456789".repeat(500_000), "{transport:?}: {}", answer["Error"]);
        // The process ends before it has read all.
        let url = server.exec(&ExecRequest { cmd: vec!["true".to_owned()], ..request.clone() }).unwrap();
        let answer = exec(&flags, &url).await;
        assert_eq!((&answer["Error"], &answer["Code"]), (&json!(""), &json!(0)), "{transport:?}");
    }
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn much_output_arrives_to_the_last_byte() {
    let server = server().await;
    for transport in BOTH {
        let url = server.exec(&exec_request(&["sh", "-c", "yes 123456789 | head -c 20000000; exit 7"])).unwrap();
        let answer = exec(transport, &url).await;
        let len = answer["Stdout"].as_str().unwrap().len();
        assert_eq!((len, &answer["Code"]), (20_000_000, &json!(7)), "{transport:?}");
    }
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn a_terminal_tells_its_size() {
    let server = server().await;
    let request = AttachRequest { container_id: "c".to_owned(), stdin: true, tty: true, stdout: true, stderr: false };
    for transport in BOTH {
        let url = server.attach(&request).unwrap();
        let flags = [transport, &["-tty", "-stdin", "typed\n"]].concat();
        let answer = exec(&flags, &url).await;
        let mut lines: Vec<&str> = answer["Stdout"].as_str().unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["123x45", "typed"], "{transport:?}: {answer}");
    }
}

/// A forwarder of Kubernetes and the port on which it listens.
pub(super) async fn forward(flags: &[&str], url: &str, port: u16) -> (Child, u16) {
    let mut command = counterpart().await;
    command.arg("forward").args(flags).arg(url).arg(port.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    (child, line.trim().parse().expect("a port"))
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn ports_are_forwarded() {
    let (server, echo) = (server().await, port_forward::echo().await);
    for transport in BOTH {
        let request = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: Vec::new() };
        let url = server.port_forward(&request).unwrap();
        let (mut child, local) = forward(transport, &url, echo).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            tasks.spawn(async move {
                let (mut from, mut to) = TcpStream::connect(("127.0.0.1", local)).await.unwrap().into_split();
                let writing = tokio::spawn(async move {
                    to.write_all(&vec![b'x'; 300_000]).await.unwrap();
                    to.shutdown().await.unwrap();
                    to
                });
                let mut text = String::new();
                from.read_to_string(&mut text).await.unwrap();
                writing.await.unwrap();
                (text.len(), text.ends_with("x300000"))
            });
        }
        while let Some(found) = tasks.join_next().await {
            assert_eq!(found.unwrap(), (300_006, true), "{transport:?}");
        }
        drop(child.stdin.take());
        assert!(child.wait().await.unwrap().success(), "{transport:?}");
    }
}

#[tokio::test]
#[ignore = "builds a Go program: ./x test streaming"]
async fn a_port_without_listener_is_told() {
    let server = server().await;
    for transport in BOTH {
        let request = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: Vec::new() };
        let url = server.port_forward(&request).unwrap();
        let (mut child, local) = forward(transport, &url, 1).await;
        let mut connection = TcpStream::connect(("127.0.0.1", local)).await.unwrap();
        _ = connection.read_to_end(&mut Vec::new()).await;
        drop(child.stdin.take());
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("error forwarding port 1 to pod s, uid : connection refused"), "{transport:?}: {text}");
    }
}
