//! Services as environment variables.

use std::net::IpAddr;

use rubelet_api::v1;

/// What the environment tells of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Never empty, never `None`.
    pub cluster_ip: String,
    pub ports: Vec<ServicePort>,
}

/// One port of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Only a single port may have none.
    pub name: String,
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// kubelet 1.36: the one service that all namespaces see, whatever `enableServiceLinks` says.
const MASTER: (&str, &str) = ("default", "kubernetes");

impl Service {
    /// `None` for a service without an address of its own, or without ports: it gives no variables.
    pub fn of(service: &v1::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
        let ports: Vec<ServicePort> = spec
            .ports
            .iter()
            .flatten()
            .map(|p| ServicePort {
                name: p.name.clone().unwrap_or_default(),
                port: p.port,
                protocol: p.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".to_owned()),
            })
            .collect();
        Some(Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
            cluster_ip,
            ports,
        })
        .filter(|s| !s.ports.is_empty())
    }

    /// Whether pods of this namespace may see it.
    pub fn is_seen_from(&self, namespace: &str) -> bool {
        self.namespace == namespace || self.is_master()
    }

    fn is_master(&self) -> bool {
        (self.namespace.as_str(), self.name.as_str()) == MASTER
    }
}

/// The variables of the services that a pod of this namespace sees.
///
/// kubelet 1.36: those of its namespace only with `enableServiceLinks`; a service of its own called `kubernetes` stands
/// before the cluster's.
pub(crate) fn variables(services: &[Service], namespace: &str, has_links: bool) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for service in services {
        let is_linked = has_links && service.namespace == namespace;
        let is_hidden = service.namespace != namespace
            && has_links
            && services.iter().any(|own| own.namespace == namespace && own.name == service.name);
        if is_linked || (service.is_master() && !is_hidden) {
            of_one(&mut all, service);
        }
    }
    all
}

fn of_one(all: &mut Vec<(String, String)>, service: &Service) {
    let name = as_variable(&service.name);
    let Some(first) = service.ports.first() else { return };
    all.push((format!("{name}_SERVICE_HOST"), service.cluster_ip.clone()));
    all.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    for port in service.ports.iter().filter(|p| !p.name.is_empty()) {
        all.push((format!("{name}_SERVICE_PORT_{}", as_variable(&port.name)), port.port.to_string()));
    }
    for (nth, port) in service.ports.iter().enumerate() {
        let protocol = port.protocol.to_lowercase();
        let url = format!("{protocol}://{}", host_port(&service.cluster_ip, port.port));
        if nth == 0 {
            all.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
        all.push((prefix.clone(), url));
        all.push((format!("{prefix}_PROTO"), protocol));
        all.push((format!("{prefix}_PORT"), port.port.to_string()));
        all.push((format!("{prefix}_ADDR"), service.cluster_ip.clone()));
    }
}

fn as_variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn host_port(host: &str, port: i32) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, spec: serde_json::Value) -> Option<Service> {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        Service::of(&serde_json::from_value(object).expect("a service"))
    }

    #[test]
    fn a_service_becomes_upstreams_variables() {
        let ports = json!([{"name": "tcp", "port": 6379}, {"name": "http-alt", "port": 8081, "protocol": "UDP"}]);
        let redis = service("default", "redis-main", json!({"clusterIP": "10.96.7.7", "ports": ports})).expect("one");
        let all = variables(&[redis], "default", true);
        let get = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        for (name, wanted) in [
            ("REDIS_MAIN_PORT", "tcp://10.96.7.7:6379"),
            ("REDIS_MAIN_PORT_6379_TCP", "tcp://10.96.7.7:6379"),
            ("REDIS_MAIN_PORT_6379_TCP_ADDR", "10.96.7.7"),
            ("REDIS_MAIN_PORT_6379_TCP_PORT", "6379"),
            ("REDIS_MAIN_PORT_6379_TCP_PROTO", "tcp"),
            ("REDIS_MAIN_PORT_8081_UDP", "udp://10.96.7.7:8081"),
            ("REDIS_MAIN_PORT_8081_UDP_PROTO", "udp"),
            ("REDIS_MAIN_SERVICE_HOST", "10.96.7.7"),
            ("REDIS_MAIN_SERVICE_PORT", "6379"),
            ("REDIS_MAIN_SERVICE_PORT_HTTP_ALT", "8081"),
            ("REDIS_MAIN_SERVICE_PORT_TCP", "6379"),
        ] {
            assert_eq!(get(name), Some(wanted), "{name}");
        }
        assert_eq!(all.len(), 13);
    }

    #[test]
    fn only_the_master_is_seen_without_links() {
        let one = |namespace, name, ip| {
            service(namespace, name, json!({"clusterIP": ip, "ports": [{"port": 443}]})).expect("one")
        };
        let all = [one("default", "kubernetes", "10.0.0.1"), one("a", "web", "10.0.0.2"), one("b", "web", "10.0.0.3")];
        let hosts = |namespace, links| {
            let all = variables(&all, namespace, links);
            all.into_iter().filter(|(n, _)| n.ends_with("_HOST")).map(|(_, v)| v).collect::<Vec<_>>()
        };
        assert_eq!(hosts("a", false), ["10.0.0.1"]);
        assert_eq!(hosts("a", true), ["10.0.0.1", "10.0.0.2"]);
        assert!(service("a", "headless", json!({"clusterIP": "None", "ports": [{"port": 1}]})).is_none());
        let v6 = one("a", "six", "fd00::1");
        assert!(variables(&[v6], "a", true).contains(&("SIX_PORT".to_owned(), "tcp://[fd00::1]:443".to_owned())));
    }
}
