//! Certificates of ClusterTrustBundles.

use std::collections::BTreeSet;

use rubelet_api::meta::ObjectMeta;
use rubelet_api::{Metadata, Resource};
use rubelet_apiserver::{Change, Client, Error, Path, Selector};
use rubelet_core::pod::needs::{AnchorsNeed, Got};
use serde::{Deserialize, Serialize};

use super::fetch::{PATIENCE, Teller, Tools, refusal_text};

/// In which versions servers have them, the best first: 1.37 has the first, 1.33 to 1.36 the second where it is turned on.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// A bundle, as far as it is read: the same in all versions.
#[derive(Debug, Deserialize, Serialize)]
struct Bundle {
    metadata: ObjectMeta,
    spec: BundleSpec,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleSpec {
    trust_bundle: String,
}

impl Resource for Bundle {
    const API_VERSION: &'static str = "certificates.k8s.io/v1";
    const GROUP: &'static str = "certificates.k8s.io";
    const KIND: &'static str = "ClusterTrustBundle";
    const VERSION: &'static str = VERSIONS[0];
    const URL_PATH_SEGMENT: &'static str = "clustertrustbundles";
    type Scope = rubelet_api::ClusterScope;
}

impl Metadata for Bundle {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// How a watch of one version ended.
enum End {
    /// Nobody listens any more.
    Over,
    /// The server has this version no longer.
    Withdrawn,
}

/// Bundles by name, or by signer and labels.
pub(super) async fn follow(of: &AnchorsNeed, tools: &Tools, teller: &Teller) {
    let (selector, missing) = match of {
        AnchorsNeed::Named(name) => {
            let missing = format!(
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"{name}\" not found"
            );
            (Selector::name(name), missing)
        }
        AnchorsNeed::Signed { signer, selector } => {
            let missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned();
            let Some(labels) = selector else { return teller.tell(Got::NotFound(missing)).await };
            (Selector { fields: format!("spec.signerName={signer}"), labels: labels.clone() }, missing)
        }
    };
    loop {
        // kubelet 1.36: the words.
        match served_version(&tools.client).await {
            Ok(Some(version)) => match watch(version, &selector, &missing, tools, teller).await {
                End::Over => return,
                End::Withdrawn => tracing::info!(
                    version,
                    "the API server has ClusterTrustBundles no longer in this version; looking for another"
                ),
            },
            Ok(None) => {
                let why = "ClusterTrustBundle projection is not supported in static kubelet mode".to_owned();
                teller.tell(Got::Failed(why)).await;
            }
            Err(error) => {
                let why = format!(
                    "failed to ensure informer manager for ClusterTrustBundles: \
                     failed to determine which informer manager to choose: {}",
                    refusal_text(&error)
                );
                teller.tell(Got::Failed(why)).await;
            }
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// The best version in which the server has bundles, if it has them.
async fn served_version(client: &Client) -> Result<Option<&'static str>, Error> {
    for version in VERSIONS {
        let resources = client.resources(Bundle::GROUP, version).await?;
        if resources.iter().any(|name| name == Bundle::URL_PATH_SEGMENT) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Tells the certificates of the chosen bundles, now and whenever they change.
async fn watch(version: &'static str, selector: &Selector, missing: &str, tools: &Tools, teller: &Teller) -> End {
    let path = Path::of(Bundle::GROUP, version, Bundle::URL_PATH_SEGMENT);
    let mut watch = tools.client.list_watch::<Bundle>(path, selector.clone());
    let mut known: Option<Vec<Bundle>> = None;
    while let Some(change) = watch.next().await {
        match (change, &mut known) {
            (Change::Replaced(all, _), _) => known = Some(all),
            (Change::Upserted(bundle), Some(known)) => {
                known.retain(|b| b.metadata.name != bundle.metadata.name);
                known.push(bundle);
            }
            (Change::Removed(bundle), Some(known)) => known.retain(|b| b.metadata.name != bundle.metadata.name),
            // A list is never "not found" otherwise.
            (Change::Interrupted(error), _) if error.is_not_found() => return End::Withdrawn,
            (Change::Interrupted(error), None) => {
                teller.tell(Got::Failed(format!("while listing ClusterTrustBundles: {}", refusal_text(&error)))).await;
            }
            (Change::Interrupted(_) | Change::Upserted(_) | Change::Removed(_), _) => {}
        }
        match known.as_deref() {
            None => {}
            Some([]) => teller.tell(Got::NotFound(missing.to_owned())).await,
            Some(all) => {
                let pem = normal(all.iter().map(|b| b.spec.trust_bundle.as_str()));
                teller.tell(Got::TrustAnchors(pem.into())).await;
            }
        }
    }
    End::Over
}

/// The certificates of these PEM texts, each once, without comments and headers.
///
/// kubelet 1.36: duplicates go and the order means nothing.
fn normal<'a>(bundles: impl IntoIterator<Item = &'a str>) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = BTreeSet::new();
    for bundle in bundles {
        let mut rest = bundle;
        while let Some(begin) = rest.find(BEGIN) {
            let body = &rest[begin + BEGIN.len()..];
            let Some(end) = body.find(END) else { break };
            certificates.insert(body[..end].split_whitespace().collect::<String>());
            rest = &body[end + END.len()..];
        }
    }
    let mut out = String::new();
    for certificate in certificates {
        out.push_str(BEGIN);
        let mut left = certificate.as_str();
        while !left.is_empty() {
            let (line, more) = left.split_at_checked(64).unwrap_or((left, ""));
            out.push('\n');
            out.push_str(line);
            left = more;
        }
        out.push('\n');
        out.push_str(END);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn each_certificate_stands_once_in_lines_of_64() {
        let long = "A".repeat(70);
        let one = format!("comment\n-----BEGIN CERTIFICATE-----\n{long}\n-----END CERTIFICATE-----\n");
        let two = "-----BEGIN CERTIFICATE-----\nQkI=\n-----END CERTIFICATE-----";
        let wanted =
            format!("-----BEGIN CERTIFICATE-----\n{}\nAAAAAA\n-----END CERTIFICATE-----\n{two}\n", "A".repeat(64));
        assert_eq!(normal([one.as_str(), two, one.as_str()]), wanted);
        assert_eq!(normal(["-----BEGIN CERTIFICATE-----\nunfinished"]), "");
    }
}
