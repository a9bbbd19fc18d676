//! Capabilities by name, and putting the five sets into force.

use crate::fault::{Doing, Fault};
use crate::spec::Capabilities;
use crate::sys;

/// Names of all capabilities that there are, without `CAP_`.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// Names by number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The sets as bits. What the kernel does not have or this process does not have is left out, as runc does with a warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

fn bits(names: &[String]) -> u64 {
    names.iter().fold(0, |bits, name| {
        let name = name.strip_prefix("CAP_").unwrap_or(name);
        bits | NAMES.iter().position(|known| *known == name).map_or(0, |number| 1 << number)
    })
}

impl Sets {
    pub(crate) fn of(wanted: &Capabilities) -> Self {
        Self {
            bounding: bits(&wanted.bounding),
            effective: bits(&wanted.effective),
            inheritable: bits(&wanted.inheritable),
            permitted: bits(&wanted.permitted),
            ambient: bits(&wanted.ambient),
        }
    }

    /// Drops from the bounding set what is not wanted.
    pub(crate) fn limit(&self) -> Result<(), Fault> {
        for number in (0..NAMES.len()).filter(|number| self.bounding & (1 << number) == 0) {
            match sys::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {} // this kernel has fewer
                other => other.doing(|| format!("unable to drop capability CAP_{}", NAMES[number]))?,
            }
        }
        Ok(())
    }

    /// Sets the other four sets. To be called after the user has changed, with capabilities kept.
    pub(crate) fn apply(&self, possible: u64) -> Result<(), Fault> {
        let permitted = self.permitted & possible;
        sys::set_capabilities(self.effective & permitted, permitted, self.inheritable & possible)
            .doing(|| "unable to apply caps".to_owned())?;
        let _ = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0);
        for number in (0..NAMES.len()).filter(|number| self.ambient & possible & (1 << number) != 0) {
            // Not inheritable or not permitted: upstream's runtimes go on without it.
            let _ =
                sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number as libc::c_ulong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels_numbers() {
        let names = ["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_FROM_THE_FUTURE"]
            .map(str::to_owned);
        assert_eq!(bits(&names), 1 | 1 << 12 | 1 << 21 | 1 << 40);
    }
}
