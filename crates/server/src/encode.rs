//! Pods as JSON, field by field as Go's encoder prints them.
//!
//! Our types print what is there. Go's print some fields always (`"lastProbeTime": null`, `"resources": {}`) and leave out
//! empty values where the API says so (`value: ""` of a variable). This file knows which.

use rubelet_api::v1;
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

/// One pod as an item of a `PodList`: without `kind` and `apiVersion`.
pub fn pod_json(pod: &v1::Pod) -> Value {
    let mut value = match rubelet_api::tree::to_tree(pod) {
        Ok(value) => value,
        // Maps of a pod have text keys and its numbers are whole: there is nothing that JSON cannot hold.
        Err(error) => return json!({ "metadata": { "name": format!("not encodable: {error}") } }),
    };
    if let Value::Object(fields) = &mut value {
        fields.remove("kind");
        fields.remove("apiVersion");
        for always in ["metadata", "spec", "status"] {
            fields.entry(always).or_insert_with(|| json!({}));
        }
        clean(fields, "");
    }
    value
}

/// Fields that Go leaves out when they are empty, and that mean the same wherever they stand.
#[rustfmt::skip]
const OMITTED_WHEN_EMPTY: &[&str] = &[
    "accessModes", "action", "add", "allocatedResources", "allocatedResourcesStatus", "annotations", "args",
    "audience", "certificateChainPath", "chapAuthDiscovery", "chapAuthSession", "claims", "command", "conditions",
    "containerID", "containerStatuses", "credentialBundlePath", "datasetName", "datasetUUID", "directory",
    "dnsPolicy", "drop", "effect", "env", "envFrom", "ephemeralContainerStatuses", "ephemeralContainers",
    "failureThreshold", "finalizers", "generateName", "generation", "group", "health", "host", "hostAliases",
    "hostIP", "hostIPC", "hostIPs", "hostNetwork", "hostPID", "hostPort", "hostname", "hostnames", "httpHeaders",
    "imagePullPolicy", "imagePullSecrets", "imageRef", "initContainerStatuses", "initContainers",
    "initialDelaySeconds", "iscsiInterface", "items", "keyPath", "keyType", "keyring", "labels", "level", "limits",
    "managedFields", "manager", "matchExpressions", "matchFields", "matchLabelKeys", "matchLabels", "medium",
    "mismatchLabelKeys", "nameservers", "namespaces", "nodeAllocatableResourceClaimStatuses", "nodeName",
    "nodeSelector", "nominatedNodeName", "observedGeneration", "operation", "options", "overhead",
    "ownerReferences", "partition", "periodSeconds", "phase", "podIP", "podIPs", "pool", "portals", "ports",
    "preferredDuringSchedulingIgnoredDuringExecution", "prefix", "priorityClassName", "protectionDomain",
    "protocol", "pullPolicy", "qosClass", "readinessGates", "reason", "reference", "request", "requests",
    "requiredDuringSchedulingIgnoredDuringExecution", "resize", "resizePolicy", "resourceClaimStatuses",
    "resourceClaims", "resourceVersion", "restartPolicyRules", "revision", "role", "schedulerName",
    "schedulingGates", "scheme", "searches", "secretFile", "selfLink", "serviceAccount", "serviceAccountName",
    "signal", "sslEnabled", "stdin", "stdinOnce", "storageMode", "storagePolicyID", "storagePolicyName",
    "storagePool", "subPath", "subPathExpr", "subdomain", "subresource", "successThreshold",
    "supplementalGroups", "sysctls", "targetContainerName", "targetWWNs", "tenant", "terminationMessagePath",
    "terminationMessagePolicy", "timeoutSeconds", "tolerations", "topologySpreadConstraints", "tty", "user",
    "userAnnotations", "values", "volumeAttributes", "volumeDevices", "volumeMounts", "volumeNamespace", "volumes",
    "workingDir", "wwids",
];

/// The same, for names that mean different things: (where it stands, name).
const OMITTED_WHEN_EMPTY_THERE: &[(&str, &str)] = &[
    ("", "message"),
    ("conditions", "message"),
    ("configMap", "name"),
    ("configMapKeyRef", "name"),
    ("configMapRef", "name"),
    ("containers", "image"),
    ("env", "value"),
    ("exitCodes", "operator"),
    ("fieldRef", "apiVersion"),
    ("httpGet", "path"),
    ("imagePullSecrets", "name"),
    ("initContainers", "image"),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("nfs", "readOnly"),
    ("persistentVolumeClaim", "readOnly"),
    ("ports", "name"),
    ("resourceFieldRef", "containerName"),
    ("seLinuxOptions", "type"),
    ("secret", "secretName"),
    ("secretKeyRef", "name"),
    ("secretRef", "name"),
    ("spec", "restartPolicy"),
    ("status", "message"),
    ("terminated", "message"),
    ("tolerations", "key"),
    ("tolerations", "operator"),
    ("tolerations", "value"),
    ("volumeMounts", "readOnly"),
    ("waiting", "message"),
];

/// Fields whose keys are the user's own: nothing in them is ours to judge.
#[rustfmt::skip]
const USERS_KEYS: &[&str] = &[
    "allocatedResources", "annotations", "capacity", "labels", "limits", "matchLabels", "nodeSelector", "options",
    "overhead", "requests", "userAnnotations", "volumeAttributes",
];

/// Goes through one object that stands in the field `place` (or in a list there).
fn clean(fields: &mut Map<String, Value>, place: &str) {
    add_always_printed(fields, place);
    fields.retain(|name, value| !(is_empty(name, value) && is_omitted_when_empty(place, name)));
    for (name, value) in fields.iter_mut().filter(|(name, _)| !USERS_KEYS.contains(&name.as_str())) {
        match value {
            Value::Object(inner) => clean(inner, name),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| clean(item, name)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// What Go prints even if it was never set.
fn add_always_printed(fields: &mut Map<String, Value>, place: &str) {
    let mut add = |name: &str, value: Value| {
        fields.entry(name).or_insert(value);
    };
    match place {
        "containers" | "initContainers" | "ephemeralContainers" => add("resources", json!({})),
        "containerStatuses" | "initContainerStatuses" | "ephemeralContainerStatuses" => {
            add("state", json!({}));
            add("lastState", json!({}));
        }
        "conditions" => {
            add("lastProbeTime", Value::Null);
            add("lastTransitionTime", Value::Null);
        }
        "running" => add("startedAt", Value::Null),
        "terminated" => {
            add("startedAt", Value::Null);
            add("finishedAt", Value::Null);
        }
        "resourceFieldRef" => add("divisor", json!("0")),
        "grpc" => add("service", Value::Null),
        "projected" => add("sources", Value::Null),
        "volumeClaimTemplate" => add("metadata", json!({})),
        _ => {}
    }
}

fn is_omitted_when_empty(place: &str, name: &str) -> bool {
    OMITTED_WHEN_EMPTY.contains(&name) || OMITTED_WHEN_EMPTY_THERE.contains(&(place, name))
}

/// Go's notion: nothing, false, zero, no text, no items. An object that is no map is a pointer there, and is never empty.
fn is_empty(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty() && USERS_KEYS.contains(&name),
    }
}
