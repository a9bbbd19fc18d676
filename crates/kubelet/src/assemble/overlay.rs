//! Flags over the configuration: a given flag's value takes the place of its field's, gates add up key by key.

use serde_json::{Map, Value};

use crate::flags::Given;

/// The only field in which the flag's keys join the file's.
const MERGED: &str = "featureGates";

/// Puts every given flag with a field into the configuration's tree.
pub(super) fn lay_over(tree: &mut Value, given: &Given) {
    for (path, value) in given.fields() {
        put(tree, path, value.clone());
    }
}

/// Puts a value at a dotted path, making the objects on the way.
pub(super) fn put(tree: &mut Value, path: &str, value: Value) {
    let mut place = tree;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        // Made an object above.
        let Value::Object(fields) = place else { return };
        place = fields.entry(name).or_insert(Value::Null);
    }
    match (place, value) {
        (Value::Object(present), Value::Object(given)) if path == MERGED => present.extend(given),
        (place, value) => *place = value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lay_over;
    use crate::flags::parse;

    #[test]
    fn flags_replace_and_gates_join() {
        let mut tree = json!({
            "port": 1, "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": true}}, "logging": null,
            "evictionHard": {"memory.available": "1Gi"}, "featureGates": {"A": true, "B": true}, "clusterDNS": ["1.1.1.1"],
        });
        let line = [
            "--anonymous-auth=false",
            "--eviction-hard=nodefs.available<1%",
            "--feature-gates=B=false,C=true",
            "--cluster-dns=2.2.2.2",
            "-v3",
            "--node-ip=1.2.3.4",
        ];
        let line: Vec<String> = line.iter().map(|&arg| arg.to_owned()).collect();
        lay_over(&mut tree, &parse(&line, &mut Vec::new()).unwrap());
        assert_eq!(
            tree,
            json!({
                "port": 1, "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}},
                "logging": {"verbosity": 3}, "evictionHard": {"nodefs.available": "1%"},
                "featureGates": {"A": true, "B": false, "C": true}, "clusterDNS": ["2.2.2.2"],
            })
        );
    }
}
