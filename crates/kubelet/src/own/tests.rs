use std::path::{Path, PathBuf};

use super::{OwnFlagError, OwnFlags};
use crate::flags::parse;

fn read(line: &[&str]) -> Result<OwnFlags, OwnFlagError> {
    let line: Vec<String> = line.iter().map(|&arg| arg.to_owned()).collect();
    OwnFlags::read(&parse(&line, &mut Vec::new()).unwrap())
}

#[test]
fn defaults() {
    let flags = read(&[]).unwrap();
    assert_eq!(flags.kubeconfig, None);
    assert_eq!(flags.root_dir, Path::new("/var/lib/kubelet"));
    assert_eq!(flags.cert_dir, Path::new("/var/lib/kubelet/pki"));
    assert_eq!((flags.dead.per_node, flags.dead.per_container, flags.dead.min_age_ns), (-1, 1, 0));
    assert!(!flags.exit_on_lock_contention && !flags.node.is_cloud_external);
}

#[test]
fn given_ones() {
    let mut flags = read(&[
        "--hostname-override= Node-A ",
        "--node-ip=10.0.0.1,::1",
        "--cloud-provider=external",
        "--minimum-container-ttl-duration=90s",
        "--lock-file=run/lock",
        "--root-dir=/r",
        "--kubeconfig=",
    ])
    .unwrap();
    assert_eq!(flags.node.hostname_override, "node-a");
    assert_eq!(flags.node.ip, "10.0.0.1,::1");
    assert!(flags.node.is_cloud_external);
    assert_eq!(flags.dead.min_age_ns, 90_000_000_000);
    assert_eq!(flags.kubeconfig, None);
    flags.resolve(Path::new("/work"));
    assert_eq!(flags.lock_file, Some(PathBuf::from("/work/run/lock")));
    assert_eq!(flags.root_dir, Path::new("/r"));
}

#[test]
fn labels_that_a_node_may_give_itself() {
    for good in [
        "a=b",
        "example.com/x=",
        "kubernetes.io/os=linux",
        "topology.kubernetes.io/zone=z",
        "node.kubernetes.io/anything=1",
        "pool.node.kubernetes.io/x=1",
        "kubelet.kubernetes.io/x=1",
        "notk8s.io/x=1",
    ] {
        assert!(read(&[&format!("--node-labels={good}")]).is_ok(), "{good}");
    }
    for bad in ["kubernetes.io/x=1", "node-role.kubernetes.io/worker=", "foo.k8s.io/x=1", "xnode.kubernetes.io/x=1"] {
        assert!(matches!(read(&[&format!("--node-labels={bad}")]), Err(OwnFlagError::ForeignLabels(_))), "{bad}");
    }
    let refused = read(&["--node-labels=node-role.kubernetes.io/worker=,k8s.io/a=b"]).unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [k8s.io/a node-role.kubernetes.io/worker]\n--node-labels in the 'kubernetes.io' namespace must begin with an allowed prefix (kubelet.kubernetes.io, node.kubernetes.io) or be in the specifically allowed set (beta.kubernetes.io/arch, "
        ),
        "{refused}"
    );
}

#[test]
fn labels_that_are_none() {
    for bad in ["a b=c", "a=b c", "A/b=c", "/b=c", "a/=c", "a=-b", &format!("a={}", "x".repeat(64))] {
        assert!(matches!(read(&[&format!("--node-labels={bad}")]), Err(OwnFlagError::InvalidLabels(_))), "{bad}");
    }
}

#[test]
fn cloud_providers_are_gone() {
    assert_eq!(read(&["--cloud-provider=aws"]).unwrap_err(), OwnFlagError::CloudProvider("aws".to_owned()));
}
