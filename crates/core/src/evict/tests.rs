//! Tables of what upstream decides.

use serde_json::{Value, json};

use super::{Pressures, admit};
use crate::admit::Verdict;
use crate::sample;

const MEMORY: Pressures = Pressures { memory: true, disk: false, pids: false };
const DISK: Pressures = Pressures { memory: false, disk: true, pids: false };

fn spec(more: Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "a" }] });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

#[test]
fn a_node_under_pressure_lets_in_who_may() {
    let asks = json!({ "containers": [{ "name": "a", "resources": { "requests": { "memory": "1Mi" } } }] });
    let toleration = |t: Value| spec(json!({ "tolerations": [t] }));
    let memory = "node.kubernetes.io/memory-pressure";
    let both = Pressures { pids: true, ..MEMORY };
    for (name, spec, pressures, refusal) in [
        ("no pressure", spec(json!({})), Pressures::default(), None),
        ("best effort", spec(json!({})), MEMORY, Some("[MemoryPressure]")),
        ("burstable", asks.clone(), MEMORY, None),
        ("burstable, disk", asks.clone(), DISK, Some("[DiskPressure]")),
        ("burstable, two", asks, both, Some("[MemoryPressure PIDPressure]")),
        ("critical", spec(json!({ "priority": 2_000_000_000 })), DISK, None),
        ("tolerates", toleration(json!({ "key": memory, "operator": "Exists" })), MEMORY, None),
        ("tolerates all", toleration(json!({ "operator": "Exists" })), MEMORY, None),
        ("equal", toleration(json!({ "key": memory, "effect": "NoSchedule" })), MEMORY, None),
        ("a value", toleration(json!({ "key": memory, "value": "x" })), MEMORY, Some("[MemoryPressure]")),
        ("an effect", toleration(json!({ "key": memory, "effect": "NoExecute" })), MEMORY, Some("[MemoryPressure]")),
        ("tolerates memory, disk", toleration(json!({ "operator": "Exists" })), DISK, Some("[DiskPressure]")),
    ] {
        let wanted = refusal.map(|names| Verdict::Rejected {
            reason: "Evicted".into(),
            message: format!("The node had condition: {names}. "),
        });
        assert_eq!(admit(&sample::pod(spec), pressures), wanted, "{name}");
    }
}
