//! Beside other people's rules.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::world::{
    PATIENCE, Pod, UPLINK, WORLD, World, ask, ask_within, is_installed, mirror, on_a_host, port, run, try_run,
};
use crate::{Network, Protocol};

const SHORT: Duration = Duration::from_millis(300);

const ALL: [bool; 4] = [true; 4];

/// Whether a pod reaches the world and the world a pod.
struct Reach {
    pod: std::path::PathBuf,
}

impl Reach {
    fn of(world: &World, network: &Network) -> Self {
        let (pod, _) = Pod::new("web", &[port(8080, 80, Protocol::Tcp)]).start(network);
        mirror(&pod, "[::]:80");
        mirror(&world.outside(), "[::]:90");
        Self { pod }
    }

    /// Which of the ways work: out and in by IPv4, out and in by IPv6.
    fn ways(&self, world: &World) -> Vec<bool> {
        let outside = world.outside();
        let ways = (0..2).flat_map(|at| [(&self.pod, (WORLD[at], 90)), (&outside, (UPLINK[at], 8080))]);
        ways.map(|(from, to)| ask_within(from, to, SHORT).is_ok()).collect()
    }

    /// All of them do. On a busy machine one may need more than one try.
    fn assert_all(&self, world: &World) {
        let until = Instant::now() + PATIENCE;
        loop {
            let ways = self.ways(world);
            if ways == ALL {
                return;
            }
            assert!(Instant::now() < until, "{ways:?}");
        }
    }
}

/// What Docker does with the machine's rules.
fn start_docker() {
    for tool in ["iptables", "ip6tables"] {
        for line in [
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-N DOCKER-FORWARD",
            "-A DOCKER-USER -j RETURN",
            "-I FORWARD -j DOCKER-FORWARD",
            "-I FORWARD -j DOCKER-USER",
            "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
        ] {
            run(&format!("{tool} {line}"));
        }
    }
}

#[test]
fn docker_may_be_there_before_and_come_later() {
    if !is_installed("iptables-nft") {
        return;
    }
    on_a_host(|world| {
        start_docker();
        let network = world.network();
        let reach = Reach::of(world, &network);
        reach.assert_all(world);
        let rules = run("iptables -S DOCKER-USER");
        let want = [
            "-N DOCKER-USER",
            "-A DOCKER-USER -i rubelet0 -m comment --comment rubelet -j ACCEPT",
            "-A DOCKER-USER -o rubelet0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment rubelet -j ACCEPT",
            "-A DOCKER-USER -j RETURN",
        ];
        // iptables understands them, so that Docker's own calls go on.
        assert_eq!(rules.lines().collect::<Vec<_>>(), want);
        assert!(run("ip6tables-save").contains("-A DOCKER-USER -i rubelet0 "));
        run("iptables -I DOCKER-USER -s 203.0.113.9 -j DROP");
        network.ready().unwrap();
        network.ready().unwrap();
        assert_eq!(run("iptables -S DOCKER-USER").lines().count(), want.len() + 1, "once, and others stay");
        // Docker, and who else, anew.
        run("nft flush ruleset");
        start_docker();
        assert_ne!(reach.ways(world), ALL);
        network.ready().unwrap();
        reach.assert_all(world);
    });
}

#[test]
fn who_drops_by_default_is_asked_to_let_pods_through() {
    if !is_installed("iptables-nft") {
        return;
    }
    on_a_host(|world| {
        run("iptables -P FORWARD DROP");
        run("ip6tables -P FORWARD DROP");
        let network = world.network();
        let reach = Reach::of(world, &network);
        reach.assert_all(world);
        // Nobody but by a host port, though.
        let outside = world.outside();
        rubelet_host::netns::within(&outside, || Ok(run("ip route add 10.86.0.0/16 via 192.0.2.1"))).unwrap();
        assert!(ask_within(&outside, ("10.86.0.2", 80), SHORT).is_err());
        run("iptables -P FORWARD ACCEPT");
        assert!(ask(&outside, ("10.86.0.2", 80)).is_ok());
        network.detach("web").unwrap();
        assert_eq!(run("iptables -S FORWARD"), "-P FORWARD ACCEPT\n");
    });
}

/// firewalld's table as far as forwarding is concerned: what comes from no known zone is refused.
const FIREWALLD: &str = "table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10;
    ct state established,related accept
    ct status dnat accept
    reject with icmpx type admin-prohibited
  }
}
";

#[test]
fn firewalld_lets_pods_out() {
    on_a_host(|world| {
        let network = world.network();
        let reach = Reach::of(world, &network);
        let load = |text: &str| {
            std::fs::write(world.path("rules"), text).unwrap();
            run(&format!("nft -f {}", world.path("rules").display()));
        };
        load(FIREWALLD);
        assert_ne!(reach.ways(world), ALL);
        network.ready().unwrap();
        reach.assert_all(world);
        assert!(run("nft list table inet firewalld").contains("iifname \"rubelet0\""));
        network.dismantle().unwrap();
        assert!(!run("nft list table inet firewalld").contains("rubelet0"));
    });
}

#[test]
fn a_firewall_that_nobody_may_change_is_no_reason_to_refuse_pods() {
    on_a_host(|world| {
        if !is_installed("nft") {
            return;
        }
        // The table belongs to the process that keeps `nft -i` open.
        let text =
            "table inet firewalld { flags owner; chain filter_FORWARD { type filter hook forward priority 10; }; }";
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = owner.stdin.take().unwrap();
        writeln!(stdin, "{text}").unwrap();
        let is_there = || try_run("nft list table inet firewalld").0;
        let begin = Instant::now();
        while !is_there() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        let done = is_there().then(|| world.network().ready());
        drop(stdin);
        owner.wait().unwrap();
        match done {
            Some(ready) => ready.unwrap(),
            None => eprintln!("not run: nft here makes no table with an owner"),
        }
    });
}
