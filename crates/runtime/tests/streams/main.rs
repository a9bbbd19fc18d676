//! Streams of containers through the embedded runtime's server, by a client of CRI; and a disk that is full. Needs root and busybox.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it is its own harness, and speaks as the usual one")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::Uri;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_cri::Runtime;
use rubelet_proto::cri;
use rubelet_runtime::{Embedded, Options};
use rubelet_streaming::client::{self, Process, Wanted};
use rubelet_streaming::{Status, spdy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "../shared/archive.rs"]
mod archive;

use archive::{IMAGE, archive};

const PARENT: &str = "/rubelet-streams-test";
const V4: &str = "v4.channel.k8s.io";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if let Some(arguments) = rubelet_shim::called() {
        return rubelet_shim::main(&arguments);
    }
    let tests: [(&str, fn()); 5] = [
        ("commands_with_pipes", commands_with_pipes),
        ("a_command_with_a_terminal", a_command_with_a_terminal),
        ("attached_to_the_first_process", attached_to_the_first_process),
        ("ports_of_a_pod", ports_of_a_pod),
        ("a_disk_that_is_full", a_disk_that_is_full),
    ];
    println!("\nrunning {} tests", tests.len());
    let mut failed = 0;
    for (name, test) in tests {
        let is_ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        failed += usize::from(!is_ok);
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        tests.len() - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A pod with one container, on the host's network.
struct Pod {
    embedded: Embedded,
    sandbox: SandboxId,
    container: ContainerId,
    _dir: tempfile::TempDir,
}

/// Runs a test with a pod, and takes it down again.
fn with_pod(script: &str, shape: fn(&mut cri::ContainerConfig), test: impl AsyncFnOnce(&Pod)) {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/busybox").exists() {
        println!("not run: it needs root and /usr/bin/busybox (apt-get install busybox-static)");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let pod = start(script, shape).await;
        let done = tokio::time::timeout(PATIENCE, test(&pod)).await;
        pod.embedded.stop_pod_sandbox(&pod.sandbox).await.unwrap();
        pod.embedded.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        let tree = rubelet_host::cgroup::Tree::detect(rubelet_host::cgroup::Driver::Cgroupfs, "/").unwrap();
        tree.remove(PARENT).unwrap();
        done
    });
    assert!(done.is_ok(), "it takes too long");
}

async fn start(script: &str, shape: fn(&mut cri::ContainerConfig)) -> Pod {
    let dir = tempfile::tempdir().unwrap();
    let embedded = Embedded::start(Options::at(&dir.path().join("root"), &dir.path().join("run"))).await.unwrap();
    let (images, archive) = (embedded.images().clone(), archive());
    tokio::task::spawn_blocking(move || images.import(archive.as_slice(), "test", false)).await.unwrap().unwrap();
    let metadata =
        cri::PodSandboxMetadata { name: "pod".into(), uid: "uid".into(), namespace: "default".into(), attempt: 0 };
    let host = cri::NamespaceOption { network: cri::NamespaceMode::Node.into(), ..Default::default() };
    let security = cri::LinuxSandboxSecurityContext { namespace_options: Some(host.clone()), ..Default::default() };
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: PARENT.into(),
        security_context: Some(security),
        ..Default::default()
    };
    let config = cri::PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..Default::default() };
    let sandbox = embedded.run_pod_sandbox(config.clone(), "").await.unwrap();
    let security = cri::LinuxContainerSecurityContext { namespace_options: Some(host), ..Default::default() };
    let mut container = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        linux: Some(cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    };
    shape(&mut container);
    let container = embedded.create_container(&sandbox, container, config).await.unwrap();
    embedded.start_container(&container).await.unwrap();
    Pod { embedded, sandbox, container, _dir: dir }
}

impl Pod {
    async fn open(&self, url: &str, protocol: &str) -> spdy::Connection {
        let url: Uri = url.parse().unwrap();
        let io = client::dial(&url).await.unwrap();
        let (connection, chosen) = client::spdy(io, &url, &[protocol], spdy::Options::default()).await.unwrap();
        assert_eq!(chosen, protocol);
        connection
    }

