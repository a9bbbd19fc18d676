//! Which ports are served, and to whom.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rubelet_server::{Authentication, AuthorizationMode, ServerConfig, TlsFiles, TlsServerConfig, TlsVersion};

use crate::assemble::Assembled;

/// The listeners of the configuration; a port of 0 is none.
///
/// # Errors
/// An address that is none.
pub(super) fn config(assembled: &Assembled) -> Result<ServerConfig, String> {
    let server = &assembled.config.server;
    let healthz = place("healthzBindAddress", &server.healthz_bind_address, server.healthz_port)?;
    if !server.enable {
        return Ok(ServerConfig { healthz, ..ServerConfig::default() });
    }
    let read_only = place("address", &server.address, server.read_only_port)?;
    let tls = place("address", &server.address, server.port)?.map(|address| tls(assembled, address));
    Ok(ServerConfig { healthz, read_only, tls })
}

fn tls(assembled: &Assembled, address: SocketAddr) -> TlsServerConfig {
    let server = &assembled.config.server;
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let files = path(&server.tls_cert_file).zip(path(&server.tls_private_key_file));
    TlsServerConfig {
        address,
        files: files.map(|(certificate, key)| TlsFiles { certificate, key }),
        cert_dir: assembled.flags.cert_dir.clone(),
        host_name: assembled.node_name.clone(),
        min_version: if server.tls_min_version == "VersionTLS13" { TlsVersion::Tls13 } else { TlsVersion::Tls12 },
        cipher_suites: server.tls_cipher_suites.clone(),
        authentication: Authentication {
            anonymous: server.authentication.anonymous.enabled,
            client_ca_file: path(&server.authentication.x509.client_ca_file),
            webhook: server.authentication.webhook.enabled,
        },
        authorization: match server.authorization.mode.as_str() {
            "AlwaysAllow" => AuthorizationMode::AlwaysAllow,
            _ => AuthorizationMode::Webhook,
        },
        has_debugging: server.enable_debugging_handlers,
    }
}

fn place(field: &str, address: &str, port: i32) -> Result<Option<SocketAddr>, String> {
    let Some(port) = u16::try_from(port).ok().filter(|port| *port > 0) else { return Ok(None) };
    let address: IpAddr = address.parse().map_err(|_| format!("{field}: {address:?} is no IP address"))?;
    Ok(Some(SocketAddr::new(address, port)))
}
