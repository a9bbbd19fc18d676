//! Who runs, and what: user, groups, home, limits, and the program's path.

use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::Access;
use rustix::process::{Gid, Uid};

use crate::fault::{Fault, reason};
use crate::spec::Rlimit;

/// Where programs are sought when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file of a program, with the texts that users know from Go's `exec.LookPath`.
pub(crate) fn find_program(name: &str, env: &[String]) -> Result<CString, Fault> {
    let fault = |why: String| Fault(format!("exec: \"{name}\": {why}"));
    let text = |path: &str| CString::new(path).map_err(|_| fault("invalid argument".to_owned()));
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => text(name),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied || e.kind() == io::ErrorKind::IsADirectory => {
                Err(fault(reason(&e)))
            }
            Err(e) => Err(fault(format!("stat {name}: {}", reason(&e)))),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{}/{name}", dir.trim_end_matches('/'));
        if executable(&candidate).is_ok() && !name.is_empty() {
            return text(&candidate);
        }
    }
    Err(fault("executable file not found in $PATH".to_owned()))
}

fn executable(path: &str) -> io::Result<()> {
    let file = fs::metadata(path)?;
    if file.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if file.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    // As the user who will run it; a file system that is mounted without exec says so here.
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS).map_err(Into::into)
}

/// The home of a user in the container's `/etc/passwd`; `/` when it is not there.
pub(crate) fn home_of(uid: u32) -> String {
    const LINES_MAX: usize = 100_000;
    let find = || {
        let file = fs::File::open("/etc/passwd").ok()?;
        io::BufReader::new(file).lines().take(LINES_MAX).map_while(Result::ok).find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| fields.get(5).map(|home| (*home).to_owned()))?
        })
    };
    find().filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

/// Becomes the user. Capabilities are the caller's matter.
pub(crate) fn become_user(uid: u32, gid: u32, additional: &[u32], may_set_groups: bool) -> io::Result<()> {
    let groups: Vec<Gid> = additional.iter().map(|gid| Gid::from_raw(*gid)).collect();
    if may_set_groups {
        rustix::thread::set_thread_groups(&groups)?;
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// The kernel's number of a limit.
pub(crate) fn limit_number(limit: &Rlimit) -> Option<u32> {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let name = limit.kind.strip_prefix("RLIMIT_")?;
    NAMES.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_refused_in_known_words() {
        let env = ["PATH=/nowhere:/usr/bin:/bin".to_owned()];
        let text = |name: &str| find_program(name, &env).map_err(|e| e.to_string());
        assert!(text("sh").unwrap().to_str().unwrap().ends_with("bin/sh"));
        assert_eq!(
            text("nothing-of-this").unwrap_err(),
            "exec: \"nothing-of-this\": executable file not found in $PATH"
        );
        assert_eq!(text("").unwrap_err(), "exec: \"\": executable file not found in $PATH");
        assert_eq!(text("/nothing").unwrap_err(), "exec: \"/nothing\": stat /nothing: no such file or directory");
        assert_eq!(text("/etc/passwd").unwrap_err(), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(text("/etc/").unwrap_err(), "exec: \"/etc/\": is a directory");
    }

    #[test]
    fn homes_and_limits() {
        assert_eq!((home_of(0).as_str(), home_of(4_000_000).as_str()), ("/root", "/"));
        let limit = |kind: &str| limit_number(&Rlimit { kind: kind.to_owned(), hard: 1, soft: 1 });
        assert_eq!((limit("RLIMIT_NOFILE"), limit("RLIMIT_SPEED")), (Some(libc::RLIMIT_NOFILE), None));
    }
}
