//! Credentials of the node: Docker's files in upstream's places, and plugins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rubelet_core::pod::step::{PullFormat, PullSecret};
use rubelet_core::pulled::{self, credential_text};
use rubelet_proto::cri;
use sha2::{Digest as _, Sha256};

mod glob;
pub(crate) mod plugins;

use plugins::Plugins;

/// Kubelet 1.36: the files are read again at most this often.
const REREAD: Duration = Duration::from_secs(300);
/// No credential file is larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Credentials from `config.json` and `.dockercfg`.
#[derive(Debug)]
pub struct Credentials {
    places: Vec<PathBuf>,
    read: Mutex<Option<(Instant, BTreeMap<String, Login>)>>,
    plugins: Arc<Plugins>,
}

/// A login that fits an image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub auth: cri::AuthConfig,
    /// The pod's secret that it is from; `None`: it is the node's, for all pods.
    pub secret: Option<pulled::Secret>,
}

#[derive(Clone, Debug, PartialEq)]
struct Login {
    auth: cri::AuthConfig,
    /// What upstream's records call it by.
    hash: String,
}

#[derive(serde::Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(serde::Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    email: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

impl Credentials {
    /// Kubelet 1.36: `config.json` in the root directory, the working directory, `$HOME/.docker` and `/.docker`;
    /// `.dockercfg` in the root directory, the working directory, `$HOME` and `/`.
    pub fn new(root_dir: &Path, working_dir: &Path, home: Option<&Path>) -> Self {
        let mut places = Vec::new();
        for (name, homes) in [("config.json", ".docker"), (".dockercfg", "")] {
            places.push(root_dir.join(name));
            places.push(working_dir.join(name));
            places.extend(home.map(|h| h.join(homes).join(name)));
            places.push(Path::new("/").join(homes).join(name));
        }
        Self { places, read: Mutex::new(None), plugins: Arc::default() }
    }

    /// The same with plugins to ask.
    #[must_use]
    pub fn with_plugins(mut self, plugins: Arc<Plugins>) -> Self {
        self.plugins = plugins;
        self
    }

    /// The credentials that fit an image, in the order in which they are tried: the pod's secrets', then those of the node's
    /// files, then what plugins have. What of them cannot be read is told.
    pub(crate) async fn all_for_image(&self, image: &str, secrets: &[PullSecret]) -> (Vec<Found>, Vec<String>) {
        let (mut found, mut problems) = of_secrets(image, secrets);
        found.extend(self.of_node(image));
        if self.plugins.is_empty() {
            return (found, problems);
        }
        let (plugins, image) = (self.plugins.clone(), with_registry(image));
        match rubelet_host::task::blocking(move || plugins.for_image(&image)).await {
            Ok((more, wrong)) => {
                found.extend(more.into_iter().map(|auth| Found { auth, secret: None }));
                problems.extend(wrong);
            }
            Err(e) => problems.push(format!("ask credential provider plugins: {e}")),
        }
        (found, problems)
    }

    fn of_node(&self, image: &str) -> Vec<Found> {
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_stale = read.as_ref().is_none_or(|(at, _)| at.elapsed() > REREAD);
        if is_stale {
            *read = Some((Instant::now(), self.read_all()));
        }
        let image = with_registry(image);
        let all = read.iter().flat_map(|(_, logins)| logins.iter().rev());
        let fitting = all.filter(|(place, _)| fits(place, &image));
        fitting.map(|(_, login)| Found { auth: login.auth.clone(), secret: None }).collect()
    }

    fn read_all(&self) -> BTreeMap<String, Login> {
        let mut logins = BTreeMap::new();
        for place in self.places.iter().rev() {
            let Ok(metadata) = std::fs::metadata(place) else { continue };
            if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
                tracing::warn!(path = %place.display(), "credential file is no regular file of at most 1 MiB, it is left out");
                continue;
            }
            let format = if place.file_name().is_some_and(|n| n == ".dockercfg") {
                PullFormat::DockerCfg
            } else {
                PullFormat::DockerConfigJson
            };
            match std::fs::read(place).map_err(|e| e.to_string()).and_then(|text| parse(&text, format)) {
                Ok(found) => logins.extend(found),
                // The content is secret: only the kind of error is told.
                Err(e) => {
                    tracing::warn!(path = %place.display(), err = %e, "reading a credential file failed, it is left out")
                }
            }
        }
        logins
    }
}

/// The logins of a pod's secrets that fit an image. Kubelet 1.36: the greatest key first, so that what is longer precedes what it
/// begins with. What of the secrets cannot be read is told.
pub(crate) fn of_secrets(image: &str, secrets: &[PullSecret]) -> (Vec<Found>, Vec<String>) {
    let (mut logins, mut problems) = (Vec::new(), Vec::new());
    for secret in secrets {
        match parse(&secret.content, secret.format) {
            Ok(read) => logins.extend(read.into_iter().map(|(place, login)| (place, login, secret))),
            Err(e) => problems.push(format!("secret {}: {e}", secret.name)),
        }
    }
    let image = with_registry(image);
    logins.retain(|(place, _, _)| fits(place, &image));
    logins.sort_by(|(a, _, _), (b, _, _)| b.cmp(a));
    let found = logins.into_iter().map(|(_, login, of)| Found {
        auth: login.auth,
        secret: Some(pulled::Secret {
            namespace: of.namespace.clone(),
            name: of.name.clone(),
            uid: of.uid.clone(),
            hash: login.hash,
        }),
    });
    (found.collect(), problems)
}

