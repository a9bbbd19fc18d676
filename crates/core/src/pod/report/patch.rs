//! The difference of two statuses, as Kubernetes merges it.

use rubelet_api::v1;
use serde_json::{Map, Value};

/// Lists that are merged by a key; all others are replaced.
const MERGED: [(&str, &str); 3] = [("conditions", "type"), ("hostIPs", "ip"), ("podIPs", "ip")];

/// What makes `old` into `new`; `None`: they are the same.
pub(super) fn of_status(old: &v1::PodStatus, new: &v1::PodStatus) -> Option<Value> {
    // A status is a tree of texts and numbers: it can always be written.
    let tree = |status: &v1::PodStatus| rubelet_api::tree::to_tree(status).unwrap_or_default();
    match (tree(old), tree(new)) {
        (Value::Object(old), Value::Object(new)) => of_object(&old, &new).map(Value::Object),
        _ => None,
    }
}

fn of_object(old: &Map<String, Value>, new: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for (field, value) in new.iter().filter(|(_, v)| !v.is_null()) {
        match (old.get(field), value) {
            (Some(before), after) if before == after => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                if let Some(inner) = of_object(before, after) {
                    patch.insert(field.clone(), Value::Object(inner));
                }
            }
            (before, Value::Array(after)) => {
                let before = before.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                match MERGED.iter().find(|(name, _)| name == field) {
                    Some((_, key)) => of_list(field, key, before, after, &mut patch),
                    None => drop(patch.insert(field.clone(), value.clone())),
                }
            }
            (None | Some(_), _) => drop(patch.insert(field.clone(), value.clone())),
        }
    }
    for (field, before) in old.iter().filter(|(f, v)| !v.is_null() && new.get(*f).is_none_or(Value::is_null)) {
        match (MERGED.iter().find(|(name, _)| name == field), before) {
            (Some((_, key)), Value::Array(before)) => of_list(field, key, before, &[], &mut patch),
            _ => drop(patch.insert(field.clone(), Value::Null)),
        }
    }
    (!patch.is_empty()).then_some(patch)
}

/// Items that differ, those that go, and the order if anything is said at all.
fn of_list(field: &str, key: &str, old: &[Value], new: &[Value], patch: &mut Map<String, Value>) {
    let find = |list: &[Value], item: &Value| list.iter().find(|i| i.get(key) == item.get(key)).cloned();
    let named = |item: &Value| {
        let mut named = Map::new();
        named.insert(key.to_owned(), item.get(key).cloned().unwrap_or_default());
        named
    };
    let mut changes = Vec::new();
    for item in new {
        let before = find(old, item);
        match (&before, item) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                if let Some(mut change) = of_object(before, after) {
                    change.insert(key.to_owned(), item.get(key).cloned().unwrap_or_default());
                    changes.push(Value::Object(change));
                }
            }
            (None | Some(_), _) => changes.push(item.clone()),
        }
    }
    for item in old.iter().filter(|item| find(new, item).is_none()) {
        let mut gone = named(item);
        gone.insert("$patch".to_owned(), "delete".into());
        changes.push(Value::Object(gone));
    }
    if changes.is_empty() {
        return;
    }
    let order: Vec<Value> = new.iter().map(|item| Value::Object(named(item))).collect();
    if !old.is_empty() && !order.is_empty() {
        patch.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    }
    patch.insert(field.to_owned(), Value::Array(changes));
}
