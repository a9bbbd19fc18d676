//! What a pod needs that its specification only names: objects of the API server, as data, and what was fetched of them.
//!
//! A pod of the API server needs what its environment, its volumes and its image pulls refer to. A static pod refers to nothing
//! (`rubelet_api::pod::references` refuses it); what slips through is refused where it is rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rubelet_api::v1;

use super::certificate::{CertificateNeed, Issued};
use super::fact::Source;
use super::services::Service;
use crate::node::NodeFacts;
use crate::resources::claims::{self, ClaimFacts, Named, Wish};

/// A namespaced object's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// One thing outside the pod that it needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Need {
    ConfigMap(ObjectName),
    Secret(ObjectName),
    /// The services of a namespace, and those that every namespace sees.
    Services {
        namespace: String,
    },
    Token(TokenNeed),
    TrustAnchors(AnchorsNeed),
    Certificate(Box<CertificateNeed>),
    /// A PersistentVolumeClaim and the PersistentVolume that it is bound to.
    Claim(ObjectName),
    /// How pods use the volumes of a CSI driver.
    CsiDriver(String),
    /// That a volume is attached to this node.
    Attachment(AttachmentNeed),
    /// Which of the runtime's handlers a RuntimeClass stands for.
    RuntimeClass(String),
    ResourceClaim(ResourceClaimNeed),
}

/// A ResourceClaim, until the pod may use it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResourceClaimNeed {
    pub claim: ObjectName,
    pub pod_uid: String,
}

/// A VolumeAttachment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentNeed {
    pub name: String,
    /// For messages.
    pub driver: String,
    pub handle: String,
}

impl AttachmentNeed {
    /// What the volume is called in a Node's status.
    #[must_use]
    pub fn volume_name(&self) -> String {
        format!("{CSI_VOLUME}{}^{}", self.driver, self.handle)
    }
}

const CSI_VOLUME: &str = "kubernetes.io/csi/";

/// A service account's token, bound to the pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenNeed {
    pub account: ObjectName,
    /// `None`: the API server's own audiences.
    pub audience: Option<String>,
    /// Seconds that it lives.
    pub expiration_secs: i64,
    pub pod_name: String,
    pub pod_uid: String,
}

/// Certificates of ClusterTrustBundles: of one by its name, or of all of one signer whose labels fit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AnchorsNeed {
    Named(String),
    Signed {
        signer: String,
        /// Label selector as in a list request; `None`: none fits.
        selector: Option<String>,
    },
}

/// All that a pod needs.
pub type Needs = BTreeSet<Need>;

/// What became of a need.
#[derive(Clone, PartialEq)]
pub enum Got {
    ConfigMap(Arc<v1::ConfigMap>),
    Secret(Arc<v1::Secret>),
    Services(Arc<Vec<Service>>),
    Token(Arc<Token>),
    /// PEM.
    TrustAnchors(Arc<str>),
    Certificate(Arc<Issued>),
    Claim(Arc<Claim>),
    CsiDriver(Arc<CsiDriver>),
    /// Attached; what the driver's controller says of it.
    Attachment(Arc<BTreeMap<String, String>>),
    /// It is not attached, and has not been for long, because the node takes no more of its kind; in its driver's words.
    NoRoom(String),
    /// The handler's name.
    RuntimeClass(Arc<str>),
    ResourceClaim(Arc<ClaimFacts>),
    /// The object does not exist; the text is the API server's (`secret "x" not found`).
    NotFound(String),
    /// It could not be fetched; as users see it.
    Failed(String),
}

/// A token and when it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// As the API writes it.
    pub ends: String,
}

/// Without what secrets and tokens hold.
impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(map) => write!(f, "ConfigMap({:?})", map.metadata.resource_version),
            Self::Secret(secret) => write!(f, "Secret({:?})", secret.metadata.resource_version),
            Self::Services(all) => f.debug_tuple("Services").field(all).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::TrustAnchors(pem) => write!(f, "TrustAnchors({} bytes)", pem.len()),
            Self::Certificate(issued) => f.debug_tuple("Certificate").field(issued).finish(),
            Self::Claim(claim) => f.debug_tuple("Claim").field(claim).finish(),
            Self::CsiDriver(driver) => f.debug_tuple("CsiDriver").field(driver).finish(),
            Self::Attachment(_) => f.write_str("Attachment(…)"),
            Self::RuntimeClass(handler) => f.debug_tuple("RuntimeClass").field(handler).finish(),
            Self::NoRoom(text) => f.debug_tuple("NoRoom").field(text).finish(),
            Self::ResourceClaim(claim) => f.debug_tuple("ResourceClaim").field(claim).finish(),
            Self::NotFound(text) => f.debug_tuple("NotFound").field(text).finish(),
            Self::Failed(text) => f.debug_tuple("Failed").field(text).finish(),
        }
    }
}

