//! What holds of every pod, whatever happens to it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Life, World};
use crate::pod::fact::{Order, ProbeAnswer};
use crate::pod::{EvictOrder, Fact, Observed};

/// Something that happens to a pod.
#[derive(Clone, Debug)]
enum Blow {
    /// The process of the nth container ends.
    Kill(usize, i32),
    /// The runtime loses the sandbox.
    LoseSandbox,
    /// Somebody removes the nth container.
    Remove(usize),
    /// The agent is killed and started again.
    Restart,
    /// Steps of that kind fail from now on.
    Fail(&'static str),
    /// Steps succeed again.
    Heal,
    /// The liveness probe of `b` answers differently.
    Liveness(bool),
    Evict,
    Withdraw,
}

fn blows() -> impl Strategy<Value = Vec<(u64, Blow)>> {
    let blow = prop_oneof![
        4 => (0..6_usize, 0..3_i32).prop_map(|(n, code)| Blow::Kill(n, code)),
        1 => Just(Blow::LoseSandbox),
        1 => (0..6_usize).prop_map(Blow::Remove),
        2 => Just(Blow::Restart),
        1 => prop_oneof![
            Just("CreateSandbox"), Just("EnsureImage"), Just("CreateContainer"), Just("StartContainer"), Just("Mount"),
            Just("StopContainer"), Just("StopSandbox"), Just("RemoveContainer"), Just("EnsureCgroup"), Just("PrepareDirs"),
            Just("Unmount"), Just("RemoveCgroup"), Just("RemoveDirs"), Just("RemoveSandbox"), Just("RunHook"),
        ].prop_map(Blow::Fail),
        2 => Just(Blow::Heal),
        1 => any::<bool>().prop_map(Blow::Liveness),
        1 => Just(Blow::Evict),
        1 => Just(Blow::Withdraw),
    ];
    prop::collection::vec((0..40_u64, blow), 0..12)
}

fn spec(policy: &str, has_init: bool) -> Value {
    let mut spec = json!({
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": 7,
        "containers": [
            {"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}},
            {"name": "b", "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 3}},
        ],
    });
    if has_init {
        spec["initContainers"] = json!([{"name": "one"}, {"name": "side", "restartPolicy": "Always"}, {"name": "two"}]);
    }
    spec
}

struct Story {
    spec: Value,
    world: World,
}

impl Story {
    fn suffer(&mut self, blow: &Blow) {
        let world = &mut self.world;
        let nth = |world: &World, n: usize| {
            let all = &world.runtime.containers;
            all.get(n.checked_rem(all.len()).unwrap_or(0)).map(|c| c.id.clone())
        };
        match blow {
            Blow::Kill(n, code) => {
                if let Some(id) = nth(world, *n) {
                    world.die(&id, *code);
                }
            }
            Blow::LoseSandbox => world.runtime.sandboxes.iter_mut().for_each(|s| s.is_ready = false),
            Blow::Remove(n) => {
                if let Some(id) = nth(world, *n) {
                    world.runtime.containers.retain(|c| c.id != id);
                }
            }
            Blow::Restart => {
                let runtime: Observed = world.runtime.clone();
                let is_withdrawn = world.is_withdrawn;
                let mut fresh = World::over(runtime, self.spec.clone());
                fresh.at = world.at;
                fresh.lives = world.lives.clone();
                fresh.inherit(world);
                *world = fresh;
                if is_withdrawn {
                    world.withdraw();
                }
                return;
            }
            Blow::Fail(step) => world.failing = vec![(step, "it is told to fail")],
            Blow::Heal => world.failing.clear(),
            Blow::Liveness(is_good) => {
                let answer = if *is_good { ProbeAnswer::Success } else { ProbeAnswer::Failure("no".into()) };
                world.probes.insert("b Liveness".into(), answer);
            }
            Blow::Evict => {
                let (reason, message) = ("Evicted".to_owned(), "The node was low on resource: memory.".to_owned());
                world.tell(Fact::Order(Order::Evict(EvictOrder { reason, message, ..EvictOrder::default() })));
            }
            Blow::Withdraw => world.withdraw(),
        }
        world.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Never two living instances of a container (the world watches it), and in the end nothing is left.
    #[test]
    fn every_pod_comes_to_a_good_end(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        has_init in any::<bool>(),
        blows in blows(),
    ) {
        let spec = spec(policy, has_init);
        let mut story = Story { spec: spec.clone(), world: World::new(spec) };
        for name in ["one", "two"] {
            story.world.lives.insert(name, vec![Life::For(1, 0)]);
        }
        let mut at = 1;
        for (after, blow) in &blows {
            at += after;
            story.world.run_until(at);
            story.suffer(blow);
        }
        story.world.failing.clear();
        story.world.probes.clear();
        story.world.run_until(at + 700);
        let is_disturbed = blows.iter().any(|(_, b)| matches!(b, Blow::Evict | Blow::Withdraw));
        if policy == "Always" && !is_disturbed {
            let wanted: &[&str] = if has_init { &["a", "b", "side"] } else { &["a", "b"] };
            prop_assert_eq!(story.world.running(), wanted, "{:#?}", story.world.log);
        }
        story.world.withdraw();
        story.world.run_until(at + 800);
        prop_assert!(story.world.record.is_gone(), "{:#?} {:#?}", story.world.record.stage(), story.world.log);
        prop_assert!(story.world.runtime.containers.is_empty() && story.world.runtime.sandboxes.is_empty());
    }
}
