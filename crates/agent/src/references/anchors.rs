//! Certificates of ClusterTrustBundles.

use std::collections::BTreeSet;

use rubelet_api::meta::ObjectMeta;
use rubelet_api::{Metadata, Resource};
use rubelet_apiserver::{Change, Path, Selector};
use rubelet_core::pem;
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
        match tools.client.served(Bundle::GROUP, Bundle::URL_PATH_SEGMENT, &VERSIONS).await {
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
    let certificates: BTreeSet<String> = bundles.into_iter().flat_map(pem::certificates).collect();
    certificates.iter().map(|body| pem::block("CERTIFICATE", body)).collect()
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
