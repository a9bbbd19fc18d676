//! How many volumes the node takes: told to the cluster, and again when the driver says another number.

use std::sync::Arc;
use std::time::Duration;

use rubelet_api::groups::storage_v1::CSIDriver;
use rubelet_apiserver::{Change, Client, Path, Selector};
use rubelet_host::chain;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::known;
use crate::hands::Hands;

/// The API takes no shorter period than this.
const PERIOD_MIN: Duration = Duration::from_secs(10);

/// Asks the driver as often as its CSIDriver says, and when it turned out to have no room, and tells the cluster what it takes. Runs until it is dropped.
pub(super) async fn keep(client: Client, node: String, driver: String, hands: Arc<Hands>, full: Arc<Notify>) {
    let mut watch = client.list_watch::<CSIDriver>(Path::all::<CSIDriver>(), Selector::name(&driver));
    let mut period: Option<Duration> = None;
    let mut asked = Instant::now();
    loop {
        let due = period.map(|period| asked + period);
        let late = async {
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)) => {}
                () = full.notified() => {}
            }
        };
        tokio::select! {
            change = watch.next() => match change {
                None => return,
                Some(Change::Interrupted(_)) => {}
                Some(Change::Replaced(all, _)) => period = all.first().and_then(period_of),
                Some(Change::Upserted(object)) => period = period_of(&object),
                Some(Change::Removed(_)) => period = None,
            },
            () = late, if due.is_some() => {
                asked = Instant::now();
                if let Err(err) = tell(&client, &node, &driver, &hands).await {
                    tracing::warn!(driver, err, "telling how many volumes the node takes failed, trying again later");
                }
            }
        }
    }
}

async fn tell(client: &Client, node: &str, driver: &str, hands: &Hands) -> Result<(), String> {
    let asked = hands.drivers.get(driver, "updating its limits").map_err(|e| chain(&e))?;
    let facts = asked.node_info().await.map_err(|e| chain(&e))?;
    known::limit(client, node, driver, &facts).await
}

fn period_of(driver: &CSIDriver) -> Option<Duration> {
    let secs = driver.spec.node_allocatable_update_period_seconds?;
    u64::try_from(secs).ok().map(|secs| Duration::from_secs(secs).max(PERIOD_MIN))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_driver_is_asked_as_often_as_its_object_says() {
        let of = |spec: serde_json::Value| {
            period_of(&serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).expect("a driver"))
        };
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"nodeAllocatableUpdatePeriodSeconds": 60})), Some(Duration::from_secs(60)));
        assert_eq!(of(json!({"nodeAllocatableUpdatePeriodSeconds": 1})), Some(PERIOD_MIN));
    }
}
