//! The files in which it outlives the agent how images came, in upstream's format: whichever kubelet starts next reads them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rubelet_api::gather::Gather;
use rubelet_core::pulled::{Account, Credentials, Record, Secret};
use serde::{Deserialize, Serialize};

/// What kubelet 1.36 writes; it reads the one before, too.
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const VERSION_BEFORE: &str = "kubelet.config.k8s.io/v1alpha1";

/// `ImagePullIntent`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// `ImagePulledRecord`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pulled {
    kind: String,
    api_version: String,
    last_updated_time: Option<Timestamp>,
    #[serde(default)]
    image_ref: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    credential_mapping: BTreeMap<String, Row>,
}

/// `ImagePullCredentials`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<SecretRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<AccountRow>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretRow {
    uid: String,
    namespace: String,
    name: String,
    credential_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountRow {
    uid: String,
    namespace: String,
    name: String,
}

/// What a file says, and whether it is in the form that is written today.
pub(super) struct Read<T> {
    pub(super) said: T,
    pub(super) is_current: bool,
}

/// A pull has begun.
pub(super) fn intent_text(image: &str) -> Result<String, serde_json::Error> {
    let (kind, api_version) = ("ImagePullIntent".to_owned(), VERSION.to_owned());
    line(&Intent { kind, api_version, image: image.to_owned() })
}

/// The image whose pull has begun.
pub(super) fn read_intent(text: &str) -> Result<Read<String>, String> {
    let file: Intent = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let is_current = is_current("ImagePullIntent", &file.kind, &file.api_version)?;
    Ok(Read { said: file.image, is_current })
}

/// How an image came.
pub(super) fn record_text(record: &Record) -> Result<String, serde_json::Error> {
    let row = |of: &Credentials| Row {
        kubernetes_secrets: of.secrets.iter().cloned().map(SecretRow::from).collect(),
        kubernetes_service_accounts: of.accounts.iter().cloned().map(AccountRow::from).collect(),
        node_pods_accessible: of.is_for_all,
    };
    let file = Pulled {
        kind: "ImagePulledRecord".to_owned(),
        api_version: VERSION.to_owned(),
        // Upstream's times have no fractions.
        last_updated_time: Timestamp::from_second(record.updated.as_second()).ok(),
        image_ref: record.image_ref.clone(),
        credential_mapping: record.credentials.iter().map(|(name, of)| (name.clone(), row(of))).into_map(),
    };
    line(&file)
}

pub(super) fn read_record(text: &str) -> Result<Read<Record>, String> {
    let file: Pulled = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let is_current = is_current("ImagePulledRecord", &file.kind, &file.api_version)?;
    let credentials = |row: Row| Credentials {
        secrets: row.kubernetes_secrets.into_iter().map(Secret::from).collect(),
        accounts: row.kubernetes_service_accounts.into_iter().map(Account::from).collect(),
        is_for_all: row.node_pods_accessible,
    };
    let said = Record {
        updated: file.last_updated_time.unwrap_or_default(),
        image_ref: file.image_ref,
        credentials: file.credential_mapping.into_iter().map(|(name, row)| (name, credentials(row))).into_map(),
    };
    Ok(Read { said, is_current })
}

fn is_current(wanted: &str, kind: &str, version: &str) -> Result<bool, String> {
    match (kind == wanted, version) {
        (true, VERSION) => Ok(true),
        (true, VERSION_BEFORE) => Ok(false),
        _ => Err(format!("it is no {wanted} but {kind:?} of {version:?}")),
    }
}

/// Go's encoder ends with a newline.
fn line(file: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(file).map(|text| text + "\n")
}

impl From<Secret> for SecretRow {
    fn from(Secret { namespace, name, uid, hash }: Secret) -> Self {
        Self { uid, namespace, name, credential_hash: hash }
    }
}

impl From<SecretRow> for Secret {
    fn from(SecretRow { uid, namespace, name, credential_hash }: SecretRow) -> Self {
        Self { namespace, name, uid, hash: credential_hash }
    }
}

impl From<Account> for AccountRow {
    fn from(Account { namespace, name, uid }: Account) -> Self {
        Self { uid, namespace, name }
    }
}

impl From<AccountRow> for Account {
    fn from(AccountRow { uid, namespace, name }: AccountRow) -> Self {
        Self { namespace, name, uid }
    }
}
