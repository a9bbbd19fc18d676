//! Projects of volumes: the file system itself counts what they take. Which directory has which is written down in `/etc/projects` and
//! `/etc/projid`, where xfs_quota(8) and upstream's kubelet look, so that nobody gives a project away twice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rubelet_host::disk;
use rustix::fs::OFlags;

use crate::mount::Cause;

#[cfg(test)]
mod tests;

/// kubelet 1.36: the first that volumes get.
const FIRST: u32 = 1_048_577;
/// kubelet 1.36: so many that nobody wrote down are looked at.
const LOOKED_AT_MAX: u32 = 128;
/// How often files are locked anew because somebody has replaced them.
const LOCKS_MAX: usize = 100;

/// Where projects are written down.
const ETC: &str = "/etc";

/// Gives a volume's directory a project of its own, if its file system keeps account of them. Again: nothing happens.
pub(crate) fn assign(dir: &Path) -> Result<(), Cause> {
    if !disk::counts_projects(dir) {
        return Ok(());
    }
    let (mut files, name) = (Files::lock(Path::new(ETC))?, written(dir)?);
    let project = match files.lists.of(name) {
        // What is made in it has it, too: nothing has to be looked at after a restart.
        Some(project) if disk::project(dir).is_ok_and(|known| known == project) => return Ok(()),
        Some(project) => project,
        None => {
            let project = files.lists.free(|project| disk::is_project_used(dir, project)).map_err(failed(dir))?;
            files.lists.add(project, name);
            files.write()?;
            disk::lift_limits(dir, project).map_err(failed(dir))?;
            project
        }
    };
    disk::join_project(dir, project).map_err(failed(dir))
}

/// Gives back the project of a volume that is about to be removed; nothing happens if it has none of its own.
pub(crate) fn release(dir: &Path) -> Result<(), Cause> {
    if disk::project(dir).is_ok_and(|project| project != 0) { release_in(Path::new(ETC), dir) } else { Ok(()) }
}

fn release_in(etc: &Path, dir: &Path) -> Result<(), Cause> {
    let name = written(dir)?;
    // Most often it is the file system's own project for all that is below a directory.
    if !fs::read_to_string(etc.join("projects")).is_ok_and(|text| Lists::new(&text, "").of(name).is_some()) {
        return Ok(());
    }
    let mut files = Files::lock(etc)?;
    let Some(project) = files.lists.remove(name) else { return Ok(()) };
    // kubelet 1.36: sets limits, which nobody reaches.
    if let Err(error) = disk::lift_limits(dir, project) {
        tracing::debug!(dir = %dir.display(), project, err = %error, "The limits of a volume's project stay");
    }
    files.write()
}

fn failed(dir: &Path) -> impl Fn(io::Error) -> Cause {
    move |source| Cause::Io { operation: "give a project to", path: dir.to_owned(), source }
}

/// The directory as the lists name it.
fn written(dir: &Path) -> Result<&str, Cause> {
    let text = dir.to_str().filter(|text| !text.contains('\n'));
    text.ok_or_else(|| Cause::Refused { message: format!("{}: no project for such a path", dir.display()) })
}

/// Both lists, locked against others who keep to that.
struct Files {
    paths: [PathBuf; 2],
    _locked: [File; 2],
    lists: Lists,
}

impl Files {
    fn lock(etc: &Path) -> Result<Self, Cause> {
        let paths = [etc.join("projects"), etc.join("projid")];
        let locked = [lock(&paths[0])?, lock(&paths[1])?];
        let read = |path: &PathBuf| fs::read_to_string(path).map_err(Cause::io("read", path));
        let lists = Lists::new(&read(&paths[0])?, &read(&paths[1])?);
        Ok(Self { paths, _locked: locked, lists })
    }

    /// Names first: a project without a name would be given away again.
    fn write(&self) -> Result<(), Cause> {
        replace(&self.paths[1], &self.lists.names)?;
        replace(&self.paths[0], &self.lists.projects)
    }
}

/// Opens a list and locks it; makes it if it is not there. A link is refused.
fn lock(path: &Path) -> Result<File, Cause> {
    let failed = |operation| Cause::io(operation, path);
    for _ in 0..LOCKS_MAX {
        let mut options = fs::OpenOptions::new();
        // Nothing is written to it: who changes a list replaces the file.
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let file = options.open(path).map_err(failed("open"))?;
        let known = file.metadata().map_err(failed("stat"))?;
        if !known.is_file() {
            return Err(Cause::Refused { message: format!("{} is not a plain file", path.display()) });
        }
        file.lock().map_err(failed("lock"))?;
        // Else it is the file before the last change.
        if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (known.dev(), known.ino())) {
            return Ok(file);
        }
    }
    Err(Cause::Refused { message: format!("{} is replaced again and again", path.display()) })
}

fn replace(path: &Path, lines: &[String]) -> Result<(), Cause> {
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    let mode = fs::metadata(path).map_err(Cause::io("stat", path))?.permissions().mode() & 0o7777;
    let new = path.with_extension("rubelet");
    fs::write(&new, text).map_err(Cause::io("write", &new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(Cause::io("chmod", &new))?;
    fs::rename(&new, path).map_err(Cause::io("rename", &new))
}

/// What is written down, line by line; lines of others stay as they are.
#[derive(Debug, PartialEq)]
struct Lists {
    /// `project:directory`.
    projects: Vec<String>,
    /// `name:project`.
    names: Vec<String>,
}

impl Lists {
    fn new(projects: &str, names: &str) -> Self {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Self { projects: lines(projects), names: lines(names) }
    }

    /// The project of a directory.
    fn of(&self, dir: &str) -> Option<u32> {
        self.projects.iter().filter_map(|line| of_directory(line)).find(|(_, known)| *known == dir).map(|(id, _)| id)
    }

    /// A project that is neither written down nor in use.
    fn free(&self, is_used: impl Fn(u32) -> io::Result<bool>) -> io::Result<u32> {
        let of_names = self.names.iter().filter_map(|line| named(line));
        let taken: std::collections::BTreeSet<u32> =
            self.projects.iter().filter_map(|line| of_directory(line)).map(|(id, _)| id).chain(of_names).collect();
        let mut looked_at = 0;
        for project in (FIRST..).filter(|project| !taken.contains(project)) {
            if !is_used(project)? {
                return Ok(project);
            }
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                break;
            }
        }
        Err(io::Error::other("no project is free"))
    }

    /// kubelet 1.36: its name says its number.
    fn add(&mut self, project: u32, dir: &str) {
        self.names.push(format!("volume{project}:{project}"));
        self.projects.push(format!("{project}:{dir}"));
    }

    /// Forgets a directory, and its project's name if it was the last one.
    fn remove(&mut self, dir: &str) -> Option<u32> {
        let project = self.of(dir)?;
        self.projects.retain(|line| of_directory(line) != Some((project, dir)));
        if !self.projects.iter().any(|line| of_directory(line).is_some_and(|(id, _)| id == project)) {
            self.names.retain(|line| named(line) != Some(project));
        }
        Some(project)
    }
}

fn of_directory(line: &str) -> Option<(u32, &str)> {
    let (project, dir) = line.split_once(':')?;
    Some((number(project)?, dir))
}

fn named(line: &str) -> Option<u32> {
    let (name, project) = line.split_once(':')?;
    number(project).filter(|_| !name.is_empty() && !name.starts_with('#'))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