/// The SHA-256 of a text, in digits.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &[u8], format: PullFormat) -> Result<Vec<(String, Login)>, String> {
    let broken = |e: serde_json::Error| format!("not valid JSON at line {} column {}", e.line(), e.column());
    let entries = match format {
        PullFormat::DockerCfg => serde_json::from_slice(text).map_err(broken)?,
        PullFormat::DockerConfigJson => serde_json::from_slice::<ConfigJson>(text).map_err(broken)?.auths,
    };
    Ok(entries.into_iter().filter_map(|(registry, entry)| Some((normal(&registry), login(entry)?))).collect())
}

fn login(entry: Entry) -> Option<Login> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username, entry.password)
    } else {
        let decoded = base64(&entry.auth)?;
        let (user, password) = decoded.split_once(':')?;
        (user.to_owned(), password.trim_end_matches('\0').to_owned())
    };
    let hash = digest(&credential_text(&username, &password, &entry.email));
    // Kubelet 1.36: no address goes with it, it was chosen for the image. containerd takes none without a scheme.
    let auth = cri::AuthConfig { username, password, identity_token: entry.identity_token, ..Default::default() };
    Some(Login { auth, hash })
}

fn base64(text: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

/// A registry key without scheme and API version.
fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == "index.docker.io" { "docker.io".to_owned() } else { bare.to_owned() }
}

/// The image's name with its registry, without tag and digest.
fn with_registry(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let name = name[slash..].find(':').map_or(name, |i| &name[..slash + i]);
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

/// Whether a key (`host[:port][/path]`, `*` for a label of the host) covers an image.
fn fits(key: &str, image: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').map_or((key, ""), |(h, p)| (h, p));
    let (host, path) = image.split_once('/').map_or((image, ""), |(h, p)| (h, p));
    let labels = |h: &str| h.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (wanted, given) = (labels(key_host), labels(host));
    let host_fits = wanted.len() == given.len() && wanted.iter().zip(&given).all(|(w, g)| w == g || w == "*");
    host_fits && (key_path.is_empty() || path == key_path || path.starts_with(&format!("{key_path}/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, Credentials) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(name), text).expect("write");
        let credentials = Credentials::new(dir.path(), Path::new("/nonexistent"), None);
        (dir, credentials)
    }

    #[test]
    fn a_login_goes_only_to_its_registry() {
        let text = r#"{"auths": {"registry.test:5000": {"auth": "bWU6c2VjcmV0"}}}"#;
        let (_dir, credentials) = written("config.json", text);
        let found = credentials.of_node("registry.test:5000/team/app:v1");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].auth.username.as_str(), found[0].auth.password.as_str()), ("me", "secret"));
        assert!(credentials.of_node("nginx").is_empty());
    }

    #[test]
    fn the_longest_path_comes_first() {
        let text = r#"{"auths": {"r.test": {"username": "all"}, "r.test/team": {"username": "team"}}}"#;
        let (_dir, credentials) = written("config.json", text);
        let users: Vec<_> = credentials.of_node("r.test/team/app").into_iter().map(|a| a.auth.username).collect();
        assert_eq!(users, ["team", "all"]);
        assert_eq!(credentials.of_node("r.test/teamwork/app").len(), 1);
    }

    #[test]
    fn docker_hub_has_one_name() {
        let (_dir, credentials) = written(".dockercfg", r#"{"https://index.docker.io/v1/": {"username": "hub"}}"#);
        assert_eq!(credentials.of_node("nginx").len(), 1);
        assert_eq!(credentials.of_node("docker.io/me/app:1").len(), 1);
    }

    #[test]
    fn a_broken_file_is_left_out() {
        let (_dir, credentials) = written("config.json", "{\"auths\": {");
        assert!(credentials.of_node("nginx").is_empty());
    }

    #[tokio::test]
    async fn the_pods_secrets_stand_before_the_nodes_files() {
        let (_dir, credentials) = written("config.json", r#"{"auths": {"r.test/app": {"username": "node"}}}"#);
        let secret = |name: &str, format, content: &str| PullSecret {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            format,
            content: content.as_bytes().to_vec(),
        };
        let secrets = [
            secret("a", PullFormat::DockerConfigJson, r#"{"auths": {"r.test": {"username": "json"}}}"#),
            secret("b", PullFormat::DockerCfg, r#"{"https://r.test/v1/": {"username": "cfg"}}"#),
            secret("c", PullFormat::DockerConfigJson, "{"),
            secret("d", PullFormat::DockerConfigJson, r#"{"auths": {"r.test/app": {"auth": "bWU6c2VjcmV0"}}}"#),
        ];
        let (found, problems) = credentials.all_for_image("r.test/app", &secrets).await;
        let of = |f: &Found| format!("{} {}", f.auth.username, f.secret.as_ref().map_or("node", |s| &s.uid));
        let found_of: Vec<_> = found.iter().map(of).collect();
        assert_eq!(found_of, ["me uid-d", "json uid-a", "cfg uid-b", "node node"]);
        assert_eq!(problems, ["secret c: not valid JSON at line 1 column 1"]);
        assert!(!format!("{secrets:?}").contains("json\""), "the content is never shown");
        // What upstream's kubelet writes down of user `me` with the password `secret`.
        let hash = found[0].secret.as_ref().map(|s| s.hash.as_str());
        assert_eq!(hash, Some("da191bebdcc70de29fcc11ee46cf24813e647caeed92e825666af6003c70bb1b"));
    }
}
