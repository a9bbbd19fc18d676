//! A directory whose files change all at once: content lies in `..<time>.<number>`, `..data` points there, and what users see
//! are links through `..data`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rubelet_core::pod::step::VolumeFile;
use rubelet_host::paths;

use crate::mount::Cause;

#[cfg(test)]
mod tests;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Paths must be relative, without `..` anywhere and no name at the top may begin with it.
pub(crate) fn check(files: &[VolumeFile]) -> Result<(), Cause> {
    for file in files {
        let mut components = Path::new(&file.path).components();
        let is_normal = components.clone().all(|c| matches!(c, Component::Normal(_)));
        let is_reserved = components.next().is_none_or(|c| c.as_os_str().as_encoded_bytes().starts_with(b".."));
        if !is_normal || is_reserved {
            return Err(Cause::FilePath { path: file.path.clone() });
        }
    }
    Ok(())
}

/// Makes `dir` show exactly these files. Unchanged content touches nothing. `prepare` sees the new content's directory
/// before anybody else does.
pub(crate) fn write(
    dir: &Path,
    files: &[VolumeFile],
    prepare: impl FnOnce(&Path) -> Result<(), Cause>,
) -> Result<(), Cause> {
    check(files)?;
    let current = current_content(dir)?;
    if current.as_deref().is_some_and(|c| is_same(c, files)) {
        return link_names(dir, files);
    }
    let content = new_content_dir(dir)?;
    let filled = fill(&content, files).and_then(|()| prepare(&content)).and_then(|()| point_to(dir, &content));
    if let Err(error) = filled {
        let _ = paths::remove_tree(&content);
        return Err(error);
    }
    link_names(dir, files)?;
    own_links(dir, files)?;
    unlink_stale(dir, files, &content)
}

/// Where `..data` points, when that is a directory.
fn current_content(dir: &Path) -> Result<Option<PathBuf>, Cause> {
    let data = dir.join(DATA);
    match fs::read_link(&data) {
        Ok(target) => Ok(Some(dir.join(target)).filter(|d| d.is_dir())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Cause::io("read link", &data)(e)),
    }
}

/// Whether the content directory holds just these files, by bytes. The modes of a running volume are not compared, since
/// fsGroup adds to them.
fn is_same(content: &Path, files: &[VolumeFile]) -> bool {
    let mut found = BTreeSet::new();
    let mut ahead = vec![content.to_owned()];
    while let Some(dir) = ahead.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { return false };
        for entry in entries {
            let Ok(entry) = entry else { return false };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => ahead.push(entry.path()),
                Ok(_) => drop(found.insert(entry.path())),
                Err(_) => return false,
            }
        }
    }
    let wanted: BTreeSet<PathBuf> = files.iter().map(|f| content.join(&f.path)).collect();
    found == wanted
        && files.iter().all(|f| {
            let path = content.join(&f.path);
            let has_bits = fs::metadata(&path).is_ok_and(|m| m.mode() & f.mode & 0o777 == f.mode & 0o777);
            let is_owned = f.owner.is_none_or(|user| fs::metadata(&path).is_ok_and(|m| i64::from(m.uid()) == user));
            has_bits && is_owned && fs::read(&path).is_ok_and(|c| c == f.content)
        })
}

/// `..2025_11_23_17_24_05.<digits>`, mode 0755.
fn new_content_dir(dir: &Path) -> Result<PathBuf, Cause> {
    let now = jiff::Timestamp::now();
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    let mut number = u64::from(now.subsec_nanosecond().unsigned_abs());
    loop {
        let path = dir.join(format!("{stamp}.{number}"));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Cause::io("chmod", &path))?;
                return Ok(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(Cause::io("create", &path)(e)),
        }
    }
}

fn fill(content: &Path, files: &[VolumeFile]) -> Result<(), Cause> {
    for file in files {
        let path = content.join(&file.path);
        if let Some(parent) = path.parent() {
            paths::ensure_dir(parent, 0o755)?;
        }
        fs::write(&path, &file.content).map_err(Cause::io("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).map_err(Cause::io("chmod", &path))?;
        if let Some(user) = file.owner {
            own(&path, user)?;
        }
    }
    Ok(())
}

/// Gives a file, or the link itself, to a user.
fn own(path: &Path, user: i64) -> Result<(), Cause> {
    let uid = u32::try_from(user).map_err(|_| Cause::Refused { message: format!("user {user} is out of range") })?;
    std::os::unix::fs::lchown(path, Some(uid), None).map_err(Cause::io("chown", path))
}

/// kubelet 1.36: the links of files at the top that have an owner are the owner's too.
fn own_links(dir: &Path, files: &[VolumeFile]) -> Result<(), Cause> {
    for file in files.iter().filter(|f| !f.path.contains('/')) {
        if let Some(user) = file.owner {
            own(&dir.join(&file.path), user)?;
        }
    }
    Ok(())
}

/// Swaps `..data` by renaming another link over it.
fn point_to(dir: &Path, content: &Path) -> Result<(), Cause> {
    let (data, next) = (dir.join(DATA), dir.join(DATA_NEXT));
    match fs::remove_file(&next) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Cause::io("remove", &next)(e)),
        _ => {}
    }
    let name = content.file_name().unwrap_or_default();
    symlink(name, &next).map_err(Cause::io("link", &next))?;
    fs::rename(&next, &data).map_err(Cause::io("rename", &next))
}

fn top_names(files: &[VolumeFile]) -> BTreeSet<OsString> {
    files.iter().filter_map(|f| Some(Path::new(&f.path).components().next()?.as_os_str().to_owned())).collect()
}

/// A link through `..data` for each name at the top.
fn link_names(dir: &Path, files: &[VolumeFile]) -> Result<(), Cause> {
    for name in top_names(files) {
        let link = dir.join(&name);
        let target = Path::new(DATA).join(&name);
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        match symlink(&target, &link) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&link).map_err(Cause::io("remove", &link))?;
                symlink(&target, &link).map_err(Cause::io("link", &link))?;
            }
            other => other.map_err(Cause::io("link", &link))?,
        }
    }
    Ok(())
}

/// Removes links to names that are no more, and content directories of before.
fn unlink_stale(dir: &Path, files: &[VolumeFile], content: &Path) -> Result<(), Cause> {
    let wanted = top_names(files);
    for entry in fs::read_dir(dir).map_err(Cause::io("read", dir))? {
        let entry = entry.map_err(Cause::io("read", dir))?;
        let (name, path) = (entry.file_name(), entry.path());
        let kind = entry.file_type().map_err(Cause::io("stat", &path))?;
        let is_hidden = name.as_encoded_bytes().starts_with(b"..");
        if kind.is_dir() && is_hidden && path != content {
            paths::remove_tree(&path)?;
        } else if kind.is_symlink() && !is_hidden && !wanted.contains(&name) {
            fs::remove_file(&path).map_err(Cause::io("remove", &path))?;
        }
    }
    Ok(())
}
