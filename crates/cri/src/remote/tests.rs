//! The hand against a small server that speaks gRPC's frames by hand, so that nothing of our client proves itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::*;

/// What the server does with a verb.
#[derive(Clone)]
enum Reply {
    Messages(Vec<Vec<u8>>),
    Status(u16, &'static str),
    /// One message, then a status that is no success.
    Broken(Vec<u8>, u16, &'static str),
    Never,
    /// The connection goes away.
    HangUp,
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// `grpc-timeout` of each verb that was asked.
type Deadlines = Arc<Mutex<HashMap<String, Option<Duration>>>>;

struct Server {
    folder: TempDir,
    deadlines: Deadlines,
    _task: Option<JoinHandle<()>>,
}

impl Server {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }

    fn remote(&self, timeout: Duration) -> Remote {
        Remote::connect(&format!("unix://{}", self.socket().display()), "", timeout).unwrap()
    }

    fn deadline(&self, verb: &str) -> Option<Duration> {
        self.deadlines.lock().unwrap()[verb]
    }

    fn start(&mut self, replies: &[(&'static str, Reply)]) {
        let replies: HashMap<_, _> = replies.iter().cloned().collect();
        let listener = UnixListener::bind(self.socket()).unwrap();
        self._task = Some(tokio::spawn(accept(listener, Arc::new(replies), self.deadlines.clone())));
    }
}

fn silent() -> Server {
    Server { folder: tempfile::tempdir().unwrap(), deadlines: Deadlines::default(), _task: None }
}

fn server(replies: &[(&'static str, Reply)]) -> Server {
    let mut server = silent();
    server.start(replies);
    server
}

async fn accept(listener: UnixListener, replies: Arc<HashMap<&'static str, Reply>>, deadlines: Deadlines) {
    while let Ok((stream, _)) = listener.accept().await {
        let (replies, deadlines) = (replies.clone(), deadlines.clone());
        let hang_up = Arc::new(tokio::sync::Notify::new());
        let hung_up = hang_up.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let verb = Path::new(request.uri().path()).file_name().unwrap().to_str().unwrap().to_owned();
            deadlines.lock().unwrap().insert(verb.clone(), timeout_of(request.headers()));
            let reply = replies.get(verb.as_str()).cloned();
            let hang_up = hang_up.clone();
            async move {
                match reply.unwrap_or(Reply::Status(12, "unknown method")) {
                    Reply::HangUp => {
                        hang_up.notify_one();
                        std::future::pending().await
                    }
                    Reply::Never => std::future::pending().await,
                    reply => Ok::<_, Infallible>(response(reply)),
                }
            }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! { _ = connection => {}, () = hung_up.notified() => {} }
        });
    }
}

fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().unwrap();
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    Some(match unit {
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        other => panic!("unit {other}"),
    })
}

fn response(reply: Reply) -> Response<Body> {
    let (messages, code, text) = match reply {
        Reply::Messages(messages) => (messages, 0, ""),
        Reply::Broken(message, code, text) => (vec![message], code, text),
        Reply::Status(code, text) => (vec![], code, text),
        Reply::Never | Reply::HangUp => unreachable!("answered above"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let mut frames: Vec<_> = messages.into_iter().map(|message| Ok(Frame::data(framed(&message)))).collect();
    frames.push(Ok(Frame::trailers(trailers)));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    Response::builder().header("content-type", "application/grpc").body(BodyExt::boxed(body)).unwrap()
}

/// gRPC's frame: not compressed, length, message.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_answer_is_decoded() {
    let wanted = cri::VersionResponse { version: "0.1.0".into(), ..Default::default() };
    let server = server(&[("Version", Reply::Messages(vec![wanted.encode_to_vec()]))]);
    assert_eq!(server.remote(MINUTE).version().await, Ok(wanted));
}

#[tokio::test]
async fn a_status_becomes_an_error_in_gos_words() {
    let server = server(&[("ContainerStatus", Reply::Status(5, "container %22a%22: not found"))]);
    let error = server.remote(MINUTE).container_status(&"a".into(), false).await.unwrap_err();
    assert_eq!(error.to_string(), r#"rpc error: code = NotFound desc = container "a": not found"#);
    assert!(error.is_not_found());
    let error = server.remote(MINUTE).runtime_config().await.unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
}

#[tokio::test]
async fn a_pull_that_fails_without_a_code_is_shown_without_one() {
    let server = server(&[("PullImage", Reply::Status(2, "RegistryUnavailable: try later"))]);
    let error = server.remote(MINUTE).pull_image(cri::ImageSpec::default(), None, None).await.unwrap_err();
    assert_eq!(error.to_string(), "RegistryUnavailable: try later");
}

#[tokio::test]
async fn an_answer_without_what_was_asked_for_is_an_error() {
    let server = server(&[
        ("PullImage", Reply::Messages(vec![vec![]])),
        ("RunPodSandbox", Reply::Messages(vec![vec![]])),
        ("CreateContainer", Reply::Messages(vec![vec![]])),
        ("Status", Reply::Messages(vec![vec![]])),
        ("Exec", Reply::Messages(vec![vec![]])),
        ("Version", Reply::Messages(vec![vec![0xff]])),
    ]);
    let remote = server.remote(MINUTE);
    let image = cri::ImageSpec { image: "app:1".into(), ..Default::default() };
    let errors = [
        remote.pull_image(image, None, None).await.unwrap_err(),
        remote.run_pod_sandbox(Default::default(), "").await.unwrap_err(),
        remote.create_container(&"s".into(), Default::default(), Default::default()).await.unwrap_err(),
        remote.status(false).await.unwrap_err(),
        remote.exec(Default::default()).await.unwrap_err(),
    ]
    .map(|error| error.to_string());
    assert_eq!(
        errors,
        [
            "imageRef of image \"app:1\" is not set",
            "PodSandboxId is not set",
            "ContainerId is not set",
            "RuntimeReady or NetworkReady condition are not set",
            "URL is not set",
        ]
    );
    assert_eq!(remote.version().await.unwrap_err().code(), Some(Code::Internal));
}

#[tokio::test]
async fn each_verb_has_its_deadline() {
    let server = server(&[]);
    let remote = server.remote(Duration::from_secs(120));
    let id = ContainerId::from("a");
    let long = cri::CheckpointContainerRequest { timeout: 500, ..Default::default() };
    let _ = remote.version().await;
    let _ = remote.run_pod_sandbox(Default::default(), "").await;
    let _ = remote.stop_container(&id, 30).await;
    let _ = remote.pull_image(cri::ImageSpec::default(), None, None).await;
    let _ = remote.checkpoint_container(long).await;
    let _ = remote.list_images(None).await;
    let wanted = [
        ("Version", Some(120)),
        ("RunPodSandbox", Some(240)),
        ("StopContainer", Some(150)),
        ("PullImage", None),
        ("CheckpointContainer", Some(500)),
        ("ListImages", Some(120)),
    ];
    for (verb, seconds) in wanted {
        assert_eq!(server.deadline(verb), seconds.map(Duration::from_secs), "{verb}");
    }
    for (own, all) in [(0, None), (7, Some(127))] {
        let _ = remote.exec_sync(&id, vec!["true".into()], Duration::from_secs(own)).await;
        assert_eq!(server.deadline("ExecSync"), all.map(Duration::from_secs), "own {own}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_deadline_exceeded() {
    let server = server(&[("Version", Reply::Never), ("ExecSync", Reply::Never)]);
    let remote = server.remote(Duration::from_millis(20));
    let error = remote.version().await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
    let command = vec!["sleep".to_owned(), "9".to_owned()];
    let error = remote.exec_sync(&"a".into(), command, Duration::from_nanos(1)).await.unwrap_err();
    assert_eq!(error.to_string(), r#"command timed out: "sleep 9" timed out after 0s"#);
}

#[tokio::test]
async fn a_runtime_that_is_away_is_unavailable_and_found_again() {
    let mut server = silent();
    let remote = server.remote(MINUTE);
    let error = remote.version().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let dial = format!("dial unix {}: connect: no such file or directory\"", server.socket().display());
    assert!(error.to_string().contains(&dial), "{error}");

    server.start(&[("Version", Reply::Messages(vec![vec![]]))]);
    let found = async {
        while remote.version().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, found).await.expect("connected again");
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable() {
    let server = server(&[("Version", Reply::HangUp), ("ListImages", Reply::Messages(vec![vec![]]))]);
    let remote = server.remote(MINUTE);
    let error = remote.version().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(remote.list_images(None).await, Ok(vec![]), "the next call connects again");
}

#[tokio::test]
async fn events_come_one_by_one_until_the_stream_breaks() {
    let event = cri::ContainerEventResponse { container_id: "a".into(), ..Default::default() };
    let server = server(&[("GetContainerEvents", Reply::Broken(event.encode_to_vec(), 14, "going down"))]);
    let remote = server.remote(MINUTE);
    let mut events = remote.container_events();
    assert_eq!(events.next().await, Some(Ok(event)));
    assert!(events.next().await.unwrap().unwrap_err().is_unavailable());
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_runtime_without_events_says_so_in_the_first_item() {
    let server = server(&[]);
    let mut events = server.remote(MINUTE).container_events();
    let error = events.next().await.unwrap().unwrap_err();
    assert!(error.is_unimplemented(), "{error}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn images_may_be_at_another_socket() {
    let runtime = server(&[("Version", Reply::Messages(vec![vec![]]))]);
    let images = server(&[("ListImages", Reply::Messages(vec![vec![]]))]);
    let (at, images_at) = (runtime.socket(), images.socket());
    let remote = Remote::connect(at.to_str().unwrap(), images_at.to_str().unwrap(), MINUTE).unwrap();
    assert!(remote.version().await.is_ok());
    assert_eq!(remote.list_images(None).await, Ok(vec![]));
}

#[tokio::test]
async fn big_lists_are_taken_and_bigger_ones_refused() {
    let list = |bytes: usize| {
        let image = cri::Image { id: "x".repeat(bytes), ..Default::default() };
        cri::ListImagesResponse { images: vec![image] }.encode_to_vec()
    };
    let big = server(&[("ListImages", Reply::Messages(vec![list(15 << 20)]))]);
    assert_eq!(big.remote(MINUTE).list_images(None).await.unwrap()[0].id.len(), 15 << 20);
    let bigger = server(&[("ListImages", Reply::Messages(vec![list(17 << 20)]))]);
    assert!(bigger.remote(MINUTE).list_images(None).await.is_err());
}
