//! A way to an API server that can be closed: connections break, and new ones hang.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(super) struct Gate {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Gate {
    /// An open way to `server`, which is `https://ADDRESS:PORT`.
    pub(super) async fn open(server: &str) -> Self {
        let target = server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let (is_open, watched) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                tokio::spawn(pass(inner, target.clone(), watched.clone()));
            }
        });
        Self { port, is_open }
    }

    pub(super) fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(super) fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub(super) fn reopen(&self) {
        self.is_open.send_replace(true);
    }
}

async fn pass(mut inner: TcpStream, target: String, mut is_open: watch::Receiver<bool>) {
    if is_open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let Ok(mut outer) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut inner, &mut outer) => {}
        _ = is_open.wait_for(|open| !*open) => {}
    }
}
