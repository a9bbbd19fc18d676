//! Volumes that are wanted and volumes that are there, counted when somebody asks.

use std::collections::BTreeMap;
use std::io;

use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_api::v1;

use crate::picture::{Lifecycle, Shown};

const VOLUMES: Family = Family::gauge(
    "volume_manager_total_volumes",
    Stability::Alpha,
    "Volumes that pods want, and volumes that pods have, by plugin",
    &["plugin_name", "state"],
);

/// All that is told here.
pub(crate) const FAMILIES: &[&Family] = &[&VOLUMES];

const WANTED: &str = "desired_state_of_world";
const THERE: &str = "actual_state_of_world";

/// Writes how many there are. `on_disk`: the plugins of the volumes that a pod has in its directory.
pub(crate) fn tell(all: &[Shown], on_disk: impl Fn(&Shown) -> Vec<String>, text: &mut Text<'_>) -> io::Result<()> {
    let mut counts: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for shown in all {
        let is_wanted = shown.is_wanted && shown.lifecycle == Lifecycle::Sync;
        let mut one_more = |plugin: String, state| *counts.entry((plugin, state)).or_default() += 1;
        for volume in shown.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some((plugin, has_folder)) = plugin(volume) else { continue };
            if is_wanted {
                one_more(plugin.clone(), WANTED);
            }
            if !has_folder && shown.lifecycle != Lifecycle::Terminated {
                one_more(plugin, THERE);
            }
        }
        for plugin in on_disk(shown) {
            // What a claim is bound to is known when it is there.
            if is_wanted && is_bound(&plugin) && !is_inline(&shown.pod, &plugin) {
                one_more(plugin.clone(), WANTED);
            }
            one_more(plugin, THERE);
        }
    }
    if counts.is_empty() {
        return Ok(());
    }
    text.head(&VOLUMES)?;
    counts.iter().try_for_each(|((plugin, state), count)| text.sample(&VOLUMES, &[plugin, state], f64::from(*count)))
}

/// Whether volumes of this plugin come by claims.
fn is_bound(plugin: &str) -> bool {
    plugin.starts_with("kubernetes.io/csi") || plugin == "kubernetes.io/local-volume"
}

/// Whether the pod itself names the driver of this plugin.
fn is_inline(pod: &v1::Pod, plugin: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter(|volume| volume.csi.is_some())
        .any(|volume| self::plugin(volume).is_some_and(|(name, _)| name == plugin))
}

/// The plugin of a volume that says it itself, and whether it has a folder; `None`: it is a claim's, or of no kind that there is here.
fn plugin(volume: &v1::Volume) -> Option<(String, bool)> {
    let name = |name: &str| format!("kubernetes.io/{name}");
    if let Some(csi) = &volume.csi {
        return Some((format!("kubernetes.io/csi:{}", csi.driver), true));
    }
    let kinds = [
        (volume.host_path.is_some(), "host-path", false),
        (volume.image.is_some(), "image", false),
        (volume.empty_dir.is_some(), "empty-dir", true),
        (volume.config_map.is_some(), "configmap", true),
        (volume.secret.is_some(), "secret", true),
        (volume.projected.is_some(), "projected", true),
        (volume.downward_api.is_some(), "downward-api", true),
        (volume.nfs.is_some(), "nfs", true),
    ];
    kinds.into_iter().find(|(is_it, ..)| *is_it).map(|(_, kind, has_folder)| (name(kind), has_folder))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::pods::tests::shown;
    use super::*;

    #[test]
    fn volumes_count_by_what_is_wanted_and_what_is_there() {
        let volumes = json!({ "containers": [], "volumes": [
            { "name": "a", "emptyDir": {} },
            { "name": "b", "hostPath": { "path": "/x" } },
            { "name": "c", "persistentVolumeClaim": { "claimName": "c" } }
        ] });
        let mut all = [
            shown("one", "api", Lifecycle::Sync, true, json!({})),
            shown("two", "api", Lifecycle::Terminating, false, json!({})),
        ];
        for one in &mut all {
            std::sync::Arc::make_mut(&mut one.pod).spec = serde_json::from_value(volumes.clone()).unwrap();
        }
        let mut page = Vec::new();
        let on_disk = |_: &Shown| vec!["kubernetes.io/empty-dir".to_owned(), "kubernetes.io/csi:fast".to_owned()];
        tell(&all, on_disk, &mut Text::new(&mut page)).unwrap();
        let page = String::from_utf8(page).unwrap();
        let lines: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("volume_manager_total_volumes")).collect();
        assert_eq!(
            lines,
            [
                "{plugin_name=\"kubernetes.io/csi:fast\",state=\"actual_state_of_world\"} 2",
                "{plugin_name=\"kubernetes.io/csi:fast\",state=\"desired_state_of_world\"} 1",
                "{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"} 2",
                "{plugin_name=\"kubernetes.io/empty-dir\",state=\"desired_state_of_world\"} 1",
                "{plugin_name=\"kubernetes.io/host-path\",state=\"actual_state_of_world\"} 2",
                "{plugin_name=\"kubernetes.io/host-path\",state=\"desired_state_of_world\"} 1",
            ]
        );
    }
}
