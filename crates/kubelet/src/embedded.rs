//! The embedded runtime in this program: its settings from flags and configuration.

use rubelet_api::gather::Gather;
use rubelet_host::cgroup::Driver;
use rubelet_host::chain;
use rubelet_network::{Subnet, SubnetError};
use rubelet_runtime::image::Proxy;
use rubelet_runtime::image::hosts::HostsConfig;
use rubelet_runtime::{Creator, Embedded, Options, StartError};
use tracing::info;

use crate::own::EmbeddedFlags;
use crate::surroundings::Surroundings;

/// Starts it; pods that run go on.
///
/// # Errors
/// Why it does not start, in words.
pub(crate) async fn start(flags: &EmbeddedFlags, driver: Driver, around: &Surroundings) -> Result<Embedded, String> {
    try_start(flags, driver, around).await.map_err(|error| match error {
        Unstarted::Settings(text) => text,
        Unstarted::Runtime(error) => format!("embedded runtime: {}", chain(&error)),
    })
}

/// Why it did not start.
pub(crate) enum Unstarted {
    /// A flag cannot be used.
    Settings(String),
    Runtime(StartError),
}

/// As [`start`], with the reason.
pub(crate) async fn try_start(
    flags: &EmbeddedFlags,
    driver: Driver,
    around: &Surroundings,
) -> Result<Embedded, Unstarted> {
    let mut options = Options::at(&flags.root_dir, &flags.run_dir);
    options.cgroup_driver = driver;
    if !flags.pod_cidrs.is_empty() {
        let parse = |text: &String| {
            text.parse().map_err(|error: SubnetError| format!("--embedded-pod-cidrs: {}", chain(&error)))
        };
        let subnets = flags.pod_cidrs.iter().map(parse).collect::<Result<Vec<Subnet>, _>>();
        options.network.subnets = subnets.map_err(Unstarted::Settings)?;
    }
    options.creator = Creator::from(flags.oci_runtime.as_str());
    options.handlers = flags.handlers.iter().map(|(name, it)| (name.clone(), Creator::from(it.as_str()))).into_map();
    if let Some(path) = around.variable("PATH") {
        path.clone_into(&mut options.program_path);
    }
    options.import_dir = flags.import_dir.is_dir().then(|| flags.import_dir.clone());
    options.images.hosts = HostsConfig { dirs: flags.hosts_dirs.clone(), ..HostsConfig::default() };
    options.images.proxy = proxy(around);
    let embedded = Embedded::start(options).await.map_err(Unstarted::Runtime)?;
    info!(root = %flags.root_dir.display(), run = %flags.run_dir.display(), "Embedded container runtime started");
    Ok(embedded)
}

/// The variables in both spellings; the one in capitals wins, as with Go's programs.
fn proxy(around: &Surroundings) -> Proxy {
    let variable = |name: &str| {
        let found = around.variable(name).or_else(|| around.variable(&name.to_lowercase()));
        found.unwrap_or_default().to_owned()
    };
    Proxy { http: variable("HTTP_PROXY"), https: variable("HTTPS_PROXY"), no: variable("NO_PROXY") }
}
