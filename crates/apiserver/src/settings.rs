//! Where the API server is, who we are, and how patient.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ClientCounts;
use crate::limit::Rate;
use crate::plugin::PluginSettings;

/// What a [`crate::Client`] is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://HOST[:PORT][/PREFIX]`.
    pub server: String,
    pub tls: Tls,
    pub identity: Identity,
    /// Its part before the `/` becomes the manager in `managedFields`.
    pub user_agent: String,
    /// `None`: no limit.
    pub rate: Option<Rate>,
    /// How long an answer may take, apart from watches.
    pub patience: Duration,
    /// What the spread of waits is made from: another number on each node.
    pub seed: u64,
    /// Where requests are counted.
    pub counts: Arc<ClientCounts>,
}

impl Settings {
    /// A server that the system's authorities vouch for, asked by nobody in particular.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            tls: Tls::default(),
            identity: Identity::default(),
            user_agent: concat!("rubelet/", env!("CARGO_PKG_VERSION")).to_owned(),
            rate: None,
            patience: Duration::from_secs(60),
            seed: 0,
            counts: Arc::default(),
        }
    }
}

/// Whom we believe.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// `None`: those of the system.
    pub authorities: Option<Pem>,
    /// Whether any certificate will do.
    pub is_unverified: bool,
    /// The name in the server's certificate, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// Who we are; what is absent is not shown to the server.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub token: Option<Token>,
    /// A certificate and its key.
    pub certificate: Option<(Pem, Pem)>,
    pub plugin: Option<PluginSettings>,
    /// A file with certificate and key that outranks everything else as soon as it exists.
    pub rotated: Option<PathBuf>,
    /// Name and password.
    pub basic: Option<(String, Secret)>,
}

/// PEM, from a file that may change or as text.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// Read again for each connection, and looked at while one is in use.
    File(PathBuf),
    Text(Vec<u8>),
}

impl Pem {
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    Fixed(String),
    /// Read again every minute.
    File(PathBuf),
}

/// A word that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Fixed(_) => f.write_str("Fixed(…)"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
