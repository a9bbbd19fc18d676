//! Containers that are this machine: commands run as they are, ports are those of the loopback.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process;

use rubelet_streaming::{Answer, Command, Containers, Failure, Stream, Streams, Writer};

pub(super) struct Local;

impl Containers for Local {
    fn exec(&self, command: Command, streams: Streams) -> Answer<Result<i32, Failure>> {
        Box::pin(exec(command, streams))
    }

    /// Writes what it reads, and each size of the terminal, which it needs first.
    fn attach(&self, container: String, is_tty: bool, mut streams: Streams) -> Answer<Result<(), Failure>> {
        Box::pin(async move {
            if container == "gone" {
                return Err("container not found".into());
            }
            let mut stdout = streams.stdout.take().ok_or("no stdout")?;
            let mut buffer = vec![0; 4096];
            let mut stdin = streams.stdin.take().ok_or("no stdin")?;
            let mut has_size = !is_tty;
            loop {
                tokio::select! {
                    Some(size) = streams.resizes.next() => {
                        has_size = true;
                        stdout.write_all(format!("{}x{}\n", size.width, size.height).as_bytes()).await?;
                    }
                    len = stdin.read(&mut buffer), if has_size => match len? {
                        0 => return Ok(()),
                        len => stdout.write_all(&buffer[..len]).await?,
                    },
                }
            }
        })
    }

    fn port_forward(&self, _sandbox: String, port: u16, mut stream: Stream) -> Answer<Result<(), Failure>> {
        Box::pin(async move {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).await.map_err(|_| "connection refused")?;
            tokio::io::copy_bidirectional(&mut stream, &mut connection).await?;
            Ok(())
        })
    }
}

async fn exec(command: Command, streams: Streams) -> Result<i32, Failure> {
    let (program, args) = command.argv.split_first().ok_or("no command")?;
    let mut child = process::Command::new(program)
        .args(args)
        .stdin(if streams.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = tokio::spawn(async move {
        if let (Some(mut from), Some(mut to)) = (streams.stdin, stdin) {
            _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let copy = async |from: Option<&mut (dyn tokio::io::AsyncRead + Send + Unpin)>, to: Option<Writer>| {
        if let (Some(from), Some(mut to)) = (from, to) {
            _ = tokio::io::copy(from, &mut to).await;
        }
    };
    let (mut stdout, mut stderr) = (stdout, stderr);
    tokio::join!(
        copy(stdout.as_mut().map(|from| from as _), streams.stdout),
        copy(stderr.as_mut().map(|from| from as _), streams.stderr)
    );
    let status = child.wait().await?;
    input.abort();
    Ok(status.code().unwrap_or(137))
}
