//! The difference of two Node objects, as the API server takes it: a strategic merge patch.

use rubelet_api::{tree, v1};
use serde_json::{Map, Value, json};

/// What has to be written of labels, annotations and status; `None` if nothing has.
///
/// kubelet 1.36: conditions are merged by type, all other lists are replaced; addresses are replaced in words of their own, because
/// the API server would merge them by type.
#[must_use]
pub fn status_patch(known: &v1::Node, new: &v1::Node) -> Option<Value> {
    let metadata =
        |node: &v1::Node| json!({ "labels": node.metadata.labels, "annotations": node.metadata.annotations });
    let status = |node: &v1::Node| tree::to_tree(&node.status.clone().unwrap_or_default()).unwrap_or_default();
    let (mut before, mut after) = (status(known), status(new));
    let conditions = conditions(before.get("conditions"), after.get("conditions"));
    let addresses = (before.get("addresses") != after.get("addresses")).then(|| replaced(after.get("addresses")));
    for name in ["conditions", "addresses"] {
        for side in [&mut before, &mut after] {
            side.as_object_mut().and_then(|map| map.remove(name));
        }
    }
    let mut status = difference(&before, &after).unwrap_or_default();
    if let Some((order, changed)) = conditions {
        status.insert("$setElementOrder/conditions".to_owned(), order);
        status.insert("conditions".to_owned(), changed);
    }
    if let Some(addresses) = addresses {
        status.insert("addresses".to_owned(), addresses);
    }
    let mut patch = Map::new();
    if let Some(metadata) = difference(&metadata(known), &metadata(new)) {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if !status.is_empty() {
        patch.insert("status".to_owned(), Value::Object(status));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn replaced(addresses: Option<&Value>) -> Value {
    let mut list = vec![json!({ "$patch": "replace" })];
    list.extend(addresses.and_then(Value::as_array).into_iter().flatten().cloned());
    Value::Array(list)
}

/// The order of all conditions, and what changed of each that changed.
fn conditions(before: Option<&Value>, after: Option<&Value>) -> Option<(Value, Value)> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (list(before), list(after));
    let type_ = |condition: &Value| condition["type"].clone();
    let mut changed = Vec::new();
    for new in &after {
        let type_ = type_(new);
        let known = before.iter().find(|c| c["type"] == type_);
        match known {
            None => changed.push(new.clone()),
            Some(known) => {
                if let Some(mut fields) = difference(known, new) {
                    fields.insert("type".to_owned(), type_);
                    changed.push(Value::Object(fields));
                }
            }
        }
    }
    for gone in before.iter().map(type_).filter(|t| after.iter().all(|c| c["type"] != *t)) {
        changed.push(json!({ "$patch": "delete", "type": gone }));
    }
    let order: Vec<Value> = after.iter().map(|c| json!({ "type": c["type"] })).collect();
    (!changed.is_empty()).then_some((Value::Array(order), Value::Array(changed)))
}

/// What to write into `before` to get `after`: maps by key, everything else as a whole, null for what goes.
fn difference(before: &Value, after: &Value) -> Option<Map<String, Value>> {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut changed = Map::new();
    for (key, new) in after {
        match before.get(key) {
            Some(old) if old == new => {}
            Some(old) if old.is_object() && new.is_object() => {
                if let Some(inner) = difference(old, new) {
                    changed.insert(key.clone(), Value::Object(inner));
                }
            }
            Some(Value::Null) | None if new.is_null() => {}
            Some(_) | None => drop(changed.insert(key.clone(), new.clone())),
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        changed.insert(key.clone(), Value::Null);
    }
    (!changed.is_empty()).then_some(changed)
}
