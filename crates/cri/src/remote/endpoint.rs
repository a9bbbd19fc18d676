//! Which socket an endpoint means.

use std::path::{Path, PathBuf};

/// An endpoint that we cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// kubelet 1.36: the same text.
    #[error("only support unix socket endpoint")]
    Tcp,
    /// kubelet 1.36: the same text.
    #[error("protocol {scheme:?} not supported")]
    Scheme { scheme: String },
    #[error("endpoint {endpoint:?} names no absolute path of a socket")]
    Path { endpoint: String },
}

/// The socket's path: of `unix:///run/x.sock`, or of a bare path (kubelet 1.36: still taken, deprecated).
pub(super) fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = match endpoint.split_once("://") {
        Some(("unix", path)) => path,
        Some(("tcp", _)) => return Err(EndpointError::Tcp),
        Some((scheme, _)) => return Err(EndpointError::Scheme { scheme: scheme.to_owned() }),
        // `unix:/run/x.sock` is a valid URL of the same meaning.
        None => endpoint.strip_prefix("unix:").unwrap_or(endpoint),
    };
    if Path::new(path).is_absolute() {
        Ok(PathBuf::from(path))
    } else {
        Err(EndpointError::Path { endpoint: endpoint.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_bare_paths_name_a_socket() {
        for endpoint in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            assert_eq!(socket_path(endpoint), Ok(PathBuf::from("/run/a.sock")), "{endpoint}");
        }
    }

    #[test]
    fn other_protocols_are_refused() {
        assert_eq!(socket_path("tcp://127.0.0.1:1").unwrap_err().to_string(), "only support unix socket endpoint");
        assert_eq!(socket_path("npipe://x").unwrap_err().to_string(), "protocol \"npipe\" not supported");
    }

    #[test]
    fn a_path_must_be_absolute() {
        for endpoint in ["", "run/a.sock", "unix://", "unix://run/a.sock"] {
            assert_eq!(socket_path(endpoint), Err(EndpointError::Path { endpoint: endpoint.to_owned() }));
        }
    }
}