    async fn exec(&self, script: &str, wanted: Wanted, tty: bool) -> (spdy::Connection, Process) {
        let request = cri::ExecRequest {
            container_id: self.container.to_string(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let url = self.embedded.exec(request).await.unwrap();
        let connection = self.open(&url, V4).await;
        let process = client::process(&connection, wanted).await.unwrap();
        (connection, process)
    }
}

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, resize: false };

async fn text(stream: Option<rubelet_streaming::Reader>) -> String {
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

fn commands_with_pipes() {
    with_pod(
        "exec sleep 1000",
        |_| (),
        async |pod| {
            let (_connection, mut process) = pod.exec("cat; echo done >&2; exit 7", ALL, false).await;
            let mut stdin = process.stdin.take().unwrap();
            let long = "0123456789".repeat(100_000);
            let sent = long.clone();
            let writing = tokio::spawn(async move {
                stdin.write_all(sent.as_bytes()).await.unwrap();
                stdin.shutdown().await.unwrap();
            });
            assert!(text(process.stdout.take()).await == long, "what goes in comes out");
            assert_eq!(text(process.stderr.take()).await, "done\n");
            writing.await.unwrap();
            let end = client::end(process.error).await.unwrap();
            assert!(matches!(end, Status::Exited { code: 7, .. }), "{end:?}");
            let refused = cri::ExecRequest { container_id: "none".into(), stdout: true, ..Default::default() };
            let error = pod.embedded.exec(refused).await.unwrap_err();
            assert!(error.is_not_found(), "{error}");
        },
    );
}

fn a_command_with_a_terminal() {
    with_pod(
        "exec sleep 1000",
        |_| (),
        async |pod| {
            let wanted = Wanted { stdin: true, stdout: true, stderr: false, resize: true };
            let (_connection, mut process) = pod.exec("read line; stty size; echo got $line", wanted, true).await;
            process.resize.as_mut().unwrap().write_all(br#"{"Width":91,"Height":33}"#).await.unwrap();
            // The size arrives before the line does: the program waits for the line.
            process.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
            let said = text(process.stdout.take()).await;
            assert!(said.contains("got word\r\n"), "{said:?}");
            assert_eq!(client::end(process.error).await.unwrap(), Status::Success);
        },
    );
}

fn attached_to_the_first_process() {
    let shape = |config: &mut cri::ContainerConfig| (config.stdin, config.stdin_once) = (true, true);
    with_pod("while read line; do echo out $line; echo err $line >&2; done; exit 3", shape, async |pod| {
        let request = cri::AttachRequest {
            container_id: pod.container.to_string(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let url = pod.embedded.attach(request).await.unwrap();
        let connection = pod.open(&url, V4).await;
        let mut process = client::process(&connection, ALL).await.unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").await.unwrap();
        stdin.shutdown().await.unwrap();
        assert_eq!(text(process.stdout.take()).await, "out one\nout two\n");
        assert_eq!(text(process.stderr.take()).await, "err one\nerr two\n");
        assert_eq!(client::end(process.error).await.unwrap(), Status::Success);
    });
}

fn ports_of_a_pod() {
    with_pod(
        "exec sleep 1000",
        |_| (),
        async |pod| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = String::new();
                stream.read_to_string(&mut asked).await.unwrap();
                stream.write_all(format!("heard {asked}").as_bytes()).await.unwrap();
            });
            let request = cri::PortForwardRequest { pod_sandbox_id: pod.sandbox.to_string(), port: Vec::new() };
            let url = pod.embedded.port_forward(request).await.unwrap();
            let connection = pod.open(&url, "portforward.k8s.io").await;
            let (stream, error) = client::port(&connection, port, "0").await.unwrap();
            let (mut reader, mut writer) = stream.split();
            writer.write_all(b"word").await.unwrap();
            writer.shutdown().await.unwrap();
            let mut answer = String::new();
            reader.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "heard word");
            assert_eq!(text(Some(error)).await, "");
            serving.await.unwrap();
            // Nobody listens there any more.
            let (_stream, error) = client::port(&connection, port, "1").await.unwrap();
            let said = text(Some(error)).await;
            assert!(said.contains("failed to connect to localhost"), "{said}");
        },
    );
}

fn a_disk_that_is_full() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/busybox").exists() {
        println!("not run: it needs root and /usr/bin/busybox (apt-get install busybox-static)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = rubelet_host::mount::Tmpfs { size_bytes: Some(1 << 20), noswap: false, is_data_only: false };
    rubelet_host::mount::tmpfs(dir.path(), small).unwrap();
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let images = rubelet_runtime::image::Images::open(dir.path(), Default::default()).unwrap();
        let error = images.import(archive().as_slice(), "test", false).unwrap_err();
        let said = rubelet_host::chain(&error);
        assert!(said.contains("No space left on device"), "{said}");
        assert!(images.list(None).is_empty());
        drop(images);
        let grown =
            std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(dir.path()).status().unwrap();
        assert!(grown.success());
        let images = rubelet_runtime::image::Images::open(dir.path(), Default::default()).unwrap();
        images.import(archive().as_slice(), "test", false).unwrap();
        assert_eq!(images.list(None).len(), 1);
    }));
    rubelet_host::mount::unmount(dir.path(), rubelet_host::mount::Unmount::Lazy).unwrap();
    if let Err(panic) = tried {
        std::panic::resume_unwind(panic);
    }
}
