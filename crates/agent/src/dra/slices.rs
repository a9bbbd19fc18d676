//! ResourceSlices: what drivers offer on this node. Nothing is offered by a driver that is not there.

use std::time::Duration;

use rubelet_api::groups::resource_v1::ResourceSlice;
use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_apiserver::{Client, Path, Selector};
use rubelet_host::chain;

/// kubelet 1.36: how often the API server is asked again.
const AGAIN: Growth = Growth { first: Duration::from_secs(1), most: Duration::from_secs(300), jitter: 0.2 };

/// Deletes the node's slices, those of one driver or of all, however long that takes.
pub(super) async fn wipe(client: Client, node: String, driver: Option<String>) {
    let of_driver = driver.as_ref().map(|driver| format!("spec.driver={driver},")).unwrap_or_default();
    let selector = Selector::fields(format!("{of_driver}spec.nodeName={node}"));
    let mut backoff = Backoff::new(AGAIN, u64::from(std::process::id()));
    loop {
        match client.delete_all(&Path::all::<ResourceSlice>(), &selector).await {
            Ok(()) => return tracing::debug!(driver, "ResourceSlices of drivers that are away are deleted"),
            Err(error) if error.is_not_found() => return,
            Err(error) => tracing::debug!(driver, err = chain(&error), "deleting ResourceSlices failed, trying again"),
        }
        tokio::time::sleep(backoff.fail()).await;
    }
}
