//! Credential plugins: programs that say who we are (`client.authentication.k8s.io`).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rubelet_api::meta::Time;
use rubelet_host::exec::{self, Order};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::settings::{Pem, Tls};

/// How long a plugin may think.
const PATIENCE: Duration = Duration::from_secs(60);
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// How much of what it complains about is told.
const COMPLAINT_BYTES: usize = 512;

/// The program, and what it is told.
#[derive(Clone, Debug)]
pub struct PluginSettings {
    /// With a slash: a path; without: a program in `PATH`.
    pub command: PathBuf,
    pub arguments: Vec<String>,
    /// Added to our own environment.
    pub environment: Vec<(String, String)>,
    pub api_version: String,
    /// Shown when the program is missing.
    pub install_hint: String,
    /// Told to the program, where it wants to know.
    pub cluster: Option<PluginCluster>,
}

/// What a plugin is told of the cluster.
#[derive(Clone, Debug)]
pub struct PluginCluster {
    pub server: String,
    pub tls: Tls,
}

/// What a plugin says.
#[derive(Clone, Default)]
pub(crate) struct Credential {
    pub(crate) token: Option<String>,
    /// PEM: certificate and key.
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) expires: Option<Time>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: String,
    api_version: String,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    expiration_timestamp: Option<Time>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs the plugin. Blocks.
///
/// # Errors
/// It is missing, fails, takes too long, or says what can't be understood.
pub(crate) fn run(settings: &PluginSettings) -> Result<Credential, String> {
    let name = settings.command.display();
    let program = find(&settings.command).ok_or_else(|| missing(settings))?;
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    environment.extend(settings.environment.iter().map(|(name, value)| (name.into(), value.into())));
    environment.push(("KUBERNETES_EXEC_INFO".into(), request(settings)?.to_string().into()));
    let arguments: Vec<&OsStr> = settings.arguments.iter().map(OsStr::new).collect();
    let answer = exec::run(&Order {
        program: &program,
        arguments: &arguments,
        environment: &environment,
        input: &[],
        patience: PATIENCE,
        output_max: OUTPUT_BYTES_MAX,
    })
    .map_err(|e| rubelet_host::chain(&e))?;
    if !answer.status.success() {
        let complaint =
            String::from_utf8_lossy(&answer.stderr[..answer.stderr.len().min(COMPLAINT_BYTES)]).trim().to_owned();
        return Err(format!("plugin {name} failed: {}: {complaint}", answer.status));
    }
    read(settings, &answer.stdout).map_err(|why| format!("plugin {name}: {why}"))
}

fn missing(settings: &PluginSettings) -> String {
    let hint =
        if settings.install_hint.is_empty() { String::new() } else { format!("; {}", settings.install_hint.trim()) };
    format!("plugin {} is not there{hint}", settings.command.display())
}

/// The program itself, or the first of its name in `PATH`.
fn find(command: &Path) -> Option<PathBuf> {
    if command.components().count() > 1 {
        return command.exists().then(|| command.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(command)).find(|path| path.is_file())
}

fn request(settings: &PluginSettings) -> Result<Value, String> {
    let mut spec = json!({ "interactive": false });
    if let Some(PluginCluster { server, tls }) = &settings.cluster {
        let mut cluster = json!({ "server": server });
        if let Some(name) = &tls.server_name {
            cluster["tls-server-name"] = json!(name);
        }
        if tls.is_unverified {
            cluster["insecure-skip-tls-verify"] = json!(true);
        }
        if let Some(pem) = &tls.authorities {
            cluster["certificate-authority-data"] = json!(BASE64.encode(read_pem(pem)?));
        }
        spec["cluster"] = cluster;
    }
    Ok(json!({ "kind": "ExecCredential", "apiVersion": settings.api_version, "spec": spec }))
}

/// The text of a file or the text itself. Blocks.
pub(crate) fn read_pem(pem: &Pem) -> Result<Vec<u8>, String> {
    match pem {
        Pem::Text(text) => Ok(text.clone()),
        Pem::File(path) => std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display())),
    }
}

fn read(settings: &PluginSettings, output: &[u8]) -> Result<Credential, String> {
    let answer: Answer = serde_json::from_slice(output).map_err(|e| format!("its answer can't be read: {e}"))?;
    if answer.kind != "ExecCredential" || answer.api_version != settings.api_version {
        return Err(format!(
            "it answers with {} of {}, wanted is ExecCredential of {}",
            answer.kind, answer.api_version, settings.api_version
        ));
    }
    let status = answer.status.ok_or("its answer has no status")?;
    let token = status.token.filter(|token| !token.is_empty());
    let certificate = match (status.client_certificate_data, status.client_key_data) {
        (Some(certificate), Some(key)) => Some((certificate.into_bytes(), key.into_bytes())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err("its answer has only half of certificate and key".to_owned()),
    };
    if token.is_none() && certificate.is_none() {
        return Err("its answer has neither a token nor a certificate".to_owned());
    }
    Ok(Credential { token, certificate, expires: status.expiration_timestamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(script: &str) -> PluginSettings {
        PluginSettings {
            command: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("WORD".to_owned(), "s3".to_owned())],
            api_version: "client.authentication.k8s.io/v1".to_owned(),
            install_hint: String::new(),
            cluster: Some(PluginCluster { server: "https://h".to_owned(), tls: Tls::default() }),
        }
    }

    #[test]
    fn a_plugin_is_told_what_it_is_for_and_believed() {
        let script = r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*'"server":"https://h"'*) ;; *) exit 1;; esac
            echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"'$WORD'","expirationTimestamp":"2030-01-02T03:04:05Z"}}'"#;
        let credential = run(&settings(script)).unwrap();
        assert_eq!(credential.token.as_deref(), Some("s3"));
        assert_eq!(credential.expires.unwrap().0.as_second(), 1_893_553_445);
    }

    #[test]
    fn a_plugin_that_fails_or_babbles_is_quoted() {
        let failed = run(&settings("echo no luck >&2; exit 3")).err().unwrap();
        assert_eq!(failed, "plugin /bin/sh failed: exit status: 3: no luck");
        let other = run(&settings(r#"echo '{"kind":"Pod","apiVersion":"v1"}'"#)).err().unwrap();
        assert!(other.starts_with("plugin /bin/sh: it answers with Pod of v1, wanted"), "{other}");
        let empty = r#"echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{}}'"#;
        assert!(run(&settings(empty)).err().unwrap().contains("neither a token nor a certificate"));
        let mut gone = settings("");
        gone.command = "no-such-plugin".into();
        gone.install_hint = "install it".to_owned();
        assert_eq!(run(&gone).err().unwrap(), "plugin no-such-plugin is not there; install it");
    }
}
