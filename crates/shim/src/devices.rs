//! Device nodes, and the filter on their use.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags};

use crate::bpf;
use crate::fault::{Doing, Fault};
use crate::setup::Cgroup;
use crate::spec::{Device, DeviceRule};
use crate::sys;

/// A rule of the filter: `access` has the bits 1 mknod, 2 read, 4 write; `None` is any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) kind: char,
    pub(crate) major: Option<i32>,
    pub(crate) minor: Option<i32>,
    pub(crate) access: u8,
}

const fn allow(kind: char, major: Option<i32>, minor: Option<i32>, access: u8) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

/// What every container may use (runc: its allowed devices): make any node, the six plain devices, terminals, tun.
const ALWAYS: [Rule; 11] = [
    allow('c', None, None, 1),
    allow('b', None, None, 1),
    allow('c', Some(1), Some(3), 7),
    allow('c', Some(1), Some(5), 7),
    allow('c', Some(1), Some(7), 7),
    allow('c', Some(1), Some(8), 7),
    allow('c', Some(1), Some(9), 7),
    allow('c', Some(5), Some(0), 7),
    allow('c', Some(5), Some(2), 7),
    allow('c', Some(136), None, 7),
    allow('c', Some(10), Some(200), 7),
];

/// The plain devices of every container: name, minor number, major number.
const PLAIN: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn parse(rule: &DeviceRule) -> Rule {
    let number = |number: Option<i64>| number.and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    let bits = access.chars().map(|c| match c {
        'm' => 1,
        'r' => 2,
        'w' => 4,
        _ => 0,
    });
    Rule {
        allow: rule.allow,
        kind: rule.kind.chars().next().unwrap_or('a'),
        major: number(rule.major),
        minor: number(rule.minor),
        access: bits.fold(0, |all, bit| all | bit),
    }
}

impl Rule {
    fn is_everything(&self) -> bool {
        self.kind == 'a' && self.major.is_none() && self.minor.is_none() && self.access == 7
    }

    /// A line for `devices.allow` or `devices.deny` of cgroup v1.
    fn line(&self) -> String {
        if self.is_everything() {
            return "a".to_owned();
        }
        let number = |number: Option<i32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let access: String =
            [(2, 'r'), (4, 'w'), (1, 'm')].iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, c)| *c).collect();
        format!("{} {}:{} {access}", self.kind, number(self.major), number(self.minor))
    }
}

/// The rules of a container, what is always allowed last. Without a rule of its own it may use what is always allowed.
pub(crate) fn rules(own: &[DeviceRule]) -> Vec<Rule> {
    let deny_all = Rule { allow: false, kind: 'a', major: None, minor: None, access: 7 };
    std::iter::once(deny_all).chain(own.iter().map(parse)).chain(ALWAYS).collect()
}

/// Puts the filter of the container's cgroup into force. Without a cgroup that can, it is an error: a rule that is not kept would lie.
pub(crate) fn restrict(own: &[DeviceRule], cgroups: &[Cgroup]) -> Result<(), Fault> {
    let rules = rules(own);
    if let Some(cgroup) = cgroups.iter().find(|c| c.name.split(',').any(|name| name == "devices")) {
        // Everything before the last rule for all devices is without effect.
        let from = rules.iter().rposition(Rule::is_everything).unwrap_or(0);
        for rule in &rules[from..] {
            let path = cgroup.dir.join(if rule.allow { "devices.allow" } else { "devices.deny" });
            fs::write(&path, rule.line()).doing(|| format!("write {:?} to {}", rule.line(), path.display()))?;
            if rule.allow && rule.is_everything() {
                break; // the rest allows, too
            }
        }
        return Ok(());
    }
    let Some(cgroup) = cgroups.iter().find(|cgroup| cgroup.is_unified()) else {
        return if own.is_empty() {
            Ok(())
        } else {
            Err(Fault::new("device rules without a cgroup that can keep them"))
        };
    };
    let dir = rustix::fs::open(&cgroup.dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open cgroup {}", cgroup.dir.display()))?;
    let program =
        sys::load_device_program(&bpf::device_program(&rules)).doing(|| "load the device filter".to_owned())?;
    sys::attach_device_program(dir.as_fd(), program.as_fd())
        .doing(|| format!("attach the device filter to {}", cgroup.dir.display()))
}

/// Where device nodes come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    Made,
    /// A user namespace cannot make nodes: the host's are bound.
    Bound,
}

/// Makes the plain devices and those of the specification; the container's root is `/`.
pub(crate) fn make(devices: &[Device]) -> Result<(), Fault> {
    let own = |path: &str| devices.iter().any(|device| device.path == path);
    for (name, major, minor) in PLAIN {
        let path = format!("/dev/{name}");
        if !own(&path) {
            make_node(&path, 'c', (major, minor), 0o666)?;
        }
    }
    for device in devices {
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        let kind = device.kind.chars().next().unwrap_or('c');
        if let Some((parent, _)) = device.path.rsplit_once('/') {
            fs::create_dir_all(parent).doing(|| format!("make directory {parent:?} for a device"))?;
        }
        make_node(&device.path, kind, (number(device.major), number(device.minor)), device.file_mode.unwrap_or(0o666))?;
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        std::os::unix::fs::chown(&device.path, Some(uid), Some(gid))
            .doing(|| format!("change owner of device {:?}", device.path))?;
    }
    Ok(())
}

fn make_node(path: &str, kind: char, (major, minor): (u32, u32), mode: u32) -> Result<(), Fault> {
    let file_type = match kind {
        'b' => rustix::fs::FileType::BlockDevice,
        'p' => rustix::fs::FileType::Fifo,
        _ => rustix::fs::FileType::CharacterDevice,
    };
    let permissions = Mode::from_bits_truncate(mode & 0o7777);
    match rustix::fs::mknodat(CWD, path, file_type, permissions, rustix::fs::makedev(major, minor)) {
        Ok(()) => rustix::fs::chmodat(CWD, path, permissions, rustix::fs::AtFlags::empty())
            .doing(|| format!("change mode of device {path:?}")),
        Err(rustix::io::Errno::EXIST) => Ok(()), // the image has it, or a mount brought it
        Err(e) => Err(e).doing(|| format!("make device node {path:?}")),
    }
}

/// Paths of all nodes that a container gets: to bind them where they cannot be made.
pub(crate) fn paths(devices: &[Device]) -> Vec<String> {
    let plain = PLAIN.iter().map(|(name, ..)| format!("/dev/{name}"));
    plain.chain(devices.iter().map(|device| device.path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_lines_of_cgroup_v1() {
        let own = [
            DeviceRule { access: "rwm".to_owned(), ..DeviceRule::default() },
            DeviceRule {
                allow: true,
                kind: "b".to_owned(),
                major: Some(8),
                access: "rw".to_owned(),
                ..DeviceRule::default()
            },
        ];
        let lines: Vec<String> = rules(&own).iter().map(Rule::line).collect();
        assert_eq!(lines[1..5], ["a", "b 8:* rw", "c *:* m", "b *:* m"]);
    }

    #[test]
    fn the_program_answers_by_the_last_rule_first() {
        let one = [Rule { allow: true, kind: 'c', major: Some(1), minor: None, access: 2 }];
        let program = bpf::device_program(&one);
        // Head 6; kind, three for the access, major, two for the answer; two for the refusal.
        assert_eq!(program.len(), 6 + 1 + 3 + 1 + 2 + 2);
        assert_eq!(program.last(), Some(&0x95));
        assert_eq!(program[6], 0x0000_0002_0006_0255, "kind differs: over six instructions");
    }
}
