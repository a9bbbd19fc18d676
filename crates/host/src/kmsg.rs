//! The kernel's log, as far as it tells that memory ran out.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::ready;

/// Largest record that the kernel gives.
const RECORD_MAX: usize = 8192;

/// A process that was killed because memory ran out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OomKill {
    /// The whole machine ran out, not one cgroup at its limit.
    pub is_global: bool,
    /// Cgroup of the process.
    pub cgroup: String,
    pub process: String,
    pub pid: u32,
}

/// The log from now on.
#[derive(Debug)]
pub struct Kmsg(OwnedFd);

impl Kmsg {
    /// # Errors
    /// No `/dev/kmsg`, or it may not be read.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open(Path::new("/dev/kmsg"), flags, Mode::empty())?;
        rustix::fs::seek(&log, SeekFrom::End(0))?;
        Ok(Self(log))
    }

    /// Waits for the next kill.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub async fn next_kill(&self) -> io::Result<OomKill> {
        let mut record = [0; RECORD_MAX];
        loop {
            match rustix::io::read(&self.0, &mut record) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    if let Some(kill) = kill(&String::from_utf8_lossy(&record[..count])) {
                        return Ok(kill);
                    }
                }
                Err(Errno::AGAIN) => ready::readable(&self.0).await?,
                // Records were overwritten before they were read.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// A record is `<prefix>;<text>`, then lines that begin with a space. The text of interest names everything, since Linux 5.0.
fn kill(record: &str) -> Option<OomKill> {
    let (_, text) = record.split_once(';')?;
    let fields = text.lines().next()?.strip_prefix("oom-kill:")?;
    // A task's name may hold anything: its end is where the last fields begin.
    let (before, rest) = fields.split_once(",task=")?;
    let (rest, _uid) = rest.rsplit_once(",uid=")?;
    let (process, pid) = rest.rsplit_once(",pid=")?;
    let field = |name: &str| before.split(',').find_map(|f| f.strip_prefix(name));
    Some(OomKill {
        is_global: field("oom_memcg=").is_none(),
        cgroup: field("task_memcg=").unwrap_or("/").to_owned(),
        process: process.to_owned(),
        pid: pid.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_told_from_other_records() {
        let global = "6,1213,88,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
                      task_memcg=/user.slice,task=a,b=,pid=77,uid=0\n SUBSYSTEM=x\n";
        let killed = OomKill { is_global: true, cgroup: "/user.slice".into(), process: "a,b=".into(), pid: 77 };
        assert_eq!(kill(global), Some(killed));
        let own = "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/kubepods/podx,\
                   task_memcg=/kubepods/podx/c,task=stress,pid=9,uid=0";
        assert_eq!(kill(own).map(|k| (k.is_global, k.pid)), Some((false, 9)));
        for other in ["", "6,1,2,-;oom_reaper: reaped process 9", "6,1,2,-;oom-kill:constraint=x,task=a,pid=x,uid=0"] {
            assert_eq!(kill(other), None, "{other}");
        }
    }
}
