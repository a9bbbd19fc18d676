//! Networks by CNI plugins: configurations of versions 0.3 to 1.1, run one after the other as libcni does.

use std::net::IpAddr;
use std::path::Path;

use rubelet_host::chain;
use serde_json::{Map, Value, json};

use crate::link::{ETH0, Shape};
use crate::{Attached, NetworkError, Options, PortMapping, Wanted};

mod call;
pub(crate) mod list;
mod record;

#[cfg(test)]
mod tests;

use call::{Call, Verb};
pub(crate) use list::{List, configured};
use record::Record;

/// Adds a pod to the network; its addresses. What was begun is taken back if it fails.
pub(crate) fn add(
    options: &Options,
    list: &List,
    wanted: &Wanted<'_>,
    namespace: &Path,
) -> Result<Attached, NetworkError> {
    let pod = format!("{}/{}", wanted.namespace, wanted.name);
    let mut record = Record::new(pod, list, arguments(wanted), capabilities(wanted)?);
    record.write(options, wanted.id)?;
    options.reached("cni.recorded");
    let added = run_all(options, list, wanted.id, namespace, &record).and_then(|(result, addresses)| {
        record.result = result;
        record.write(options, wanted.id)?;
        options.reached("cni.result");
        record.write_cache(options, &list.name, wanted.id, namespace)?;
        Ok(Attached { addresses })
    });
    if added.is_err()
        && let Err(second) = del(options, wanted.id, namespace)
    {
        tracing::warn!(pod = record.pod, err = %chain(&second), "what was begun of a pod's network is still there");
    }
    added
}

/// The result of all plugins, and its addresses.
fn run_all(
    options: &Options,
    list: &List,
    id: &str,
    namespace: &Path,
    record: &Record,
) -> Result<(Option<Value>, Vec<IpAddr>), NetworkError> {
    let call = Call { options, verb: Verb::Add, list, pod: Some((id, namespace, record)), extra: Map::new() };
    let mut result = None;
    for plugin in &list.plugins {
        let said = call.run(plugin, result.as_ref())?;
        result = said.or(result);
        options.reached("cni.plugin");
    }
    let addresses = addresses(result.as_ref());
    if addresses.is_empty() {
        let last = list.types().last().unwrap_or_default();
        return Err(call.failed(last, "the result has no address".to_owned()));
    }
    Ok((result, addresses))
}

/// Removes a pod from the network by which it was added. One that plugins have not added is no error.
pub(crate) fn del(options: &Options, id: &str, namespace: &Path) -> Result<(), NetworkError> {
    let Some(record) = Record::read(options, id)? else { return Ok(()) };
    let list = record.list(options, id)?;
    let pod = Some((id, namespace, &record));
    let call = Call { options, verb: Verb::Del, list: &list, pod, extra: Map::new() };
    // Plugins of earlier versions do not expect a result.
    let before = record.result.as_ref().filter(|_| list.version.as_str() >= "0.4.0");
    for plugin in list.plugins.iter().rev() {
        call.run(plugin, before)?;
        options.reached("cni.plugin");
    }
    record::remove_cache(options, &list.name, id)?;
    Record::remove(options, id)
}

/// Asks the plugins whether a pod still has what they gave it. `None`: they have given it nothing.
pub(crate) fn check(options: &Options, id: &str, namespace: &Path) -> Result<Option<()>, NetworkError> {
    let Some(record) = Record::read(options, id)? else { return Ok(None) };
    let list = record.list(options, id)?;
    let Some(result) = record.result.as_ref() else {
        let what = "it was attached in part only".to_owned();
        return Err(NetworkError::Broken { pod: record.pod, what });
    };
    if list.may_check() {
        let pod = Some((id, namespace, &record));
        let call = Call { options, verb: Verb::Check, list: &list, pod, extra: Map::new() };
        for plugin in &list.plugins {
            call.run(plugin, Some(result))?;
        }
    }
    Ok(Some(()))
}

