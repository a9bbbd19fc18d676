//! Where a registry's images come from: its own server, mirrors, and how to speak with each. Read from directories in
//! containerd's layout: `DIR/REGISTRY/hosts.toml`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[cfg(test)]
mod tests;

/// Bytes of a `hosts.toml` at most.
const FILE_MAX: u64 = 1 << 20;
const DEFAULT_DIR: &str = "_default";

/// Directories with a registry's configuration, and hosts without TLS.
#[derive(Clone, Debug, Default)]
pub struct HostsConfig {
    /// Looked through in order; the first that has something about a registry counts.
    /// Usual: `/etc/rubelet/certs.d`, `/etc/containerd/certs.d`.
    pub dirs: Vec<PathBuf>,
    /// `HOST[:PORT]` that are spoken to in plain HTTP. Loopback addresses are, unless at port 443.
    pub insecure: Vec<String>,
}

/// Why a registry's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has more than {FILE_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("parse {path}")]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{path}: {what}")]
    Invalid { path: PathBuf, what: String },
}

/// What a host is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Blobs and manifests by digest.
    Pull,
    /// Tags to digests: a host that is trusted to say what a tag means.
    Resolve,
}

/// A server that has the images of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) is_https: bool,
    /// `HOST[:PORT]`.
    pub(crate) authority: String,
    /// Path before `/NAME/manifests/…`, as a rule `/v2`.
    pub(crate) path: String,
    pub(crate) can_pull: bool,
    pub(crate) can_resolve: bool,
    /// A mirror is told whose images are meant.
    pub(crate) is_mirror: bool,
    pub(crate) tls: Tls,
    /// Sent with each request to this host.
    pub(crate) headers: Vec<(String, String)>,
}

/// How a host proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Files of certificates that are trusted besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Files of a certificate and its key, to prove who we are.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    pub(crate) skip_verify: bool,
}

impl Host {
    pub(crate) fn can(&self, what: Capability) -> bool {
        match what {
            Capability::Pull => self.can_pull,
            Capability::Resolve => self.can_resolve,
        }
    }

    /// `https://HOST`.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }
}

