//! The built-in network: who reaches whom, and by which address.

use std::net::IpAddr;
use std::time::Duration;

use rubelet_host::netns;

use super::world::{
    Pod, UPLINK, WORLD, ask, ask_udp, ask_within, client, is_installed, mirror, mirror_udp, on_a_host, port, run,
    try_run,
};
use crate::{NetworkError, PortMapping, Protocol, Subnet};

/// On a machine that does much beside: a connection that is tried again comes to pass.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn pods_reach_each_other_and_the_world_and_are_reached() {
    for bridged_through_iptables in ["0", "1"] {
        on_a_host(|world| {
            // Where this module is loaded, packets between pods pass the rules for what is forwarded.
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged_through_iptables);
            let network = world.network();
            let ports = [port(8080, 80, Protocol::Tcp), port(5353, 53, Protocol::Udp)];
            let (web, web_ips) = Pod::new("web", &ports).start(&network);
            let (other, other_ips) = Pod::new("other", &[]).start(&network);
            let (host, outside) = (world.host(), world.outside());
            assert_eq!(web_ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false], "primary first");
            mirror(&web, "[::]:80");
            mirror_udp(&web, "[::]:53");
            mirror(&outside, "[::]:90");
            for (at, address) in web_ips.iter().enumerate() {
                let address = address.to_string();
                let (uplink, beyond) = (UPLINK[at], WORLD[at]);
                assert_eq!(ask(&other, (&address, 80)).unwrap(), other_ips[at].to_string());
                assert!(ask(&host, (&address, 80)).is_ok());
                assert_eq!(ask(&web, (beyond, 90)).unwrap(), uplink, "masqueraded");
                assert_eq!(ask(&outside, (uplink, 8080)).unwrap(), beyond, "the client's own address is seen");
                for from in [&host, &other, &web] {
                    assert!(ask(from, (uplink, 8080)).is_ok(), "{} to {uplink}", from.display());
                }
                let any = if at == 0 { "0.0.0.0:0" } else { "[::]:0" };
                for from in [&outside, &host, &other, &web] {
                    let answer = ask_udp(&client(from, any), (uplink, 5353));
                    assert!(answer.is_ok(), "{} to {uplink}: {answer:?}", from.display());
                }
                assert!(ask_udp(&client(&other, any), (&address, 53)).is_ok());
            }
            assert!(ask(&host, ("127.0.0.1", 8080)).is_ok());
            assert!(ask_udp(&client(&host, "127.0.0.1:0"), ("127.0.0.1", 5353)).is_ok());
            network.check("web").unwrap();
        });
    }
}

#[test]
fn a_port_on_one_address_is_on_no_other() {
    on_a_host(|world| {
        let network = world.network();
        let bound =
            |ip: &str, host_port| PortMapping { host_ip: ip.parse().ok(), ..port(host_port, 80, Protocol::Tcp) };
        let ports = [
            bound("127.0.0.1", 81),
            bound("192.0.2.1", 82),
            bound("0.0.0.0", 83),
            bound("::", 84),
            bound("2001:db8::1", 85),
        ];
        let (web, _) = Pod::new("web", &ports).start(&network);
        mirror(&web, "[::]:80");
        let (host, outside) = (world.host(), world.outside());
        for (from, to, want) in [
            (&host, ("127.0.0.1", 81), true),
            (&host, ("192.0.2.1", 81), false),
            (&outside, ("192.0.2.1", 81), false),
            (&outside, ("192.0.2.1", 82), true),
            (&host, ("127.0.0.1", 82), false),
            (&host, ("127.0.0.1", 83), true),
            (&outside, ("192.0.2.1", 83), true),
            (&outside, ("2001:db8::1", 83), false),
            (&outside, ("2001:db8::1", 84), true),
            (&outside, ("192.0.2.1", 84), false),
            (&outside, ("2001:db8::1", 85), true),
        ] {
            assert_eq!(ask_within(from, to, if want { PATIENCE } else { SHORT }).is_ok(), want, "{to:?}");
        }
        // Other addresses of one port are others'.
        let rest = Pod::new("rest", &[bound("192.0.2.1", 81), bound("::", 82)]);
        rest.start(&network);
        network.make_namespace("late").unwrap();
        let error = Pod::new("late", &[port(81, 81, Protocol::Tcp)]).attach(&network).unwrap_err();
        assert!(error.to_string().starts_with("TCP port 81 of the host is taken by pod default/"), "{error}");
    });
}

