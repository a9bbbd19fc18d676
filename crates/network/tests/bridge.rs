//! The built-in network on the real kernel: in a namespace that plays the host, with another one that plays the world outside.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rubelet_host::netns;
use rubelet_network::{Network, NetworkError, Options, PortMapping, Protocol, Wanted};

const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a test in a namespace of its own that plays the host; says so where that is not possible.
fn on_a_host(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: networks need root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let host = dir.path().join("host");
    netns::make(&outside, || Ok(())).unwrap();
    let done = netns::make(&host, || {
        for line in [
            "link set lo up",
            "link add up0 type veth peer name out0",
            "addr add 192.0.2.1/24 dev up0",
            "link set up0 up",
        ] {
            ip(line);
        }
        ip(&format!("link set out0 netns {}", outside.display()));
        Ok(())
    });
    done.unwrap();
    netns::within(&outside, || {
        ["link set lo up", "addr add 192.0.2.2/24 dev out0", "link set out0 up"].into_iter().for_each(ip);
        Ok(())
    })
    .unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        netns::within(&host, || {
            test(dir.path());
            Ok(())
        })
        .unwrap();
    }));
    for file in std::fs::read_dir(dir.path().join("netns")).into_iter().flatten().flatten() {
        let _ = netns::remove(&file.path());
    }
    netns::remove(&host).unwrap();
    netns::remove(&outside).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
}

fn network(dir: &Path) -> Network {
    let mut options = Options::at(&dir.join("state"), &dir.join("netns"));
    options.cni_conf_dir = dir.join("none");
    Network::open(options).unwrap()
}

struct Pod {
    id: &'static str,
    ports: Vec<PortMapping>,
    annotations: BTreeMap<String, String>,
}

impl Pod {
    fn new(id: &'static str, ports: &[(u16, u16, Protocol)]) -> Self {
        let port = |(host_port, container_port, protocol): &(u16, u16, Protocol)| PortMapping {
            host_ip: None,
            host_port: *host_port,
            container_port: *container_port,
            protocol: *protocol,
        };
        Self { id, ports: ports.iter().map(port).collect(), annotations: BTreeMap::new() }
    }

    fn attach(&self, network: &Network) -> Result<Vec<IpAddr>, NetworkError> {
        let wanted = Wanted {
            id: self.id,
            uid: "uid",
            namespace: "default",
            name: self.id,
            ports: self.ports.clone(),
            annotations: &self.annotations,
            dns_servers: &[],
            dns_searches: &[],
            dns_options: &[],
        };
        network.attach(&wanted).map(|attached| attached.addresses)
    }

    fn start(&self, network: &Network) -> (PathBuf, Vec<IpAddr>) {
        (network.make_namespace(self.id).unwrap(), self.attach(network).unwrap())
    }
}

/// Serves one connection: tells the client by which address it was seen.
fn mirror(namespace: &Path, at: SocketAddr) -> std::thread::JoinHandle<()> {
    let listener = netns::within(namespace, || TcpListener::bind(at)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let mut word = [0; 4];
            if stream.read_exact(&mut word).is_err() || &word == b"stop" {
                return;
            }
            stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
        }
    })
}

