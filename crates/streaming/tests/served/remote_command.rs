use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use rubelet_streaming::Reader;
use rubelet_streaming::client::Process;
use rubelet_streaming::spdy::Connection;

async fn start(url: &str, wanted: client::Wanted, protocol: &str) -> (Connection, Process) {
    let url = url.parse().unwrap();
    let io = client::dial(&url).await.unwrap();
    let (connection, chosen) =
        client::spdy(io, &url, &["v9.channel.k8s.io", protocol], spdy::Options::default()).await.unwrap();
    assert_eq!(chosen, protocol);
    let process = client::process(&connection, wanted).await.unwrap();
    (connection, process)
}

const OUTPUT: client::Wanted = client::Wanted { stdin: false, stdout: true, stderr: true, resize: false };

async fn all(reader: Option<Reader>) -> String {
    let mut text = String::new();
    reader.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_command_writes_and_its_exit_code_comes_back() {
    let server = server().await;
    let url = server.exec(&exec_request(&["sh", "-c", "echo out; echo err >&2; exit 3"])).unwrap();
    let (connection, process) = start(&url, OUTPUT, "v4.channel.k8s.io").await;
    assert_eq!(all(process.stdout).await, "out\n");
    assert_eq!(all(process.stderr).await, "err\n");
    let text = "error executing command [sh -c echo out; echo err >&2; exit 3], exit code 3".to_owned();
    assert_eq!(client::end(process.error).await, Ok(Status::Exited { code: 3, text }));
    connection.close().await;
}

#[tokio::test]
async fn before_version_4_the_end_is_a_text() {
    let server = server().await;
    for protocol in ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let url = server.exec(&exec_request(&["false"])).unwrap();
        let (_connection, process) = start(&url, OUTPUT, protocol).await;
        let text = "command terminated with non-zero exit code: error executing command [false], exit code 1";
        assert_eq!(all(Some(process.error)).await, text);
        let url = server.exec(&exec_request(&["true"])).unwrap();
        let (_connection, process) = start(&url, OUTPUT, protocol).await;
        assert_eq!(all(Some(process.error)).await, "");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_internal_error() {
    let server = server().await;
    let url = server.exec(&exec_request(&["/does/not/exist"])).unwrap();
    let (_connection, process) = start(&url, OUTPUT, "v4.channel.k8s.io").await;
    let text = "error executing command in container: /does/not/exist: No such file or directory (os error 2)";
    assert_eq!(client::end(process.error).await, Ok(Status::Internal(text.to_owned())));
}

#[tokio::test]
async fn much_input_comes_back_whole_and_its_end_arrives() {
    let server = server().await;
    let request = ExecRequest { stdin: true, stderr: false, ..exec_request(&["cat"]) };
    let url = server.exec(&request).unwrap();
    let wanted = client::Wanted { stdin: true, stderr: false, ..OUTPUT };
    let (connection, process) = start(&url, wanted, "v5.channel.k8s.io").await;
    let sent: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut stdin, copy) = (process.stdin.unwrap(), sent.clone());
    let writing = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    process.stdout.unwrap().read_to_end(&mut received).await.unwrap();
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    writing.await.unwrap();
    assert_eq!(client::end(process.error).await, Ok(Status::Success));
    connection.close().await;
}

#[tokio::test]
async fn attach_carries_input_and_sizes() {
    let server = server().await;
    let request = AttachRequest { container_id: "c".to_owned(), tty: true, stdin: true, stdout: true, stderr: false };
    let url = server.attach(&request).unwrap();
    let wanted = client::Wanted { stdin: true, stdout: true, stderr: false, resize: true };
    let (_connection, mut process) = start(&url, wanted, "v4.channel.k8s.io").await;
    let (mut stdout, mut stdin) = (process.stdout.take().unwrap(), process.stdin.take().unwrap());
    let mut buffer = [0; 6];
    process.resize.as_mut().unwrap().write_all(b"{\"Width\":80,\"Height\":24}").await.unwrap();
    stdout.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"80x24\n");
    stdin.write_all(b"hello\n").await.unwrap();
    stdout.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello\n");
    stdin.shutdown().await.unwrap();
    assert_eq!(client::end(process.error).await, Ok(Status::Success));

    let url = server.attach(&AttachRequest { container_id: "gone".to_owned(), ..request }).unwrap();
    let (_connection, process) = start(&url, wanted, "v4.channel.k8s.io").await;
    let text = "error attaching to container: container not found".to_owned();
    assert_eq!(client::end(process.error).await, Ok(Status::Internal(text)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_too_few_streams_is_let_go() {
    let server = server().await;
    let url = server.exec(&exec_request(&["true"])).unwrap().parse().unwrap();
    let io = client::dial(&url).await.unwrap();
    let (connection, _) = client::spdy(io, &url, &["v4.channel.k8s.io"], spdy::Options::default()).await.unwrap();
    let few = client::Wanted { stdout: true, ..client::Wanted::default() };
    let process = client::process(&connection, few).await.unwrap();
    assert_eq!(all(process.stdout).await, "");
}
