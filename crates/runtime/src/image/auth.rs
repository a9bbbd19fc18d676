//! Who pulls, and how a registry is told.
//!
//! A [`Credential`] belongs to one pull, and so do the tokens that a registry gives for it: they are never kept for
//! another.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rubelet_proto::cri::AuthConfig;

use crate::digest::Digest;

/// What a pull may show to a registry. Not printable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Anonymous,
    Password {
        user: String,
        secret: String,
    },
    /// A refresh token, to be changed for an access token.
    Identity {
        token: String,
    },
    /// An access token.
    Registry {
        token: String,
    },
}

/// Why a credential cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("invalid auth config: the field \"auth\" is not base64 of USER:PASSWORD")]
    Encoding,
    #[error("invalid auth config")]
    Empty,
    #[error("invalid server address {0:?} in auth config")]
    Server(String),
}

impl Credential {
    /// What CRI's message means for a pull from `registry`: one that is for another server is not used.
    pub(crate) fn of(auth: Option<AuthConfig>, registry: &str) -> Result<Self, CredentialError> {
        let Some(auth) = auth.filter(|a| *a != AuthConfig::default()) else { return Ok(Self::Anonymous) };
        if !auth.server_address.is_empty() && !is_server(&auth.server_address, registry)? {
            return Ok(Self::Anonymous);
        }
        if !auth.username.is_empty() {
            return Ok(Self::Password { user: auth.username, secret: auth.password });
        }
        if !auth.identity_token.is_empty() {
            return Ok(Self::Identity { token: auth.identity_token });
        }
        if !auth.registry_token.is_empty() {
            return Ok(Self::Registry { token: auth.registry_token });
        }
        if auth.auth.is_empty() {
            return Err(CredentialError::Empty);
        }
        let decoded = BASE64.decode(auth.auth.trim()).map_err(|_| CredentialError::Encoding)?;
        let text = String::from_utf8(decoded).map_err(|_| CredentialError::Encoding)?;
        let (user, secret) = text.split_once(':').ok_or(CredentialError::Encoding)?;
        Ok(Self::Password { user: user.to_owned(), secret: secret.trim_end_matches('\0').to_owned() })
    }

    /// A name for this credential that does not reveal it; `None` without one. For a record of who may use an image.
    pub(crate) fn id(&self) -> Option<Digest> {
        let text = match self {
            Self::Anonymous => return None,
            Self::Password { user, secret } => format!("password\0{user}\0{secret}"),
            Self::Identity { token } => format!("identity\0{token}"),
            Self::Registry { token } => format!("registry\0{token}"),
        };
        Some(Digest::of(text.as_bytes()))
    }

    /// The header for registries (and token servers) that ask for user and password.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, secret } if !user.is_empty() && !secret.is_empty() => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{secret}"))))
            }
            Self::Password { .. } | Self::Anonymous | Self::Identity { .. } | Self::Registry { .. } => None,
        }
    }
}

fn is_server(address: &str, registry: &str) -> Result<bool, CredentialError> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return Err(CredentialError::Server(address.to_owned()));
    }
    let canonical = |host: &str| match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    };
    Ok(canonical(host) == canonical(registry))
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

impl Challenge {
    /// The challenges of one header that we can answer.
    pub(crate) fn parse(header: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = header.trim();
        while !rest.is_empty() {
            let (scheme, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let (fields, after) = fields(after);
            rest = after;
            let field = |name: &str| fields.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
            if scheme.eq_ignore_ascii_case("basic") {
                found.push(Self::Basic);
            } else if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = field("realm")
            {
                let (service, scope, error) = (field("service"), field("scope"), field("error"));
                found.push(Self::Bearer { realm, service, scope, error });
            }
        }
        found
    }
}

/// `key="value", key=value` up to the next scheme, which has no `=`.
fn fields(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut fields = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let Some(value) = rest[end..].strip_prefix('=') else { return (fields, rest) };
        let key = rest[..end].to_lowercase();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        fields.push((key, value));
        rest = after;
    }
}

/// A quoted string after its first quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, c)| c)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Percent-encoding for a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                use std::fmt::Write;
                // Writing to a string does not fail.
                let _ = write!(out, "%{other:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(auth: AuthConfig) -> Result<Credential, CredentialError> {
        Credential::of(Some(auth), "docker.io")
    }

    fn password(user: &str, secret: &str) -> Credential {
        Credential::Password { user: user.into(), secret: secret.into() }
    }

    #[test]
    fn the_kinds_of_credentials() {
        let auth = AuthConfig::default;
        assert!(Credential::of(None, "x").unwrap() == Credential::Anonymous);
        assert!(of(auth()).unwrap() == Credential::Anonymous);
        let user = AuthConfig { username: "u".into(), password: "p".into(), ..auth() };
        assert!(of(user.clone()).unwrap() == password("u", "p"));
        assert!(of(AuthConfig { auth: BASE64.encode("u:p:q"), ..auth() }).unwrap() == password("u", "p:q"));
        assert!(of(AuthConfig { auth: "%".into(), ..auth() }).is_err_and(|e| e == CredentialError::Encoding));
        let elsewhere = AuthConfig { server_address: "https://quay.io/v1/".into(), ..user.clone() };
        assert!(of(elsewhere).unwrap() == Credential::Anonymous);
        let docker = AuthConfig { server_address: "https://index.docker.io/v1/".into(), ..user };
        assert!(of(docker).unwrap() == password("u", "p"));
        assert_ne!(password("u", "p").id(), password("up", "").id());
    }

    #[test]
    fn challenges() {
        let header = r#"Bearer realm="https://a/token?x=1,2",service="s \"q\"",scope="repository:x:pull,push", error=insufficient_scope"#;
        let expected = Challenge::Bearer {
            realm: "https://a/token?x=1,2".into(),
            service: Some("s \"q\"".into()),
            scope: Some("repository:x:pull,push".into()),
            error: Some("insufficient_scope".into()),
        };
        assert_eq!(Challenge::parse(header), std::slice::from_ref(&expected));
        assert_eq!(Challenge::parse("Basic realm=\"x y\""), [Challenge::Basic]);
        assert_eq!(Challenge::parse(&format!("Negotiate, Basic realm=x, {header}")), [Challenge::Basic, expected]);
        for nonsense in ["", "Bearer", "Bearer realm", "=", "Bearer =\"", ",,,", "Bearer realm=\"x"] {
            let _ = Challenge::parse(nonsense);
        }
    }
}