/// How a server sees who asks from a namespace.
fn ask(from: &Path, at: (IpAddr, u16)) -> io::Result<String> {
    netns::within(from, || {
        let mut stream = TcpStream::connect_timeout(&at.into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"seen")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

fn stop(from: &Path, at: (IpAddr, u16)) {
    netns::within(from, || TcpStream::connect_timeout(&at.into(), PATIENCE)?.write_all(b"stop")).unwrap();
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new("::".parse().unwrap(), port)
}

fn plain(text: io::Result<String>) -> String {
    text.unwrap().trim_start_matches("::ffff:").to_owned()
}

#[test]
fn pods_reach_each_other_and_the_world_and_are_reached() {
    on_a_host(|dir| {
        let network = network(dir);
        let web = Pod::new("web", &[(8080, 80, Protocol::Tcp), (5353, 53, Protocol::Udp)]);
        let (web_ns, web_ips) = web.start(&network);
        let (other_ns, other_ips) = Pod::new("other", &[]).start(&network);
        let (host, outside) = (dir.join("host"), dir.join("outside"));
        let server = mirror(&web_ns, any(80));
        let world = mirror(&outside, any(90));
        assert_eq!(web_ips.iter().filter(|a| a.is_ipv4()).count(), 1);
        for (at, address) in web_ips.iter().enumerate() {
            assert_eq!(plain(ask(&other_ns, (*address, 80))), other_ips[at].to_string());
            assert!(ask(&host, (*address, 80)).is_ok());
        }
        let uplink: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(plain(ask(&web_ns, ("192.0.2.2".parse().unwrap(), 90))), "192.0.2.1", "masqueraded");
        assert_eq!(plain(ask(&outside, (uplink, 8080))), "192.0.2.2", "the client's own address is seen");
        for from in [&host, &other_ns, &web_ns] {
            assert!(ask(from, (uplink, 8080)).is_ok(), "{}", from.display());
        }
        assert!(ask(&host, ("127.0.0.1".parse().unwrap(), 8080)).is_ok());
        let inside = netns::within(&web_ns, || UdpSocket::bind("0.0.0.0:53")).unwrap();
        let client = netns::within(&outside, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"ping", (uplink, 5353)).unwrap();
        let mut word = [0; 4];
        inside.set_read_timeout(Some(PATIENCE)).unwrap();
        let (_, peer) = inside.recv_from(&mut word).unwrap();
        inside.send_to(b"pong", peer).unwrap();
        let (_, from) = client.recv_from(&mut word).unwrap();
        assert_eq!((&word, from.to_string().as_str()), (b"pong", "192.0.2.1:5353"));
        stop(&host, (web_ips[0], 80));
        stop(&outside, ("192.0.2.2".parse().unwrap(), 90));
        server.join().unwrap();
        world.join().unwrap();
    });
}

#[test]
fn pods_do_not_reach_the_hosts_loopback() {
    on_a_host(|dir| {
        let network = network(dir);
        let (pod_ns, ips) = Pod::new("pod", &[]).start(&network);
        let host = dir.join("host");
        let server = mirror(&host, "127.0.0.1:7000".parse().unwrap());
        netns::within(&pod_ns, || {
            // As somebody with the right to would do it.
            ip("addr flush dev lo");
            ip("route add 127.0.0.0/8 dev eth0");
            Ok(())
        })
        .unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/rubelet0/rp_filter", "0").unwrap();
        let tried = netns::within(&pod_ns, || {
            TcpStream::connect_timeout(&"127.0.0.1:7000".parse().unwrap(), Duration::from_millis(300)).map(drop)
        });
        assert!(tried.is_err(), "{ips:?}");
        stop(&host, ("127.0.0.1".parse().unwrap(), 7000));
        server.join().unwrap();
    });
}

#[test]
fn nothing_is_left_of_a_pod() {
    on_a_host(|dir| {
        let network = network(dir);
        let before = links();
        let web = Pod::new("web", &[(8080, 80, Protocol::Tcp)]);
        let (_, first) = web.start(&network);
        assert!(links().len() > before.len());
        let taken = Pod::new("late", &[(8080, 81, Protocol::Tcp)]);
        network.make_namespace("late").unwrap();
        let error = taken.attach(&network).unwrap_err().to_string();
        assert_eq!(error, "Tcp port 8080 of the host is taken by pod default/web (sandbox web)");
        let (_, _) = Pod::new("stays", &[]).start(&network);
        network.detach("web").unwrap();
        network.detach("web").unwrap();
        network.remove_namespace("web").unwrap();
        let second = taken.attach(&network).unwrap();
        assert_ne!(first, second, "an address rests before it is given out again");
        // Another process, which knows no living pod.
        drop(network);
        let network = self::network(dir);
        network.sweep(&[]).unwrap();
        assert_eq!(std::fs::read_dir(dir.join("netns")).unwrap().count(), 0);
        assert_eq!(links(), before);
    });
}

#[test]
fn pods_outlive_the_program() {
    on_a_host(|dir| {
        let network = network(dir);
        let (web_ns, ips) = Pod::new("web", &[(8080, 80, Protocol::Tcp)]).start(&network);
        let server = mirror(&web_ns, any(80));
        let host = dir.join("host");
        drop(network);
        let network = self::network(dir);
        network.sweep(&["web"]).unwrap();
        let (next_ns, next) = Pod::new("next", &[]).start(&network);
        assert!(!next.iter().any(|address| ips.contains(address)));
        for from in [&host, &next_ns] {
            assert!(ask(from, ("192.0.2.1".parse().unwrap(), 8080)).is_ok());
        }
        stop(&host, (ips[0], 80));
        server.join().unwrap();
    });
}

fn links() -> Vec<String> {
    let done = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let mut names: Vec<String> =
        text.lines().map(|l| l.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned()).collect();
    names.sort_by_key(|name| name == "rubelet0");
    names
}

/// Times of the parts; printed with `--nocapture`.
#[test]
fn attaching_is_measured() {
    on_a_host(|dir| {
        let network = network(dir);
        let (mut attach, mut detach) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let pod = Pod::new("pod", &[(8080, 80, Protocol::Tcp)]);
            network.make_namespace("pod").unwrap();
            let begin = Instant::now();
            let addresses = pod.attach(&network).unwrap();
            attach.push(begin.elapsed());
            assert!(!addresses.is_empty(), "round {round}");
            let begin = Instant::now();
            network.detach("pod").unwrap();
            detach.push(begin.elapsed());
            network.remove_namespace("pod").unwrap();
        }
        attach.sort();
        detach.sort();
        eprintln!("attach p50 {:?}, detach p50 {:?}", attach[10], detach[10]);
    });
}
