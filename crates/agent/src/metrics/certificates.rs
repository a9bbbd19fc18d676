//! Certificates of pods, counted by how they stand when somebody asks.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_core::now::Wall;
use rubelet_core::pod::certificate::Phase;

const STATES: Family = Family::gauge(
    "kubelet_podcertificate_states",
    Stability::Alpha,
    "Sources of volumes that are certificates of pods, by signer and by how they stand",
    &["signer_name", "state"],
);

/// All that is told here.
pub(crate) const FAMILIES: &[&Family] = &[&STATES];

/// All certificates that are kept.
#[derive(Debug, Default)]
pub struct PodCertificates(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    all: BTreeMap<u64, (String, Phase)>,
}

/// One certificate, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Entry {
    of: Arc<PodCertificates>,
    number: u64,
}

impl Entry {
    pub(crate) fn new(of: &Arc<PodCertificates>, signer: &str) -> Self {
        let mut kept = of.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last += 1;
        let number = kept.last;
        kept.all.insert(number, (signer.to_owned(), Phase::NotYetIssued));
        Self { of: of.clone(), number }
    }

    /// How it stands now.
    pub(crate) fn show(&self, phase: Phase) {
        let mut kept = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shown)) = kept.all.get_mut(&self.number) {
            *shown = phase;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.number);
    }
}

impl PodCertificates {
    /// Writes how many there are.
    pub(crate) fn tell(&self, now: Wall, text: &mut Text<'_>) -> io::Result<()> {
        let mut counts: BTreeMap<(String, &str), u32> = BTreeMap::new();
        for (signer, phase) in self.0.lock().unwrap_or_else(PoisonError::into_inner).all.values() {
            *counts.entry((signer.clone(), phase.word(now))).or_default() += 1;
        }
        if counts.is_empty() {
            return Ok(());
        }
        text.head(&STATES)?;
        counts.iter().try_for_each(|((signer, state), count)| text.sample(&STATES, &[signer, state], f64::from(*count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_count_by_signer_and_state_while_they_are_kept() {
        let all = Arc::new(PodCertificates::default());
        let now: Wall = "2026-01-01T00:00:00Z".parse().unwrap();
        let page = || {
            let mut page = Vec::new();
            all.tell(now, &mut Text::new(&mut page)).unwrap();
            let page = String::from_utf8(page).unwrap();
            page.lines()
                .filter_map(|l| l.strip_prefix("kubelet_podcertificate_states"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let entries = ["a/x", "a/x", "b/y"].map(|signer| Entry::new(&all, signer));
        entries[0].show(Phase::Denied);
        entries[2].show(Phase::Issued { renew_at: now, ends_at: now });
        assert_eq!(
            page(),
            [
                "{signer_name=\"a/x\",state=\"denied\"} 1",
                "{signer_name=\"a/x\",state=\"not_yet_issued\"} 1",
                "{signer_name=\"b/y\",state=\"fresh\"} 1",
            ]
        );
        drop(entries);
        assert!(page().is_empty());
    }
}
