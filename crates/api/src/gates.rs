//! Feature gates: what is on, what may be switched, and upstream's words when something may not.

mod table;

use std::collections::BTreeMap;
use std::fmt;

pub use table::Gate;

use table::SPECS;

/// How ripe a feature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Off by default; may vanish.
    Alpha,
    /// Usually on.
    Beta,
    /// Done; switching it off will not be possible for long.
    Ga,
    /// Will be removed.
    Deprecated,
}

impl fmt::Display for Stage {
    /// As the metric `kubernetes_feature_enabled` calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Ga => "",
            Self::Deprecated => "DEPRECATED",
        })
    }
}

/// One row of the table.
#[derive(Debug)]
struct Spec {
    name: &'static str,
    stage: Stage,
    default: bool,
    locked: bool,
    /// Gates without which this one may not be on.
    needs: &'static [Gate],
}

/// Why gates cannot be as asked, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// No gate of that name.
    #[error("unrecognized feature gate: {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It cannot be switched.
    #[error("cannot set feature gate {gate} to {}, feature is locked to {locked_to}", !locked_to)]
    Locked {
        /// The gate.
        gate: Gate,
        /// What it always is.
        locked_to: bool,
    },
    /// It is on without what it needs.
    #[error("{gate} is enabled, but depends on features that are disabled: [{}]", names(off))]
    Needs {
        /// The gate.
        gate: Gate,
        /// What it needs and is off.
        off: Vec<Gate>,
    },
}

impl GateError {
    /// The name under which the configuration says it.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name } => name,
            Self::Locked { gate, .. } | Self::Needs { gate, .. } => gate.name(),
        }
    }
}

fn names(gates: &[Gate]) -> String {
    gates.iter().map(|gate| gate.name()).collect::<Vec<_>>().join(" ")
}

