//! Names of images: `nginx` is `docker.io/library/nginx:latest`.
//!
//! The grammar and the words of refusal are those of the distribution project, as containerd shows them.

use std::fmt;

use crate::digest::{Digest, DigestError};

#[cfg(test)]
mod tests;

const DEFAULT_DOMAIN: &str = "docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The full name of an image: registry, repository, and tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    which: Which,
}

/// Which image of a repository. With a digest the tag does not matter (containerd drops it).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    Tag(String),
    Digest(Digest),
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    Uppercase { name: String },
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    Identifier { name: String },
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    #[error("{0}")]
    Digest(DigestError),
}

impl Reference {
    /// Understands what users write: without registry it is Docker's, without tag `latest`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Identifier { name: text.to_owned() });
        }
        let (domain, rest) = split_domain(text);
        let name = rest.split([':', '@']).next().unwrap_or_default();
        let before_tag = rest.split(':').next().unwrap_or_default();
        if before_tag.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase { name: before_tag.to_owned() });
        }
        if !is_domain(&domain) || name.is_empty() || !name.split('/').all(is_component) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + name.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        let which = which(&rest[name.len()..])?;
        Ok(Self { domain, path: name.to_owned(), which })
    }

    /// Host, with port if one is given: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository at its registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository with its registry: `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Tag or digest.
    pub fn which(&self) -> &Which {
        &self.which
    }

    /// The same repository at a digest, as `repoDigests` has it.
    pub fn at(&self, digest: Digest) -> Self {
        Self { which: Which::Digest(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Tag(tag) => write!(out, "{}/{}:{tag}", self.domain, self.path),
            Which::Digest(digest) => write!(out, "{}/{}@{digest}", self.domain, self.path),
        }
    }
}

/// The part before the first slash is a host if it looks like one.
fn split_domain(text: &str) -> (String, String) {
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost" || part.chars().any(char::is_uppercase);
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        Some(_) | None => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') && !rest.is_empty() {
        return (domain.to_owned(), format!("library/{rest}"));
    }
    (domain.to_owned(), rest.to_owned())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') && !address.is_empty() => {
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        Some(_) => return false,
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let is_part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(is_part) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Small letters and digits, with one `.`, one or two `_`, or dashes between them.
fn is_component(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    bytes.split(|b| is_word(*b)).all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

/// What follows the name: `:TAG`, `@DIGEST`, both or nothing.
fn which(rest: &str) -> Result<Which, ReferenceError> {
    let (tag, digest) = match rest.split_once('@') {
        Some((tag, digest)) => (tag, Some(digest)),
        None => (rest, None),
    };
    let tag = match tag.strip_prefix(':') {
        Some(tag) if is_tag(tag) => Some(tag),
        Some(_) => return Err(ReferenceError::Format),
        None if tag.is_empty() => None,
        None => return Err(ReferenceError::Format),
    };
    match (tag, digest) {
        (_, Some(digest)) => {
            let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Format)?;
            // The grammar asks for 32 digits of either case; the algorithm is looked at after that.
            let is_plausible = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) && !algorithm.is_empty();
            if !is_plausible {
                return Err(ReferenceError::Format);
            }
            digest.parse().map(Which::Digest).map_err(ReferenceError::Digest)
        }
        (Some(tag), None) => Ok(Which::Tag(tag.to_owned())),
        (None, None) => Ok(Which::Tag("latest".to_owned())),
    }
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}
