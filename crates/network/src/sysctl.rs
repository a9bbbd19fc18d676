//! Settings of the kernel that the built-in network needs, of the calling thread's network namespace. No others are touched:
//!
//! | setting | value | because |
//! |---|---|---|
//! | `net.ipv4.ip_forward` | 1 | packets go from pods to elsewhere and back |
//! | `net.ipv6.conf.all.forwarding` | 1 | the same, if pods have IPv6 |
//! | `net.ipv6.conf.*.accept_ra`, where it is 1 | 2 | a forwarding machine would lose the routes that its router announces |
//! | `net.ipv4.conf.BRIDGE.route_localnet` | 1 | 127.0.0.1:PORT leads to pods; a rule keeps pods from this machine's loopback |
//! | `net.ipv6.conf.BRIDGE.accept_ra` | 0 | a pod is nobody's router |
//! | in the pod: `net.ipv6.conf.eth0.accept_ra`, `accept_dad` | 0 | the same; its addresses are usable at once |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::NetworkError;
use crate::error::file_error;

const SIXES: &str = "/proc/sys/net/ipv6/conf";

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

fn is(name: &str, value: &str) -> bool {
    fs::read_to_string(path(name)).is_ok_and(|text| text.trim() == value)
}

/// Writes a setting, unless it is so already.
fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    if is(name, value) { Ok(()) } else { fs::write(path(name), value).map_err(file_error("write", &path(name))) }
}

/// Whether this kernel knows IPv6 at all.
pub(crate) fn knows_v6() -> bool {
    Path::new(SIXES).exists()
}

/// Whether IPv6 is in use.
pub(crate) fn has_v6() -> bool {
    is("ipv6/conf/all/disable_ipv6", "0")
}

/// What the bridge needs.
pub(crate) fn for_bridge(bridge: &str, with_v6: bool) -> Result<(), NetworkError> {
    set("ipv4/ip_forward", "1")?;
    set(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    if !with_v6 {
        return Ok(());
    }
    // Before forwarding begins: by then announcements count only where they are asked for in spite of it.
    if !is("ipv6/conf/all/forwarding", "1") {
        let links = fs::read_dir(SIXES).map_err(file_error("read", Path::new(SIXES)))?;
        for link in links.flatten() {
            let name = format!("ipv6/conf/{}/accept_ra", link.file_name().to_string_lossy());
            if is(&name, "1") {
                set(&name, "2")?;
            }
        }
    }
    set(&format!("ipv6/conf/{bridge}/accept_ra"), "0")?;
    set("ipv6/conf/all/forwarding", "1")
}

/// What the pod's end of a link needs before it is up; to be called in the pod's namespace.
pub(crate) fn for_pod(link: &str) -> io::Result<()> {
    for name in ["accept_ra", "accept_dad"] {
        let file = Path::new(SIXES).join(link).join(name);
        if file.exists() {
            fs::write(file, "0")?;
        }
    }
    Ok(())
}
