//! Credentials of the node: Docker's files in upstream's places, and plugins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rubelet_core::pod::step::{PullFormat, PullSecret};
use rubelet_proto::cri;

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

#[derive(Clone, Debug, PartialEq)]
struct Login {
    auth: cri::AuthConfig,
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

    /// What [`Self::for_image`] finds and, after that, what plugins have for the image.
    pub async fn all_for_image(&self, image: &str, secrets: &[PullSecret]) -> (Vec<cri::AuthConfig>, Vec<String>) {
        let (mut found, mut problems) = self.for_image(image, secrets);
        if self.plugins.is_empty() {
            return (found, problems);
        }
        let (plugins, image) = (self.plugins.clone(), with_registry(image));
        match tokio::task::spawn_blocking(move || plugins.for_image(&image)).await {
            Ok((more, wrong)) => {
                for auth in more {
                    if !found.contains(&auth) {
                        found.push(auth);
                    }
                }
                problems.extend(wrong);
            }
            Err(e) => problems.push(format!("ask credential provider plugins: {e}")),
        }
        (found, problems)
    }

    /// The credentials that fit an image: those of the pod's pull secrets and of the node's files, the longest registry path
    /// first, the pod's before the node's. What of the secrets cannot be read is told.
    pub fn for_image(&self, image: &str, secrets: &[PullSecret]) -> (Vec<cri::AuthConfig>, Vec<String>) {
        let mut problems = Vec::new();
        let mut of_pod = Vec::new();
        for secret in secrets {
            match parse(&secret.content, secret.format) {
                Ok(logins) => of_pod.extend(logins),
                Err(e) => problems.push(format!("secret {}: {e}", secret.name)),
            }
        }
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_stale = read.as_ref().is_none_or(|(at, _)| at.elapsed() > REREAD);
        if is_stale {
            *read = Some((Instant::now(), self.read_all()));
        }
        let image = with_registry(image);
        let of_pod = of_pod.iter().map(|(place, login)| (place, login));
        let all = of_pod.chain(read.iter().flat_map(|(_, l)| l));
        let mut fitting: Vec<_> = all.filter(|(place, _)| fits(place, &image)).collect();
        fitting.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
        let mut found: Vec<cri::AuthConfig> = Vec::new();
        for (_, login) in fitting {
            if !found.contains(&login.auth) {
                found.push(login.auth.clone());
            }
        }
        (found, problems)
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

fn parse(text: &[u8], format: PullFormat) -> Result<Vec<(String, Login)>, String> {
    let broken = |e: serde_json::Error| format!("not valid JSON at line {} column {}", e.line(), e.column());
    let entries = match format {
        PullFormat::DockerCfg => serde_json::from_slice(text).map_err(broken)?,
        PullFormat::DockerConfigJson => serde_json::from_slice::<ConfigJson>(text).map_err(broken)?.auths,
    };
    Ok(entries
        .into_iter()
        .filter_map(|(registry, entry)| Some((normal(&registry), login(&registry, entry)?)))
        .collect())
}

fn login(registry: &str, entry: Entry) -> Option<Login> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username, entry.password)
    } else {
        let decoded = base64(&entry.auth)?;
        let (user, password) = decoded.split_once(':')?;
        (user.to_owned(), password.trim_end_matches('\0').to_owned())
    };
    let auth = cri::AuthConfig {
        username,
        password,
        identity_token: entry.identity_token,
        server_address: registry.to_owned(),
        ..Default::default()
    };
    Some(Login { auth })
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
        let found = credentials.for_image("registry.test:5000/team/app:v1", &[]).0;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("me", "secret"));
        assert!(credentials.for_image("nginx", &[]).0.is_empty());
    }

    #[test]
    fn the_longest_path_comes_first() {
        let text = r#"{"auths": {"r.test": {"username": "all"}, "r.test/team": {"username": "team"}}}"#;
        let (_dir, credentials) = written("config.json", text);
        let users: Vec<_> = credentials.for_image("r.test/team/app", &[]).0.into_iter().map(|a| a.username).collect();
        assert_eq!(users, ["team", "all"]);
        assert_eq!(credentials.for_image("r.test/teamwork/app", &[]).0.len(), 1);
    }

    #[test]
    fn docker_hub_has_one_name() {
        let (_dir, credentials) = written(".dockercfg", r#"{"https://index.docker.io/v1/": {"username": "hub"}}"#);
        assert_eq!(credentials.for_image("nginx", &[]).0.len(), 1);
        assert_eq!(credentials.for_image("docker.io/me/app:1", &[]).0.len(), 1);
    }

    #[test]
    fn a_broken_file_is_left_out() {
        let (_dir, credentials) = written("config.json", "{\"auths\": {");
        assert!(credentials.for_image("nginx", &[]).0.is_empty());
    }

    #[test]
    fn the_pods_secrets_stand_before_the_nodes_files() {
        let (_dir, credentials) = written("config.json", r#"{"auths": {"r.test": {"username": "node"}}}"#);
        let secret = |name: &str, format, content: &str| PullSecret {
            name: name.to_owned(),
            format,
            content: content.as_bytes().to_vec(),
        };
        let secrets = [
            secret("a", PullFormat::DockerConfigJson, r#"{"auths": {"r.test": {"username": "json"}}}"#),
            secret("b", PullFormat::DockerCfg, r#"{"https://r.test/v1/": {"username": "cfg"}}"#),
            secret("c", PullFormat::DockerConfigJson, "{"),
            secret("d", PullFormat::DockerConfigJson, r#"{"auths": {"r.test": {"username": "json"}}}"#),
        ];
        let (found, problems) = credentials.for_image("r.test/app", &secrets);
        assert_eq!(found.iter().map(|a| a.username.as_str()).collect::<Vec<_>>(), ["json", "cfg", "node"]);
        assert_eq!(problems, ["secret c: not valid JSON at line 1 column 1"]);
        assert!(!format!("{secrets:?}").contains("json\""), "the content is never shown");
    }
}
