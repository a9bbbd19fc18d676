//! Who may have an image that is on the node: how it came here, by whose credentials, and what its record says of that. All of it
//! is kubelet 1.36's `KubeletEnsureSecretPulledImages`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rubelet_api::gather::Gather;
use serde_json::Value;

use crate::render::json;

#[cfg(test)]
mod tests;

/// Secrets noted with one image beyond which none is added without a pull.
const NOTED_MAX: usize = 100;

/// Of which images it must be shown that a pod may have them (`imagePullCredentialsVerificationPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    NeverVerify,
    /// Of those that a kubelet has pulled.
    NeverVerifyPreloaded,
    /// Of all but these.
    NeverVerifyAllowlisted(Vec<Pattern>),
    AlwaysVerify,
}

/// Images without tag and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Name(String),
    /// Ends with a slash.
    Beginning(String),
}

impl Policy {
    /// From the configuration; `None` for a word that validation refuses.
    pub fn named(word: &str, allowlist: &[String]) -> Option<Self> {
        let pattern = |text: &String| match text.strip_suffix('*') {
            Some(beginning) => Pattern::Beginning(beginning.to_owned()),
            None => Pattern::Name(text.clone()),
        };
        match word {
            "NeverVerify" => Some(Self::NeverVerify),
            "NeverVerifyPreloadedImages" => Some(Self::NeverVerifyPreloaded),
            "NeverVerifyAllowlistedImages" => {
                Some(Self::NeverVerifyAllowlisted(allowlist.iter().map(pattern).collect()))
            }
            "AlwaysVerify" => Some(Self::AlwaysVerify),
            _ => None,
        }
    }

    fn must_verify(&self, image: &str, was_pulled: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloaded => was_pulled,
            Self::NeverVerifyAllowlisted(patterns) => !patterns.iter().any(|pattern| match pattern {
                Pattern::Name(name) => bare(image) == name,
                Pattern::Beginning(beginning) => bare(image).starts_with(beginning),
            }),
            Self::AlwaysVerify => true,
        }
    }
}

/// What is written down of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the record changed last.
    pub updated: Timestamp,
    /// The image's name with the runtime.
    pub image_ref: String,
    /// By the image's name in pods, without tag and digest. None for a name: it must be pulled again before it is given away.
    pub credentials: BTreeMap<String, Credentials>,
}

/// By what an image could be pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub secrets: Vec<Secret>,
    /// Those whose tokens got credentials out of a plugin.
    pub accounts: Vec<Account>,
    /// Without credentials, or by the node's.
    pub is_for_all: bool,
}

/// A pull secret and what of it was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// See [`credential_text`]: its SHA-256.
    pub hash: String,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Secret {
    fn is_same_object(&self, other: &Self) -> bool {
        (&self.namespace, &self.name, &self.uid) == (&other.namespace, &other.name, &other.uid)
    }
}

impl Credentials {
    /// Everybody may have it.
    pub fn for_all() -> Self {
        Self { is_for_all: true, ..Self::default() }
    }

