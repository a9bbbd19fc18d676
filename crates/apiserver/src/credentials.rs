//! Who we are right now: tokens are read again, plugins run again, files looked at.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::plugin::{self, Credential, PluginSettings};
use crate::settings::{Identity, Pem, Secret, Token};

/// client-go reads a token file again after a minute, a little early.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(50);
/// A plugin's answer is not shown to the server in its last seconds.
const PLUGIN_EARLY: Duration = Duration::from_secs(10);

/// Whether what is known already will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Any,
    /// The server did not believe what was known at this time.
    After(Instant),
}

/// Shared by all requests of a client.
pub(crate) struct Credentials {
    identity: Identity,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    token: Option<(String, Instant)>,
    plugin: Option<(Credential, Instant)>,
}

/// Certificate and key in PEM, and which ones they are.
pub(crate) struct Pair {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// What tells a changed certificate (of ours or of an authority) from the same one, without reading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    /// Looks at files.
    pub(crate) fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        Self(files.map(look).collect())
    }
}

fn look(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

impl Credentials {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, known: Mutex::default() }
    }

    /// The files of our certificate.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let pair = self.identity.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        pair.filter_map(Pem::file).chain(self.identity.rotated.as_deref())
    }

    /// The certificate that outranks what else we are, if it is there.
    fn rotated(&self) -> Option<&Path> {
        self.identity.rotated.as_deref().filter(|path| path.exists())
    }

    /// Whether asking again after a 401 can help.
    pub(crate) fn may_change(&self) -> bool {
        self.identity.plugin.is_some() || matches!(self.identity.token, Some(Token::File(_)))
    }

    /// The header that says who we are; `None` if nothing or the certificate does.
    pub(crate) async fn authorization(&self, freshness: Freshness) -> Result<Option<HeaderValue>, String> {
        if self.rotated().is_some() {
            return Ok(None);
        }
        let text = match &self.identity {
            Identity { token: Some(Token::Fixed(token)), .. } => format!("Bearer {token}"),
            Identity { token: Some(Token::File(path)), .. } => format!("Bearer {}", self.token(path, freshness).await?),
            Identity { basic: Some((name, Secret(password))), .. } => {
                format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
            }
            Identity { plugin: Some(settings), .. } => match self.plugin(settings, freshness).await?.token {
                Some(token) => format!("Bearer {token}"),
                None => return Ok(None),
            },
            Identity { plugin: None, token: None, basic: None, .. } => return Ok(None),
        };
        let mut header =
            HeaderValue::try_from(text).map_err(|_| "the token contains what a header can't".to_owned())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// Our certificate. A configured one outranks the plugin's.
    pub(crate) async fn certificate(&self) -> Result<Option<Pair>, String> {
        let rotated = self.rotated().map(|path| (Pem::File(path.to_owned()), Pem::File(path.to_owned())));
        if let Some((certificate, key)) = rotated.or_else(|| self.identity.certificate.clone()) {
            let read = move || {
                Ok::<_, String>(Pair { certificate: plugin::read_pem(&certificate)?, key: plugin::read_pem(&key)? })
            };
            return blocking(read).await.map(Some);
        }
        let Some(settings) = &self.identity.plugin else { return Ok(None) };
        let credential = self.plugin(settings, Freshness::Any).await?;
        Ok(credential.certificate.map(|(certificate, key)| Pair { certificate, key }))
    }

    async fn token(&self, path: &Path, freshness: Freshness) -> Result<String, String> {
        let mut known = self.known.lock().await;
        if let Some((token, at)) = &known.token
            && at.elapsed() < TOKEN_AGE_MAX
            && is_fresh(*at, freshness)
        {
            return Ok(token.clone());
        }
        let failed = |why: String| format!("read the token file {}: {why}", path.display());
        let read = match tokio::fs::read_to_string(path).await {
            Ok(text) if text.trim().is_empty() => Err(failed("it is empty".to_owned())),
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) => Err(failed(e.to_string())),
        };
        match (read, &known.token) {
            (Ok(token), _) => {
                known.token = Some((token.clone(), Instant::now()));
                Ok(token)
            }
            // client-go: the last token goes on until there is a new one.
            (Err(why), Some((token, _))) => {
                tracing::warn!("{why}; going on with the token that was read before");
                Ok(token.clone())
            }
            (Err(why), None) => Err(why),
        }
    }

    async fn plugin(&self, settings: &PluginSettings, freshness: Freshness) -> Result<Credential, String> {
        let mut known = self.known.lock().await;
        if let Some((credential, at)) = &known.plugin
            && !is_expired(credential, SystemTime::now())
            && is_fresh(*at, freshness)
        {
            return Ok(credential.clone());
        }
        let settings = settings.clone();
        let credential = blocking(move || plugin::run(&settings)).await?;
        known.plugin = Some((credential.clone(), Instant::now()));
        Ok(credential)
    }
}

fn is_fresh(at: Instant, freshness: Freshness) -> bool {
    match freshness {
        Freshness::Any => true,
        Freshness::After(moment) => at > moment,
    }
}

fn is_expired(credential: &Credential, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default() + PLUGIN_EARLY;
    credential.expires.as_ref().is_some_and(|at| at.0.as_second() < i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    rubelet_host::task::blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(credentials: &Credentials, freshness: Freshness) -> String {
        credentials.authorization(freshness).await.unwrap().unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_again_and_its_loss_survived() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let identity = Identity { token: Some(Token::File(path.clone())), ..Identity::default() };
        let credentials = Credentials::new(identity);
        assert!(credentials.authorization(Freshness::Any).await.unwrap_err().starts_with("read the token file "));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer one");
        assert_eq!(shown(&credentials, Freshness::After(Instant::now())).await, "Bearer two");
        std::fs::write(&path, "three").unwrap();
        tokio::time::advance(TOKEN_AGE_MAX).await;
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer three");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(TOKEN_AGE_MAX).await;
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer three");
    }

    #[tokio::test]
    async fn a_plugin_runs_again_when_the_server_does_not_believe_it() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            r#"echo x >>{0}/runs; n=$(wc -l <{0}/runs); echo '{{"kind":"ExecCredential","apiVersion":"v","status":{{"token":"t'$n'"}}}}'"#,
            folder.path().display()
        );
        let plugin = PluginSettings {
            command: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script],
            environment: Vec::new(),
            api_version: "v".to_owned(),
            install_hint: String::new(),
            cluster: None,
        };
        let credentials = Credentials::new(Identity { plugin: Some(plugin), ..Identity::default() });
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer t1");
        assert_eq!(shown(&credentials, Freshness::Any).await, "Bearer t1");
        assert_eq!(shown(&credentials, Freshness::After(Instant::now())).await, "Bearer t2");
        assert!(credentials.certificate().await.unwrap().is_none());
    }

    #[test]
    fn a_replaced_file_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        let stamp = || Stamp::of([path.as_path()].into_iter());
        let missing = stamp();
        std::fs::write(folder.path().join("a.pem"), "x").unwrap();
        let first = stamp();
        assert_ne!(missing, first);
        std::fs::write(folder.path().join("b.pem"), "y").unwrap();
        std::fs::rename(folder.path().join("b.pem"), folder.path().join("a.pem")).unwrap();
        assert_ne!(first, stamp());
        assert_eq!(stamp(), stamp());
    }
}
