//! Overlay mounts: directories seen as one, the topmost of which takes the changes.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::MountError;

/// Bytes of one option at most, with its closing zero (`fsconfig(2)`).
const OPTION_MAX: usize = 256;
/// Bytes of all options at most, with the closing zero (`mount(2)`: a page).
const OPTIONS_MAX: usize = 4096;

/// What is stacked.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Only read; the topmost first. At least one, at least two without `upper`.
    pub lower: &'a [PathBuf],
    /// Takes the changes; `None`: the mount is read-only.
    pub upper: Option<Upper<'a>>,
    /// Overlayfs keeps its marks in `user.overlay.*`, as mounts without privilege must.
    pub user_xattr: bool,
}

/// Where changes go.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    pub dir: &'a Path,
    /// An empty directory on the same file system as `dir`.
    pub work: &'a Path,
}

/// Mounts an overlay on `target`.
///
/// By `fsconfig`, one option for each layer (Linux 6.5), else by `mount` with paths relative to `base`, a directory above
/// all others: options must fit a page.
pub fn overlay(target: &Path, base: &Path, overlay: &Overlay<'_>) -> Result<(), MountError> {
    let outcome = match by_fsconfig(target, overlay) {
        // Older kernels do not know `lowerdir+` or, before 5.2, the calls; long paths do not fit an option.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => by_mount(target, base, overlay),
        other => other,
    };
    outcome.map_err(|e| MountError::Mount { what: "overlay".into(), target: target.to_owned(), source: e.into() })
}

fn by_fsconfig(target: &Path, overlay: &Overlay<'_>) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, path: &Path| {
        if path.as_os_str().len() >= OPTION_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        fsconfig_set_string(&context, key, path)
    };
    fsconfig_set_string(&context, "source", "overlay")?;
    for dir in overlay.lower {
        set("lowerdir+", dir)?;
    }
    let mut attributes = MountAttrFlags::empty();
    match overlay.upper {
        Some(upper) => {
            set("upperdir", upper.dir)?;
            set("workdir", upper.work)?;
        }
        None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    if overlay.user_xattr {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// In a thread of its own, whose working directory is `base`: then the paths are short.
fn by_mount(target: &Path, base: &Path, overlay: &Overlay<'_>) -> rustix::io::Result<()> {
    let options = options(base, overlay)?;
    let flags = if overlay.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
    let target = std::path::absolute(target).map_err(|_| Errno::INVAL)?;
    let work = || {
        // SAFETY: the working directory becomes this thread's own; no file descriptor becomes invalid by it, and the
        // thread ends here.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?;
        rustix::process::chdir(base)?;
        rustix::mount::mount("overlay", &target, "overlay", flags, options.as_c_str())
    };
    // A thread that panicked has mounted nothing.
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or(Err(Errno::IO))
}

fn options(base: &Path, overlay: &Overlay<'_>) -> rustix::io::Result<CString> {
    let short = |path: &Path| escaped(path.strip_prefix(base).unwrap_or(path).as_os_str().as_bytes());
    let lower: Vec<Vec<u8>> = overlay.lower.iter().map(|dir| short(dir)).collect();
    let mut all = [b"lowerdir=".as_slice(), &lower.join(b":".as_slice())].concat();
    if let Some(upper) = overlay.upper {
        all.extend([b",upperdir=".as_slice(), &short(upper.dir), b",workdir=", &short(upper.work)].concat());
    }
    if overlay.user_xattr {
        all.extend(b",userxattr");
    }
    if all.len() >= OPTIONS_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    CString::new(all).map_err(|_| Errno::INVAL)
}

/// What separates options and layers gets a backslash.
fn escaped(path: &[u8]) -> Vec<u8> {
    path.iter().flat_map(|b| if b"\\:,".contains(b) { vec![b'\\', *b] } else { vec![*b] }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::in_private_namespace;
    use super::*;
    use std::fs;

    type Way = fn(&Path, &Path, &Overlay<'_>) -> rustix::io::Result<()>;

    fn stacked(way: Way) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        let path = |name: &str| base.join(name);
        let lower: Vec<PathBuf> = (0..60).rev().map(|n| path(&format!("{n:016}/fs"))).collect();
        for dir in lower.iter().chain(&[path("up"), path("work"), path("merged")]) {
            fs::create_dir_all(dir).unwrap();
        }
        for dir in &lower {
            fs::write(dir.join("name"), dir.as_os_str().as_bytes()).unwrap();
        }
        fs::write(lower[59].join("bottom"), "b").unwrap();
        let (up, work, merged) = (path("up"), path("work"), path("merged"));
        let writable = Overlay { lower: &lower, upper: Some(Upper { dir: &up, work: &work }), user_xattr: false };
        way(&merged, base, &writable).unwrap();
        assert_eq!(fs::read(merged.join("name")).unwrap(), lower[0].as_os_str().as_bytes());
        assert_eq!(fs::read_to_string(merged.join("bottom")).unwrap(), "b");
        fs::write(merged.join("new"), "n").unwrap();
        assert_eq!(fs::read_to_string(up.join("new")).unwrap(), "n");
        super::super::unmount(&merged, super::super::Unmount::Plain).unwrap();
        way(&merged, base, &Overlay { upper: None, ..writable }).unwrap();
        assert!(fs::write(merged.join("new"), "n").is_err());
        super::super::unmount(&merged, super::super::Unmount::Plain).unwrap();
    }

    #[test]
    fn sixty_layers_by_fsconfig() {
        in_private_namespace(|| {
            match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
                .map(|c| fsconfig_set_string(&c, "lowerdir+", "/").is_ok())
            {
                Ok(true) => stacked(|target, _, overlay| by_fsconfig(target, overlay)),
                Ok(false) | Err(_) => eprintln!("not run: the kernel is older than 6.5"),
            }
        });
    }

    #[test]
    fn sixty_layers_by_mount() {
        let here = std::env::current_dir().unwrap();
        in_private_namespace(|| stacked(by_mount));
        assert_eq!(std::env::current_dir().unwrap(), here);
    }

    #[test]
    fn options_that_do_not_fit() {
        let lower: Vec<PathBuf> = (0..300).map(|n| PathBuf::from(format!("/b/{n:016}"))).collect();
        let overlay = Overlay { lower: &lower, upper: None, user_xattr: false };
        assert_eq!(options(Path::new("/b"), &overlay), Err(Errno::NAMETOOLONG));
        let odd = [PathBuf::from("/b/a:b"), PathBuf::from("/c,d")];
        let overlay = Overlay { lower: &odd, upper: None, user_xattr: true };
        assert_eq!(options(Path::new("/b"), &overlay).unwrap().to_bytes(), b"lowerdir=a\\:b:/c\\,d,userxattr");
    }
}
