//! The certificate that we make when none is given: made once, kept, used again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::TlsError;
use crate::TlsFiles;

/// kubelet 1.36: valid for a year, from an hour ago.
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);
const AGO: Duration = Duration::from_secs(3600);

/// `kubelet.crt` and `kubelet.key` in `folder`, made for `host` if they are not there.
pub(super) fn files(folder: &Path, host: &str) -> Result<TlsFiles, TlsError> {
    let files = TlsFiles { certificate: folder.join("kubelet.crt"), key: folder.join("kubelet.key") };
    match (files.certificate.exists(), files.key.exists()) {
        (true, true) => {}
        (false, false) => make(folder, host, &files)?,
        (true, false) => return Err(TlsError::HalfPair { present: files.certificate, missing: files.key }),
        (false, true) => return Err(TlsError::HalfPair { present: files.key, missing: files.certificate }),
    }
    Ok(files)
}

fn make(folder: &Path, host: &str, files: &TlsFiles) -> Result<(), TlsError> {
    let failed = |source| TlsError::Make { host: host.to_owned(), source };
    let now = SystemTime::now();
    let mut wish = CertificateParams::new([host.to_owned()]).map_err(failed)?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    wish.distinguished_name.push(DnType::CommonName, format!("{host}@{seconds}"));
    wish.not_before = (now - AGO).into();
    wish.not_after = (now + VALID).into();
    wish.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = wish.self_signed(&key).map_err(failed)?;

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(|source| TlsError::Write { path: folder.to_owned(), source })?;
    write(&files.key, 0o600, &key.serialize_pem())?;
    write(&files.certificate, 0o644, &certificate.pem())
}

/// Whole or not at all: what is there under the name is complete.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let failed = |source| TlsError::Write { path: path.to_owned(), source };
    let unfinished = path.with_extension("tmp");
    let _ = fs::remove_file(&unfinished);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pair_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep/pki");
        let made = files(&folder, "node-a").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made.key), mode(&made.certificate)), (0o600, 0o644));
        let first = fs::read(&made.certificate).unwrap();
        assert_eq!(files(&folder, "node-a").unwrap(), made);
        assert_eq!(fs::read(&made.certificate).unwrap(), first, "it was made anew");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "something was left over");
    }

    #[test]
    fn half_a_pair_is_an_error() {
        for name in ["kubelet.crt", "kubelet.key"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name), "x").unwrap();
            let error = files(folder.path(), "node-a").unwrap_err();
            assert!(matches!(&error, TlsError::HalfPair { present, .. } if present.ends_with(name)), "{error}");
        }
    }
}