    /// A pod with this secret may have it.
    pub fn of_secret(secret: Secret) -> Self {
        Self { secrets: vec![secret], ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        !self.is_for_all && self.secrets.is_empty() && self.accounts.is_empty()
    }

    /// With what others bring; `None` when that is nothing new.
    fn with(&self, new: &Self) -> Option<Self> {
        let mut merged = self.clone();
        if self.is_for_all {
            return None;
        } else if new.is_for_all {
            return Some(Self::for_all());
        } else if !new.secrets.is_empty() {
            for secret in &new.secrets {
                match merged.secrets.iter_mut().find(|known| known.is_same_object(secret)) {
                    Some(known) => known.hash.clone_from(&secret.hash),
                    None => merged.secrets.push(secret.clone()),
                }
            }
        } else {
            merged.accounts.extend(new.accounts.iter().filter(|account| !self.accounts.contains(account)).cloned());
        }
        if merged == *self {
            return None;
        }
        merged.secrets.sort();
        merged.accounts.sort();
        Some(merged)
    }
}

impl Record {
    /// An image has come: the record that is to be written, `None` when it says so already. No credentials: nobody knows how
    /// it came.
    pub fn after_pull(
        known: Option<&Self>,
        image: &str,
        image_ref: &str,
        credentials: Option<&Credentials>,
        now: Timestamp,
    ) -> Option<Self> {
        let name = bare(image).to_owned();
        let Some(known) = known else {
            let credentials = credentials.map(|c| (name, c.clone())).into_iter().into_map();
            return Some(Self { updated: now, image_ref: image_ref.to_owned(), credentials });
        };
        let new = credentials.filter(|c| !c.is_empty())?;
        let merged = match known.credentials.get(&name) {
            Some(there) => there.with(new)?,
            None => new.clone(),
        };
        let mut changed = Self { updated: now, ..known.clone() };
        changed.credentials.insert(name, merged);
        Some(changed)
    }

    /// Whether it is forgotten: its image is not here any more, and was not when the images were looked at.
    pub fn is_over(&self, is_here: bool, looked_at: Timestamp) -> bool {
        !is_here && self.updated < looked_at
    }
}

/// What is known of how an image that is here came.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// No kubelet pulled it.
    Preloaded,
    /// A kubelet began to pull it, and nobody knows what became of that.
    Begun,
    Pulled(&'a Record),
    /// There is a record, or the place of records, that cannot be read.
    Unreadable,
}

/// Whether a pod may have an image that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No proof is needed.
    Allowed,
    /// It has what the image was pulled with; this secret of it is to be noted, too.
    Proven(Option<Secret>),
    /// Only who can pull it.
    MustPull,
    /// The same, because the records cannot be read.
    Unknown,
}

impl Verdict {
    /// The metric's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "credentialPolicyAllowed",
            Self::Proven(_) => "credentialRecordFound",
            Self::MustPull => "mustAuthenticate",
            Self::Unknown => "error",
        }
    }
}

/// Judges; `shown`: the pod's pull secrets that fit the image.
pub fn judge(policy: &Policy, image: &str, origin: Origin<'_>, shown: &[Secret]) -> Verdict {
    let was_pulled = match origin {
        Origin::Unreadable => return Verdict::Unknown,
        Origin::Preloaded => false,
        Origin::Begun | Origin::Pulled(_) => true,
    };
    if !policy.must_verify(image, was_pulled) {
        return Verdict::Allowed;
    }
    let Origin::Pulled(record) = origin else { return Verdict::MustPull };
    let Some(known) = record.credentials.get(bare(image)) else { return Verdict::MustPull };
    if known.is_for_all {
        return Verdict::Proven(None);
    }
    let has_room = known.secrets.len() < NOTED_MAX;
    for secret in shown {
        for noted in &known.secrets {
            let (is_same, is_equal) =
                (noted.is_same_object(secret), !noted.hash.is_empty() && noted.hash == secret.hash);
            if is_equal {
                return Verdict::Proven((!is_same && has_room).then(|| secret.clone()));
            }
            // A secret that let pods have the image, and whose content is another now.
            if is_same && has_room {
                return Verdict::Proven(Some(secret.clone()));
            }
        }
    }
    Verdict::MustPull
}

/// An image's name in a pod without tag and digest.
pub fn bare(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let after_slash = name.rfind('/').map_or(0, |i| i + 1);
    name[after_slash..].find(':').map_or(name, |i| &name[..after_slash + i])
}

/// The text whose SHA-256 stands for a login, as Go writes JSON.
pub fn credential_text(username: &str, password: &str, email: &str) -> String {
    let fields = [("username", username), ("password", password), ("email", email)];
    let fields = fields.iter().filter(|(_, value)| !value.is_empty());
    json::text(&Value::Object(fields.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()))
}
