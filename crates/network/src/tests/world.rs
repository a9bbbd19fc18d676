//! A small world to try networks in: a namespace that plays the host, another one that plays everything outside.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rubelet_host::{mount, netns};

use crate::{Attached, Network, NetworkError, Options, PortMapping, Protocol, Wanted};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The host's addresses outside.
pub(super) const UPLINK: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// Those of the world.
pub(super) const WORLD: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

pub(super) struct World {
    dir: PathBuf,
}

/// Runs a test in the namespace that plays the host, with mounts of its own; says so where that is not possible.
pub(super) fn on_a_host(test: impl FnOnce(&World) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: networks need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let world = World { dir: dir.path().to_owned() };
    let play = || {
        mount::enter_private_namespace().unwrap();
        netns::make(&world.outside(), || Ok(())).unwrap();
        netns::make(&world.host(), || Ok(())).unwrap();
        netns::within(&world.host(), || {
            run("ip link set lo up");
            run("ip link add up0 mtu 1450 type veth peer name out0 mtu 1450");
            run(&format!("ip link set out0 netns {}", world.outside().display()));
            run("ip addr add 192.0.2.1/24 dev up0");
            run("ip addr add 2001:db8::1/64 dev up0 nodad");
            run("ip link set up0 up");
            run("ip route add default via 192.0.2.2");
            run("ip -6 route add default via 2001:db8::2");
            Ok(())
        })
        .unwrap();
        netns::within(&world.outside(), || {
            run("ip link set lo up");
            run("ip addr add 192.0.2.2/24 dev out0");
            run("ip addr add 2001:db8::2/64 dev out0 nodad");
            run("ip link set out0 up");
            Ok(())
        })
        .unwrap();
        netns::within(&world.host(), || {
            test(&world);
            Ok(())
        })
        .unwrap();
    };
    let played = std::thread::scope(|scope| scope.spawn(play).join());
    if let Err(panic) = played {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command of words; its output.
pub(super) fn run(line: &str) -> String {
    let (is_done, said) = try_run(line);
    assert!(is_done, "{line}: {said}");
    said
}

pub(super) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split(' ');
    let done = Command::new(words.next().unwrap()).args(words).output().unwrap();
    // `ip` remarks on namespaces of others that are about to go.
    let said = if done.status.success() { done.stdout } else { done.stderr };
    (done.status.success(), String::from_utf8(said).unwrap())
}

pub(super) fn is_installed(program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        eprintln!("not run: there is no {program}");
    }
    found
}

impl World {
    pub(super) fn host(&self) -> PathBuf {
        self.dir.join("host")
    }

    pub(super) fn outside(&self) -> PathBuf {
        self.dir.join("outside")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn options(&self) -> Options {
        let mut options = Options::at(&self.path("state"), &self.path("netns"));
        options.cni_conf_dir = self.path("net.d");
        options.cni_cache_dir = self.path("cache");
        options
    }

    pub(super) fn network(&self) -> Network {
        Network::open(self.options()).unwrap()
    }

    /// What there is of networks on the host: links, rules of all tables, namespaces, addresses given out, records of plugins.
    pub(super) fn inventory(&self) -> String {
        let mut links: Vec<String> =
            run("ip -o link").lines().map(|l| l.split([':', '@']).nth(1).unwrap().into()).collect();
        links.sort();
        let mut files = Vec::new();
        for dir in ["netns", "state/cni", "cache/results"] {
            for entry in std::fs::read_dir(self.path(dir)).into_iter().flatten().flatten() {
                files.push(format!("{dir}/{}", entry.file_name().to_string_lossy()));
            }
        }
        let book = std::fs::read_to_string(self.path("state/addresses.json")).unwrap_or_default();
        let pods =
            serde_json::from_str::<serde_json::Value>(&book).map_or_else(|_| "{}".into(), |b| b["pods"].to_string());
        format!("{links:?} {files:?} {pods}\n{}", run("nft list ruleset"))
    }
}

pub(super) fn port(host_port: u16, container_port: u16, protocol: Protocol) -> PortMapping {
    PortMapping { host_ip: None, host_port, container_port, protocol }
}

pub(super) struct Pod {
    pub(super) id: String,
    pub(super) ports: Vec<PortMapping>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Pod {
    pub(super) fn new(id: &str, ports: &[PortMapping]) -> Self {
        Self { id: id.to_owned(), ports: ports.to_vec(), annotations: BTreeMap::new() }
    }

    pub(super) fn attach(&self, network: &Network) -> Result<Vec<IpAddr>, NetworkError> {
        let wanted = Wanted {
            id: &self.id,
            uid: "uid",
            namespace: "default",
            name: &self.id,
            ports: self.ports.clone(),
            annotations: &self.annotations,
            dns_servers: &[],
            dns_searches: &[],
            dns_options: &[],
        };
        network.attach(&wanted).map(|Attached { addresses }| addresses)
    }

    pub(super) fn start(&self, network: &Network) -> (PathBuf, Vec<IpAddr>) {
        (network.make_namespace(&self.id).unwrap(), self.attach(network).unwrap())
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Serves connections in the background: tells each client by which address it is seen.
pub(super) fn mirror(namespace: &Path, at: &str) {
    let listener = netns::within(namespace, || TcpListener::bind(at)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let mut word = [0; 4];
            if stream.read_exact(&mut word).is_ok() {
                let _ = stream.write_all(plain(peer.ip()).to_string().as_bytes());
            }
            if STOP.load(Ordering::Relaxed) {
                return;
            }
        }
    });
}

/// The same by UDP.
pub(super) fn mirror_udp(namespace: &Path, at: &str) {
    let socket = netns::within(namespace, || UdpSocket::bind(at)).unwrap();
    std::thread::spawn(move || {
        let mut word = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut word) {
            let _ = socket.send_to(plain(peer.ip()).to_string().as_bytes(), peer);
        }
    });
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// How a server sees who asks from a namespace.
pub(super) fn ask(from: &Path, at: (&str, u16)) -> io::Result<String> {
    ask_within(from, at, PATIENCE)
}

pub(super) fn ask_within(from: &Path, at: (&str, u16), patience: Duration) -> io::Result<String> {
    let to = SocketAddr::new(at.0.parse().unwrap(), at.1);
    netns::within(from, || {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"seen")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// A socket of UDP in a namespace.
pub(super) fn client(from: &Path, at: &str) -> UdpSocket {
    let socket = netns::within(from, || UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(super) fn ask_udp(socket: &UdpSocket, at: (&str, u16)) -> io::Result<String> {
    socket.send_to(b"seen", SocketAddr::new(at.0.parse().unwrap(), at.1))?;
    let mut text = [0; 64];
    let (length, _) = socket.recv_from(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}
