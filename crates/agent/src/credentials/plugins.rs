//! Credential provider plugins: programs that are asked for the credentials of images (`--image-credential-provider-config`,
//! `--image-credential-provider-bin-dir`). Protocol, limits and messages are kubelet 1.36's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rubelet_host::chain;
use rubelet_host::exec::{self, Order};
use rubelet_proto::cri;

use super::glob::matches;
use crate::metrics::Metrics;

mod config;
#[cfg(test)]
mod tests;

pub use config::PluginConfigError;
use config::Provider;

/// Kubelet 1.36: how long a plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most that a plugin may say.
const OUTPUT_MAX: usize = 1 << 20;
/// Answers that are remembered of one plugin at most; beyond, those that expire first go.
const REMEMBERED_MAX: usize = 4096;

/// All plugins, in the order of the configuration. The default is none.
#[derive(Debug, Default)]
pub struct Plugins {
    all: Vec<Plugin>,
}

#[derive(Debug)]
struct Plugin {
    provider: Provider,
    program: PathBuf,
    metrics: Arc<Metrics>,
    /// Held while it runs, too: who wants the same waits for its answer.
    remembered: Mutex<BTreeMap<Key, Remembered>>,
}

/// For what an answer holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

#[derive(Debug)]
struct Remembered {
    until: Instant,
    logins: BTreeMap<String, Login>,
}

#[derive(Clone, serde::Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Login { .. }")
    }
}

/// What a plugin prints.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<rubelet_api::duration::Duration>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Login>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeOfResponse {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl Plugins {
    /// Reads the configuration (a file, or a directory of `.json`, `.yaml` and `.yml` files) and looks the programs up. Neither path: none.
    ///
    /// # Errors
    /// In upstream's words; a node whose plugins are configured wrongly does not start.
    pub fn open(
        config: Option<&Path>,
        bin_dir: Option<&Path>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, PluginConfigError> {
        if config.is_none() && bin_dir.is_none() {
            return Ok(Self::default());
        }
        let bin_dir = bin_dir.unwrap_or(Path::new(""));
        config::check_bin_dir(bin_dir)?;
        let providers = config::read(config.unwrap_or(Path::new("")))?;
        let open = |provider: Provider| {
            let program = config::look_up(bin_dir, &provider.name)?;
            Ok(Plugin { provider, program, metrics: metrics.clone(), remembered: Mutex::default() })
        };
        Ok(Self { all: providers.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The credentials that plugins have for an image (its name with registry, without tag), and what went wrong with those
    /// that have none to tell. Blocks while they run.
    pub(super) fn for_image(&self, image: &str) -> (Vec<cri::AuthConfig>, Vec<String>) {
        let (mut found, mut problems) = (BTreeMap::<String, Vec<cri::AuthConfig>>::new(), Vec::new());
        for plugin in self.all.iter().filter(|plugin| plugin.provider.match_images.iter().any(|m| matches(m, image))) {
            match plugin.logins(image) {
                Ok(logins) => {
                    for (place, login) in logins {
                        let bare = place.trim_start_matches("https://").trim_start_matches("http://");
                        if matches(bare, image) {
                            found.entry(bare.to_owned()).or_default().push(auth(login));
                        }
                    }
                }
                Err(said) => problems.push(format!("credential provider plugin {}: {said}", plugin.provider.name)),
            }
        }
        // Kubelet 1.36: the greatest key first, so that what is longer precedes what it begins with.
        (found.into_values().rev().flatten().collect(), problems)
    }
}

fn auth(login: Login) -> cri::AuthConfig {
    cri::AuthConfig { username: login.username, password: login.password, ..Default::default() }
}

/// Kubelet 1.36: what stands before the first `/`.
fn registry_of(image: &str) -> &str {
    image.split('/').next().unwrap_or(image)
}

impl Plugin {
    fn logins(&self, image: &str) -> Result<BTreeMap<String, Login>, String> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        remembered.retain(|_, one| one.until > now);
        let keys = [Key::Image(image.to_owned()), Key::Registry(registry_of(image).to_owned()), Key::Global];
        if let Some(one) = keys.iter().find_map(|key| remembered.get(key)) {
            return Ok(one.logins.clone());
        }
        let (counts, name) = (&self.metrics.storage, [&*self.provider.name]);
        let response = self.ask(image);
        counts.plugin_asked.of(&name).took(now.elapsed());
        let response = response.inspect_err(|_| counts.plugin_errors.of(&name).add_one())?;
        let [of_image, of_registry, global] = keys;
        let key = match response.cache_key_type.as_str() {
            "Image" => of_image,
            "Registry" => of_registry,
            "Global" => global,
            other => return Err(format!("credential provider plugin did not return a valid cacheKeyType: {other}")),
        };
        let logins = response.auth.unwrap_or_default();
        let keep = response.cache_duration.unwrap_or(self.provider.default_cache_duration).to_std();
        if let Some(until) = Instant::now().checked_add(keep).filter(|_| !keep.is_zero()) {
            if remembered.len() >= REMEMBERED_MAX
                && let Some(first) = remembered.iter().min_by_key(|(_, one)| one.until).map(|(key, _)| key.clone())
            {
                remembered.remove(&first);
            }
            remembered.insert(key, Remembered { until, logins: logins.clone() });
        }
        Ok(logins)
    }

    fn ask(&self, image: &str) -> Result<Response, String> {
        let request = serde_json::json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": self.provider.api_version,
            "image": image,
        });
        let request = request.to_string();
        let arguments: Vec<&OsStr> = self.provider.args.iter().map(OsStr::new).collect();
        let configured = |name: &OsStr| self.provider.env.iter().any(|(known, _)| OsStr::new(known) == name);
        let own = std::env::vars_os().filter(|(name, _)| !configured(name));
        let given = self.provider.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let environment: Vec<_> = own.chain(given).collect();
        let order = Order {
            program: &self.program,
            arguments: &arguments,
            environment: &environment,
            input: request.as_bytes(),
            patience: PATIENCE,
            output_max: OUTPUT_MAX,
        };
        let words = || format!("error execing credential provider plugin {} for image {image}", self.provider.name);
        let answer = exec::run(&order).map_err(|e| format!("{}: {}", words(), chain(&e)))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            return Err(format!("{}: {}: {said}", words(), answer.status));
        }
        self.read(&answer.stdout)
    }

    /// What it printed. Nothing of that is in an error: credentials may be in it.
    fn read(&self, text: &[u8]) -> Result<Response, String> {
        let kind: TypeOfResponse =
            serde_json::from_slice(text).map_err(|_| "error reading GVK from response: it is no JSON".to_owned())?;
        if kind.api_version != self.provider.api_version {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{}, actual apiVersion:{}",
                self.provider.api_version, kind.api_version
            ));
        }
        let failed = "error decoding credential provider plugin response from stdout";
        if kind.kind != "CredentialProviderResponse" {
            return Err(failed.to_owned());
        }
        serde_json::from_slice(text).map_err(|_| failed.to_owned())
    }
}
