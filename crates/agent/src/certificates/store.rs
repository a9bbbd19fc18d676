//! Where certificates are kept: upstream's files, so that either kubelet goes on with the other's.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubelet_core::certificate::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::leaf;

/// kubelet 1.36: the key of the first request, until it is signed.
const KEPT_KEY: &str = "kubelet-client.key.tmp";
/// Keys are smaller.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Why a certificate can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{verb} {}: {source}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is a file, and not the link that it has to be", path.display())]
    NoLink { path: PathBuf },
    #[error("the certificate from the API server: {0}")]
    Certificate(String),
}

/// `PREFIX-DATE.pem`, each a certificate and its key, and the link `PREFIX-current.pem` to the one that counts.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    prefix: &'static str,
}

impl Store {
    /// `prefix` is `kubelet-client` or `kubelet-server`.
    #[must_use]
    pub fn new(folder: PathBuf, prefix: &'static str) -> Self {
        Self { folder, prefix }
    }

    /// The link.
    #[must_use]
    pub fn current_path(&self) -> PathBuf {
        self.file("current")
    }

    /// The certificate that counts; `None` if there is none that can be read.
    #[must_use]
    pub fn current(&self) -> Option<Certificate> {
        self.mend();
        leaf(&fs::read(self.current_path()).ok()?)
    }

    /// Keeps a certificate with its key (both PEM) and makes it the one that counts. Answers with its file.
    ///
    /// # Errors
    /// The two do not belong together, or files can't be written.
    pub fn keep(&self, certificate: &[u8], key: &str) -> Result<PathBuf, StoreError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|e| StoreError::Certificate(e.to_string()))?;
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| StoreError::Certificate(e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        CertifiedKey::from_der(chain, der, &provider).map_err(|e| StoreError::Certificate(e.to_string()))?;
        let folder = &self.folder;
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(failed("create", folder))?;
        let now = jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
        let path = self.file(&now);
        let mut text = certificate.to_vec();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(key.as_bytes());
        write(&path, &text)?;
        self.point_to(&path)?;
        Ok(path)
    }

    fn point_to(&self, path: &Path) -> Result<(), StoreError> {
        let (current, updated) = (self.current_path(), self.file("updated"));
        for link in [&current, &updated] {
            match fs::symlink_metadata(link) {
                Ok(found) if !found.is_symlink() => return Err(StoreError::NoLink { path: link.clone() }),
                Ok(_) | Err(_) => {}
            }
        }
        match fs::remove_file(&updated) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &updated)(e)),
            Ok(()) | Err(_) => {}
        }
        let absolute = std::path::absolute(path).map_err(failed("find", path))?;
        symlink(absolute, &updated).map_err(failed("create", &updated))?;
        fs::rename(&updated, &current).map_err(failed("move a link to", &current))
    }

    /// Upstream removes the old link before it moves the new one: between the two it may have been killed.
    fn mend(&self) {
        let (current, updated) = (self.current_path(), self.file("updated"));
        if fs::symlink_metadata(&current).is_err()
            && fs::symlink_metadata(&updated).is_ok_and(|found| found.is_symlink())
        {
            let _ = fs::rename(&updated, &current);
        }
    }

    fn file(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}.pem", self.prefix))
    }

    /// The key of a request that is not signed yet.
    pub(super) fn kept_key(&self) -> Result<Option<String>, StoreError> {
        let path = self.folder.join(KEPT_KEY);
        match fs::metadata(&path) {
            Ok(found) if found.len() > KEY_BYTES_MAX => Ok(None),
            Ok(_) => fs::read_to_string(&path).map(Some).map_err(failed("read", &path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("look at", &path)(e)),
        }
    }

    pub(super) fn keep_key(&self, pem: &str) -> Result<(), StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(failed("create", &self.folder))?;
        write(&self.folder.join(KEPT_KEY), pem.as_bytes())
    }

    pub(super) fn forget_key(&self) -> Result<(), StoreError> {
        let path = self.folder.join(KEPT_KEY);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn failed(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { verb, path: path.clone(), source }
}

/// Readable for the owner alone, and on the disk before anybody hears of it.
fn write(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = opened.map_err(failed("write", path))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed("write", path))
}
