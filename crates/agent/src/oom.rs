//! The task that tells of processes that the kernel killed because the whole machine ran out of memory.

use rubelet_host::kmsg::Kmsg;

use crate::events::Events;

/// Reads the kernel's log from now on. kubelet 1.36: kills within a cgroup at its limit are told by the container's end.
pub(crate) async fn watch(node_name: String, events: Events) {
    let log = match Kmsg::open() {
        Ok(log) => log,
        Err(err) => {
            tracing::warn!(%err, "the kernel's log cannot be read; nobody tells when the node runs out of memory");
            return;
        }
    };
    loop {
        match log.next_kill().await {
            Ok(kill) if kill.is_global => {
                let (process, pid) = (&kill.process, kill.pid);
                let message = format!("System OOM encountered, victim process: {process}, pid: {pid}");
                events.tell_of_node(&node_name, "Warning", "SystemOOM", &message);
            }
            Ok(kill) => {
                let (process, pid, cgroup) = (kill.process, kill.pid, kill.cgroup);
                tracing::info!(process, pid, cgroup, "the kernel killed a process of a cgroup at its memory limit");
            }
            Err(err) => {
                tracing::warn!(%err, "the kernel's log cannot be read any more");
                return;
            }
        }
    }
}
