//! The plugins that Debian's `containernetworking-plugins` has.

use std::fs;
use std::path::Path;

use super::world::{Pod, UPLINK, WORLD, World, ask, mirror, on_a_host, port, run};
use crate::{Network, Protocol};

const PLUGINS: &str = "/usr/lib/cni";

const LIST: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "DIR/ipam", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "10.77.0.0/24"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}"#;

fn network(world: &World, list: &str) -> Network {
    fs::create_dir_all(world.path("net.d")).unwrap();
    let text = list.replace("DIR", &world.path("").display().to_string());
    fs::write(world.path("net.d/10-pods.conflist"), text).unwrap();
    let mut options = world.options();
    options.cni_bin_dirs = vec![PLUGINS.into()];
    Network::open(options).unwrap()
}

fn are_there() -> bool {
    let are_there = Path::new(PLUGINS).join("portmap").exists();
    if !are_there {
        eprintln!("not run: there are no plugins (apt-get install containernetworking-plugins)");
    }
    are_there
}

#[test]
fn a_usual_list_works() {
    if !are_there() {
        return;
    }
    on_a_host(|world| {
        let network = network(world, LIST);
        assert_eq!(network.kind(), "cni pods");
        network.ready().unwrap();
        let mut web = Pod::new("web", &[port(8080, 80, Protocol::Tcp)]);
        web.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "100M".into());
        let (pod, ips) = web.start(&network);
        let (other, _) = Pod::new("other", &[]).start(&network);
        let address = ips[0].to_string();
        assert_eq!((ips.len(), address.as_str()), (1, "10.77.0.2"));
        mirror(&pod, "[::]:80");
        mirror(&world.outside(), "[::]:90");
        assert!(ask(&other, (&address, 80)).is_ok());
        assert_eq!(ask(&pod, (WORLD[0], 90)).unwrap(), UPLINK[0]);
        for from in [world.outside(), world.host()] {
            assert!(ask(&from, (UPLINK[0], 8080)).is_ok());
        }
        assert!(run("tc qdisc").contains("rate 100Mbit"));
        for id in ["web", "other"] {
            network.detach(id).unwrap();
            network.remove_namespace(id).unwrap();
        }
        assert_eq!(addresses(world), 0);
        assert!(!run("iptables-save").contains("8080"));
        let inventory = world.inventory();
        assert!(
            inventory.starts_with(&format!("{:?}", [" cni0", " lo", " up0"]).replace(" up0\"]", " up0\"] []")),
            "{inventory}"
        );
    });
}

#[test]
fn plugins_check_what_they_gave() {
    if !are_there() {
        return;
    }
    on_a_host(|world| {
        // Of Debian 12's plugins, those for ports and bandwidth cannot check without fault.
        let list = &LIST[..LIST.find(",\n    {\"type\": \"portmap\"").unwrap()];
        let network = network(world, &format!("{list}]}}"));
        let (pod, _) = Pod::new("web", &[]).start(&network);
        network.check("web").unwrap();
        rubelet_host::netns::within(&pod, || Ok(run("ip link del eth0"))).unwrap();
        let error = network.check("web").unwrap_err().to_string();
        assert!(error.starts_with("pod default/web: plugin type=\"bridge\" name=\"pods\" failed (check): "), "{error}");
        network.detach("web").unwrap();
        assert_eq!(addresses(world), 0);
    });
}

fn addresses(world: &World) -> usize {
    let entries = fs::read_dir(world.path("ipam/pods")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count()
}

#[test]
fn pods_of_either_kind_are_taken_back_as_they_were_attached() {
    if !are_there() {
        return;
    }
    on_a_host(|world| {
        let network = network(world, LIST);
        Pod::new("plugins", &[]).start(&network);
        fs::remove_file(world.path("net.d/10-pods.conflist")).unwrap();
        assert_eq!(network.kind(), "bridge rubelet0");
        Pod::new("bridge", &[]).start(&network);
        self::network(world, LIST);
        assert_eq!((addresses(world), network.kind().as_str()), (1, "cni pods"));
        network.check("bridge").unwrap();
        // As after a reboot: namespaces are gone, files are there.
        for id in ["plugins", "bridge"] {
            network.remove_namespace(id).unwrap();
        }
        let later = self::network(world, LIST);
        let swept = later.sweep(&[]).unwrap();
        assert_eq!(
            (swept.removed.as_slice(), swept.failed.len()),
            (&["bridge".to_owned(), "plugins".to_owned()][..], 0)
        );
        assert_eq!(addresses(world), 0);
    });
}

#[test]
fn a_missing_part_of_the_list_is_told() {
    if !are_there() {
        return;
    }
    on_a_host(|world| {
        let network = network(world, &LIST.replace("\"bandwidth\", \"cap", "\"bandwidht\", \"cap"));
        let said = network.ready().unwrap_err();
        assert_eq!(said, "cni plugin \"bandwidht\" of network \"pods\" is not installed");
        network.make_namespace("web").unwrap();
        let error = Pod::new("web", &[]).attach(&network).unwrap_err().to_string();
        let want = "pod default/web: plugin type=\"bandwidht\" name=\"pods\" failed (add): failed to find plugin \"bandwidht\" in path [/usr/lib/cni]";
        assert_eq!(error, want);
        // Its removal fails for the same reason until the plugin is there, or the configuration of the day is right.
        assert!(network.detach("web").is_err());
        assert_eq!(network.sweep(&[]).unwrap().failed.len(), 1);
    });
}