/// A claim and its volume.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    pub claim: v1::PersistentVolumeClaim,
    pub volume: v1::PersistentVolume,
}

/// What was fetched of a pod's needs. What is not in here is not known yet.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    got: BTreeMap<Need, Got>,
    /// The pod may refer to objects at all.
    is_open: bool,
}

/// What a CSIDriver object says, or upstream's assumptions where there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsiDriver {
    pub needs_attachment: bool,
    pub wants_pod: bool,
    pub fs_group: FsGroupPolicy,
    pub is_persistent: bool,
    pub is_ephemeral: bool,
    /// Tokens of the pod's service account that the driver is given.
    pub tokens: Vec<DriverToken>,
    /// They are among the secrets, not the attributes.
    pub are_tokens_secret: bool,
    /// `requiresRepublish`: what is published is published again now and then.
    pub is_republished: bool,
    /// `seLinuxMount`: it can be mounted with a label.
    pub mounts_selinux: bool,
    /// `nodeAllocatableUpdatePeriodSeconds`: how many volumes it takes on a node may change, and the scheduler hears of it.
    pub has_moving_limits: bool,
}

/// One of `tokenRequests`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriverToken {
    /// Empty: the API server's own.
    pub audience: String,
    pub expiration_secs: Option<i64>,
}

/// `fsGroupPolicy` of a CSIDriver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsGroupPolicy {
    /// Only where the file system is known and one node writes.
    ReadWriteOnceWithFsType,
    File,
    None,
}

impl Default for CsiDriver {
    /// kubelet 1.36: of a driver that nobody described.
    fn default() -> Self {
        Self {
            needs_attachment: true,
            wants_pod: false,
            fs_group: FsGroupPolicy::ReadWriteOnceWithFsType,
            is_persistent: true,
            is_ephemeral: false,
            tokens: Vec::new(),
            are_tokens_secret: false,
            is_republished: false,
            mounts_selinux: false,
            has_moving_limits: false,
        }
    }
}

/// Why an input cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lack {
    /// The pod is static: it has no API objects.
    NoServer,
    /// It is being fetched.
    NotYet,
    NotFound(String),
    Failed(String),
}

impl Inputs {
    /// Inputs of a pod that may refer to objects.
    pub fn new(got: BTreeMap<Need, Got>) -> Self {
        Self { got, is_open: true }
    }

    /// Nothing known yet; static pods stay without references.
    pub fn of(source: Source) -> Self {
        Self { got: BTreeMap::new(), is_open: !source.is_static() }
    }

    /// The same pod with what is known now. A static pod stays without references.
    #[must_use]
    pub fn with(&self, got: BTreeMap<Need, Got>) -> Self {
        Self { got, is_open: self.is_open }
    }

    /// Whether the pod may refer to objects at all.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// What is known of a need.
    pub fn get(&self, need: &Need) -> Option<&Got> {
        self.got.get(need)
    }

    /// Whether something is known of each of these.
    pub(crate) fn has_all(&self, needs: &Needs) -> bool {
        needs.iter().all(|need| self.got.contains_key(need))
    }

