//! Networks by CNI plugins: configurations of versions 0.3 to 1.1, results in libcni's cache so that other programs find them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::{NetworkError, Options, Protocol, Wanted, file_error};

mod exec;

#[cfg(test)]
mod tests;

/// The interface that a pod gets.
const INTERFACE: &str = "eth0";
/// Bytes of a configuration at most.
const CONFIGURATION_MAX: u64 = 1 << 20;

/// A configuration: one plugin after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct List {
    pub(crate) name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl List {
    /// A `.conflist`, or a `.conf` with one plugin.
    fn parse(text: &[u8], path: &Path) -> Result<Self, NetworkError> {
        let wrong = |problem: &str| NetworkError::Configuration { path: path.to_owned(), problem: problem.to_owned() };
        let value: Value = serde_json::from_slice(text).map_err(|e| wrong(&e.to_string()))?;
        let Value::Object(all) = value else { return Err(wrong("it is no object")) };
        let word = |name: &str| all.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = word("name");
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(is_fine) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(wrong(&format!("{name:?} is not the name of a network")));
        }
        let version = match word("cniVersion") {
            none if none.is_empty() => "0.2.0".to_owned(),
            version => version,
        };
        let plugins: Vec<Map<String, Value>> = match all.get("plugins") {
            Some(Value::Array(plugins)) => plugins.iter().filter_map(|p| p.as_object().cloned()).collect(),
            Some(_) => return Err(wrong("its plugins are no list")),
            None => vec![all],
        };
        let has_type = |plugin: &Map<String, Value>| plugin.get("type").is_some_and(Value::is_string);
        if plugins.is_empty() || !plugins.iter().all(has_type) {
            return Err(wrong("it has no plugin, or one without a type"));
        }
        Ok(Self { name, version, plugins })
    }

    fn types(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().filter_map(|plugin| plugin.get("type").and_then(Value::as_str))
    }
}

/// The first configuration of the directory, in the order of the files' names.
pub(crate) fn configured(options: &Options) -> Result<Option<List>, NetworkError> {
    let dir = &options.cni_conf_dir;
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(file_error("read", dir))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| ["conf", "conflist", "json"].iter().any(|k| e == *k)));
    paths.sort();
    let Some(path) = paths.first() else { return Ok(None) };
    let size = fs::metadata(path).map_err(file_error("look at", path))?.len();
    if size > CONFIGURATION_MAX {
        let problem = format!("{size} bytes, at most {CONFIGURATION_MAX}");
        return Err(NetworkError::Configuration { path: path.clone(), problem });
    }
    let text = fs::read(path).map_err(file_error("read", path))?;
    List::parse(&text, path).map(Some)
}

/// Whether all plugins are installed.
pub(crate) fn check_plugins(options: &Options, list: &List) -> Result<(), String> {
    let missing = list.types().find(|kind| exec::find(&options.cni_bin_dirs, kind).is_none());
    missing.map_or(Ok(()), |kind| Err(format!("cni plugin {kind:?} of network {:?} is not installed", list.name)))
}

/// What is the same in all calls for one pod.
struct Call<'a> {
    options: &'a Options,
    id: &'a str,
    namespace: &'a Path,
    args: String,
    /// Values for the plugins that have these capabilities.
    capabilities: Map<String, Value>,
}