#[test]
fn only_ports_of_this_machine_lead_to_pods() {
    on_a_host(|world| {
        let network = world.network();
        let (web, _) = Pod::new("web", &[port(90, 80, Protocol::Tcp)]).start(&network);
        mirror(&web, "[::]:80");
        mirror(&world.outside(), "[::]:90");
        // The port is the world's own here, and the answer tells by which address this machine is seen.
        assert_eq!(ask(&web, (WORLD[0], 90)).unwrap(), UPLINK[0]);
        assert_eq!(ask(&world.host(), (WORLD[1], 90)).unwrap(), UPLINK[1]);
    });
}

#[test]
fn pods_do_not_reach_the_hosts_loopback() {
    on_a_host(|world| {
        let network = world.network();
        let (pod, _) = Pod::new("pod", &[]).start(&network);
        mirror(&world.host(), "127.0.0.1:7000");
        netns::within(&pod, || {
            // As somebody with the right to would do it.
            run("ip addr flush dev lo");
            run("ip route add 127.0.0.0/8 dev eth0");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")
        })
        .unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/rubelet0/rp_filter", "0").unwrap();
        assert!(ask_within(&pod, ("127.0.0.1", 7000), SHORT).is_err());
        assert!(ask(&world.host(), ("127.0.0.1", 7000)).is_ok());
    });
}

#[test]
fn links_are_as_large_as_the_uplink_and_routers_are_not_believed() {
    on_a_host(|world| {
        std::fs::write("/proc/sys/net/ipv6/conf/up0/accept_ra", "1").unwrap();
        let network = world.network();
        let (pod, ips) = Pod::new("pod", &[]).start(&network);
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned();
        assert_eq!(read("ipv4/ip_forward") + &read("ipv6/conf/all/forwarding"), "11");
        assert_eq!(read("ipv6/conf/up0/accept_ra") + &read("ipv6/conf/rubelet0/accept_ra"), "20");
        assert!(run("ip link show rubelet0").contains("mtu 1450"));
        let (link, address) = netns::within(&pod, || {
            let (link, address) = (run("ip link show eth0"), run("ip addr show eth0"));
            assert_eq!(read("ipv6/conf/eth0/accept_ra"), "0");
            assert!(run("ip link show lo").contains("UP,LOWER_UP"));
            Ok((link, address))
        })
        .unwrap();
        assert!(link.contains("mtu 1450"), "{link}");
        assert!(ips.iter().all(|ip| address.contains(&format!("inet{} {ip}", if ip.is_ipv4() { "" } else { "6" }))));
        assert!(!address.contains("tentative"), "{address}");
        assert!(run("ip link").contains("alias default/pod"));
    });
}

#[test]
fn udp_finds_its_way_anew() {
    on_a_host(|world| {
        let network = world.network();
        let outside = client(&world.outside(), "0.0.0.0:4000");
        let try_once = || {
            outside.set_read_timeout(Some(SHORT)).unwrap();
            ask_udp(&outside, (UPLINK[0], 5353))
        };
        // The bridge's rules are there, and the kernel keeps track of what comes.
        Pod::new("other", &[]).start(&network);
        assert!(try_once().is_err());
        let other = client(&world.host(), "0.0.0.0:0");
        assert!(other.send_to(b"query", (WORLD[0], 5353)).is_ok(), "a connection that is no matter of ours");
        let tracked = || run("conntrack -L -p udp").lines().filter(|l| l.contains("dport=5353")).count();
        if is_installed("conntrack") {
            assert_eq!(tracked(), 2);
        }
        for id in ["first", "second"] {
            let (pod, _) = Pod::new(id, &[port(5353, 53, Protocol::Udp)]).start(&network);
            mirror_udp(&pod, "0.0.0.0:53");
            assert_eq!(try_once().unwrap(), WORLD[0], "{id}");
            if is_installed("conntrack") {
                assert_eq!(tracked(), 2);
            }
            network.detach(id).unwrap();
            if is_installed("conntrack") {
                assert!(!run("conntrack -L -p udp").contains("src=10.86."), "the way to a pod that is gone");
            }
            assert!(try_once().is_err());
        }
        if is_installed("conntrack") {
            assert_eq!(tracked(), 2, "that of the world, and the last try");
        }
    });
}