/// Whether all plugins are installed and, where their version can say it, ready.
pub(crate) fn status(options: &Options, list: &List) -> Result<(), String> {
    let missing = list.types().find(|kind| call::find(&options.cni_bin_dirs, kind).is_none());
    if let Some(kind) = missing {
        return Err(format!("cni plugin {kind:?} of network {:?} is not installed", list.name));
    }
    if list.may_ask_status() {
        let call = Call { options, verb: Verb::Status, list, pod: None, extra: Map::new() };
        for plugin in &list.plugins {
            call.run(plugin, None).map_err(|e| chain(&e))?;
        }
    }
    Ok(())
}

/// Sandboxes that plugins have attached.
pub(crate) fn ids(options: &Options) -> Result<Vec<String>, NetworkError> {
    record::ids(options)
}

/// Has the plugins remove what belongs to none of the living, where their version can. What other programs have attached to the same
/// network, as libcni's cache knows it, stays.
pub(crate) fn collect(options: &Options, living: &[&str]) -> Result<(), NetworkError> {
    let Some(list) = configured(options)?.filter(List::may_collect) else { return Ok(()) };
    let own = ids(options)?;
    let mut valid: Vec<(String, String)> = record::in_cache(options, &list.name)?;
    valid.retain(|(id, _)| !own.contains(id));
    valid.extend(own.into_iter().filter(|id| living.contains(&id.as_str())).map(|id| (id, ETH0.to_owned())));
    let attachments: Vec<Value> = valid.iter().map(|(id, link)| json!({"containerID": id, "ifname": link})).collect();
    let extra = Map::from_iter([("cni.dev/valid-attachments".to_owned(), Value::Array(attachments))]);
    let call = Call { options, verb: Verb::Gc, list: &list, pod: None, extra };
    for plugin in &list.plugins {
        call.run(plugin, None)?;
    }
    Ok(())
}

/// What containerd tells plugins of a pod.
fn arguments(wanted: &Wanted<'_>) -> Vec<(String, String)> {
    [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", wanted.namespace),
        ("K8S_POD_NAME", wanted.name),
        ("K8S_POD_INFRA_CONTAINER_ID", wanted.id),
        ("K8S_POD_UID", wanted.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

fn capabilities(wanted: &Wanted<'_>) -> Result<Map<String, Value>, NetworkError> {
    let mut all = Map::new();
    let port = |port: &PortMapping| {
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        json!({
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.name(),
            "hostIP": ip,
        })
    };
    if !wanted.ports.is_empty() {
        all.insert("portMappings".to_owned(), wanted.ports.iter().map(port).collect());
    }
    let shape = Shape::of(wanted.annotations)?;
    let mut bandwidth = Map::new();
    for (direction, rate) in [("ingress", shape.to_pod), ("egress", shape.from_pod)] {
        if let Some(bits) = rate {
            bandwidth.insert(format!("{direction}Rate"), json!(bits));
            bandwidth.insert(format!("{direction}Burst"), json!(u32::MAX));
        }
    }
    if !bandwidth.is_empty() {
        all.insert("bandwidth".to_owned(), Value::Object(bandwidth));
    }
    let dns = json!({"servers": wanted.dns_servers, "searches": wanted.dns_searches, "options": wanted.dns_options});
    if !wanted.dns_servers.is_empty() || !wanted.dns_searches.is_empty() || !wanted.dns_options.is_empty() {
        all.insert("dns".to_owned(), dns);
    }
    Ok(all)
}

/// Addresses of the pod's own interface, as results of versions 0.3 to 1.1 have them.
pub(crate) fn addresses(result: Option<&Value>) -> Vec<IpAddr> {
    let Some(result) = result else { return Vec::new() };
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let is_pods = |index: Option<u64>| match (index.and_then(|i| usize::try_from(i).ok()), interfaces) {
        (Some(at), Some(all)) => all.get(at).is_none_or(|one| {
            let has_sandbox = one.get("sandbox").and_then(Value::as_str).is_some_and(|s| !s.is_empty());
            has_sandbox && one.get("name").and_then(Value::as_str) == Some(ETH0)
        }),
        (_, _) => true,
    };
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter(|ip| is_pods(ip.get("interface").and_then(Value::as_u64)))
        .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}
