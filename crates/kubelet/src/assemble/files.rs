//! The configuration file and its drop-ins, as bytes with their names. The only place of [`super`] that reads files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rubelet_api::config::CONFIG_BYTES;

use crate::flags::scan::quoted;

/// Most drop-ins; more are a wrong directory.
const DROP_INS: usize = 1000;

/// Why files were not read, in upstream's words where it has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("failed to read kubelet config file {}, error: open {}: {}", shown(.path), .path.display(), words(.source))]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to walk through kubelet dropin directory {}: {}: {}", shown(.dir), .place.display(), words(.source))]
    Walk { dir: PathBuf, place: PathBuf, source: io::Error },
    #[error("failed to walk through kubelet dropin directory {}: more than {DROP_INS} files", shown(.dir))]
    TooMany { dir: PathBuf },
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// The system's words without its number, in lower case as Go has them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A configuration file's bytes; of one that is too large, enough to see that.
///
/// # Errors
/// [`FileError::Read`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(CONFIG_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

/// Every `*.conf` below the directory, in the order of their paths (kubelet 1.36: names of one directory by their
/// bytes, a subdirectory at its name's place). Other files are skipped.
///
/// # Errors
/// [`FileError::Walk`], [`FileError::TooMany`].
pub(super) fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    // The directory itself may be a symbolic link, as in upstream.
    descend(dir, dir, &mut found)?;
    Ok(found)
}

fn descend(dir: &Path, place: &Path, found: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let wrap = |source| FileError::Walk { dir: dir.to_owned(), place: place.to_owned(), source };
    let mut entries = fs::read_dir(place).map_err(wrap)?.collect::<Result<Vec<_>, _>>().map_err(wrap)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Links are not followed: no cycles.
        if entry.file_type().map_err(wrap)?.is_dir() {
            descend(dir, &entry.path(), found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "conf") {
            if found.len() == DROP_INS {
                return Err(FileError::TooMany { dir: dir.to_owned() });
            }
            found.push(entry.path());
        } else {
            tracing::trace!(path = %entry.path().display(), "Skipping file which doesn't have .conf extension");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_come_in_the_order_of_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("20-more")).unwrap();
        for name in ["30.conf", "10.conf", "20-more/b.conf", "20-more/a.conf", "15.yaml", "conf", "16.conf.bak"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let found = drop_ins(dir.path()).unwrap();
        let names: Vec<&Path> = found.iter().map(|path| path.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(names, ["10.conf", "20-more/a.conf", "20-more/b.conf", "30.conf"].map(Path::new));
        assert_eq!(read(&found[0]).unwrap(), b"10.conf");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            read(Path::new("/none/x")).unwrap_err().to_string(),
            r#"failed to read kubelet config file "/none/x", error: open /none/x: no such file or directory"#
        );
        assert_eq!(
            drop_ins(Path::new("/none")).unwrap_err().to_string(),
            r#"failed to walk through kubelet dropin directory "/none": /none: no such file or directory"#
        );
    }
}
