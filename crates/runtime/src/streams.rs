//! Streams of containers: the end of a program that runs in one, logs that are opened anew; exec, attach and port-forward by URL.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rubelet_cri::Code;
use rubelet_host::ready::{Channel, readable};
use rubelet_proto::cri;
use rubelet_shim::wire::Exit;
use rubelet_shim::{ExecStreams, Execution, Shim, Standing};
use rubelet_streaming::server::{ListenError, Options, RequestError};
use rubelet_streaming::{Answer, Command, Containers, Failure, Reader, Server, Stream, Streams, Writer};
use tokio::io::{AsyncRead, AsyncWriteExt};

use crate::embedded::Engine;
use crate::pods::{Container, Life, SandboxLife};
use crate::relay::relay;
use crate::verbs::status::container_state;
use crate::verbs::{Doing, Refusal, exec_sync};

/// How long a port of a pod may take to answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How a program that runs in a container ended, when it has; dropped before, it kills the program.
pub(crate) async fn ended(program: Execution) -> io::Result<Exit> {
    readable(&program).await?;
    // What is readable is its end.
    rubelet_host::task::blocking(move || program.wait()).await?.map_err(io::Error::other)
}

/// Opens a container's log anew, after it was renamed.
pub(crate) async fn reopen_log(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    let bundle = engine.places.container(container.id.as_str());
    engine
        .blocking(move |engine| match Shim::attach(&bundle).doing("failed to reopen the container's log")? {
            Standing::Kept(shim) => {
                engine.reached("reopen.found");
                shim.reopen_log().doing("failed to reopen the container's log")?;
                engine.reached("reopen.reopened");
                Ok(())
            }
            Standing::Ended(_) | Standing::Lost(_) | Standing::Unborn => {
                Err(Refusal::unknown("container is not running"))
            }
        })
        .await
}

/// Listens for those who have a URL.
pub(crate) async fn serve(engine: &Arc<Engine>) -> Result<Server, ListenError> {
    // The engine owns the server: the server does not own the engine.
    Server::listen(Options::default(), Arc::new(Ends(Arc::downgrade(engine)))).await
}

fn refusal(error: &RequestError) -> Refusal {
    let code = match error {
        RequestError::Invalid(_) => Code::InvalidArgument,
        RequestError::TooMany => Code::ResourceExhausted,
        RequestError::NoToken => Code::Unknown,
    };
    Refusal::new(code, error.to_string())
}

/// The server, which is there as long as verbs are.
fn server(engine: &Engine) -> Result<&Server, Refusal> {
    engine.streams.get().ok_or_else(|| Refusal::internal("streams are not served"))
}

fn running(engine: &Engine, id: &str) -> Result<Arc<Container>, Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    match container.life() {
        Life::Running { .. } => Ok(container),
        life => Err(Refusal::unknown(format!("container is in {} state", container_state(&life).as_str_name()))),
    }
}

pub(crate) fn exec(engine: &Engine, mut request: cri::ExecRequest) -> Result<String, Refusal> {
    request.container_id = running(engine, &request.container_id)?.id.to_string();
    server(engine)?.exec(&request).map_err(|e| refusal(&e))
}

pub(crate) fn attach(engine: &Engine, mut request: cri::AttachRequest) -> Result<String, Refusal> {
    request.container_id = running(engine, &request.container_id)?.id.to_string();
    server(engine)?.attach(&request).map_err(|e| refusal(&e))
}

pub(crate) fn port_forward(engine: &Engine, mut request: cri::PortForwardRequest) -> Result<String, Refusal> {
    let id = &request.pod_sandbox_id;
    let sandbox = engine.pods().sandbox(id).ok_or_else(|| Refusal::no_sandbox(id))?;
    if sandbox.life() == SandboxLife::NotReady {
        return Err(Refusal::unknown(format!("sandbox container {:?} is not running", sandbox.id.as_str())));
    }
    request.pod_sandbox_id = sandbox.id.to_string();
    server(engine)?.port_forward(&request).map_err(|e| refusal(&e))
}

/// Where streams end: in processes of containers and ports of pods.
struct Ends(Weak<Engine>);

impl Ends {
    fn engine(&self) -> Result<Arc<Engine>, Failure> {
        self.0.upgrade().ok_or_else(|| "the runtime is ending".into())
    }
}

impl Containers for Ends {
    fn exec(&self, command: Command, streams: Streams) -> Answer<Result<i32, Failure>> {
        let engine = self.engine();
        Box::pin(async move {
            match command.is_tty {
                true => exec_with_terminal(&engine?, command, streams).await,
                false => exec_with_pipes(&engine?, command, streams).await,
            }
        })
    }

    fn attach(&self, container: String, is_tty: bool, streams: Streams) -> Answer<Result<(), Failure>> {
        let engine = self.engine();
        Box::pin(async move { attach_to(&engine?, &container, is_tty, streams).await })
    }

    fn port_forward(&self, sandbox: String, port: u16, stream: Stream) -> Answer<Result<(), Failure>> {
        let engine = self.engine();
        Box::pin(async move { forward(&engine?, &sandbox, port, stream).await })
    }
}

fn failure(refusal: Refusal) -> Failure {
    refusal.message.into()
}

