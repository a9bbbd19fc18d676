//! hostPath: nothing is mounted, the path is checked (or made) by its type.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rubelet_host::paths;

use crate::mount::Cause;

/// kubelet 1.36: links are followed; a missing path passes only the untyped check and those that create.
pub(crate) fn check(path: &Path, type_: &str) -> Result<(), Cause> {
    let kind = match fs::metadata(path) {
        Ok(meta) => Some(meta.file_type()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(e) if type_.is_empty() => {
            tracing::debug!(path = %path.display(), error = %e, "hostPath can't be looked at");
            None
        }
        Err(e) => return Err(Cause::io("stat", path)(e)),
    };
    let wanted = match (type_, kind) {
        ("", _) => return Ok(()),
        ("DirectoryOrCreate", None) => return Ok(paths::ensure_dir(path, 0o755)?),
        ("FileOrCreate", None) => return make_file(path),
        ("Directory" | "DirectoryOrCreate", Some(k)) if k.is_dir() => return Ok(()),
        ("File" | "FileOrCreate", Some(k)) if !k.is_dir() => return Ok(()),
        ("Socket", Some(k)) if k.is_socket() => return Ok(()),
        ("CharDevice", Some(k)) if k.is_char_device() => return Ok(()),
        ("BlockDevice", Some(k)) if k.is_block_device() => return Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => "directory",
        ("File" | "FileOrCreate", _) => "file",
        ("Socket", _) => "socket file",
        ("CharDevice", _) => "character device",
        ("BlockDevice", _) => "block device",
        (other, _) => return Err(Cause::UnknownHostPathType { type_: other.to_owned() }),
    };
    Err(Cause::HostPathType { path: path.to_owned(), wanted })
}

/// Its directory must be there.
fn make_file(path: &Path) -> Result<(), Cause> {
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let file = open.map_err(Cause::io("create", path))?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(Cause::io("chmod", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn types_are_checked_with_upstreams_words() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink("dir", at("link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let fine = [
            ("", "missing"),
            ("", "file/below"),
            ("Directory", "dir"),
            ("Directory", "link"),
            ("DirectoryOrCreate", "dir"),
            ("File", "file"),
            ("File", "socket"),
            ("FileOrCreate", "file"),
            ("Socket", "socket"),
            ("DirectoryOrCreate", "new/deep"),
            ("FileOrCreate", "new/file"),
        ];
        for (type_, name) in fine {
            check(&at(name), type_).unwrap_or_else(|e| panic!("{type_} {name}: {e}"));
        }
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        assert_eq!(fs::metadata(at("new/deep")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(at("new/file")).unwrap().mode() & 0o7777, 0o644);
        let bad = [
            ("Directory", "file", "directory"),
            ("Directory", "missing", "directory"),
            ("DirectoryOrCreate", "file", "directory"),
            ("File", "dir", "file"),
            ("FileOrCreate", "dir", "file"),
            ("Socket", "file", "socket file"),
            ("CharDevice", "file", "character device"),
            ("BlockDevice", "missing", "block device"),
        ];
        for (type_, name, wanted) in bad {
            let want = format!("hostPath type check failed: {} is not a {wanted}", at(name).display());
            assert_eq!(check(&at(name), type_).unwrap_err().to_string(), want);
        }
        assert_eq!(check(&at("dir"), "Odd").unwrap_err().to_string(), "Odd is an invalid volume type");
        assert!(check(&at("none/file"), "FileOrCreate").is_err());
    }
}
