//! A real control plane for a test, and a wire to it that can be cut.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rubelet_apiserver::{Client, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Runs until it is dropped, or this process ends.
pub(crate) struct Plane {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Plane {
    pub(crate) fn start(options: &[&str]) -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/controlplane/run.py");
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .arg("hold")
            .arg(folder.path())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut plane = Self { child, orders, answers, folder };
        assert_eq!(plane.answer(), "ready", "the control plane does not start; ./x test cluster says what it needs");
        plane
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// `stop`, `kill` or `start` a part: etcd, apiserver, controllers, scheduler.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer(), "done", "{order}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a kubeconfig of the folder says.
    pub(crate) fn settings(&self, name: &str) -> Settings {
        Settings::from_kubeconfig(&self.path(&format!("{name}.conf"))).unwrap()
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        Client::connect(self.settings(name)).unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.settings("admin").server.strip_prefix("https://").unwrap().parse().unwrap()
    }

    /// The etcd that is in the folder's state.
    pub(crate) fn etcd(&self) -> String {
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.path("state.json")).unwrap()).unwrap();
        format!("127.0.0.1:{}", state["ports"]["etcd"])
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// A relay in front of an address: counts connections and can be cut.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    is_whole: watch::Sender<bool>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_whole, mut state) = watch::channel(true);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            let mut relays = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut near, _) = accepted.unwrap();
                        if !*state.borrow() { continue }
                        count.fetch_add(1, Ordering::SeqCst);
                        relays.spawn(async move {
                            let Ok(mut far) = TcpStream::connect(target).await else { return };
                            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                        });
                    }
                    changed = state.changed() => {
                        if changed.is_err() { return }
                        relays.shutdown().await;
                    }
                }
            }
        });
        Self { address, connections, is_whole }
    }

    /// A client of the plane through the wire.
    pub(crate) fn client(&self, plane: &Plane, name: &str) -> Client {
        let settings = Settings { server: format!("https://{}", self.address), ..plane.settings(name) };
        Client::connect(settings).unwrap()
    }

    pub(crate) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

/// How many requests in the audit log have a text in their lines.
pub(crate) fn audited(log: &Path, text: &str) -> usize {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().filter(|line| line.contains(text));
    // A watch has a line for its beginning and one for its end.
    let ids = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["auditID"].to_string());
    ids.collect::<std::collections::BTreeSet<_>>().len()
}
