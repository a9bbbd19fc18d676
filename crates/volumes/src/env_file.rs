//! Environment files in a volume (`fileKeyRef`): `KEY='value'`, read by one key.

use std::io::Read;
use std::path::{Path, PathBuf};

use rubelet_host::paths::{self, PathError};

/// Largest environment file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Why a variable could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no regular file")]
    NotAFile { path: PathBuf },
    #[error("{path} is larger than {FILE_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} line {line}: {problem}")]
    Syntax { path: PathBuf, line: usize, problem: &'static str },
}

/// The value of `key` in the file `path` of a volume; `None` when the file has no such key. The path is looked up without
/// leaving the volume. A file that is not well-formed up to the key is an error.
pub fn read(volume: &Path, path: &str, key: &str) -> Result<Option<String>, EnvFileError> {
    let full = volume.join(path);
    let failed = |source| EnvFileError::Read { path: full.clone(), source };
    let file = paths::open_file_beneath(volume, Path::new(path))?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(EnvFileError::NotAFile { path: full });
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(EnvFileError::TooLarge { path: full });
    }
    let text = String::from_utf8_lossy(&bytes);
    find(&text, key).map_err(|(line, problem)| EnvFileError::Syntax { path: full, line, problem })
}

/// kubelet 1.36: blanks at the start of a line, blank lines and lines with `#` are skipped; the value stands in single
/// quotes right after `=` and may go over several lines; the first line with the key counts.
fn find(text: &str, key: &str) -> Result<Option<String>, (usize, &'static str)> {
    let mut rest = text;
    let mut line = 1;
    loop {
        let start = rest.trim_start_matches([' ', '\t', '\r']);
        let (current, after) = start.split_once('\n').unwrap_or((start, ""));
        if current.is_empty() || current.starts_with('#') {
            if after.is_empty() {
                return Ok(None);
            }
            (rest, line) = (after, line + 1);
            continue;
        }
        let (name, value) = start.split_once('=').filter(|(n, _)| !n.contains('\n')).ok_or((line, "no '=' in it"))?;
        if name.is_empty() || name.ends_with([' ', '\t']) {
            return Err((line, "a name must stand right before '='"));
        }
        let value = value.strip_prefix('\'').ok_or((line, "the value must be in single quotes right after '='"))?;
        let (value, after) = value.split_once('\'').ok_or((line, "the closing quote is missing"))?;
        let (tail, next) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim().is_empty() {
            return Err((line, "there is something after the closing quote"));
        }
        if name == key {
            return Ok(Some(value.to_owned()));
        }
        line += value.matches('\n').count() + 1;
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found() {
        let text = "# comment\n\n  A='one'  \nB='two\nlines' \r\nA='late'\nE=''\n#C='x'\nD='last'";
        for (key, want) in [
            ("A", Some("one")),
            ("B", Some("two\nlines")),
            ("D", Some("last")),
            ("E", Some("")),
            ("C", None),
            ("", None),
        ] {
            assert_eq!(find(text, key).unwrap().as_deref(), want, "{key}");
        }
        assert_eq!(find("", "A"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line) in [
            ("A=one", 1),
            ("\nA = 'one'", 2),
            ("A ='one'", 1),
            ("X='a\nb'\nA=\"one\"", 3),
            ("A='one", 1),
            ("A='one' # two", 1),
            ("just text\nA='one'", 1),
            ("='x'", 1),
        ] {
            assert_eq!(find(text, "A").unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn the_file_is_looked_up_inside_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(volume.join("sub/env"), "A='1'\n").unwrap();
        std::fs::write(dir.path().join("secret"), "A='2'\n").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("link")).unwrap();
        assert_eq!(read(&volume, "sub/env", "A").unwrap().as_deref(), Some("1"));
        assert_eq!(read(&volume, "sub/env", "B").unwrap(), None);
        for path in ["link", "../secret", "missing", "sub", "/etc/passwd"] {
            assert!(read(&volume, path, "A").is_err(), "{path}");
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            volume.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(read(&volume, "fifo", "A"), Err(EnvFileError::NotAFile { .. })));
    }
}
