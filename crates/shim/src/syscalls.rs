//! Names and numbers of system calls (from Linux's headers), for each architecture that a filter can be for.

/// An architecture as the kernel tells it to a filter (`AUDIT_ARCH_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    X86,
    Aarch64,
}

impl Architecture {
    /// By the name that the specification uses. `None`: not one that this machine's programs can use, or without a table.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let architecture = match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            _ => return None,
        };
        let is_arm = cfg!(target_arch = "aarch64");
        (is_arm == (architecture == Self::Aarch64)).then_some(architecture)
    }

    /// That of this program.
    pub(crate) fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The kernel's number of it.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Names with numbers.
    pub(crate) fn table(self) -> impl Iterator<Item = (&'static str, u32)> {
        let text = match self {
            Self::X86_64 => include_str!("syscalls/x86_64.txt"),
            Self::X86 => include_str!("syscalls/x86.txt"),
            Self::Aarch64 => include_str!("syscalls/aarch64.txt"),
        };
        text.lines().filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_libc() {
        let find = |name: &str| Architecture::native().table().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(libc::c_long::from(find("openat")), libc::SYS_openat);
        assert_eq!(libc::c_long::from(find("clone3")), libc::SYS_clone3);
        assert_eq!(libc::c_long::from(find("mount_setattr")), libc::SYS_mount_setattr);
    }
}