/// Passes on what is read until its end. When nobody takes it any more it is read all the same, so that its writer is not held up.
async fn pass(mut from: impl AsyncRead + Unpin, to: Option<Writer>) {
    if let Some(mut to) = to {
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

/// Passes on what a client writes, to the client's end or the reader's.
async fn feed(from: Option<Reader>, to: Option<Channel>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

async fn exec_with_pipes(engine: &Arc<Engine>, command: Command, streams: Streams) -> Result<i32, Failure> {
    let (their_stdin, stdin) = match &streams.stdin {
        Some(_) => {
            let (reader, writer) = io::pipe()?;
            (OwnedFd::from(reader), Some(Channel::new(writer.into())?))
        }
        None => (File::open("/dev/null")?.into(), None),
    };
    let output = |is_wanted: bool| -> io::Result<(OwnedFd, Option<Channel>)> {
        if !is_wanted {
            return Ok((File::options().write(true).open("/dev/null")?.into(), None));
        }
        let (reader, writer) = io::pipe()?;
        Ok((writer.into(), Some(Channel::new(reader.into())?)))
    };
    let (their_stdout, stdout) = output(streams.stdout.is_some())?;
    let (their_stderr, stderr) = output(streams.stderr.is_some())?;
    let pipes = ExecStreams::Pipes([their_stdin, their_stdout, their_stderr]);
    let execution = exec_sync::execute(engine, &command.container, command.argv, pipes).await.map_err(failure)?;
    let feeding = rubelet_host::task::spawn(feed(streams.stdin, stdin));
    let outputs = async {
        tokio::join!(pass_some(stdout, streams.stdout), pass_some(stderr, streams.stderr));
    };
    let (exit, ()) = tokio::join!(ended(execution), outputs);
    feeding.abort();
    Ok(exit?.code)
}

async fn pass_some(from: Option<Channel>, to: Option<Writer>) {
    if let Some(from) = from {
        pass(from, to).await;
    }
}

async fn exec_with_terminal(engine: &Arc<Engine>, command: Command, mut streams: Streams) -> Result<i32, Failure> {
    let terminal = ExecStreams::Terminal(None);
    let mut execution =
        exec_sync::execute(engine, &command.container, command.argv, terminal).await.map_err(failure)?;
    let terminal = execution.terminal.take().ok_or("the program has no terminal")?;
    let output = Channel::new(terminal)?;
    let (input, sizes) = (output.again()?, output.again()?);
    let feeding = rubelet_host::task::spawn(feed(streams.stdin, Some(input)));
    let resizing = rubelet_host::task::spawn(async move {
        while let Some(size) = streams.resizes.next().await {
            let _ = rubelet_shim::resize_terminal(sizes.get_ref(), size.width, size.height);
        }
    });
    // A client that leaves hangs up: the program hears that its terminal is gone.
    let mut hang_up = streams.hang_up;
    let leaving = [feeding.abort_handle(), resizing.abort_handle()];
    let passing = async move {
        tokio::select! {
            () = pass(output, streams.stdout) => {}
            () = hang_up.wait() => {}
        }
        leaving.iter().for_each(tokio::task::AbortHandle::abort);
    };
    let (exit, ()) = tokio::join!(ended(execution), passing);
    Ok(exit?.code)
}

async fn attach_to(engine: &Arc<Engine>, id: &str, is_tty: bool, mut streams: Streams) -> Result<(), Failure> {
    let container = running(engine, id).map_err(failure)?;
    let bundle = engine.places.container(container.id.as_str());
    let wanted = (streams.stdin.is_some(), streams.stdout.is_some(), streams.stderr.is_some() && !is_tty);
    let (shim, attached) = engine
        .blocking(move |_| match Shim::attach(&bundle).doing("failed to attach")? {
            Standing::Kept(shim) => {
                let attached = shim.attach_streams(wanted.0, wanted.1, wanted.2).doing("failed to attach")?;
                Ok((shim, attached))
            }
            Standing::Ended(_) | Standing::Lost(_) | Standing::Unborn => {
                Err(Refusal::unknown("container is not running"))
            }
        })
        .await
        .map_err(failure)?;
    engine.reached("attach.attached");
    let channel = |fd: Option<OwnedFd>| fd.map(Channel::new).transpose();
    let (stdin, stdout, stderr) = (channel(attached.stdin)?, channel(attached.stdout)?, channel(attached.stderr)?);
    let feeding = rubelet_host::task::spawn(feed(streams.stdin.take(), stdin));
    let resizing = rubelet_host::task::spawn(async move {
        while let Some(size) = streams.resizes.next().await {
            let _ = shim.resize(size.width, size.height);
        }
    });
    let outputs = async {
        tokio::join!(pass_some(stdout, streams.stdout), pass_some(stderr, streams.stderr));
        // Who wants input only is attached until the container has ended.
        container.ended().await;
    };
    tokio::select! {
        () = outputs => {}
        () = streams.hang_up.wait() => {}
    }
    feeding.abort();
    resizing.abort();
    Ok(())
}

async fn forward(engine: &Arc<Engine>, id: &str, port: u16, stream: Stream) -> Result<(), Failure> {
    let sandbox = engine.pods().sandbox(id).ok_or_else(|| failure(Refusal::no_sandbox(id)))?;
    let netns = sandbox.record().netns.clone();
    let connect = move || {
        let inside = move || {
            let hosts = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            let tried = hosts.map(|host| TcpStream::connect_timeout(&(host, port).into(), CONNECT_PATIENCE));
            let [four, six] = tried;
            four.or_else(|error| six.map_err(|_| error))
        };
        match netns.is_empty() {
            true => inside(),
            false => rubelet_host::netns::within(Path::new(&netns), inside),
        }
    };
    let connection = rubelet_host::task::blocking(connect).await?;
    let connection = connection.map_err(|e| format!("failed to connect to localhost:{port} inside the pod: {e}"))?;
    engine.reached("forward.connected");
    connection.set_nonblocking(true)?;
    let connection = tokio::net::TcpStream::from_std(connection)?;
    Ok(relay(stream.split(), connection.into_split()).await?)
}
