//! Where logs are written and how log collectors find them.

use std::path::{Path, PathBuf};

use rubelet_api::ids::ContainerId;
use rubelet_api::v1;

use super::{name, namespace, paths};
use crate::node::NodeFacts;
use crate::pod::step::LogLink;

/// Where log collectors look; not configurable.
const LINKS_DIR: &str = "/var/log/containers";
/// Longest file name, in bytes, that common file systems take.
const NAME_LEN_MAX: usize = 255;

/// The log file of one instance of a container: `<pod's logs>/<container>/<restart count>.log`.
pub fn log_path(pod: &v1::Pod, container: &str, restart_count: u32, node: &NodeFacts) -> PathBuf {
    paths::logs_dir(pod, node).join(relative_log_path(container, restart_count))
}

/// The same below the sandbox's log directory.
pub(super) fn relative_log_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// The link `/var/log/containers/<pod>_<namespace>_<container>-<id>.log` to a container's log.
pub fn log_link(pod: &v1::Pod, container: &str, restart_count: u32, id: &ContainerId, node: &NodeFacts) -> LogLink {
    const SUFFIX: &str = ".log";
    let mut file = format!("{}_{}_{container}-{id}", name(pod), namespace(pod));
    let mut len = file.len().min(NAME_LEN_MAX - SUFFIX.len());
    while !file.is_char_boundary(len) {
        len -= 1;
    }
    file.truncate(len);
    LogLink { link: Path::new(LINKS_DIR).join(file + SUFFIX), target: log_path(pod, container, restart_count, node) }
}