#[test]
fn nothing_is_left_of_a_pod() {
    on_a_host(|world| {
        let network = world.network();
        let nothing = world.inventory();
        network.ready().unwrap();
        network.sweep(&[]).unwrap();
        assert_eq!(world.inventory(), nothing, "without a pod there is nothing");
        Pod::new("stays", &[]).start(&network);
        let before = world.inventory();
        let (_, first) = Pod::new("web", &[port(8080, 80, Protocol::Tcp)]).start(&network);
        let taken = Pod::new("late", &[port(8080, 81, Protocol::Tcp)]);
        network.make_namespace("late").unwrap();
        let error = taken.attach(&network).unwrap_err();
        assert_eq!(error.to_string(), "TCP port 8080 of the host is taken by pod default/web (sandbox web)");
        network.detach("web").unwrap();
        network.detach("web").unwrap();
        network.remove_namespace("web").unwrap();
        let second = taken.attach(&network).unwrap();
        assert_ne!(first, second, "an address rests before it is given out again");
        network.detach("late").unwrap();
        network.remove_namespace("late").unwrap();
        network.bridge().leaving.settle();
        assert_eq!(world.inventory(), before);
        network.detach("stays").unwrap();
        network.remove_namespace("stays").unwrap();
        network.bridge().leaving.settle();
        assert_eq!(world.inventory(), nothing, "the last one takes all along");
        // At once again.
        for _ in 0..3 {
            Pod::new("again", &[]).start(&network);
            network.detach("again").unwrap();
            network.remove_namespace("again").unwrap();
        }
        network.dismantle().unwrap();
        assert_eq!(world.inventory(), nothing);
    });
}

#[test]
fn pods_outlive_the_program_and_flushed_rules() {
    on_a_host(|world| {
        let network = world.network();
        let (web, ips) = Pod::new("web", &[port(8080, 80, Protocol::Tcp)]).start(&network);
        mirror(&web, "[::]:80");
        drop(network);
        let network = world.network();
        let swept = network.sweep(&["web"]).unwrap();
        assert!(swept.removed.is_empty() && swept.failed.is_empty(), "{swept:?}");
        let (next, next_ips) = Pod::new("next", &[]).start(&network);
        assert!(!next_ips.iter().any(|address| ips.contains(address)));
        let is_reached =
            |from: &std::path::Path| ask_within(from, (UPLINK[0], 8080), SHORT.max(Duration::from_secs(2))).is_ok();
        assert!(is_reached(&world.host()) && is_reached(&next));
        // As the start of nftables.service does it.
        run("nft flush ruleset");
        assert!(ask_within(&world.outside(), (UPLINK[0], 8080), SHORT).is_err());
        network.ready().unwrap();
        assert!(is_reached(&world.outside()));
        run("ip link del rubelet0");
        assert!(!is_reached(&world.outside()));
    });
}

#[test]
fn damage_is_named() {
    on_a_host(|world| {
        let network = world.network();
        let error = network.check("web").unwrap_err().to_string();
        assert_eq!(error, "pod web: it is not attached");
        let (web, ips) = Pod::new("web", &[]).start(&network);
        network.check("web").unwrap();
        netns::within(&web, || Ok(run(&format!("ip addr del {}/16 dev eth0", ips[0])))).unwrap();
        let error = network.check("web").unwrap_err().to_string();
        assert_eq!(error, format!("pod default/web: its address {} is gone", ips[0]));
        run("ip link del rblweb");
        let error = network.check("web").unwrap_err().to_string();
        assert!(error.starts_with("pod default/web: its link rblweb on the host"), "{error}");
        network.detach("web").unwrap();
        assert!(matches!(network.make_namespace("../x"), Err(NetworkError::Id(_))));
    });
}

#[test]
fn subnets_change_under_pods() {
    on_a_host(|world| {
        let network = world.network();
        let (one, ips) = Pod::new("one", &[]).start(&network);
        mirror(&one, "[::]:80");
        mirror(&world.outside(), "[::]:90");
        network.set_subnets(vec!["10.99.0.0/24".parse().unwrap()]);
        network.set_subnets(Vec::new());
        let (two, two_ips) = Pod::new("two", &[]).start(&network);
        assert_eq!(two_ips, ["10.99.0.2".parse::<IpAddr>().unwrap()]);
        assert!(ask(&two, (&ips[0].to_string(), 80)).is_ok());
        for from in [&one, &two] {
            assert_eq!(ask(from, (WORLD[0], 90)).unwrap(), UPLINK[0]);
        }
        network.detach("one").unwrap();
        Pod::new("three", &[]).start(&network);
        assert!(
            !run("ip addr show rubelet0").contains(&Subnet::defaults()[0].gateway().to_string()),
            "nobody's any more"
        );
        assert_eq!(ask(&two, (WORLD[0], 90)).unwrap(), UPLINK[0]);
    });
}

