//! PodCertificateRequests: certificates for pods, in whichever version the server has them.

use rubelet_api::meta::{ObjectMeta, OwnerReference, Time};
use rubelet_api::{ByteString, Metadata, NamespaceScope, Resource};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::Error;
use crate::path::{Path, Selector};
use crate::watch::Watch;

/// In which versions servers have them, the best first: 1.37 has the first, 1.36 the second where it is turned on.
pub const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A request, as far as it is written and read here: the same in all versions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCertificateRequest {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub signer_name: String,
    pub pod_name: String,
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    pub service_account_name: String,
    #[serde(rename = "serviceAccountUID")]
    pub service_account_uid: String,
    pub node_name: String,
    #[serde(rename = "nodeUID")]
    pub node_uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_expiration_seconds: Option<i32>,
    /// A PKCS#10 request that says nothing but the key, and is signed with it.
    #[serde(rename = "stubPKCS10Request")]
    pub stub_pkcs10_request: ByteString,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub unverified_user_annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<rubelet_api::meta::Condition>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_refresh_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

impl Resource for PodCertificateRequest {
    const API_VERSION: &'static str = "certificates.k8s.io/v1";
    const GROUP: &'static str = "certificates.k8s.io";
    const KIND: &'static str = "PodCertificateRequest";
    const VERSION: &'static str = VERSIONS[0];
    const URL_PATH_SEGMENT: &'static str = "podcertificaterequests";
    type Scope = NamespaceScope;
}

impl Metadata for PodCertificateRequest {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn within(version: &'static str, namespace: &str) -> Path {
    Path::of(PodCertificateRequest::GROUP, version, PodCertificateRequest::URL_PATH_SEGMENT).in_namespace(namespace)
}

/// Creates a request that goes with its pod. The server chooses the name.
///
/// # Errors
/// See [`Error`].
pub async fn request(
    client: &Client,
    version: &'static str,
    namespace: &str,
    spec: Spec,
) -> Result<PodCertificateRequest, Error> {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: spec.pod_name.clone(),
        uid: spec.pod_uid.clone(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        generate_name: Some("req-".to_owned()),
        namespace: Some(namespace.to_owned()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let object = PodCertificateRequest { metadata, spec, status: Status::default() };
    client.create(&within(version, namespace), &object).await
}

/// What becomes of a request. Servers let a node look at those only that are for it.
pub fn watch(
    client: &Client,
    version: &'static str,
    (namespace, name): (&str, &str),
    node: &str,
) -> Watch<PodCertificateRequest> {
    client
        .list_watch(within(version, namespace), Selector::fields(format!("metadata.name={name},spec.nodeName={node}")))
}