impl Call<'_> {
    /// Runs one plugin; its result, if it printed one.
    fn run(
        &self,
        verb: &'static str,
        list: &List,
        plugin: &Map<String, Value>,
        before: Option<&Value>,
    ) -> Result<Option<Value>, NetworkError> {
        let mut configuration = plugin.clone();
        configuration.insert("name".to_owned(), json!(list.name));
        configuration.insert("cniVersion".to_owned(), json!(list.version));
        let wanted = plugin.get("capabilities").and_then(Value::as_object);
        let has = |name: &str| wanted.and_then(|w| w.get(name)).and_then(Value::as_bool).unwrap_or(false);
        let given: Map<String, Value> =
            self.capabilities.iter().filter(|(name, _)| has(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        configuration.remove("capabilities");
        if !given.is_empty() {
            configuration.insert("runtimeConfig".to_owned(), Value::Object(given));
        }
        if let Some(before) = before {
            configuration.insert("prevResult".to_owned(), before.clone());
        }
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let failed =
            |said: String| NetworkError::Plugin { plugin: kind.to_owned(), network: list.name.clone(), verb, said };
        let program = exec::find(&self.options.cni_bin_dirs, kind).ok_or_else(|| {
            let dirs: Vec<String> = self.options.cni_bin_dirs.iter().map(|d| d.display().to_string()).collect();
            failed(format!("failed to find plugin {kind:?} in path [{}]", dirs.join(" ")))
        })?;
        let path = std::env::join_paths(&self.options.cni_bin_dirs).unwrap_or_default();
        let environment = [
            ("CNI_COMMAND", verb.into()),
            ("CNI_CONTAINERID", self.id.into()),
            ("CNI_NETNS", if self.namespace.exists() { self.namespace.as_os_str().to_owned() } else { "".into() }),
            ("CNI_IFNAME", INTERFACE.into()),
            ("CNI_ARGS", self.args.clone().into()),
            ("CNI_PATH", path),
        ];
        let text = serde_json::to_vec(&configuration).map_err(|e| failed(e.to_string()))?;
        let said = exec::run(&program, &environment, text).map_err(failed)?;
        if said.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(&said).map(Some).map_err(|e| failed(format!("its result is not understood: {e}")))
    }
}

/// Adds a pod to the network; its addresses.
pub(crate) fn add(
    options: &Options,
    list: &List,
    wanted: &Wanted<'_>,
    namespace: &Path,
) -> Result<Vec<IpAddr>, NetworkError> {
    let capabilities = capabilities(wanted)?;
    let args = arguments(wanted);
    let text: Vec<String> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let call = Call { options, id: wanted.id, namespace, args: text.join(";"), capabilities: capabilities.clone() };
    let mut cached = Cached { list: list.clone(), args, capabilities, result: None };
    // Before anything is made: what is half made is taken back with the same configuration.
    cached.write(options, wanted.id)?;
    let mut result = None;
    for plugin in &list.plugins {
        let said = call.run("ADD", list, plugin, result.as_ref())?;
        result = said.or(result);
    }
    cached.result = result;
    cached.write(options, wanted.id)?;
    let addresses = addresses(cached.result.as_ref());
    if addresses.is_empty() {
        let last = list.types().last().unwrap_or_default().to_owned();
        let said = "the result has no address".to_owned();
        return Err(NetworkError::Plugin { plugin: last, network: list.name.clone(), verb: "ADD", said });
    }
    Ok(addresses)
}

/// Removes a pod from the network by which it was added, as the cache knows it.
pub(crate) fn del(options: &Options, id: &str, namespace: &Path) -> Result<(), NetworkError> {
    let Some((path, cached)) = Cached::find(options, id)? else { return Ok(()) };
    let args: Vec<String> = cached.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let call = Call { options, id, namespace, args: args.join(";"), capabilities: cached.capabilities.clone() };
    for plugin in cached.list.plugins.iter().rev() {
        call.run("DEL", &cached.list, plugin, cached.result.as_ref())?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error("remove", &path)(e)),
        _ => Ok(()),
    }
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
    let port = |port: &crate::PortMapping| {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": ip})
    };
    if !wanted.ports.is_empty() {
        all.insert("portMappings".to_owned(), wanted.ports.iter().map(port).collect());
    }
    let mut bandwidth = Map::new();
    for direction in ["ingress", "egress"] {
        let name = format!("kubernetes.io/{direction}-bandwidth");
        if let Some(text) = wanted.annotations.get(&name) {
            let bits = bits_per_second(text)
                .ok_or_else(|| NetworkError::Unsupported(format!("annotation {name}: {text:?} is not a rate")))?;
            bandwidth.insert(format!("{direction}Rate"), json!(bits));
            bandwidth.insert(format!("{direction}Burst"), json!(i32::MAX));
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

/// A quantity of bits: `1M`, `500k`, `1Gi`.
fn bits_per_second(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..)? {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Addresses of the pod's own interface, as results of versions 0.3 to 1.1 have them.
fn addresses(result: Option<&Value>) -> Vec<IpAddr> {
    let Some(result) = result else { return Vec::new() };
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let is_pods = |index: Option<u64>| match (index.and_then(|i| usize::try_from(i).ok()), interfaces) {
        (Some(at), Some(all)) => all.get(at).is_none_or(|one| {
            let has_sandbox = one.get("sandbox").and_then(Value::as_str).is_some_and(|s| !s.is_empty());
            has_sandbox && one.get("name").and_then(Value::as_str) == Some(INTERFACE)
        }),
        (_, _) => true,
    };
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter(|ip| is_pods(ip.get("interface").and_then(Value::as_u64)))
        .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}

/// libcni's record of one attachment.
struct Cached {
    list: List,
    args: Vec<(String, String)>,
    capabilities: Map<String, Value>,
    result: Option<Value>,
}

impl Cached {
    fn dir(options: &Options) -> PathBuf {
        options.cni_cache_dir.join("results")
    }

    fn write(&self, options: &Options, id: &str) -> Result<(), NetworkError> {
        let dir = Self::dir(options);
        fs::create_dir_all(&dir).map_err(file_error("create", &dir))?;
        let path = dir.join(format!("{}-{id}-{INTERFACE}", self.list.name));
        let config = json!({"name": self.list.name, "cniVersion": self.list.version, "plugins": self.list.plugins});
        let record = json!({
            "kind": "cniCacheV1",
            "containerId": id,
            "config": BASE64_STANDARD.encode(config.to_string()),
            "ifName": INTERFACE,
            "networkName": self.list.name,
            "cniArgs": self.args.iter().map(|(key, value)| json!([key, value])).collect::<Vec<_>>(),
            "capabilityArgs": self.capabilities,
            "result": self.result,
        });
        let beside = dir.join(format!(".{id}.new"));
        fs::write(&beside, record.to_string()).map_err(file_error("write", &beside))?;
        fs::rename(&beside, &path).map_err(file_error("rename to", &path))
    }

    fn find(options: &Options, id: &str) -> Result<Option<(PathBuf, Self)>, NetworkError> {
        let dir = Self::dir(options);
        let end = format!("-{id}-{INTERFACE}");
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(file_error("read", &dir))?,
        };
        let found = entries.flatten().map(|e| e.path()).find(|path| path.to_string_lossy().ends_with(&end));
        let Some(path) = found else { return Ok(None) };
        let text = fs::read(&path).map_err(file_error("read", &path))?;
        let wrong = || NetworkError::Configuration { path: path.clone(), problem: "damaged".to_owned() };
        let record: Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
        let config = record
            .get("config")
            .and_then(Value::as_str)
            .and_then(|text| BASE64_STANDARD.decode(text).ok())
            .ok_or_else(wrong)?;
        let pair = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
        let args = record.get("cniArgs").and_then(Value::as_array).into_iter().flatten();
        let cached = Self {
            list: List::parse(&config, &path)?,
            args: args.filter_map(pair).collect(),
            capabilities: record.get("capabilityArgs").and_then(Value::as_object).cloned().unwrap_or_default(),
            result: record.get("result").filter(|r| !r.is_null()).cloned(),
        };
        Ok(Some((path, cached)))
    }
}
