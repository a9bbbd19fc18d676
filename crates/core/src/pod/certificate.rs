//! A pod's certificate: requested, waited for, and requested again before it ends. What the API server shows goes in, what to do and
//! to tell comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rubelet_api::v1;

use super::event::PodEvent;
use super::needs::{Got, ObjectName};
use crate::now::Wall;
use crate::pem;

/// kubelet 1.36: a request that is not seen so long after it was made is taken for deleted.
const MISSING_MAX: Duration = Duration::from_secs(600);
/// kubelet 1.36: renewal is overdue so long after it was to begin.
const OVERDUE_AFTER: Duration = Duration::from_secs(600);
/// kubelet 1.36: both are spread over so much more.
const SPREAD: Duration = Duration::from_secs(300);

/// A certificate for one source of a pod's projected volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CertificateNeed {
    pub pod: ObjectName,
    pub pod_uid: String,
    /// The pod's service account.
    pub account: String,
    /// Which volume, and which of its sources.
    pub place: (String, usize),
    pub signer: String,
    pub key_type: String,
    pub expiration_secs_max: Option<i32>,
    pub annotations: BTreeMap<String, String>,
}

impl CertificateNeed {
    /// What the `nth` source of a volume is about.
    pub(crate) fn of(pod: &v1::Pod, volume: &str, nth: usize, source: &v1::PodCertificateProjection) -> Self {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
        Self {
            pod: ObjectName::beside(pod, pod.metadata.name.as_deref().unwrap_or_default()),
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            account: account.unwrap_or_default(),
            place: (volume.to_owned(), nth),
            signer: source.signer_name.clone(),
            key_type: source.key_type.clone(),
            expiration_secs_max: source.max_expiration_seconds,
            annotations: source.user_annotations.clone().unwrap_or_default(),
        }
    }
}

/// What was issued.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub key: Arc<str>,
    /// PEM, the pod's own certificate first.
    pub chain: String,
    renew_at: Wall,
    ends_at: Wall,
}

/// Without the key.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("renew_at", &self.renew_at)
            .field("ends_at", &self.ends_at)
            .finish_non_exhaustive()
    }
}

/// A request under way.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Of the PodCertificateRequest.
    pub name: String,
    key: Arc<str>,
    missing_until: Wall,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Request {
    /// A request that was made at that time. `share` is from 0 to 1.
    pub fn new(name: String, key: Arc<str>, made_at: Wall, share: f64) -> Self {
        Self { name, key, missing_until: later(made_at, MISSING_MAX + spread(share)) }
    }

    /// From when on it counts as deleted if it is not seen.
    pub fn missing_until(&self) -> Wall {
        self.missing_until
    }
}

/// What the API server shows of a request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Seen {
    pub conditions: Vec<Condition>,
    pub chain: String,
    pub begin_refresh_at: Option<Wall>,
    pub not_after: Option<Wall>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Condition {
    pub type_: String,
    pub reason: String,
    pub message: String,
}

/// How it stands.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Standing {
    #[default]
    Unrequested,
    Requested(Request),
    Issued(Held),
    Renewing(Held, Request),
    /// For good.
    Denied(Condition),
    /// For good.
    Failed(Condition),
}

/// A certificate and what was told of its age.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    issued: Arc<Issued>,
    is_overdue_told: bool,
    is_end_told: bool,
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Task {
    Request,
    /// Look what becomes of this request.
    Watch(Request),
    WaitUntil(Wall),
    Nothing,
}

/// What figures show of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Phase {
    NotYetIssued,
    Issued { renew_at: Wall, ends_at: Wall },
    Denied,
    Failed,
}

impl Phase {
    /// kubelet 1.36: the words.
    pub fn word(self, now: Wall) -> &'static str {
        match self {
            Self::NotYetIssued => "not_yet_issued",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Issued { ends_at, .. } if now > ends_at => "expired",
            Self::Issued { renew_at, .. } if now > later(renew_at, OVERDUE_AFTER) => "overdue_for_refresh",
            Self::Issued { .. } => "fresh",
        }
    }
}

impl Standing {
    pub fn task(&self, now: Wall) -> Task {
        match self {
            Self::Unrequested => Task::Request,
            Self::Requested(request) | Self::Renewing(_, request) => Task::Watch(request.clone()),
            Self::Issued(held) if now < held.issued.renew_at => Task::WaitUntil(held.issued.renew_at),
            Self::Issued(_) => Task::Request,
            Self::Denied(_) | Self::Failed(_) => Task::Nothing,
        }
    }

