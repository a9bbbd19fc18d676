//! Plays scenarios, says what became of each, and compares that with what is known.

use std::sync::Arc;
use std::time::Instant;

use rubelet_testkit::contract::{self, Bench, Outcome};

/// What takes longer is told.
const LONG_MILLIS: u128 = 5000;

/// Plays all scenarios. `known`: names of those that the runtime fails or lacks, with the reason; any other is an error, and so
/// is one of them that passes.
pub(crate) async fn play(runtime: &str, bench: &Arc<Bench>, known: &[(&str, &str)]) {
    let only = std::env::var("RUBELET_CONTRACT_ONLY").unwrap_or_default();
    let known: Vec<_> = known.iter().filter(|(name, _)| name.contains(&only)).collect();
    let (mut passed, mut not_played, mut surprises) = (0, 0, Vec::new());
    for scenario in contract::scenarios().filter(|scenario| scenario.name.contains(&only)) {
        let begun = Instant::now();
        let outcome = contract::play(bench, scenario).await;
        let millis = begun.elapsed().as_millis();
        let reason = known.iter().find(|(name, _)| *name == scenario.name).map(|(_, reason)| *reason);
        match (&outcome, reason) {
            (Outcome::Passed, None) => {
                passed += 1;
                if millis > LONG_MILLIS {
                    eprintln!("{runtime}: {} ({millis} ms): passed", scenario.name);
                }
            }
            (Outcome::NotPlayed(_), None) => not_played += 1,
            (Outcome::Failed(_) | Outcome::Lacks(_), Some(reason)) => {
                eprintln!("{runtime}: {} ({millis} ms): {outcome} (known: {reason})", scenario.name);
            }
            (Outcome::Failed(_) | Outcome::Lacks(_), None) | (Outcome::Passed | Outcome::NotPlayed(_), Some(_)) => {
                eprintln!("{runtime}: {} ({millis} ms): {outcome}", scenario.name);
                surprises.push(format!("{}: {outcome}", scenario.name));
            }
        }
    }
    let differ = known.len();
    eprintln!(
        "{runtime}: {passed} passed, {differ} known to differ, {not_played} not played, {} not as known",
        surprises.len()
    );
    assert!(surprises.is_empty(), "{runtime}, not as known:\n{}", surprises.join("\n"));
}
