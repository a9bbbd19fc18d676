//! Which ports are served, and to whom.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rubelet_api::gates::Gate;
use rubelet_server::{
    Authentication, AuthorizationMode, CacheTimes, Certificate, ServerConfig, TlsFiles, TlsServerConfig, TlsVersion,
};
use tracing::warn;

use crate::assemble::Assembled;

/// In `--cert-dir`: key and certificate, a link that is changed when they are renewed; from kubelet 1.36.
const ROTATED: &str = "kubelet-server-current.pem";

/// Below `--root-dir`; from kubelet 1.36.
const POD_RESOURCES: &str = "pod-resources/kubelet.sock";

/// The listeners of the configuration; a port of 0 is none.
///
/// # Errors
/// An address that is none.
pub(super) fn config(assembled: &Assembled) -> Result<ServerConfig, String> {
    let server = &assembled.config.server;
    let healthz = place("healthzBindAddress", &server.healthz_bind_address, server.healthz_port)?;
    let pod_resources = Some(assembled.flags.root_dir.join(POD_RESOURCES));
    if !server.enable {
        return Ok(ServerConfig { healthz, pod_resources, ..ServerConfig::default() });
    }
    let read_only = place("address", &server.address, server.read_only_port)?;
    let tls = place("address", &server.address, server.port)?.map(|address| tls(assembled, address));
    Ok(ServerConfig { healthz, read_only, tls, pod_resources })
}

fn tls(assembled: &Assembled, address: SocketAddr) -> TlsServerConfig {
    let server = &assembled.config.server;
    let (authentication, authorization) = (&server.authentication, &server.authorization);
    TlsServerConfig {
        address,
        certificate: certificate(assembled),
        cert_dir: assembled.flags.cert_dir.clone(),
        host_name: assembled.node_name.clone(),
        node_name: assembled.node_name.clone(),
        min_version: min_version(&server.tls_min_version),
        cipher_suites: server.tls_cipher_suites.clone(),
        curves: server.tls_curve_preferences.iter().filter_map(|&curve| u16::try_from(curve).ok()).collect(),
        authentication: Authentication {
            anonymous: authentication.anonymous.enabled,
            client_ca_file: path(&authentication.x509.client_ca_file),
            webhook: authentication.webhook.enabled,
            reads_certificate_uids: assembled.gates.is_on(Gate::AllowParsingUserUIDFromCertAuth),
        },
        authorization: match authorization.mode.as_str() {
            "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
            _ => AuthorizationMode::Webhook,
        },
        cache_times: CacheTimes {
            token: authentication.webhook.cache_ttl.to_std(),
            allowed: authorization.webhook.cache_authorized_ttl.to_std(),
            refused: authorization.webhook.cache_unauthorized_ttl.to_std(),
        },
        has_debugging: server.enable_debugging_handlers,
    }
}

/// kubelet 1.36: given files first; else the one that the API server signs, where it is asked; else a self-made one.
fn certificate(assembled: &Assembled) -> Certificate {
    let server = &assembled.config.server;
    match path(&server.tls_cert_file).zip(path(&server.tls_private_key_file)) {
        Some((certificate, key)) => Certificate::Files(TlsFiles { certificate, key }),
        None if server.tls_bootstrap => Certificate::Rotated(assembled.flags.cert_dir.join(ROTATED)),
        None => Certificate::SelfSigned,
    }
}

fn min_version(name: &str) -> TlsVersion {
    match name {
        "VersionTLS13" => TlsVersion::Tls13,
        "VersionTLS10" | "VersionTLS11" => {
            warn!(tlsMinVersion = name, "TLS older than 1.2 is not spoken; 1.2 is the oldest");
            TlsVersion::Tls12
        }
        _ => TlsVersion::Tls12,
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn place(field: &str, address: &str, port: i32) -> Result<Option<SocketAddr>, String> {
    let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else { return Ok(None) };
    let address: IpAddr = address.parse().map_err(|_| format!("{field}: {address:?} is no IP address"))?;
    Ok(Some(SocketAddr::new(address, port)))
}
