//! Kubeconfig files: the cluster and the user of the current context.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;

use crate::plugin::{PluginCluster, PluginSettings};
use crate::settings::{Identity, Pem, Secret, Settings, Tls, Token};

#[cfg(test)]
mod tests;

/// Why a kubeconfig does not say where the API server is and who we are.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("read kubeconfig {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("read kubeconfig {}: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    /// No current context, or it names what is not there.
    #[error("kubeconfig {}: {why}", path.display())]
    Incomplete { path: PathBuf, why: String },
    #[error("kubeconfig {}: {field}: {why}", path.display())]
    Value { path: PathBuf, field: &'static str, why: String },
    #[error("kubeconfig {}: {field} is not supported", path.display())]
    Unsupported { path: PathBuf, field: &'static str },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    #[serde(default)]
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    #[serde(default)]
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    tls_server_name: String,
    insecure_skip_tls_verify: bool,
    certificate_authority: String,
    certificate_authority_data: String,
    proxy_url: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    #[serde(rename = "as")]
    impersonated: String,
    exec: Option<Exec>,
    auth_provider: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Exec {
    command: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    api_version: String,
    install_hint: String,
    provide_cluster_info: bool,
    interactive_mode: String,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

impl Settings {
    /// Reads the current context of a kubeconfig. Files that it names are relative to its folder. Blocks on the file.
    ///
    /// # Errors
    /// The file is missing or not a kubeconfig, its context is incomplete, or it wants what is not built (`proxy-url`,
    /// `as`, `auth-provider`).
    pub fn from_kubeconfig(path: &Path) -> Result<Self, KubeconfigError> {
        let text = fs::read(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
        Self::of_kubeconfig(&text, path)
    }

    /// The same of a text; `path` is where it is said to be from.
    ///
    /// # Errors
    /// As [`Settings::from_kubeconfig`].
    pub fn of_kubeconfig(text: &[u8], path: &Path) -> Result<Self, KubeconfigError> {
        let syntax = |why| KubeconfigError::Syntax { path: path.to_owned(), why };
        let mut value = rubelet_api::json_of(text).map_err(syntax)?;
        as_words(&mut value);
        let file: File = if value.is_null() {
            File::default()
        } else {
            serde_json::from_value(value).map_err(|e| syntax(e.to_string()))?
        };
        let incomplete = |why| KubeconfigError::Incomplete { path: path.to_owned(), why };
        if file.current_context.is_empty() {
            return Err(incomplete("it has no current-context".to_owned()));
        }
        let missing = |what: &str, name: &str| incomplete(format!("{what} {name:?} does not exist"));
        let name = &file.current_context;
        let context = file.contexts.iter().find(|context| context.name == *name);
        let context = &context.ok_or_else(|| missing("context", name))?.context;
        let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
        let nobody = User::default();
        let user = match context.user.as_str() {
            "" => &nobody,
            name => &file.users.iter().find(|user| user.name == name).ok_or_else(|| missing("user", name))?.user,
        };
        if cluster.server.is_empty() {
            return Err(incomplete(format!("cluster {:?} has no server", context.cluster)));
        }
        let reader = Reader { path };
        let tls = reader.tls(cluster)?;
        let identity = reader.identity(user, cluster, &tls)?;
        Ok(Self { tls, identity, ..Self::new(cluster.server.clone()) })
    }
}

/// A token, a password or a name may look like a number. Upstream's YAML reads what ought to be text as text.
fn as_words(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                if !matches!(key.as_str(), "insecure-skip-tls-verify" | "provideClusterInfo" | "auth-provider") {
                    as_words(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(as_words),
        Value::Number(_) | Value::Bool(_) => *value = Value::String(value.to_string()),
        Value::Null | Value::String(_) => {}
    }
}

/// Reads parts of a kubeconfig and knows which one it is.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn tls(&self, cluster: &Cluster) -> Result<Tls, KubeconfigError> {
        if !cluster.proxy_url.is_empty() {
            return Err(self.unsupported("proxy-url"));
        }
        let authorities = self.pem(
            "certificate-authority-data",
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        if cluster.insecure_skip_tls_verify && authorities.is_some() {
            let why = "an authority is given as well".to_owned();
            return Err(KubeconfigError::Value { path: self.path.to_owned(), field: "insecure-skip-tls-verify", why });
        }
        let server_name = (!cluster.tls_server_name.is_empty()).then(|| cluster.tls_server_name.clone());
        Ok(Tls { authorities, is_unverified: cluster.insecure_skip_tls_verify, server_name })
    }

    fn identity(&self, user: &User, cluster: &Cluster, tls: &Tls) -> Result<Identity, KubeconfigError> {
        if !user.impersonated.is_empty() {
            return Err(self.unsupported("as"));
        }
        if user.auth_provider.is_some() {
            return Err(self.unsupported("auth-provider"));
        }
        let certificate =
            self.pem("client-certificate-data", &user.client_certificate_data, &user.client_certificate)?;
        let key = self.pem("client-key-data", &user.client_key_data, &user.client_key)?;
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.half("client-key")),
            (None, Some(_)) => return Err(self.half("client-certificate")),
        };
        // client-go: with both, the file is what counts.
        let token = match (user.token_file.as_str(), user.token.as_str()) {
            ("", "") => None,
            ("", token) => Some(Token::Fixed(token.to_owned())),
            (file, _) => Some(Token::File(self.relative(file))),
        };
        let plugin = user.exec.as_ref().map(|exec| self.plugin(exec, cluster, tls)).transpose()?;
        let basic = (!user.username.is_empty()).then(|| (user.username.clone(), Secret(user.password.clone())));
        Ok(Identity { token, certificate, plugin, rotated: None, basic })
    }

    fn plugin(&self, exec: &Exec, cluster: &Cluster, tls: &Tls) -> Result<PluginSettings, KubeconfigError> {
        let wrong =
            |field, why: &str| KubeconfigError::Value { path: self.path.to_owned(), field, why: why.to_owned() };
        if exec.command.is_empty() {
            return Err(wrong("exec.command", "is missing"));
        }
        if !matches!(
            exec.api_version.as_str(),
            "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1"
        ) {
            return Err(wrong("exec.apiVersion", "must be client.authentication.k8s.io/v1 or v1beta1"));
        }
        match exec.interactive_mode.as_str() {
            "Never" | "IfAvailable" => {}
            "" if exec.api_version.ends_with("/v1beta1") => {}
            "Always" => return Err(wrong("exec.interactiveMode", "Always: there is nobody to talk to")),
            _ => return Err(wrong("exec.interactiveMode", "must be Never, IfAvailable or Always")),
        }
        // client-go: what has a slash is relative to the file, the rest is looked for in PATH.
        let command =
            if exec.command.contains('/') { self.relative(&exec.command) } else { PathBuf::from(&exec.command) };
        Ok(PluginSettings {
            command,
            arguments: exec.args.clone().unwrap_or_default(),
            environment: exec.env.iter().flatten().map(|v| (v.name.clone(), v.value.clone())).collect(),
            api_version: exec.api_version.clone(),
            install_hint: exec.install_hint.clone(),
            cluster: exec
                .provide_cluster_info
                .then(|| PluginCluster { server: cluster.server.clone(), tls: tls.clone() }),
        })
    }

    /// Data outrank a file.
    fn pem(&self, field: &'static str, data: &str, file: &str) -> Result<Option<Pem>, KubeconfigError> {
        if data.is_empty() {
            return Ok((!file.is_empty()).then(|| Pem::File(self.relative(file))));
        }
        let compact: String = data.split_ascii_whitespace().collect();
        let text = BASE64.decode(compact).map_err(|e| KubeconfigError::Value {
            path: self.path.to_owned(),
            field,
            why: format!("not base64: {e}"),
        })?;
        Ok(Some(Pem::Text(text)))
    }

    fn relative(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn unsupported(&self, field: &'static str) -> KubeconfigError {
        KubeconfigError::Unsupported { path: self.path.to_owned(), field }
    }

    fn half(&self, field: &'static str) -> KubeconfigError {
        KubeconfigError::Value { path: self.path.to_owned(), field, why: "is missing beside the other half".to_owned() }
    }
}
