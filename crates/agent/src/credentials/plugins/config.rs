//! The configuration of credential provider plugins: `CredentialProviderConfig` of `kubelet.config.k8s.io`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rubelet_api::duration::Duration;
use rubelet_api::gather::Gather;
use rubelet_host::proc::read_bounded;

use super::super::glob::problem;

/// Largest file that is read.
const BYTES_MAX: u64 = 4 << 20;
const KIND: &str = "CredentialProviderConfig";
const GROUP: &str = "kubelet.config.k8s.io";
/// Versions of the protocol, in upstream's order.
const PROTOCOLS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];

/// Why plugins cannot be used as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum PluginConfigError {
    #[error("plugin binary directory {} did not exist", .0.display())]
    NoBinDir(PathBuf),
    #[error("error inspecting binary directory {}", path.display())]
    BinDir { path: PathBuf, source: io::Error },
    #[error("credential provider config path is empty")]
    NoPath,
    #[error("unable to access path {path:?}")]
    Access { path: PathBuf, source: io::Error },
    #[error("unable to read {path:?}: {why}")]
    Read { path: PathBuf, why: String },
    #[error("no configuration files found in directory {0:?}")]
    Empty(PathBuf),
    #[error("error decoding config {path:?}: {why}")]
    Decode { path: PathBuf, why: String },
    #[error("duplicate provider name {0:?} found in configuration file(s)")]
    Duplicate(String),
    #[error("failed to validate credential provider config: {0}")]
    Invalid(String),
    #[error("plugin binary executable {} did not exist", .0.display())]
    NoProgram(PathBuf),
    #[error("error inspecting binary executable {}: it may not be executed", .0.display())]
    NotExecutable(PathBuf),
}

/// One plugin.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) match_images: Vec<String>,
    pub(super) default_cache_duration: Duration,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    providers: Option<Vec<Row>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Option<Vec<String>>,
    default_cache_duration: Option<Duration>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    token_attributes: Option<serde_json::Value>,
}

#[derive(serde::Deserialize)]
struct Variable {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

pub(super) fn check_bin_dir(dir: &Path) -> Result<(), PluginConfigError> {
    match fs::metadata(dir) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(PluginConfigError::NoBinDir(dir.to_owned())),
        Err(source) => Err(PluginConfigError::BinDir { path: dir.to_owned(), source }),
    }
}

/// The program of a plugin.
pub(super) fn look_up(dir: &Path, name: &str) -> Result<PathBuf, PluginConfigError> {
    let path = dir.join(name);
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(path),
        Ok(_) => Err(PluginConfigError::NotExecutable(path)),
        Err(_) => Err(PluginConfigError::NoProgram(path)),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<Provider>, PluginConfigError> {
    let mut rows = Vec::new();
    let mut names = BTreeSet::new();
    for file in files(path)? {
        for row in decode(&file)?.providers.unwrap_or_default() {
            if !names.insert(row.name.clone()) {
                return Err(PluginConfigError::Duplicate(row.name));
            }
            rows.push(row);
        }
    }
    let problems = validate(&rows);
    match problems.as_slice() {
        [] => Ok(rows.into_iter().map(provider).collect()),
        [one] => Err(PluginConfigError::Invalid(one.clone())),
        many => Err(PluginConfigError::Invalid(format!("[{}]", many.join(", ")))),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, PluginConfigError> {
    if path.as_os_str().is_empty() {
        return Err(PluginConfigError::NoPath);
    }
    let found = fs::metadata(path).map_err(|source| PluginConfigError::Access { path: path.to_owned(), source })?;
    if !found.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |e: io::Error| PluginConfigError::Read { path: path.to_owned(), why: e.to_string() };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.path();
        let is_wanted = file.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml");
        if is_wanted && !entry.file_type().map_err(failed)?.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(PluginConfigError::Empty(path.to_owned())) } else { Ok(files) }
}

fn decode(path: &Path) -> Result<File, PluginConfigError> {
    let wrong = |why: String| PluginConfigError::Decode { path: path.to_owned(), why };
    let text = read_bounded(path, BYTES_MAX)
        .map_err(|e| PluginConfigError::Read { path: path.to_owned(), why: rubelet_host::chain(&e) })?;
    let value = rubelet_api::json_of(text.as_bytes()).map_err(wrong)?;
    let file: File = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    let (group, version) = file.api_version.split_once('/').unwrap_or(("", &file.api_version));
    if file.kind != KIND || group != GROUP || !["v1", "v1beta1", "v1alpha1"].contains(&version) {
        return Err(wrong(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version)));
    }
    Ok(file)
}

fn provider(row: Row) -> Provider {
    Provider {
        name: row.name,
        match_images: row.match_images.unwrap_or_default(),
        default_cache_duration: row.default_cache_duration.unwrap_or_default(),
        api_version: row.api_version,
        args: row.args.unwrap_or_default(),
        // A name that is said twice: the last counts.
        env: row.env.unwrap_or_default().into_iter().map(|one| (one.name, one.value)).into_map().into_iter().collect(),
    }
}

/// What is wrong, each in upstream's words.
fn validate(rows: &[Row]) -> Vec<String> {
    let mut all = Vec::new();
    if rows.is_empty() {
        all.push("providers: Required value: at least 1 item in plugins is required".to_owned());
    }
    for row in rows {
        let name = |why: &str| format!("providers.name: Invalid value: {:?}: {why}", row.name);
        if row.name.contains('/') {
            all.push(name("provider name cannot contain '/'"));
        }
        if row.name.contains(' ') {
            all.push(name("provider name cannot contain spaces"));
        }
        if row.name == "." || row.name == ".." {
            all.push(name(&format!("provider name cannot be '{}'", row.name)));
        }
        if row.api_version.is_empty() {
            all.push("providers.apiVersion: Required value".to_owned());
        } else if !PROTOCOLS.contains(&row.api_version.as_str()) {
            let known = PROTOCOLS.map(|one| format!("{one:?}")).join(", ");
            all.push(format!(
                "providers.apiVersion: Unsupported value: {:?}: supported values: {known}",
                row.api_version
            ));
        }
        let images = row.match_images.as_deref().unwrap_or_default();
        if images.is_empty() {
            all.push("providers.matchImages: Required value: at least 1 item in matchImages is required".to_owned());
        }
        for image in images {
            if let Some(why) = problem(image) {
                all.push(format!("providers.matchImages: Invalid value: {image:?}: match image is invalid: {why}"));
            }
        }
        match row.default_cache_duration {
            None => all.push("providers.defaultCacheDuration: Required value".to_owned()),
            Some(duration) if duration.nanos < 0 => all.push(format!(
                "providers.defaultCacheDuration: Invalid value: {duration}: must be greater than or equal to 0"
            )),
            Some(_) => {}
        }
        if row.token_attributes.is_some() {
            all.push("providers.tokenAttributes: Forbidden: tokens of service accounts are not given to plugins by rubelet yet".to_owned());
        }
    }
    all
}
