//! Where the files of a pod are.

use std::path::PathBuf;

use rubelet_api::v1;

use super::{name, namespace, uid};
use crate::node::NodeFacts;

/// `<root>/pods/<uid>`.
pub fn pod_dir(pod: &v1::Pod, node: &NodeFacts) -> PathBuf {
    node.root_dir.join("pods").join(uid(pod))
}

/// `<pod dir>/volumes/<plugin>/<volume>`; a slash in the plugin's name becomes `~`.
pub fn volume_dir(pod: &v1::Pod, node: &NodeFacts, plugin: &str, volume: &str) -> PathBuf {
    pod_dir(pod, node).join("volumes").join(plugin.replace('/', "~")).join(volume)
}

/// `<pod dir>/volumeDevices/<plugin>/<volume>`: a link to the device.
pub fn volume_device(pod: &v1::Pod, node: &NodeFacts, plugin: &str, volume: &str) -> PathBuf {
    pod_dir(pod, node).join("volumeDevices").join(plugin.replace('/', "~")).join(volume)
}

/// `<pod dir>/volume-subpaths/<volume>/<container>/<index of the mount>`.
pub fn subpath(pod: &v1::Pod, node: &NodeFacts, volume: &str, container: &str, index: usize) -> PathBuf {
    pod_dir(pod, node).join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

/// `<pod dir>/etc-hosts`.
pub fn etc_hosts(pod: &v1::Pod, node: &NodeFacts) -> PathBuf {
    pod_dir(pod, node).join("etc-hosts")
}

/// `<pod dir>/containers/<container>`.
pub fn container_dir(pod: &v1::Pod, node: &NodeFacts, container: &str) -> PathBuf {
    pod_dir(pod, node).join("containers").join(container)
}

/// `<podLogsDir>/<namespace>_<name>_<uid>`.
pub fn logs_dir(pod: &v1::Pod, node: &NodeFacts) -> PathBuf {
    node.pod_logs_dir.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}
