//! Names of the versions, and which one both sides speak.

use crate::websocket::Coding;

/// SPDY versions of exec and attach, best first. Version 5 is version 4 for SPDY, whose streams have ends anyway.
pub(crate) const REMOTE_COMMAND: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// SPDY versions of port-forward.
pub(crate) const PORT_FORWARD: [&str; 1] = ["portforward.k8s.io"];

/// SPDY port-forward within messages of a WebSocket.
pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// WebSocket versions of exec and attach. A client that names none gets the first.
pub(crate) const WEBSOCKET_REMOTE_COMMAND: [&str; 6] = [
    "",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v5.channel.k8s.io",
];

/// WebSocket versions of port-forward. A client that names none gets the first.
pub(crate) const WEBSOCKET_PORT_FORWARD: [&str; 4] = ["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", TUNNEL];

/// Streams that carry a terminal's size exist from version 3 on.
pub(crate) fn has_resize(protocol: &str) -> bool {
    !matches!(protocol, "channel.k8s.io" | "v2.channel.k8s.io")
}

/// The end is told as `metav1.Status` from version 4 on, before as a text if something failed.
pub(crate) fn has_status(protocol: &str) -> bool {
    protocol.starts_with("v4.") || protocol.starts_with("v5.")
}

/// What messages of a WebSocket version are made of.
pub(crate) fn coding(protocol: &str) -> Coding {
    match protocol {
        "base64.channel.k8s.io" | "v4.base64.channel.k8s.io" => Coding::Base64,
        "v5.channel.k8s.io" => Coding::BinaryWithClose,
        TUNNEL => Coding::Plain,
        _ => Coding::Binary,
    }
}

/// The client's favourite of those that we speak.
pub(crate) fn choose<'a>(offered: &[String], spoken: &[&'a str]) -> Option<&'a str> {
    offered.iter().find_map(|name| spoken.iter().copied().find(|known| known == name))
}
