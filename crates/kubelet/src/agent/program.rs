//! What `/metrics` tells of the program itself: its version, its feature gates, and how many families it has.

use std::io;

use rubelet_agent::metrics::page::families;
use rubelet_api::gates::{Gate, Gates};
use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_server::metrics::families as of_servers;

use crate::version;

const BUILD: Family = Family::gauge(
    "kubernetes_build_info",
    Stability::Beta,
    "The version of the program; always 1",
    &[
        "build_date",
        "compiler",
        "git_commit",
        "git_tree_state",
        "git_version",
        "go_version",
        "major",
        "minor",
        "platform",
    ],
);
const FEATURE: Family = Family::gauge(
    "kubernetes_feature_enabled",
    Stability::Beta,
    "1 for a feature gate that is on, else 0",
    &["name", "stage"],
);
const REGISTERED: Family = Family::counter(
    "registered_metrics_total",
    Stability::Beta,
    "Families that this program has, by stability",
    &["deprecated_version", "stability_level"],
);

const OWN: [&Family; 3] = [&BUILD, &FEATURE, &REGISTERED];

/// The program.
pub(super) struct Program {
    gates: Gates,
}

impl Program {
    pub(super) fn new(gates: Gates) -> Self {
        Self { gates }
    }

    /// Writes its families.
    ///
    /// # Errors
    /// The sink's.
    pub(super) fn tell(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.head(&BUILD)?;
        text.sample(&BUILD, &version::build(), 1.0)?;
        text.head(&FEATURE)?;
        for gate in Gate::ALL {
            let is_on = if self.gates.is_on(*gate) { 1.0 } else { 0.0 };
            text.sample(&FEATURE, &[gate.name(), &gate.stage().to_string()], is_on)?;
        }
        text.head(&REGISTERED)?;
        for stability in [Stability::Alpha, Stability::Beta, Stability::Internal, Stability::Stable] {
            let count = all().filter(|family| family.stability == stability).count();
            text.sample(&REGISTERED, &["", stability.as_str()], count as f64)?;
        }
        Ok(())
    }
}

/// Every family of `/metrics`.
fn all() -> impl Iterator<Item = &'static Family> {
    families().chain(of_servers()).chain(OWN)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rubelet_agent::metrics::{cadvisor, page, resource};
    use rubelet_server::metrics::SLI_FAMILIES;

    use super::*;

    const RECORDED: &str = include_str!("../../../../tests/golden/metrics.tsv");
    const LEFT_OUT: &str = include_str!("../../../../tests/golden/metrics-left-out.tsv");

    fn of(endpoint: &str) -> Vec<&'static Family> {
        match endpoint {
            "/metrics" => all().collect(),
            "/metrics/cadvisor" => cadvisor::FAMILIES.iter().copied().flatten().copied().collect(),
            "/metrics/resource" => resource::FAMILIES.to_vec(),
            "/metrics/probes" => page::probe_families().collect(),
            "/metrics/slis" => SLI_FAMILIES.to_vec(),
            other => panic!("no such page: {other}"),
        }
    }

    /// Pages and families that are left out, with reasons; a name may end with `*`.
    fn is_left_out(endpoint: &str, name: &str) -> bool {
        LEFT_OUT.lines().skip(1).any(|line| {
            let [page, family, reason]: [&str; 3] = line.split('\t').collect::<Vec<_>>().try_into().expect(line);
            assert!(!reason.is_empty(), "{line}");
            let is_it = family.strip_suffix('*').map_or(family == name, |start| name.starts_with(start));
            page == endpoint && is_it
        })
    }

    #[test]
    fn families_are_as_recorded_or_left_out_for_a_reason() {
        let mut wrong = Vec::new();
        for line in RECORDED.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let &[endpoint, name, kind, stability, labels, buckets] = &fields[..] else { panic!("{line}") };
            let ours: Vec<_> = of(endpoint).into_iter().filter(|family| family.name == name).collect();
            let left_out = is_left_out(endpoint, name);
            match (&ours[..], left_out) {
                ([], true) => {}
                ([family], false) => {
                    let have: BTreeSet<&str> = family.labels.iter().copied().collect();
                    let want: BTreeSet<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
                    let same = (family.kind.as_str(), family.stability.as_str()) == (kind, stability)
                        && have == want
                        && family.bucket_texts().join(",") == buckets;
                    if !same {
                        wrong.push(format!("{endpoint} {name}: {family:?}, recorded: {line:?}"));
                    }
                }
                (found, _) => wrong.push(format!("{endpoint} {name}: {} here, left out: {left_out}", found.len())),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_family_has_one_name_help_and_labels_in_order() {
        for endpoint in ["/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/metrics/slis"] {
            let mut seen = BTreeMap::new();
            for family in of(endpoint) {
                assert!(seen.insert(family.name, ()).is_none(), "{} is there twice", family.name);
                assert!(!family.help.is_empty() && family.help != family.name, "{}", family.name);
                assert!(endpoint == "/metrics/cadvisor" || family.labels.is_sorted(), "{}", family.name);
                assert!(family.buckets.is_sorted(), "{}", family.name);
            }
        }
    }
}
