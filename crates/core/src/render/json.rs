//! JSON in annotations, in the field order and with the escapes that readers of these annotations know.

use rubelet_api::{IntOrString, v1};
use serde_json::{Map, Value, json};

/// Compact text; `<`, `>` and `&` are escaped as in everything that Go writes.
pub(crate) fn text(value: &Value) -> String {
    let plain = value.to_string();
    let mut escaped = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `io.kubernetes.container.ports`.
pub(super) fn ports(ports: &[v1::ContainerPort]) -> Value {
    let one = |port: &v1::ContainerPort| {
        let mut map = Map::new();
        put(&mut map, "name", port.name.as_deref());
        if let Some(host_port) = port.host_port.filter(|p| *p != 0) {
            map.insert("hostPort".to_owned(), json!(host_port));
        }
        map.insert("containerPort".to_owned(), json!(port.container_port));
        put(&mut map, "protocol", port.protocol.as_deref());
        put(&mut map, "hostIP", port.host_ip.as_deref());
        Value::Object(map)
    };
    ports.iter().map(one).collect()
}

/// `io.kubernetes.container.preStopHandler`.
pub(super) fn handler(handler: &v1::LifecycleHandler) -> Value {
    let mut map = Map::new();
    if let Some(exec) = &handler.exec {
        let mut action = Map::new();
        if let Some(command) = exec.command.as_ref().filter(|c| !c.is_empty()) {
            action.insert("command".to_owned(), json!(command));
        }
        map.insert("exec".to_owned(), Value::Object(action));
    }
    if let Some(get) = &handler.http_get {
        map.insert("httpGet".to_owned(), Value::Object(http_get(get)));
    }
    if let Some(socket) = &handler.tcp_socket {
        let mut action = Map::new();
        action.insert("port".to_owned(), port(&socket.port));
        put(&mut action, "host", socket.host.as_deref());
        map.insert("tcpSocket".to_owned(), Value::Object(action));
    }
    if let Some(sleep) = &handler.sleep {
        map.insert("sleep".to_owned(), json!({ "seconds": sleep.seconds }));
    }
    Value::Object(map)
}

fn http_get(get: &v1::HTTPGetAction) -> Map<String, Value> {
    let mut action = Map::new();
    put(&mut action, "path", get.path.as_deref());
    action.insert("port".to_owned(), port(&get.port));
    put(&mut action, "host", get.host.as_deref());
    put(&mut action, "scheme", get.scheme.as_deref());
    if let Some(headers) = get.http_headers.as_ref().filter(|h| !h.is_empty()) {
        let headers: Vec<Value> = headers.iter().map(|h| json!({ "name": h.name, "value": h.value })).collect();
        action.insert("httpHeaders".to_owned(), Value::Array(headers));
    }
    action
}

fn port(port: &IntOrString) -> Value {
    match port {
        IntOrString::Int(number) => json!(number),
        IntOrString::String(name) => json!(name),
    }
}

/// All sizes of a pod, as events about its resize show them.
pub(crate) fn sizes(pod: &v1::Pod, generation: i64, error: Option<&str>) -> Value {
    let one = |container: &v1::Container| {
        let resources = container.resources.clone().unwrap_or_default();
        let mut map = Map::new();
        for (name, side) in [("limits", &resources.limits), ("requests", &resources.requests)] {
            if let Some(side) = side.as_ref().filter(|s| !s.is_empty()) {
                map.insert(name.to_owned(), json!(side));
            }
        }
        json!({ "name": container.name, "resources": map })
    };
    let mut all = Map::new();
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let regulars = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    for (name, containers) in [("initContainers", inits), ("containers", regulars)] {
        if !containers.is_empty() {
            all.insert(name.to_owned(), containers.iter().map(one).collect());
        }
    }
    all.insert("generation".to_owned(), json!(generation));
    put(&mut all, "error", error);
    Value::Object(all)
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|v| !v.is_empty()) {
        map.insert(key.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{handler, text};

    #[test]
    fn a_hook_keeps_its_field_order_and_its_angle_brackets_are_escaped() {
        let hook = serde_json::from_value(json!({
            "httpGet": { "scheme": "HTTP", "port": "web", "path": "/a?b=1&c=<2>", "httpHeaders": [{ "name": "X", "value": "y" }] }
        }));
        let hook = hook.expect("a handler");
        let wanted = r#"{"httpGet":{"path":"/a?b=1\u0026c=\u003c2\u003e","port":"web","scheme":"HTTP","httpHeaders":[{"name":"X","value":"y"}]}}"#;
        assert_eq!(text(&handler(&hook)), wanted);
    }
}
