//! Who runs: names and ids, as the container's own `/etc/passwd` and `/etc/group` know them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use rubelet_proto::cri::{
    Int64Value, LinuxContainerSecurityContext, LinuxContainerUser, LinuxSandboxSecurityContext,
    SupplementalGroupsPolicy,
};
use rubelet_shim::spec::User;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::SpecError;

#[cfg(test)]
mod tests;

/// Bytes of a file that are read.
const FILE_MAX: u64 = 4 << 20;
/// The kernel's answer to a path that another process changes.
const RACES_MAX: usize = 16;

/// The user of a container, with its groups.
///
/// containerd 2: a name that is asked for is before a number, and both are before the image's; a group needs a user; without one it is
/// the user's own of `/etc/passwd`. The groups are a set, in which the first one is too.
pub(super) fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    rootfs: &Path,
) -> Result<User, SpecError> {
    let asked = asked(&security.run_as_username, security.run_as_user.as_ref(), security.run_as_group.as_ref())?;
    let wanted = asked.as_deref().unwrap_or(image_user);
    let files = Files { rootfs };
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let found = files.user(user)?;
    let gid = group.map_or(Ok(found.gid), |group| files.group(group))?;
    let mut groups = numbers(&security.supplemental_groups)?;
    groups.insert(gid);
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(name) = &found.name
    {
        groups.extend(files.groups_of(name)?);
    }
    Ok(User { uid: found.uid, gid, umask: None, additional_gids: groups.into_iter().collect() })
}

/// The user of a pause process: it has no files to look into.
pub(super) fn pause(security: &LinuxSandboxSecurityContext) -> Result<User, SpecError> {
    asked("", security.run_as_user.as_ref(), security.run_as_group.as_ref())?;
    let number = |value: &Option<Int64Value>| value.as_ref().map_or(Ok(0), |v| id(&v.value.to_string(), "uid"));
    Ok(User {
        uid: number(&security.run_as_user)?,
        gid: number(&security.run_as_group)?,
        umask: None,
        additional_gids: numbers(&security.supplemental_groups)?.into_iter().collect(),
    })
}

/// As a container's status shows it.
pub(super) fn shown(user: &User) -> LinuxContainerUser {
    LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.additional_gids.iter().map(|gid| i64::from(*gid)).collect(),
    }
}

fn asked(name: &str, uid: Option<&Int64Value>, gid: Option<&Int64Value>) -> Result<Option<String>, SpecError> {
    let user = match (name, uid) {
        ("", None) => None,
        ("", Some(uid)) => Some(uid.value.to_string()),
        (name, _) => Some(name.to_owned()),
    };
    match (user, gid) {
        (None, Some(gid)) => {
            let words =
                format!("failed to generate user string: user group \"{}\" is specified without user", gid.value);
            Err(SpecError::new(words))
        }
        (Some(user), Some(gid)) => Ok(Some(format!("{user}:{}", gid.value))),
        (user, None) => Ok(user),
    }
}

fn id(text: &str, what: &str) -> Result<u32, SpecError> {
    let fine = text.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok());
    fine.ok_or_else(|| SpecError::new(format!("invalid USER value {text:?}: {what} out of range")))
}

fn numbers(groups: &[i64]) -> Result<BTreeSet<u32>, SpecError> {
    groups.iter().map(|gid| id(&gid.to_string(), "gid")).collect()
}

fn is_number(text: &str) -> bool {
    text.parse::<i128>().is_ok()
}

struct Found {
    name: Option<String>,
    uid: u32,
    gid: u32,
}

/// The files of the container's root.
struct Files<'a> {
    rootfs: &'a Path,
}

impl Files<'_> {
    /// By name or number; nobody said is root.
    fn user(&self, wanted: &str) -> Result<Found, SpecError> {
        let wanted = if wanted.is_empty() { "0" } else { wanted };
        let number = is_number(wanted).then(|| id(wanted, "uid")).transpose()?;
        let found = self.first("etc/passwd", |fields| {
            let [name, _, uid, gid, ..] = fields else { return None };
            let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
            let is_it = number.map_or(*name == wanted, |number| number == uid);
            is_it.then(|| Found { name: Some((*name).to_owned()), uid, gid })
        })?;
        match (found, number) {
            (Some(user), _) => Ok(user),
            (None, Some(uid)) => Ok(Found { name: None, uid, gid: 0 }),
            (None, None) => {
                Err(SpecError::new(format!("unable to find user {wanted}: no matching entries in passwd file")))
            }
        }
    }

    fn group(&self, wanted: &str) -> Result<u32, SpecError> {
        if is_number(wanted) {
            return id(wanted, "gid");
        }
        let found = self.first("etc/group", |fields| {
            let [name, _, gid, ..] = fields else { return None };
            (*name == wanted).then(|| gid.parse::<u32>().ok())?
        })?;
        found.ok_or_else(|| SpecError::new(format!("unable to find group {wanted}: no matching entries in group file")))
    }

    /// Groups that list the user.
    fn groups_of(&self, user: &str) -> Result<Vec<u32>, SpecError> {
        let mut groups = Vec::new();
        self.each("etc/group", |fields| {
            if let [_, _, gid, members, ..] = fields
                && members.split(',').any(|member| member == user)
            {
                groups.extend(gid.parse::<u32>().ok());
            }
            false
        })?;
        Ok(groups)
    }

    fn first<T>(&self, file: &str, pick: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, SpecError> {
        let mut picked = None;
        self.each(file, |fields| {
            picked = pick(fields);
            picked.is_some()
        })?;
        Ok(picked)
    }

    /// Shows the fields of each line, until that is enough. A file that is not there has no lines.
    fn each(&self, file: &str, mut is_enough: impl FnMut(&[&str]) -> bool) -> Result<(), SpecError> {
        let what = || format!("read /{file} of the container");
        let Some(opened) = open(self.rootfs, file).map_err(|e| SpecError::io(what())(e.into()))? else {
            return Ok(());
        };
        let mut reader = BufReader::new(opened.take(FILE_MAX));
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).map_err(SpecError::io(what()))? == 0 {
                return Ok(());
            }
            let Ok(line) = std::str::from_utf8(&bytes) else { continue };
            let fields: Vec<&str> = line.trim().split(':').collect();
            if is_enough(&fields) {
                return Ok(());
            }
        }
    }
}

/// Opens a regular file below the root; links of the image are followed within it.
fn open(rootfs: &Path, file: &str) -> rustix::io::Result<Option<File>> {
    let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let look = || rustix::fs::openat2(&root, file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let mut found = look();
    for _ in 0..RACES_MAX {
        if !matches!(found, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
        found = look();
    }
    let found = match found {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other?,
    };
    // A pipe or a device of the image is not waited for.
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let own = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    rustix::fs::open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(|fd| Some(fd.into()))
}
