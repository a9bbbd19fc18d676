//! TCP connections and their errors in Go's words, which users' alerts match on.

use std::io;

use tokio::net::{TcpStream, lookup_host};

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects to the first address that answers. The error is that of the first one, as `dial tcp ADDRESS: REASON`.
pub(super) async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match lookup_host((bare, port)).await {
        Ok(addresses) => addresses,
        Err(e) => return Err(format!("dial tcp: lookup {bare}: {}", reason(&e))),
    };
    let mut first = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(e) => first = first.or(Some(format!("dial tcp {address}: connect: {}", reason(&e)))),
        }
    }
    Err(first.unwrap_or_else(|| format!("dial tcp: lookup {bare}: no such host")))
}

/// The system's text without its number, beginning with a small letter.
pub(super) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    if text.contains("failed to lookup address") {
        return "no such host".to_owned();
    }
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}
