//! Joining a cluster with somebody else's credentials: which kubeconfig counts, and what is written as the node's own.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rubelet_apiserver::{KubeconfigError, Pem, Settings};
use rubelet_core::now::Wall;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::{CertificateSettings, Store, showing};

/// Why the node can't join.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("unable to load kubeconfig: {0}")]
    Kubeconfig(KubeconfigError),
    #[error("unable to load bootstrap kubeconfig: {0}")]
    Bootstrap(KubeconfigError),
    #[error("error reading existing bootstrap kubeconfig {}: {source}", path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("write kubeconfig {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// How the node talks to the API server.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// For all work. Without a certificate yet it is refused until there is one.
    pub settings: Settings,
    /// Those of the bootstrap kubeconfig, where it is given and can be read.
    pub bootstrap: Option<Settings>,
    /// Whether the first certificate must be asked for.
    pub is_bootstrap_needed: bool,
}

/// What the kubeconfigs say; writes `kubeconfig` if it is to be made from the bootstrap one. Blocks on files.
///
/// kubelet 1.36: a kubeconfig with a certificate whose time is not over is used as it is; else, where there is a bootstrap
/// kubeconfig, a new one is written that points to the certificate in `--cert-dir`, which is asked for.
///
/// # Errors
/// A kubeconfig that counts can't be read, or the new one can't be written.
pub fn client_settings(
    kubeconfig: &Path,
    bootstrap: Option<&Path>,
    certificates: &CertificateSettings,
    is_rotating: bool,
) -> Result<ClientSettings, BootstrapError> {
    let current = Store::new(certificates.folder.clone(), "kubelet-client").current_path();
    let current = std::path::absolute(&current).unwrap_or(current);
    let shown = |settings| if is_rotating { showing(settings, &current) } else { settings };
    let Some(bootstrap) = bootstrap else {
        let settings = Settings::from_kubeconfig(kubeconfig).map_err(BootstrapError::Kubeconfig)?;
        return Ok(ClientSettings { settings: shown(settings), bootstrap: None, is_bootstrap_needed: false });
    };
    if is_valid(kubeconfig)? {
        let settings = Settings::from_kubeconfig(kubeconfig).map_err(BootstrapError::Kubeconfig)?;
        // By then it may be gone: it is needed only if the node's own certificate ends.
        let bootstrap = Settings::from_kubeconfig(bootstrap).ok();
        return Ok(ClientSettings { settings: shown(settings), bootstrap, is_bootstrap_needed: false });
    }
    let bootstrap = Settings::from_kubeconfig(bootstrap).map_err(BootstrapError::Bootstrap)?;
    write(kubeconfig, &bootstrap, &current)
        .map_err(|source| BootstrapError::Write { path: kubeconfig.to_owned(), source })?;
    let settings = Settings::from_kubeconfig(kubeconfig).map_err(BootstrapError::Kubeconfig)?;
    Ok(ClientSettings { settings, bootstrap: Some(bootstrap), is_bootstrap_needed: true })
}

/// Whether a kubeconfig has a certificate whose time is not over.
fn is_valid(kubeconfig: &Path) -> Result<bool, BootstrapError> {
    match fs::metadata(kubeconfig) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(BootstrapError::Look { path: kubeconfig.to_owned(), source }),
    }
    let why_not = match Settings::from_kubeconfig(kubeconfig) {
        Ok(settings) => match why_not(&settings) {
            None => return Ok(true),
            Some(why) => why,
        },
        Err(error) => error.to_string(),
    };
    tracing::warn!(kubeconfig = %kubeconfig.display(), "the kubeconfig is made anew: {why_not}");
    Ok(false)
}

fn why_not(settings: &Settings) -> Option<String> {
    let Some((certificate, _)) = &settings.identity.certificate else {
        return Some("it has no client certificate".to_owned());
    };
    let text = match certificate {
        Pem::Text(text) => Ok(text.clone()),
        Pem::File(path) => fs::read(path).map_err(|e| format!("read {}: {e}", path.display())),
    };
    let text = match text {
        Ok(text) => text,
        Err(why) => return Some(why),
    };
    let mut is_any = false;
    for der in CertificateDer::pem_slice_iter(&text) {
        let found = der.ok().and_then(|der| rubelet_core::certificate::Certificate::of_der(&der));
        match found {
            None => return Some("its client certificate can't be read".to_owned()),
            Some(found) if found.is_over(Wall::now()) => {
                return Some(format!("its client certificate expired at {}", found.not_after));
            }
            Some(_) => is_any = true,
        }
    }
    (!is_any).then(|| "there is no certificate in it".to_owned())
}

/// kubelet 1.36's names for its parts. JSON is YAML.
fn write(kubeconfig: &Path, bootstrap: &Settings, current: &Path) -> io::Result<()> {
    let mut cluster = json!({ "server": bootstrap.server });
    match &bootstrap.tls.authorities {
        Some(Pem::File(path)) => cluster["certificate-authority"] = json!(std::path::absolute(path)?),
        Some(Pem::Text(text)) => cluster["certificate-authority-data"] = json!(BASE64.encode(text)),
        None => {}
    }
    if bootstrap.tls.is_unverified {
        cluster["insecure-skip-tls-verify"] = json!(true);
    }
    // Upstream forgets it.
    if let Some(name) = &bootstrap.tls.server_name {
        cluster["tls-server-name"] = json!(name);
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default-cluster", "cluster": cluster }],
        "users": [{ "name": "default-auth", "user": { "client-certificate": current, "client-key": current } }],
        "contexts": [{ "name": "default-context",
            "context": { "cluster": "default-cluster", "namespace": "default", "user": "default-auth" } }],
        "current-context": "default-context",
    });
    if let Some(folder) = kubeconfig.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut unfinished = kubeconfig.as_os_str().to_owned();
    unfinished.push(".tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(format!("{config:#}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, kubeconfig)
}
