//! The API server, where the node has one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use rubelet_agent::Agent;
use rubelet_agent::certificates::{CertificateSettings, ClientSettings, ClientTask, ServingTask, client_settings};
use rubelet_agent::cluster::{Cluster, PodSettings};
use rubelet_agent::events::EventSettings;
use rubelet_agent::life::Life;
use rubelet_agent::metrics::Metrics;
use rubelet_agent::node::NodeSettings;
use rubelet_agent::references::{ReferenceSettings, Strategy};
use rubelet_api::gates::Gate;
use rubelet_apiserver::{Client, Rate, Settings};
use rubelet_core::certificate::Wish;
use rubelet_core::node::NodeFacts;
use rubelet_host::chain;
use tokio::sync::watch;

use super::node;
use crate::assemble::Assembled;
use crate::version::GIT_VERSION;

/// Whom the node asks, and as whom.
pub(super) struct Joined {
    /// For everything. Before the node has a certificate of its own it is refused.
    pub(super) client: Client,
    found: ClientSettings,
    certificates: CertificateSettings,
}

/// A client by `--kubeconfig` and `--bootstrap-kubeconfig`; `None` on a node of its own. Nothing is asked yet.
///
/// # Errors
/// What is wrong with the files, in words.
pub(super) fn join(assembled: &Assembled, metrics: &Arc<Metrics>) -> Result<Option<Joined>, String> {
    let Some(path) = &assembled.flags.kubeconfig else { return Ok(None) };
    let (node, is_rotating) = (&assembled.config.node, assembled.config.server.rotate_certificates);
    let certificates = CertificateSettings {
        folder: assembled.flags.cert_dir.clone(),
        node: assembled.node_name.clone(),
        seed: seed(assembled),
        metrics: metrics.clone(),
    };
    let bootstrap = assembled.flags.bootstrap_kubeconfig.as_deref();
    let mut found = client_settings(path, bootstrap, &certificates, is_rotating)
        .map_err(|error| format!("invalid kubeconfig: {}", chain(&error)))?;
    let user_agent = format!("kubelet/{GIT_VERSION} (linux/{})", architecture());
    if let Some(bootstrap) = &mut found.bootstrap {
        bootstrap.user_agent.clone_from(&user_agent);
    }
    let settings = Settings {
        rate: Rate::of_configuration(node.kube_api_qps, node.kube_api_burst),
        counts: metrics.client.clone(),
        user_agent,
        seed: certificates.seed,
        ..found.settings.clone()
    };
    let client = Client::connect(settings).map_err(|why| format!("invalid kubeconfig: {why}"))?;
    Ok(Some(Joined { client, found, certificates }))
}

/// What the agent's tasks are told of the API server.
///
/// # Errors
/// As [`node::presence`].
pub(super) fn cluster(assembled: &Assembled, joined: &Joined) -> Result<Cluster, String> {
    let config = &assembled.config;
    let (client, seed) = (joined.client.clone(), joined.certificates.seed);
    let references = ReferenceSettings {
        client: client.clone(),
        strategy: Strategy::of(&config.pods.change_detection),
        period: config.pods.sync_frequency.to_std(),
        seed,
    };
    let pods = PodSettings { client: client.clone(), seed };
    let event_rate = Rate::of_configuration(config.node.event_record_qps, config.node.event_burst);
    let events = EventSettings { client: client.with_limit(event_rate), seed };
    let node = NodeSettings {
        client,
        presence: node::presence(assembled)?,
        registers: config.node.register,
        gets_on_exists_only: assembled.gates.is_on(Gate::KubeletRegistrationGetOnExistsOnly),
        update_every: config.node.status_update_frequency.to_std(),
        report_every: config.node.status_report_frequency.to_std(),
        lease_secs: config.node.lease_duration_seconds,
        seed,
    };
    Ok(Cluster { references, events, node: Some(node), pods: Some(pods) })
}

/// Starts what gets and renews the node's certificates. Nobody waits for it.
///
/// # Errors
/// The bootstrap kubeconfig can't be used.
pub(super) fn keep_certificates(
    assembled: &Assembled,
    joined: &Joined,
    agent: &Agent,
    life: &Life,
) -> Result<(), String> {
    let server = &assembled.config.server;
    let Joined { client, found, certificates } = joined;
    if found.is_bootstrap_needed || server.rotate_certificates {
        let task = ClientTask::new(certificates.clone(), client.clone(), found, server.rotate_certificates)?;
        life.spawn(task.run());
    }
    let is_given = !server.tls_cert_file.is_empty() && !server.tls_private_key_file.is_empty();
    let is_renewed = assembled.gates.is_on(Gate::RotateKubeletServerCertificate);
    if server.enable && server.tls_bootstrap && !is_given && is_renewed {
        let are_names_enough = assembled.gates.is_on(Gate::AllowDNSOnlyNodeCSR);
        let (wishes, wish) = watch::channel(None);
        life.spawn(follow_addresses(agent.node.clone(), are_names_enough, wishes));
        let task = ServingTask { settings: certificates.clone(), client: client.clone(), wish };
        life.spawn(task.run());
    }
    Ok(())
}

/// The node is called in its certificate as the cluster calls it.
async fn follow_addresses(
    mut node: watch::Receiver<Arc<NodeFacts>>,
    are_names_enough: bool,
    wishes: watch::Sender<Option<Wish>>,
) {
    loop {
        let wish = wish(&node.borrow_and_update(), are_names_enough);
        wishes.send_if_modified(|known| {
            let is_news = *known != wish;
            *known = wish;
            is_news
        });
        if node.changed().await.is_err() {
            return;
        }
    }
}

/// kubelet 1.36: all addresses and names of the Node object, sorted.
fn wish(node: &NodeFacts, are_names_enough: bool) -> Option<Wish> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for one in &node.registered.addresses {
        match (one.address.parse::<IpAddr>(), one.type_.as_str()) {
            (Ok(ip), _) => addresses.push(ip),
            (Err(_), "Hostname" | "InternalDNS" | "ExternalDNS") => names.push(one.address.clone()),
            (Err(_), _) => {}
        }
    }
    names.sort();
    names.dedup();
    addresses.sort();
    addresses.dedup();
    Wish::of_server(&node.name, names, addresses, are_names_enough)
}

/// Another number on each node.
fn seed(assembled: &Assembled) -> u64 {
    let mut hasher = DefaultHasher::new();
    assembled.node_name.hash(&mut hasher);
    hasher.finish()
}

/// In Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