/// `hosts.toml`. What stands at the top level is about the server.
#[derive(Debug, Default, Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    own: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    File(String),
    Files(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

impl HostsConfig {
    /// The servers for images of `registry` (`docker.io`, `localhost:5000`), in the order in which to ask them. Blocks.
    pub(crate) fn of(&self, registry: &str) -> Result<Vec<Host>, HostsError> {
        for dir in &self.dirs {
            for name in [underscored(registry), registry.to_owned(), DEFAULT_DIR.to_owned()] {
                let dir = dir.join(name);
                if let Some(text) = read(&dir.join("hosts.toml"))? {
                    return self.configured(registry, &dir, &text);
                }
                if dir.is_dir() {
                    return Ok(vec![Host { tls: certificates(&dir)?, ..self.upstream(registry) }]);
                }
            }
        }
        Ok(vec![self.upstream(registry)])
    }

    /// The registry itself.
    fn upstream(&self, registry: &str) -> Host {
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Host {
            is_https: !self.is_plain(authority),
            authority: authority.to_owned(),
            path: "/v2".to_owned(),
            can_pull: true,
            can_resolve: true,
            is_mirror: false,
            tls: Tls::default(),
            headers: Vec::new(),
        }
    }

    fn is_plain(&self, authority: &str) -> bool {
        if self.insecure.iter().any(|h| h == authority) {
            return true;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            Some(_) | None => (authority, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        port == Some("80") || (is_loopback && port != Some("443"))
    }

    fn configured(&self, registry: &str, dir: &Path, text: &str) -> Result<Vec<Host>, HostsError> {
        let path = dir.join("hosts.toml");
        let file: File = toml::from_str(text).map_err(|source| HostsError::Parse { path: path.clone(), source })?;
        let upstream = self.upstream(registry);
        let mut hosts = Vec::new();
        for (name, table) in file.host {
            let section: Section =
                table.try_into().map_err(|source| HostsError::Parse { path: path.clone(), source })?;
            hosts.push(self.host(&name, section, dir)?);
        }
        let server = match file.server {
            Some(server) => self.host(&server, file.own, dir)?,
            None => self.host(&upstream.origin(), file.own, dir)?,
        };
        hosts.push(server);
        for host in &mut hosts {
            host.is_mirror = host.authority != upstream.authority;
        }
        Ok(hosts)
    }

    fn host(&self, name: &str, section: Section, dir: &Path) -> Result<Host, HostsError> {
        let path = dir.join("hosts.toml");
        let invalid = |what: String| HostsError::Invalid { path: path.clone(), what };
        let (scheme, rest) = match name.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, name),
        };
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let is_https = match scheme {
            Some("https") => true,
            Some("http") => false,
            Some(other) => return Err(invalid(format!("host {name:?} has the unknown scheme {other:?}"))),
            None => !self.is_plain(authority),
        };
        if authority.parse::<http::uri::Authority>().is_err() || authority.contains('@') {
            return Err(invalid(format!("{name:?} names no host")));
        }
        let base = base.trim_matches('/');
        let base = match (section.override_path, base) {
            (true, "") => String::new(),
            (true, base) => format!("/{base}"),
            (false, "") => "/v2".to_owned(),
            (false, base) if base == "v2" || base.ends_with("/v2") => format!("/{base}"),
            (false, base) => format!("/{base}/v2"),
        };
        let (mut can_pull, mut can_resolve) = (section.capabilities.is_none(), section.capabilities.is_none());
        for capability in section.capabilities.iter().flatten() {
            match capability.as_str() {
                "pull" => can_pull = true,
                "resolve" => can_resolve = true,
                "push" | "referrers" => {}
                other => return Err(invalid(format!("unknown capability {other:?}"))),
            }
        }
        let ca = section.ca.map(OneOrMore::into_vec).unwrap_or_default();
        let tls = Tls {
            ca: ca.iter().map(|file| dir.join(file)).collect(),
            client: client(section.client, dir).map_err(invalid)?,
            skip_verify: section.skip_verify,
        };
        let headers = section
            .header
            .into_iter()
            .flat_map(|(name, values)| values.into_vec().into_iter().map(move |value| (name.clone(), value)));
        Ok(Host {
            is_https,
            authority: authority.to_owned(),
            path: base,
            can_pull,
            can_resolve,
            is_mirror: false,
            tls,
            headers: headers.collect(),
        })
    }
}

fn client(client: Option<Client>, dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let pair = match client {
        None => return Ok(None),
        Some(Client::File(file)) => vec![file],
        // One pair, or several files with certificate and key in one each: the first counts.
        Some(Client::Files(files)) => files,
        Some(Client::Pairs(pairs)) => pairs.into_iter().next().unwrap_or_default(),
    };
    match pair.as_slice() {
        [] => Ok(None),
        [both] => Ok(Some((dir.join(both), dir.join(both)))),
        [certificate, key, ..] => Ok(Some((dir.join(certificate), dir.join(key)))),
    }
}

/// `localhost:5000` as a directory's name where colons are not wanted: `localhost_5000_`.
fn underscored(registry: &str) -> String {
    match registry.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => format!("{host}_{port}_"),
        Some(_) | None => registry.to_owned(),
    }
}

fn read(path: &Path) -> Result<Option<String>, HostsError> {
    let failed = |source| HostsError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(stat) if stat.len() > FILE_MAX => Err(HostsError::TooLarge { path: path.to_owned() }),
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Docker's layout: `*.crt` are authorities, `NAME.cert` and `NAME.key` are ours.
fn certificates(dir: &Path) -> Result<Tls, HostsError> {
    let failed = |source| HostsError::Read { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    let has_end = |file: &Path, end: &str| file.extension().is_some_and(|e| e == end);
    let client = files.iter().find(|f| has_end(f, "cert")).map(|f| (f.clone(), f.with_extension("key")));
    Ok(Tls { ca: files.into_iter().filter(|f| has_end(f, "crt")).collect(), client, skip_verify: false })
}
