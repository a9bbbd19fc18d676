//! What a configuration may not say, in upstream's words, as much of it at once as can be known.

mod allocatable;
mod cluster;
mod logging;
mod numbers;
mod starting;
mod texts;

use std::fmt;

use super::KubeletConfiguration;
use crate::gates::Gates;

/// What the machine is, as far as rules depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Whether the host has cgroup v1; `None`: rules about that are left to someone who knows.
    pub has_cgroup_v1: Option<bool>,
}

/// When upstream notices, which decides how its message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// When the log is set up.
    Logging,
    /// When the configuration is validated.
    Validation,
    /// When certificates and clients are made.
    Dependencies,
    /// When the kubelet is made.
    Running,
    /// Never; the words are ours.
    Never,
}

/// One thing that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field by its dotted path.
    pub field: &'static str,
    /// Upstream's message, without how it begins.
    pub words: String,
    /// When upstream says it.
    pub moment: Moment,
    /// `FILE:LINE:COLUMN` of the field, when the words are ours and a file says it.
    pub place: Option<String>,
}

/// Everything found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What keeps the program from starting.
    pub refusals: Vec<Refusal>,
    /// What upstream starts with and ignores.
    pub doubts: Vec<Refusal>,
}

/// All refusals, as upstream shows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<Refusal>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        let of = |moment: Moment| self.0.iter().filter(move |refusal| refusal.moment == moment);
        parts.extend(of(Moment::Logging).map(|refusal| format!("initialize logging: {}", refusal.words)));
        let validation: Vec<&str> = of(Moment::Validation).map(|refusal| refusal.words.as_str()).collect();
        if !validation.is_empty() {
            parts.push(format!(
                "failed to validate kubelet configuration, error: {}, path: &TypeMeta{{Kind:,APIVersion:,}}",
                aggregate(&validation)
            ));
        }
        for refusal in of(Moment::Dependencies) {
            parts.push(format!("failed to construct kubelet dependencies: {}", refusal.words));
        }
        parts.extend(of(Moment::Running).map(|refusal| format!("failed to run Kubelet: {}", refusal.words)));
        for Refusal { field, words, place, .. } in of(Moment::Never) {
            let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            parts.push(format!("failed to validate kubelet configuration, error: {place}{field}: {words}"));
        }
        f.write_str(&parts.join("; "))
    }
}

/// One text as it is, several in brackets, none twice: how upstream shows a list of errors.
pub(super) fn aggregate(words: &[&str]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for word in words {
        if !once.contains(word) {
            once.push(word);
        }
    }
    match once.as_slice() {
        [one] => (*one).to_owned(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// Checks a complete configuration with its gates.
pub fn validate(config: &KubeletConfiguration, gates: &Gates, surroundings: Surroundings) -> Found {
    let mut rules = Rules { config, gates, surroundings, found: Found::default() };
    // The order is that in which upstream's messages stand in their list.
    numbers::first(&mut rules);
    cluster::taints(&mut rules);
    cluster::topology(&mut rules);
    cluster::shutdown(&mut rules);
    numbers::swap_and_back_off(&mut rules);
    allocatable::enforcement(&mut rules);
    texts::modes(&mut rules);
    allocatable::reserved(&mut rules);
    numbers::host(&mut rules);
    logging::validate(&mut rules);
    numbers::last(&mut rules);
    texts::logs_dir(&mut rules);
    starting::server(&mut rules);
    starting::eviction(&mut rules);
    starting::reservations(&mut rules);
    starting::policies(&mut rules);
    starting::texts(&mut rules);
    rules.found
}

/// The configuration under examination, and what was found.
struct Rules<'a> {
    config: &'a KubeletConfiguration,
    gates: &'a Gates,
    surroundings: Surroundings,
    found: Found,
}

impl Rules<'_> {
    /// Refuses with `invalid configuration: …`.
    fn invalid(&mut self, field: &'static str, words: impl fmt::Display) {
        self.refuse(field, Moment::Validation, format!("invalid configuration: {words}"));
    }

    fn refuse(&mut self, field: &'static str, moment: Moment, words: String) {
        self.found.refusals.push(Refusal { field, words, moment, place: None });
    }

    /// Lets upstream's nonsense pass, with a word about it.
    fn doubt(&mut self, field: &'static str, words: String) {
        self.found.doubts.push(Refusal { field, words, moment: Moment::Never, place: None });
    }
}