    pub fn phase(&self) -> Phase {
        match self {
            Self::Unrequested | Self::Requested(_) => Phase::NotYetIssued,
            Self::Issued(held) | Self::Renewing(held, _) => {
                Phase::Issued { renew_at: held.issued.renew_at, ends_at: held.issued.ends_at }
            }
            Self::Denied(_) => Phase::Denied,
            Self::Failed(_) => Phase::Failed,
        }
    }

    /// What the pod gets of it. kubelet 1.36: the words; a certificate serves until the next one, however old it is.
    pub fn got(&self) -> Got {
        let refused = |what: &str, why: &Condition| {
            let Condition { reason, message, .. } = why;
            format!("PodCertificateRequest was permanently {what}: reason={reason:?} message={message:?}")
        };
        match self {
            Self::Unrequested | Self::Requested(_) => Got::Failed("credential bundle is not issued yet".to_owned()),
            Self::Issued(held) | Self::Renewing(held, _) => Got::Certificate(held.issued.clone()),
            Self::Denied(why) => Got::Failed(refused("denied", why)),
            Self::Failed(why) => Got::Failed(refused("failed", why)),
        }
    }

    /// A request was made.
    #[must_use]
    pub fn requested(self, request: Request) -> Self {
        match self {
            Self::Unrequested | Self::Requested(_) => Self::Requested(request),
            Self::Issued(held) | Self::Renewing(held, _) => Self::Renewing(held, request),
            Self::Denied(_) | Self::Failed(_) => self,
        }
    }

    /// The request is there no more: another one is needed.
    #[must_use]
    pub fn deleted(self) -> Self {
        match self {
            Self::Requested(_) => Self::Unrequested,
            Self::Renewing(held, _) => Self::Issued(held),
            Self::Unrequested | Self::Issued(_) | Self::Denied(_) | Self::Failed(_) => self,
        }
    }

    /// The request under way is seen. `share` is from 0 to 1.
    #[must_use]
    pub fn seen(self, namespace: &str, seen: &Seen, share: f64) -> (Self, Option<PodEvent>) {
        let (Self::Requested(request) | Self::Renewing(_, request)) = &self else { return (self, None) };
        for condition in &seen.conditions {
            let Condition { type_, reason, message } = condition;
            // kubelet 1.36: the words, though it garbles them (`UnsupportedKeyType%!(EXTRA string=…`).
            let told = |how: &str| {
                let name = &request.name;
                let text =
                    format!("PodCertificateRequest {namespace}/{name} {how}, reason={reason:?}, message={message:?}");
                Some(PodEvent::warning("", type_, text))
            };
            match (type_.as_str(), seen.begin_refresh_at, seen.not_after) {
                ("Denied", ..) => return (Self::Denied(condition.clone()), told("was denied")),
                ("Failed", ..) => return (Self::Failed(condition.clone()), told("failed")),
                // The API server lets no request be issued without the times.
                ("Issued", Some(renew_at), Some(ends_at)) => {
                    let chain = pem::certificates(&seen.chain);
                    let issued = Issued {
                        key: request.key.clone(),
                        chain: chain.iter().map(|body| pem::block("CERTIFICATE", body)).collect(),
                        renew_at: later(renew_at, spread(share)),
                        ends_at,
                    };
                    let held = Held { issued: Arc::new(issued), is_overdue_told: false, is_end_told: false };
                    return (Self::Issued(held), None);
                }
                _ => {}
            }
        }
        (self, None)
    }

    /// When something is to be told of the certificate's age next.
    pub fn remark_at(&self) -> Option<Wall> {
        let (Self::Issued(held) | Self::Renewing(held, _)) = self else { return None };
        let overdue = (!held.is_overdue_told).then(|| later(held.issued.renew_at, OVERDUE_AFTER));
        overdue.into_iter().chain((!held.is_end_told).then_some(held.issued.ends_at)).min()
    }

    /// What is to be told of the certificate's age, once. kubelet 1.36: the words.
    pub fn remarks(&mut self, now: Wall) -> Vec<PodEvent> {
        let mut events = Vec::new();
        if let Self::Issued(held) | Self::Renewing(held, _) = self {
            if !held.is_overdue_told && now > later(held.issued.renew_at, OVERDUE_AFTER) {
                held.is_overdue_told = true;
                events.push(PodEvent::warning("", "CertificateOverdueForRefresh", "PodCertificate refresh overdue"));
            }
            if !held.is_end_told && now > held.issued.ends_at {
                held.is_end_told = true;
                events.push(PodEvent::warning("", "CertificateExpired", "PodCertificate expired"));
            }
        }
        events
    }
}

fn later(at: Wall, by: Duration) -> Wall {
    at.checked_add(by).unwrap_or(Wall::MAX)
}

fn spread(share: f64) -> Duration {
    SPREAD.mul_f64(share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
