//! The node's certificates: asked of the API server, kept in files, renewed before they end.
//!
//! What is new is not announced: who uses a certificate (the API server's client, the node's servers) looks at the file
//! `…-current.pem`, a link that is moved when the new one is complete. Nothing is restarted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rubelet_apiserver::backoff::Chance;
use rubelet_apiserver::certificates::{self, CertificateError};
use rubelet_apiserver::{Client, Settings};
use rubelet_core::certificate::{Certificate, Wish, retry_after};
use rubelet_core::now::Wall;
use tokio::sync::watch;
use tokio::time::sleep;

mod bootstrap;
mod request;
mod store;
#[cfg(test)]
mod tests;

pub use bootstrap::{BootstrapError, ClientSettings, client_settings};
pub use store::{Store, StoreError};

use request::Request;

use crate::metrics::Metrics;

/// kubelet 1.36: how long the first client certificate may take, and how long others.
const FIRST_PATIENCE: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// kubelet 1.36: how long the API server may take to come up before it is asked for the first certificate.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
const SERVER_EVERY: Duration = Duration::from_secs(2);
/// A clock that was set is noticed this late.
const SLEEP_MAX: Duration = Duration::from_secs(60);

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Asked(#[from] CertificateError),
    #[error(transparent)]
    Kept(#[from] StoreError),
    #[error("make a certificate request: {0}")]
    Make(rcgen::Error),
}

/// What both kinds of certificate need.
#[derive(Clone, Debug)]
pub struct CertificateSettings {
    /// `--cert-dir`.
    pub folder: PathBuf,
    /// Name of the Node object.
    pub node: String,
    /// Another one on each node: spreads the renewals.
    pub seed: u64,
    /// Where it is told how long they are good.
    pub metrics: Arc<Metrics>,
}

/// The certificate that the node shows to the API server.
pub struct ClientTask {
    settings: CertificateSettings,
    /// Whom everyone uses; shows the newest certificate by itself.
    client: Client,
    /// For the first certificate, and when the last one is over.
    bootstrap: Option<Client>,
    /// Whether there is none that can be used.
    is_first: bool,
    /// `rotateCertificates`.
    is_rotating: bool,
}

impl ClientTask {
    /// `client` and `found` belong to the same kubeconfig.
    ///
    /// # Errors
    /// The bootstrap kubeconfig can't be used.
    pub fn new(
        settings: CertificateSettings,
        client: Client,
        found: &ClientSettings,
        is_rotating: bool,
    ) -> Result<Self, String> {
        let bootstrap = found.bootstrap.clone().map(Client::connect).transpose()?;
        Ok(Self { settings, client, bootstrap, is_first: found.is_bootstrap_needed, is_rotating })
    }

    /// Gets the first certificate if there is none, and renews it for ever if it is to.
    pub async fn run(self) {
        let Self { settings, client, bootstrap, is_first, is_rotating } = self;
        let store = Store::new(settings.folder.clone(), "kubelet-client");
        let mut chance = Chance::new(settings.seed ^ 0x00c1_1e47);
        let wish = Wish::of_client(&settings.node);
        if is_first && let Some(bootstrap) = &bootstrap {
            first(bootstrap, &store, &wish, &mut chance).await;
            client.redial().await;
        }
        if !is_rotating {
            return;
        }
        loop {
            let current = store.current().filter(|found| found.fulfils(&wish));
            if let Some(current) = &current {
                settings.metrics.node.client_ttl.of(&[]).set(current.not_after);
            }
            // What a kubeconfig has of its own was made by somebody else: it is replaced at once, as upstream does.
            if let Some(at) = current.map(|found| found.renew_at(chance.share())) {
                until(at).await;
            }
            // One whose time is over opens no doors.
            let is_over = current_is_over(&store);
            let asks = bootstrap.as_ref().filter(|_| is_over).unwrap_or(&client);
            let failed = |_: &RenewError| settings.metrics.node.client_renewal_errors.of(&[]).add_one();
            renew(asks, &store, &wish, CLIENT_SIGNER, &mut chance, failed).await;
            client.redial().await;
        }
    }
}

fn current_is_over(store: &Store) -> bool {
    store.current().is_some_and(|found| found.is_over(Wall::now()))
}

/// The certificate of the node's own servers (`serverTLSBootstrap`).
pub struct ServingTask {
    pub settings: CertificateSettings,
    pub client: Client,
    /// What the node wants to be called: changes with its addresses; `None` as long as it has none.
    pub wish: watch::Receiver<Option<Wish>>,
}

impl ServingTask {
    /// Gets a certificate as soon as the node has an address, a new one when its addresses change, and renews it for ever.
    pub async fn run(mut self) {
        let store = Store::new(self.settings.folder.clone(), "kubelet-server");
        let mut chance = Chance::new(self.settings.seed ^ 0x5e12_41ce);
        loop {
            let Some(wish) = self.wish.borrow_and_update().clone() else {
                if self.wish.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let current = store.current().filter(|found| found.fulfils(&wish));
            let counts = self.settings.metrics.clone();
            if let Some(current) = &current {
                counts.node.server_ttl.of(&[]).set(current.not_after);
            }
            let made = current.as_ref().map(|found| found.not_before);
            let due = current.map(|found| found.renew_at(chance.share()));
            let work = async {
                if let Some(at) = due {
                    until(at).await;
                }
                let failed = |_: &RenewError| counts.node.server_renewal_errors.of(&[]).add_one();
                renew(&self.client, &store, &wish, SERVING_SIGNER, &mut chance, failed).await;
                if let Some(life) = made.and_then(|made| Duration::try_from(Wall::now().duration_since(made)).ok()) {
                    counts.node.server_rotation.of(&[]).took(life);
                }
            };
            let is_changed = tokio::select! {
                () = work => Ok(()),
                changed = self.wish.changed() => changed,
            };
            if is_changed.is_err() {
                return;
            }
        }
    }
}

/// Sleeps until a time of the wall clock, which may be set meanwhile.
async fn until(at: Wall) {
    while let Ok(left) = Duration::try_from(at.duration_since(Wall::now()))
        && !left.is_zero()
    {
        sleep(left.min(SLEEP_MAX)).await;
    }
}

/// The first certificate: with a key that is kept until it is signed, so that a restart goes on with the same request.
async fn first(bootstrap: &Client, store: &Store, wish: &Wish, chance: &mut Chance) {
    wait_for(bootstrap).await;
    let mut failures = 0;
    loop {
        let got = async {
            let request = Request::with_kept_key(store, wish)?;
            ask(bootstrap, store, &request, CLIENT_SIGNER, FIRST_PATIENCE).await?;
            Ok(store.forget_key()?)
        };
        let Err::<(), RenewError>(error) = got.await else { return };
        failures += 1;
        tracing::warn!("get the node's first certificate: {error}");
        sleep(retry_after(failures, chance.share())).await;
    }
}

/// Waits a while for the API server.
async fn wait_for(client: &Client) {
    let quick = client.with_timeout(Duration::from_secs(1));
    let up = async {
        while let Err(error) = quick.health().await {
            tracing::debug!("wait for the API server: {error}");
            sleep(SERVER_EVERY).await;
        }
    };
    if tokio::time::timeout(SERVER_PATIENCE, up).await.is_err() {
        tracing::warn!(
            server = client.server(),
            "the API server does not answer; asking for a certificate all the same"
        );
    }
}

/// A new certificate with a new key, whatever it takes.
async fn renew(
    client: &Client,
    store: &Store,
    wish: &Wish,
    signer: &'static str,
    chance: &mut Chance,
    failed: impl Fn(&RenewError),
) {
    let mut failures = 0;
    loop {
        let got = async {
            let request = Request::with_new_key(wish)?;
            ask(client, store, &request, signer, PATIENCE).await
        };
        let Err(error) = got.await else { return };
        failures += 1;
        failed(&error);
        tracing::warn!(signer, "renew the node's certificate: {error}");
        sleep(retry_after(failures, chance.share())).await;
    }
}

async fn ask(
    client: &Client,
    store: &Store,
    request: &Request,
    signer: &'static str,
    patience: Duration,
) -> Result<(), RenewError> {
    let (name, uid) = certificates::request(client, &request.wanted(signer)).await?;
    tracing::info!(name, signer, "asked for a certificate");
    let pem = certificates::signed(client, &name, &uid, patience).await?;
    let kept = store.keep(&pem, &request.key_pem())?;
    tracing::info!(file = %kept.display(), signer, "got a certificate");
    Ok(())
}

/// The first certificate in PEM.
fn leaf(pem: &[u8]) -> Option<Certificate> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    Certificate::of_der(&der)
}

/// The settings of somebody who shows `file` as soon as it exists.
fn showing(settings: Settings, file: &Path) -> Settings {
    let identity = rubelet_apiserver::Identity { rotated: Some(file.to_owned()), ..settings.identity };
    Settings { identity, ..settings }
}