#[test]
fn a_subnet_of_others_is_refused() {
    on_a_host(|world| {
        // Wider routes are no matter, narrower ones are.
        run("ip route add 10.0.0.0/8 via 192.0.2.2");
        let network = world.network();
        network.ready().unwrap();
        run("ip route add 10.86.4.0/24 via 192.0.2.2");
        let said = network.ready().unwrap_err();
        assert_eq!(
            said,
            "the pods' subnet 10.86.0.0/16 is in use on this machine: 10.86.4.0/24 by up0; choose another one"
        );
        network.make_namespace("pod").unwrap();
        assert!(matches!(Pod::new("pod", &[]).attach(&network), Err(NetworkError::Overlap { .. })));
        network.detach("pod").unwrap();
    });
}

#[test]
fn an_exhausted_subnet_is_named() {
    on_a_host(|world| {
        let mut options = world.options();
        options.subnets = vec!["10.9.0.0/29".parse().unwrap()];
        let network = crate::Network::open(options).unwrap();
        for n in 0..5 {
            Pod::new(&format!("p{n}"), &[]).start(&network);
        }
        network.make_namespace("late").unwrap();
        let late = Pod::new("late", &[]);
        assert_eq!(late.attach(&network).unwrap_err().to_string(), "no address is left in 10.9.0.0/29");
        network.detach("p2").unwrap();
        assert_eq!(late.attach(&network).unwrap(), ["10.9.0.4".parse::<IpAddr>().unwrap()]);
    });
}

#[test]
fn traffic_is_limited() {
    on_a_host(|world| {
        let network = world.network();
        let mut pod = Pod::new("slow", &[]);
        pod.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "8M".into());
        pod.annotations.insert("kubernetes.io/egress-bandwidth".into(), "80G".into());
        let (slow, _) = pod.start(&network);
        let said = run("tc qdisc show dev rblslow");
        assert!(said.contains("tbf") && said.contains("rate 8Mbit") && said.contains("burst 64Kb"), "{said}");
        let said = netns::within(&slow, || Ok(run("tc qdisc show dev eth0"))).unwrap();
        assert!(said.contains("rate 80Gbit"), "{said}");
        mirror(&slow, "[::]:80");
        let (fast, _) = Pod::new("fast", &[]).start(&network);
        assert!(ask(&fast, ("10.86.0.2", 80)).is_ok());
        network.make_namespace("odd").unwrap();
        let mut odd = Pod::new("odd", &[]);
        odd.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
        let said = odd.attach(&network).unwrap_err().to_string();
        assert_eq!(said, "annotation kubernetes.io/ingress-bandwidth: \"fast\" is not a rate such as 10M");
    });
}

#[test]
fn without_ipv6_there_is_ipv4() {
    on_a_host(|world| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let network = world.network();
        let (pod, ips) = Pod::new("pod", &[port(8080, 80, Protocol::Tcp)]).start(&network);
        assert_eq!(ips.len(), 1);
        mirror(&pod, "0.0.0.0:80");
        assert!(ask(&world.outside(), (UPLINK[0], 8080)).is_ok());
        assert!(try_run("ip -6 addr show dev rubelet0").1.is_empty());
    });
}

#[test]
fn many_are_attached_at_once() {
    on_a_host(|world| {
        let network = world.network();
        let ids: Vec<String> = (0..40).map(|n| format!("pod{n}")).collect();
        let mut all: Vec<IpAddr> = std::thread::scope(|scope| {
            let attach =
                |ids: &[String]| ids.iter().flat_map(|id| Pod::new(id, &[]).start(&network).1).collect::<Vec<IpAddr>>();
            let threads: Vec<_> = ids.chunks(10).map(|ids| scope.spawn(move || attach(ids))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * ids.len());
        let (first, last) = (world.path("netns/pod0"), world.path("netns/pod39"));
        mirror(&last, "[::]:80");
        let shown = netns::within(&last, || Ok(run("ip -4 -o addr show eth0"))).unwrap();
        let address = shown.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
        assert!(ask(&first, (&address, 80)).is_ok());
        std::thread::scope(|scope| {
            for ids in ids.chunks(10) {
                let network = &network;
                scope.spawn(move || ids.iter().for_each(|id| network.detach(id).unwrap()));
            }
        });
        network.bridge().leaving.settle();
        assert!(!run("ip -o link").contains("rbl"));
    });
}
