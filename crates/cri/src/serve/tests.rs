//! The server with our own client, and with bytes that no client of ours sends.

use std::os::unix::fs::PermissionsExt;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use prost::Message;
use rubelet_proto::cri;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::verbs::{Reply, carry_out};
use super::*;
use crate::{Code, Remote, RuntimeError};
use echo::{Echo, Script};
use schema::{Schema, Verb};

mod echo;
mod schema;

const MINUTE: Duration = Duration::from_secs(60);

struct Served {
    folder: tempfile::TempDir,
    echo: Arc<Echo>,
    task: JoinHandle<Result<Infallible, ServeError>>,
}

impl Served {
    async fn start() -> Self {
        let (folder, echo) = (tempfile::tempdir().unwrap(), Arc::new(Echo::default()));
        let path = folder.path().join("cri.sock");
        let task = {
            let (echo, path) = (echo.clone(), path.clone());
            tokio::spawn(async move { serve(echo, &path).await })
        };
        until(async || UnixStream::connect(&path).await.is_ok()).await;
        Self { folder, echo, task }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }

    fn remote(&self) -> Remote {
        Remote::connect(self.path().to_str().unwrap(), "", MINUTE).unwrap()
    }

    /// Sends bytes as they are: status of HTTP, status of gRPC, its message, and the body.
    async fn raw(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> (u16, String, String, Bytes) {
        let stream = TokioIo::new(UnixStream::connect(self.path()).await.unwrap());
        let (mut http, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://localhost{path}")).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = http.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        connection.abort();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let told = |name| {
            let value = head.headers.get(name).or_else(|| trailers.get(name));
            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        (head.status.as_u16(), told("grpc-status"), told("grpc-message"), body.to_bytes())
    }
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, wait).await.expect("it never became so");
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// The verb of the contract behind a verb of the protocol: lists that come in pieces have none of their own.
fn behind(schema: &Schema, verb: &Verb) -> Verb {
    let name = match verb.name.as_str() {
        "StreamPodSandboxes" => "ListPodSandbox",
        "StreamContainers" => "ListContainers",
        "StreamContainerStats" => "ListContainerStats",
        "StreamPodSandboxStats" => "ListPodSandboxStats",
        "StreamPodSandboxMetrics" => "ListPodSandboxMetrics",
        "StreamImages" => "ListImages",
        other => other,
    };
    schema.verbs.iter().find(|verb| verb.name == name).unwrap().clone()
}

/// Our client drives the server, the server drives a runtime: what one end says, the other hears, in every field.
#[tokio::test]
async fn every_verbs_request_and_answer_arrive_whole() {
    let (schema, served) = (Schema::read(), Served::start().await);
    assert_eq!(schema.verbs.len(), 41, "the protocol of 1.36 has so many");
    let remote = served.remote();
    let mut seed = 1;
    for verb in schema.verbs.iter().filter(|verb| !verb.is_stream) {
        for _ in 0..5 {
            let mut request = schema.full(&verb.request, &mut seed);
            if verb.name == "Version" {
                // Ours is asked for, whatever the client of our server asked for.
                request = cri::VersionRequest { version: crate::API_VERSION.into() }.encode_to_vec();
            }
            let answer = schema.full(&verb.answer, &mut seed);
            let name: &'static str = verb.name.clone().leak();
            served.echo.will(name, Script::Answers(answer.clone()));
            let reply = carry_out(&remote, &verb.path, request.clone().into()).await;
            let Ok(Reply::One(answered)) = reply else { panic!("{name}: {:?}", reply.err()) };
            let asked = served.echo.asked.lock().unwrap().remove(name);
            assert_eq!(asked, Some(request), "the request of {name}");
            assert_eq!(answered, answer, "the answer of {name}");
        }
    }
}

#[tokio::test]
async fn lists_come_in_pieces_too() {
    let (schema, served) = (Schema::read(), Served::start().await);
    let mut seed = 1;
    let streams: Vec<&Verb> = schema.verbs.iter().filter(|verb| verb.name.starts_with("Stream")).collect();
    assert_eq!(streams.len(), 6);
    for verb in streams {
        let list = behind(&schema, verb);
        let name: &'static str = list.name.clone().leak();
        // Both answers are a list at field 1, and both requests a filter.
        let request = schema.full(&list.request, &mut seed);
        let answer = schema.full(&list.answer, &mut seed);
        served.echo.will(name, Script::Answers(answer.clone()));
        let (_, status, message, body) = served.raw(&verb.path, &[GRPC], framed(&request)).await;
        assert_eq!((status.as_str(), message.as_str()), ("0", ""), "{}", verb.name);
        assert_eq!(body, framed(&answer), "{}", verb.name);
        assert_eq!(served.echo.asked.lock().unwrap().remove(name), Some(request), "{}", verb.name);

        served.echo.will(name, Script::Answers(Vec::new()));
        let (_, status, _, body) = served.raw(&verb.path, &[GRPC], framed(&[])).await;
        assert_eq!((status.as_str(), body.len()), ("0", 0), "{}: an empty list has no pieces", verb.name);
    }
}

#[tokio::test]
async fn a_list_beyond_one_message_fits_into_pieces() {
    let served = Served::start().await;
    let image = |id: u32| cri::Image { id: format!("{id}-{}", "x".repeat(600 << 10)), ..Default::default() };
    let images: Vec<cri::Image> = (0..40).map(image).collect();
    served.echo.will("ListImages", Script::Answers(cri::ListImagesResponse { images: images.clone() }.encode_to_vec()));
    let error = served.remote().list_images(None).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
    assert!(error.message().starts_with("trying to send message larger than max ("), "{error}");

    let path = "/runtime.v1.ImageService/StreamImages";
    let (_, status, _, mut body) = served.raw(path, &[GRPC], framed(&[])).await;
    assert_eq!(status, "0");
    let mut found = Vec::new();
    let mut pieces = 0;
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let piece = body.split_to(5 + length).slice(5..);
        found.extend(cri::StreamImagesResponse::decode(piece).unwrap().images);
        pieces += 1;
    }
    assert_eq!((found, pieces), (images, 20));
}

#[tokio::test]
async fn errors_keep_code_and_message() {
    let served = Served::start().await;
    let remote = served.remote();
    let codes = [
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    for code in codes {
        let error = RuntimeError::Rpc { verb: "ContainerStatus", code, message: "100% of \"a\"\nä".into() };
        served.echo.will("ContainerStatus", Script::Fails(error.clone()));
        assert_eq!(remote.container_status(&"a".into(), false).await, Err(error));
    }
    let plain = RuntimeError::Plain { verb: "PullImage", message: "RegistryUnavailable: try later".into() };
    served.echo.will("PullImage", Script::Fails(plain.clone()));
    assert_eq!(remote.pull_image(cri::ImageSpec::default(), None, None).await, Err(plain));
    let late = RuntimeError::CommandTimedOut { command: "sleep 9".into(), timeout: Duration::from_secs(1) };
    served.echo.will("ExecSync", Script::Fails(late.clone()));
    let command = vec!["sleep".to_owned(), "9".to_owned()];
    assert_eq!(remote.exec_sync(&"a".into(), command, Duration::from_secs(1)).await, Err(late));
}

#[tokio::test]
async fn events_come_one_by_one_and_end() {
    let (schema, served) = (Schema::read(), Served::start().await);
    let remote = served.remote();
    let event = schema.full("ContainerEventResponse", &mut 7);
    let wanted = cri::ContainerEventResponse::decode(event.as_slice()).unwrap();
    served.echo.will("GetContainerEvents", Script::Answers(event));
    let events: Vec<_> = remote.container_events().collect().await;
    assert_eq!(events, [Ok(wanted.clone()), Ok(wanted)]);

    let refused = RuntimeError::Rpc { verb: "GetContainerEvents", code: Code::Unimplemented, message: "no".into() };
    served.echo.will("GetContainerEvents", Script::Fails(refused.clone()));
    assert_eq!(remote.container_events().next().await, Some(Err(refused)));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_calls() {
    let served = Served::start().await;
    let remote = served.remote();
    let (told, mut heard) = mpsc::unbounded_channel();
    served.echo.will("PullImage", Script::Never(told.clone()));
    let mut call = remote.pull_image(cri::ImageSpec::default(), None, None);
    tokio::select! {
        _ = &mut call => panic!("it never ends"),
        begun = heard.recv() => assert_eq!(begun, Some("begun")),
    }
    drop(call);
    assert_eq!(heard.recv().await, Some("dropped"));

    served.echo.will("GetContainerEvents", Script::Never(told));
    let mut events = remote.container_events();
    assert!(events.next().await.unwrap().is_ok());
    assert_eq!(heard.recv().await, Some("begun"));
    drop(events);
    assert_eq!(heard.recv().await, Some("dropped"));
}

#[tokio::test]
async fn clients_that_open_hundreds_of_connections_and_close_none_leave_room_for_others() {
    let served = Served::start().await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(UnixStream::connect(served.path()).await.unwrap());
    }
    served.remote().version().await.unwrap();
    drop(open);
}

#[tokio::test]
async fn the_end_of_the_server_ends_its_calls_and_removes_the_socket() {
    let served = Served::start().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    served.echo.will("PullImage", Script::Never(told));
    let remote = served.remote();
    let call = tokio::spawn(async move { remote.pull_image(cri::ImageSpec::default(), None, None).await });
    assert_eq!(heard.recv().await, Some("begun"));
    served.task.abort();
    assert_eq!(heard.recv().await, Some("dropped"));
    assert!(call.await.unwrap().unwrap_err().is_unavailable());
    until(async || !served.path().exists()).await;
}

#[tokio::test]
async fn a_deadline_that_passes_drops_the_call() {
    let served = Served::start().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    served.echo.will("Version", Script::Never(told.clone()));
    served.echo.will("GetContainerEvents", Script::Never(told));
    for verb in ["Version", "GetContainerEvents"] {
        let path = format!("/runtime.v1.RuntimeService/{verb}");
        let headers = [GRPC, ("grpc-timeout", "20m")];
        let (_, status, message, _) = served.raw(&path, &headers, framed(&[])).await;
        assert_eq!((status.as_str(), message.as_str()), ("4", "context%20deadline%20exceeded"));
        assert_eq!(heard.recv().await, Some("begun"));
        assert_eq!(heard.recv().await, Some("dropped"));
    }
    let headers = [GRPC, ("grpc-timeout", "soon")];
    let (_, status, message, _) = served.raw("/runtime.v1.RuntimeService/Version", &headers, framed(&[])).await;
    assert_eq!(status, "13", "{message}");
}

#[test]
fn times_as_grpc_writes_them() {
    let read = |text| call::patience(text).map(|d| d.as_nanos());
    assert_eq!(read("1H"), Some(3_600_000_000_000));
    assert_eq!(read("2M"), Some(120_000_000_000));
    assert_eq!(read("99999999S"), Some(99_999_999_000_000_000));
    assert_eq!((read("3m"), read("4u"), read("5n")), (Some(3_000_000), Some(4_000), Some(5)));
    for wrong in ["", "S", "5", "5s", "-1S", "+1S", "100000000S", "1.5S", "ä"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_no_call_of_ours_is_refused() {
    let served = Served::start().await;
    let version = "/runtime.v1.RuntimeService/Version";
    let empty = framed(&[]);
    let told = |(_, status, message, _): (u16, String, String, Bytes)| (status, message.replace("%20", " "));
    let cases = [
        (
            "/runtime.v1.RuntimeService/Nope",
            empty.clone(),
            "12",
            "unknown method Nope for service runtime.v1.RuntimeService",
        ),
        (
            "/runtime.v1.ImageService/Version",
            empty.clone(),
            "12",
            "unknown method Version for service runtime.v1.ImageService",
        ),
        ("/runtime.v1alpha2.RuntimeService/Version", empty, "12", "unknown service runtime.v1alpha2.RuntimeService"),
        (version, Bytes::new(), "13", "unexpected EOF"),
        (version, Bytes::from_static(&[0, 0, 0, 0, 3, 1]), "13", "unexpected EOF"),
        (version, Bytes::from_static(&[0, 0, 0, 0, 0, 1]), "13", "grpc: more than one message in the request"),
        (version, Bytes::from_static(&[1, 0, 0, 0, 0]), "12", "grpc: compressed messages are not taken"),
        (
            version,
            Bytes::from_static(&[0, 1, 0, 0, 1]),
            "8",
            "grpc: received message larger than max (16777217 vs. 16777216)",
        ),
    ];
    for (path, body, status, message) in cases {
        assert_eq!(told(served.raw(path, &[GRPC], body).await), (status.to_owned(), message.to_owned()), "{path}");
    }
    let (status, message) = told(served.raw("/runtime.v1.RuntimeService/Status", &[GRPC], framed(&[0xff])).await);
    assert_eq!(status, "13");
    assert!(message.starts_with("grpc: error unmarshalling request: "), "{message}");
    let run = "/runtime.v1.RuntimeService/RunPodSandbox";
    assert_eq!(told(served.raw(run, &[GRPC], framed(&[])).await), ("3".to_owned(), "config is not set".to_owned()));
    let (http, ..) = served.raw(version, &[("content-type", "text/plain")], framed(&[])).await;
    assert_eq!(http, 415);
}

#[tokio::test]
async fn big_requests_are_taken_up_to_the_limit() {
    let served = Served::start().await;
    let config = |bytes: usize| cri::PodSandboxConfig { hostname: "x".repeat(bytes), ..Default::default() };
    let answer = cri::RunPodSandboxResponse { pod_sandbox_id: "a".into() };
    served.echo.will("RunPodSandbox", Script::Answers(answer.encode_to_vec()));
    assert!(served.remote().run_pod_sandbox(config(15 << 20), "").await.is_ok());
    let error = served.remote().run_pod_sandbox(config(17 << 20), "").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ResourceExhausted), "{error}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_sockets_file_is_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/cri.sock");
    let echo = || Arc::new(Echo::default());
    let listening = socket::Socket::listen(&path).await.unwrap();
    assert_eq!([mode(&path), mode(path.parent().unwrap()), mode(&folder.path().join("a"))], [0o660, 0o711, 0o711]);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

    let error = serve(echo(), &path).await.unwrap_err();
    assert!(matches!(error, ServeError::Taken { .. }), "{error}");
    drop(listening);
    assert!(!path.exists(), "it goes with its listener");

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket that was left behind");
    let listening = socket::Socket::listen(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listening);
    assert!(path.exists(), "another's is not removed");

    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = serve(echo(), &file).await.unwrap_err();
    assert!(matches!(error, ServeError::Prepare { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}
