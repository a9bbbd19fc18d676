//! What the listeners are told, as plain values.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::CacheTimes;

/// The three listeners. `None`: not wanted. Port 0: any free port, see [`Servers`](crate::Servers).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerConfig {
    /// `healthzBindAddress`:`healthzPort`.
    pub healthz: Option<SocketAddr>,
    /// `address`:`readOnlyPort`.
    pub read_only: Option<SocketAddr>,
    /// `address`:`port`, unless `enableServer` is off.
    pub tls: Option<TlsServerConfig>,
    /// `<root-dir>/pod-resources/kubelet.sock`.
    pub pod_resources: Option<PathBuf>,
}

/// The TLS server.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsServerConfig {
    pub address: SocketAddr,
    pub certificate: Certificate,
    /// `--cert-dir`: where the self-made `kubelet.crt` and `kubelet.key` are kept.
    pub cert_dir: PathBuf,
    /// Name (or address) that the self-made certificate is for.
    pub host_name: String,
    /// Name of the node, whose parts callers may be allowed to see.
    pub node_name: String,
    /// `tlsMinVersion`.
    pub min_version: TlsVersion,
    /// `tlsCipherSuites` in Go's names; empty: all that we have. TLS 1.3's are always on.
    pub cipher_suites: Vec<String>,
    /// `tlsCurvePreferences` by IANA's numbers; empty: all that we have.
    pub curves: Vec<u16>,
    pub authentication: Authentication,
    pub authorization: AuthorizationMode,
    /// How long the API server's answers about callers are believed.
    pub cache_times: CacheTimes,
    /// `enableDebuggingHandlers`.
    pub has_debugging: bool,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Certificate {
    /// `tlsCertFile` and `tlsPrivateKeyFile`.
    Files(TlsFiles),
    /// `serverTLSBootstrap`: one file with both, which is renewed by others and may not be there yet.
    Rotated(PathBuf),
    /// Made by ourselves.
    SelfSigned,
}

/// A certificate with its chain, and its key, as PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authentication {
    /// `authentication.anonymous.enabled`: anyone, as `system:anonymous`.
    pub anonymous: bool,
    /// `authentication.x509.clientCAFile`: whoever has a certificate of this authority.
    pub client_ca_file: Option<PathBuf>,
    /// `authentication.webhook.enabled`: whose token the API server knows.
    pub webhook: bool,
    /// Gate `AllowParsingUserUIDFromCertAuth`.
    pub reads_certificate_uids: bool,
}

/// `authorization.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Whoever is known may do all.
    #[default]
    AlwaysAllow,
    /// Asks the API server.
    Webhook,
}
