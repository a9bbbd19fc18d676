//! PodCertificateRequests: certificates for pods, in whichever version the server has them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rubelet_api::meta::{ObjectMeta, Time};
use rubelet_api::{Metadata, NamespaceScope, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::Error;
use crate::path::{Path, Selector};
use crate::watch::Watch;

/// In which versions servers have them, the best first: 1.37 has the first, 1.36 the second where it is turned on.
pub const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A request, as far as it is read: the same in all versions.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PodCertificateRequest {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub status: Status,
}

/// What is wanted, and by whom.
#[derive(Clone, Debug)]
pub struct Spec {
    pub signer: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub account_name: String,
    pub account_uid: String,
    pub node_name: String,
    pub node_uid: String,
    pub expiration_secs_max: Option<i32>,
    /// A PKCS#10 request in DER that says nothing but the key, and is signed with it.
    pub stub: Vec<u8>,
    pub annotations: BTreeMap<String, String>,
}

impl Spec {
    fn to_json(&self) -> Value {
        let mut spec = json!({
            "signerName": self.signer,
            "podName": self.pod_name,
            "podUID": self.pod_uid,
            "serviceAccountName": self.account_name,
            "serviceAccountUID": self.account_uid,
            "nodeName": self.node_name,
            "nodeUID": self.node_uid,
            "stubPKCS10Request": STANDARD.encode(&self.stub),
        });
        if let Some(secs) = self.expiration_secs_max {
            spec["maxExpirationSeconds"] = secs.into();
        }
        if !self.annotations.is_empty() {
            spec["unverifiedUserAnnotations"] = json!(self.annotations);
        }
        spec
    }
}

/// A request that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub name: String,
    /// As the server's clock has it.
    pub at: Option<Time>,
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
pub async fn request(client: &Client, version: &'static str, namespace: &str, spec: &Spec) -> Result<Made, Error> {
    let object = json!({
        "apiVersion": format!("{}/{version}", PodCertificateRequest::GROUP),
        "kind": PodCertificateRequest::KIND,
        "metadata": {
            "generateName": "req-",
            "namespace": namespace,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": spec.pod_name, "uid": spec.pod_uid}],
        },
        "spec": spec.to_json(),
    });
    let made = client.create_json(&within(version, namespace), &object).await?;
    let word = |field: &str| made["metadata"][field].as_str().unwrap_or_default();
    Ok(Made { name: word("name").to_owned(), at: word("creationTimestamp").parse().ok().map(Time) })
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
