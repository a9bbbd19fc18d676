//! Joining the container's cgroups, and what they say at the end. Their values are the agent's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::fault::{Doing, Fault};
use crate::setup::Cgroup;
use crate::sys;

/// Files of the cgroups to join, opened while the host's paths and rights are still there.
pub(crate) struct Doors(Vec<File>);

/// Opens what has to be written to join. With `tasks`, cgroup v1 moves the calling thread only: that needs none of the kernel's
/// global locks, and our process has one thread. Version 2 knows no such file for its purpose.
pub(crate) fn open(cgroups: &[Cgroup]) -> Result<Doors, Fault> {
    let mut doors = Vec::with_capacity(cgroups.len());
    for cgroup in cgroups {
        let path =
            cgroup.dir.join(if cgroup.is_unified() || cgroup.name == "unified" { "cgroup.procs" } else { "tasks" });
        doors
            .push(OpenOptions::new().write(true).open(&path).doing(|| format!("open cgroup file {}", path.display()))?);
    }
    Ok(Doors(doors))
}

impl Doors {
    /// Moves the calling process (it has one thread) into the cgroups.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|door| door.write_all(b"0"))
    }
}

/// Moves this process into a cgroup directory of either version.
pub(crate) fn join(dir: &Path) -> io::Result<()> {
    let tasks = dir.join("tasks");
    let path = if tasks.exists() { tasks } else { dir.join("cgroup.procs") };
    OpenOptions::new().write(true).open(path)?.write_all(b"0")
}

fn oom_kill(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// How many processes the kernel killed for memory in the container's cgroup; 0 when that is not known.
pub(crate) fn oom_kills(cgroups: &[Cgroup]) -> u64 {
    let count = |path: &Path| oom_kill(&fs::read_to_string(path).ok()?);
    let v1 = cgroups.iter().find(|cgroup| cgroup.name.split(',').any(|name| name == "memory"));
    let v2 = cgroups.iter().find(|cgroup| cgroup.is_unified());
    v1.and_then(|cgroup| count(&cgroup.dir.join("memory.oom_control")))
        .or_else(|| v2.and_then(|cgroup| count(&cgroup.dir.join("memory.events"))))
        .unwrap_or(0)
}

/// The same of cgroup v2, followed while the container runs: systemd removes a scope as soon as nobody is in it, and with it what it says.
pub(crate) struct OomKills {
    /// Polled for [`PollFlags::PRI`](rustix::event::PollFlags::PRI), it tells of news.
    file: Option<File>,
    count: u64,
}

impl OomKills {
    pub(crate) fn follow(cgroups: &[Cgroup]) -> Self {
        let v2 = cgroups.iter().find(|cgroup| cgroup.is_unified());
        let mut own = Self { file: v2.and_then(|cgroup| File::open(cgroup.dir.join("memory.events")).ok()), count: 0 };
        own.look();
        own
    }

    /// What to poll; nothing once the cgroup is gone.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Reads the count again, and is so told of the next news. What was read last stays when the cgroup is gone.
    pub(crate) fn look(&mut self) -> u64 {
        const ROOM: usize = 1024;
        let Some(file) = &self.file else { return self.count };
        let mut text = [0; ROOM];
        match file.read_at(&mut text, 0) {
            Ok(length) => {
                let read = oom_kill(&String::from_utf8_lossy(&text[..length.min(ROOM)]));
                self.count = self.count.max(read.unwrap_or(0));
            }
            Err(_) => self.file = None,
        }
        self.count
    }
}

/// Sends a signal to every process of the container, in sub-cgroups too. How many there were.
pub(crate) fn signal_all(cgroups: &[Cgroup], signal: i32) -> io::Result<usize> {
    // A hierarchy without controllers can hold processes that left the others: the first one is as good as any.
    let Some(cgroup) = cgroups.iter().find(|c| c.is_unified() || c.name == "pids").or(cgroups.first()) else {
        return Ok(0);
    };
    if signal == libc::SIGKILL && fs::write(cgroup.dir.join("cgroup.kill"), "1").is_ok() {
        return Ok(0);
    }
    let mut pids = Vec::new();
    read_pids(&cgroup.dir, 0, &mut pids)?;
    for pid in &pids {
        sys::kill(*pid, signal)?;
    }
    Ok(pids.len())
}

/// Containers make cgroups below their own; deeper than this nobody looks.
const DEPTH_MAX: usize = 32;

fn read_pids(dir: &Path, depth: usize, pids: &mut Vec<i32>) -> io::Result<()> {
    let mut text = String::new();
    match File::open(dir.join("cgroup.procs")) {
        Ok(mut file) => file.read_to_string(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    pids.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    if depth < DEPTH_MAX {
        for entry in fs::read_dir(dir)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                read_pids(&entry.path(), depth + 1, pids)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_what_was_seen_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let cgroups = [Cgroup { name: String::new(), dir: dir.path().to_owned() }];
        assert!(OomKills::follow(&cgroups).file().is_none());
        fs::write(&file, "low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n").unwrap();
        let mut kills = OomKills::follow(&cgroups);
        assert_eq!(kills.look(), 0);
        fs::write(&file, "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert_eq!((kills.look(), oom_kills(&cgroups)), (2, 2));
        fs::write(&file, "").unwrap();
        assert_eq!((kills.look(), oom_kills(&cgroups)), (2, 0));
        let v1 = [Cgroup { name: "memory".to_owned(), dir: dir.path().to_owned() }];
        assert!(OomKills::follow(&v1).file().is_none());
    }
}