impl Gate {
    fn spec(self) -> &'static Spec {
        // The table has one row for each variant, in their order.
        &SPECS[self as usize]
    }

    /// The gate of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|gate| gate.name() == name)
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// How ripe it is.
    pub fn stage(self) -> Stage {
        self.spec().stage
    }

    /// Whether it is on when nothing is said.
    pub fn default(self) -> bool {
        self.spec().default
    }

    /// Whether it can never be other than its default.
    pub fn is_locked(self) -> bool {
        self.spec().locked
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which gates are on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gates {
    on: Vec<bool>,
    /// Switched by name.
    said: Vec<(Gate, bool)>,
}

impl Default for Gates {
    fn default() -> Self {
        Self { on: SPECS.iter().map(|spec| spec.default).collect(), said: Vec::new() }
    }
}

impl Gates {
    /// The gates with these switched. `AllAlpha` and `AllBeta` switch their stage except what is named itself.
    ///
    /// # Errors
    /// An unknown name; else every locked gate; else every gate that is on without what it needs.
    pub fn from_map(map: &BTreeMap<String, bool>) -> Result<Self, Vec<GateError>> {
        let mut gates = Self::default();
        let mut errors = Vec::new();
        for (name, value) in map {
            let gate = Gate::by_name(name).ok_or_else(|| vec![GateError::Unknown { name: name.clone() }])?;
            if gate.is_locked() && gate.default() != *value {
                errors.push(GateError::Locked { gate, locked_to: gate.default() });
            }
            gates.said.push((gate, *value));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (gate, value) in &gates.said {
            let stage = match gate {
                Gate::AllAlpha => Stage::Alpha,
                Gate::AllBeta => Stage::Beta,
                _ => continue, // only these two stand for others
            };
            for one in Gate::ALL.iter().filter(|one| one.stage() == stage && !one.is_locked()) {
                gates.on[*one as usize] = *value;
            }
        }
        for (gate, value) in &gates.said {
            gates.on[*gate as usize] = *value;
        }
        let errors = gates.unmet();
        if errors.is_empty() { Ok(gates) } else { Err(errors) }
    }

    fn unmet(&self) -> Vec<GateError> {
        let unmet = |gate: &Gate| {
            let off: Vec<Gate> = gate.spec().needs.iter().copied().filter(|need| !self.is_on(*need)).collect();
            (self.is_on(*gate) && !off.is_empty()).then_some(GateError::Needs { gate: *gate, off })
        };
        Gate::ALL.iter().filter_map(unmet).collect()
    }

    /// Whether a gate is on.
    pub fn is_on(&self, gate: Gate) -> bool {
        self.on[gate as usize]
    }

    /// Every gate with its state, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (Gate, bool)> + '_ {
        Gate::ALL.iter().map(|gate| (*gate, self.is_on(*gate)))
    }

    /// A line for each switched gate that will not stay: those that are done, and those that are deprecated.
    pub fn remarks(&self) -> impl Iterator<Item = (Gate, bool, &'static str)> + '_ {
        self.said.iter().filter_map(|(gate, value)| {
            let words = match gate.stage() {
                Stage::Ga => "Warning: setting GA feature gate. It will be removed in a future release.",
                Stage::Deprecated => {
                    "Warning: setting deprecated feature gate. It will be removed in a future release."
                }
                Stage::Alpha | Stage::Beta => return None,
            };
            Some((*gate, *value, words))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = include_str!("../../../tests/golden/all-feature-gates.tsv");
    const SHOWN: &str = include_str!("../../../tests/golden/feature-gates.tsv");

    fn map(pairs: &[(&str, bool)]) -> BTreeMap<String, bool> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn refused(pairs: &[(&str, bool)]) -> Vec<String> {
        Gates::from_map(&map(pairs)).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_recorded_gate_is_here_and_no_other() {
        let gates = Gates::default();
        let mut count = 0;
        for (row, gate) in ALL.lines().skip(1).zip(Gate::ALL) {
            let columns: Vec<&str> = row.split('\t').collect();
            let stage = if columns[1] == "GA" { "" } else { columns[1] };
            let ours = (gate.name(), gate.stage().to_string(), gate.default(), gate.is_locked());
            assert_eq!(ours, (columns[0], stage.to_owned(), columns[2] == "true", columns[3] == "true"));
            assert_eq!(names(gate.spec().needs), columns[4].replace(',', " "));
            assert_eq!(gates.is_on(*gate), gate.default());
            assert_eq!(Gate::by_name(columns[0]), Some(*gate));
            count += 1;
        }
        assert_eq!((count, Gate::ALL.len()), (242, 242));
        for row in SHOWN.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let gate = Gate::by_name(columns[0]).unwrap_or_else(|| panic!("{row}"));
            assert_eq!(
                (gate.stage().to_string().as_str(), gate.default()),
                (columns[1], columns[2] == "true"),
                "{row}"
            );
        }
    }

    #[test]
    fn every_gate_can_be_switched_unless_it_is_locked() {
        for gate in Gate::ALL {
            let flipped = Gates::from_map(&map(&[(gate.name(), !gate.default())]));
            match flipped {
                Ok(gates) => assert_eq!(gates.is_on(*gate), !gate.default()),
                Err(errors) => assert!(
                    errors.iter().all(|e| matches!(e, GateError::Locked { .. } | GateError::Needs { .. })),
                    "{errors:?}"
                ),
            }
            if !matches!(gate, Gate::AllAlpha | Gate::AllBeta) {
                let same = Gates::from_map(&map(&[(gate.name(), gate.default())])).unwrap();
                assert_eq!(same.on, Gates::default().on);
            }
        }
    }

    #[test]
    fn refusals_are_upstream_s() {
        assert_eq!(refused(&[("Bogus", true)]), ["unrecognized feature gate: Bogus"]);
        assert_eq!(
            refused(&[("NodeSwap", false)]),
            ["cannot set feature gate NodeSwap to false, feature is locked to true"]
        );
        assert_eq!(
            refused(&[("GracefulNodeShutdown", false)]),
            [
                "GracefulNodeShutdownBasedOnPodPriority is enabled, but depends on features that are disabled: [GracefulNodeShutdown]",
                "WindowsGracefulNodeShutdown is enabled, but depends on features that are disabled: [GracefulNodeShutdown]"
            ]
        );
    }

    #[test]
    fn whole_stages_are_switched_but_not_what_is_named() {
        let gates = Gates::from_map(&map(&[("AllAlpha", true), ("MemoryQoS", false), ("NodeSwap", true)])).unwrap();
        assert!(gates.is_on(Gate::EventedPLEG) && gates.is_on(Gate::AllAlpha));
        assert!(!gates.is_on(Gate::MemoryQoS) && !gates.is_on(Gate::SELinuxMount));
        assert_eq!(gates.remarks().map(|(gate, _, _)| gate).collect::<Vec<_>>(), [Gate::NodeSwap]);
    }
}