    pub(crate) fn config_map(&self, of: ObjectName) -> Result<&v1::ConfigMap, Lack> {
        match self.found(&Need::ConfigMap(of))? {
            Got::ConfigMap(map) => Ok(map),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn secret(&self, of: ObjectName) -> Result<&v1::Secret, Lack> {
        match self.found(&Need::Secret(of))? {
            Got::Secret(secret) => Ok(secret),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn token(&self, of: TokenNeed) -> Result<&Token, Lack> {
        match self.found(&Need::Token(of))? {
            Got::Token(token) => Ok(token),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn trust_anchors(&self, of: AnchorsNeed) -> Result<&str, Lack> {
        match self.found(&Need::TrustAnchors(of))? {
            Got::TrustAnchors(pem) => Ok(pem),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn certificate(&self, of: CertificateNeed) -> Result<&Issued, Lack> {
        match self.found(&Need::Certificate(Box::new(of)))? {
            Got::Certificate(issued) => Ok(issued),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn csi_driver(&self, name: &str) -> Result<&CsiDriver, Lack> {
        match self.found(&Need::CsiDriver(name.to_owned()))? {
            Got::CsiDriver(driver) => Ok(driver),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn attachment(&self, of: AttachmentNeed) -> Result<&BTreeMap<String, String>, Lack> {
        match self.found(&Need::Attachment(of))? {
            Got::Attachment(metadata) => Ok(metadata),
            other => Err(other.mismatch()),
        }
    }

    pub(crate) fn claim(&self, of: ObjectName) -> Result<&Claim, Lack> {
        match self.found(&Need::Claim(of))? {
            Got::Claim(claim) => Ok(claim),
            other => Err(other.mismatch()),
        }
    }

    /// The runtime's handler for the pod; the default one has an empty name. kubelet 1.36: a node of its own looks nothing up.
    pub(crate) fn runtime_handler(&self, pod: &v1::Pod) -> Result<&str, Lack> {
        let Some(class) = runtime_class(pod).filter(|_| self.is_open) else { return Ok("") };
        match self.found(&Need::RuntimeClass(class.to_owned()))? {
            Got::RuntimeClass(handler) => Ok(handler),
            other => Err(other.mismatch()),
        }
    }

    /// What is to be prepared for the pod.
    pub(crate) fn claim_wishes(&self, pod: &v1::Pod, extended: bool) -> Result<Vec<Wish>, Lack> {
        let named = claims::named(pod, extended).map_err(Lack::Failed)?;
        let wish = |named: &Named| match self.found(&resource_claim(pod, named))? {
            Got::ResourceClaim(claim) => claim.wish(pod, named).map_err(Lack::Failed),
            other => Err(other.mismatch()),
        };
        named.iter().map(wish).collect()
    }

    /// The services of a namespace; none where nobody asked.
    pub(crate) fn services(&self, namespace: &str) -> Result<&[Service], Lack> {
        match self.got.get(&Need::Services { namespace: namespace.to_owned() }) {
            None => Ok(&[]),
            Some(Got::Services(services)) => Ok(services),
            Some(Got::Failed(why)) => Err(Lack::Failed(why.clone())),
            Some(other) => Err(other.mismatch()),
        }
    }

    fn found(&self, need: &Need) -> Result<&Got, Lack> {
        if !self.is_open {
            return Err(Lack::NoServer);
        }
        match self.got.get(need) {
            None => Err(Lack::NotYet),
            Some(Got::NotFound(text)) => Err(Lack::NotFound(text.clone())),
            Some(Got::Failed(text) | Got::NoRoom(text)) => Err(Lack::Failed(text.clone())),
            Some(got) => Ok(got),
        }
    }
}

impl Got {
    fn mismatch(&self) -> Lack {
        Lack::Failed("another kind of object was fetched".to_owned())
    }
}

impl ObjectName {
    /// An object in the pod's namespace.
    pub fn beside(pod: &v1::Pod, name: &str) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Everything that the pod needs on this node. What is known of a claim or driver may tell of more.
pub fn needs(pod: &v1::Pod, source: Source, node: &NodeFacts, inputs: &Inputs) -> Needs {
    let mut needs = Needs::new();
    if !node.settings.has_api_server || source == Source::Runtime {
        return needs;
    }
    needs.insert(services_of(pod));
    let Some(spec) = pod.spec.as_ref().filter(|_| !source.is_static()) else { return needs };
    needs.extend(pull_needs(pod));
    needs.extend(runtime_class(pod).map(|class| Need::RuntimeClass(class.to_owned())));
    let named = claims::named(pod, node.settings.gates.dra_extended_resource).unwrap_or_default();
    needs.extend(named.iter().map(|named| resource_claim(pod, named)));
    for container in crate::render::containers(pod) {
        container_needs(&mut needs, pod, container);
    }
    for guest in crate::render::ephemeral(pod) {
        container_needs(&mut needs, pod, &guest);
    }
    for volume in spec.volumes.iter().flatten() {
        needs.extend(volume_needs(pod, volume, node, inputs));
    }
    needs
}

/// What creating a container waits for.
pub(crate) fn creation_needs(pod: &v1::Pod, container: &v1::Container, source: Source, node: &NodeFacts) -> Needs {
    let mut needs = Needs::new();
    if !source.is_static() && node.settings.has_api_server {
        needs.insert(services_of(pod));
        needs.extend(runtime_class(pod).map(|class| Need::RuntimeClass(class.to_owned())));
        container_needs(&mut needs, pod, container);
    }
    needs
}

fn resource_claim(pod: &v1::Pod, named: &Named) -> Need {
    let claim = ObjectName::beside(pod, &named.claim);
    Need::ResourceClaim(ResourceClaimNeed { claim, pod_uid: pod.metadata.uid.clone().unwrap_or_default() })
}

fn runtime_class(pod: &v1::Pod) -> Option<&str> {
    pod.spec.as_ref()?.runtime_class_name.as_deref().filter(|name| !name.is_empty())
}

fn services_of(pod: &v1::Pod) -> Need {
    Need::Services { namespace: pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()) }
}

/// The pod's image pull secrets. kubelet 1.36: empty names are passed over.
pub(crate) fn pull_needs(pod: &v1::Pod) -> impl Iterator<Item = Need> {
    let named = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()).filter(|s| !s.name.is_empty());
    named.map(|s| Need::Secret(ObjectName::beside(pod, &s.name)))
}

fn container_needs(needs: &mut Needs, pod: &v1::Pod, container: &v1::Container) {
    for source in container.env_from.iter().flatten() {
        let map = source.config_map_ref.as_ref().map(|m| Need::ConfigMap(ObjectName::beside(pod, &m.name)));
        let secret = source.secret_ref.as_ref().map(|s| Need::Secret(ObjectName::beside(pod, &s.name)));
        needs.extend(map.into_iter().chain(secret));
    }
    for variable in container.env.iter().flatten().filter(|v| v.value.as_deref().unwrap_or_default().is_empty()) {
        let Some(from) = &variable.value_from else { continue };
        let map = from.config_map_key_ref.as_ref().map(|k| Need::ConfigMap(ObjectName::beside(pod, &k.name)));
        let secret = from.secret_key_ref.as_ref().map(|k| Need::Secret(ObjectName::beside(pod, &k.name)));
        needs.extend(map.into_iter().chain(secret));
    }
}

/// What mounting a volume waits for.
pub(crate) fn volume_needs(pod: &v1::Pod, volume: &v1::Volume, node: &NodeFacts, inputs: &Inputs) -> Needs {
    let mut needs = super::volumes::csi::needs(pod, volume, node, inputs);
    if let Some(map) = &volume.config_map {
        needs.insert(Need::ConfigMap(ObjectName::beside(pod, &map.name)));
    }
    if let Some(secret) = &volume.secret {
        needs.insert(Need::Secret(ObjectName::beside(pod, secret.secret_name.as_deref().unwrap_or_default())));
    }
    if let Some(claim) = claim_of(pod, volume) {
        needs.insert(Need::Claim(claim));
    }
    for (nth, source) in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).enumerate() {
        let map = source.config_map.as_ref().map(|m| Need::ConfigMap(ObjectName::beside(pod, &m.name)));
        let secret = source.secret.as_ref().map(|s| Need::Secret(ObjectName::beside(pod, &s.name)));
        let token = source.service_account_token.as_ref().map(|t| Need::Token(token_need(pod, t)));
        let anchors = source.cluster_trust_bundle.as_ref().and_then(anchors_need).map(Need::TrustAnchors);
        let certificate = source.pod_certificate.as_ref().filter(|_| node.settings.gates.pod_certificate_request);
        let certificate =
            certificate.map(|c| Need::Certificate(Box::new(CertificateNeed::of(pod, &volume.name, nth, c))));
        needs.extend(map.into_iter().chain(secret).chain(token).chain(anchors).chain(certificate));
    }
    needs
}

/// The claim that a volume stands for. A generic ephemeral volume's is `<pod>-<volume>`.
pub(crate) fn claim_of(pod: &v1::Pod, volume: &v1::Volume) -> Option<ObjectName> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(ObjectName::beside(pod, &source.claim_name));
    }
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    volume.ephemeral.as_ref().map(|_| ObjectName::beside(pod, &format!("{pod_name}-{}", volume.name)))
}

/// kubelet 1.36: a token lives an hour when nobody says.
const HOUR: i64 = 3600;

pub(crate) fn token_need(pod: &v1::Pod, source: &v1::ServiceAccountTokenProjection) -> TokenNeed {
    pod_token(pod, source.audience.clone(), source.expiration_seconds)
}

/// A token that a driver wants of the pod.
pub(crate) fn driver_token_need(pod: &v1::Pod, token: &DriverToken) -> TokenNeed {
    pod_token(pod, Some(token.audience.clone()), token.expiration_secs)
}

fn pod_token(pod: &v1::Pod, audience: Option<String>, expiration_secs: Option<i64>) -> TokenNeed {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
    TokenNeed {
        account: ObjectName::beside(pod, account),
        audience: audience.filter(|a| !a.is_empty()),
        expiration_secs: expiration_secs.unwrap_or(HOUR),
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
    }
}

/// `None` when the source names neither a bundle nor a signer.
pub(crate) fn anchors_need(source: &v1::ClusterTrustBundleProjection) -> Option<AnchorsNeed> {
    if let Some(name) = &source.name {
        return Some(AnchorsNeed::Named(name.clone()));
    }
    let selector = source.label_selector.as_ref().map(selector_text);
    source.signer_name.clone().map(|signer| AnchorsNeed::Signed { signer, selector })
}

/// A label selector as list requests have it.
fn selector_text(selector: &rubelet_api::meta::LabelSelector) -> String {
    let mut terms: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for term in selector.match_expressions.iter().flatten() {
        let values = term.values.as_deref().unwrap_or_default().join(",");
        terms.push(match term.operator.as_str() {
            "In" => format!("{} in ({values})", term.key),
            "NotIn" => format!("{} notin ({values})", term.key),
            "DoesNotExist" => format!("!{}", term.key),
            _ => term.key.clone(),
        });
    }
    terms.join(",")
}

#[cfg(test)]
mod tests;
