//! What the node serves over HTTP, and to whom.

use super::field::section;
use crate::duration::Duration;

section! {
    /// What the node serves over HTTP, and to whom.
    Server as "KubeletConfiguration" {
        /// Whether the ports for others are served at all.
        "enableServer" enable: pointer bool = true;
        /// Address of `port` and `read_only_port`.
        "address" address: plain String = "0.0.0.0";
        /// TLS port.
        "port" port: plain i32 = 10250;
        /// Port without TLS and without questions; 0: none.
        "readOnlyPort" read_only_port: plain i32;
        /// Certificate chain in PEM; a self-made one when empty.
        "tlsCertFile" tls_cert_file: plain String;
        /// Its key in PEM.
        "tlsPrivateKeyFile" tls_private_key_file: plain String;
        /// Names of cipher suites; all good ones when empty.
        "tlsCipherSuites" tls_cipher_suites: plain Vec<String>;
        /// Numbers of curves, by IANA.
        "tlsCurvePreferences" tls_curve_preferences: plain Vec<i32>;
        /// `VersionTLS12` or `VersionTLS13`.
        "tlsMinVersion" tls_min_version: plain String;
        /// Whether the client certificate is renewed.
        "rotateCertificates" rotate_certificates: plain bool;
        /// Whether the serving certificate is asked of the API server.
        "serverTLSBootstrap" tls_bootstrap: plain bool;
        /// Who callers are.
        "authentication" authentication: always Authentication;
        /// What callers may.
        "authorization" authorization: always Authorization;
        /// Whether pods can be reached through the node: logs, exec and the like.
        "enableDebuggingHandlers" enable_debugging_handlers: pointer bool = true;
        /// Whether contention is measured.
        "enableContentionProfiling" enable_contention_profiling: plain bool;
        /// Whether `/debug/pprof` is served.
        "enableProfilingHandler" enable_profiling_handler: pointer bool = true;
        /// Whether `/debug/flags/v` is served.
        "enableDebugFlagsHandler" enable_debug_flags_handler: pointer bool = true;
        /// Whether `/logs/` is served.
        "enableSystemLogHandler" enable_system_log_handler: pointer bool = true;
        /// Whether logs of services are served.
        "enableSystemLogQuery" enable_system_log_query: pointer bool = false;
        /// Port of `/healthz`; 0: none.
        "healthzPort" healthz_port: pointer i32 = 10248;
        /// Address of that port.
        "healthzBindAddress" healthz_bind_address: plain String = "127.0.0.1";
        /// No effect.
        "streamingConnectionIdleTimeout" streaming_connection_idle_timeout: plain Duration = "4h0m0s";
        /// Version whose hidden metrics are shown again.
        "showHiddenMetricsForVersion" show_hidden_metrics_for_version: plain String;
    }
}

section! {
    /// Who callers are.
    Authentication as "authentication" {
        /// By client certificate.
        "x509" x509: always X509;
        /// By asking the API server about tokens.
        "webhook" webhook: always AuthenticationWebhook;
        /// Everybody else.
        "anonymous" anonymous: always Anonymous;
    }
}

section! {
    /// By client certificate.
    X509 as "authentication.x509" {
        /// Authorities in PEM; no client certificates when empty.
        "clientCAFile" client_ca_file: plain String;
    }
}

section! {
    /// By asking the API server about tokens.
    AuthenticationWebhook as "authentication.webhook" {
        /// Whether.
        "enabled" enabled: pointer bool = true;
        /// How long answers are kept.
        "cacheTTL" cache_ttl: plain Duration = "2m0s";
    }
}

section! {
    /// Callers without credentials.
    Anonymous as "authentication.anonymous" {
        /// Whether they are let in, as `system:anonymous`.
        "enabled" enabled: pointer bool = false;
    }
}

section! {
    /// What callers may.
    Authorization as "authorization" {
        /// `AlwaysAllow` or `Webhook`.
        "mode" mode: plain String = "Webhook";
        /// By asking the API server.
        "webhook" webhook: always AuthorizationWebhook;
    }
}

section! {
    /// By asking the API server.
    AuthorizationWebhook as "authorization.webhook" {
        /// How long a yes is kept.
        "cacheAuthorizedTTL" cache_authorized_ttl: plain Duration = "5m0s";
        /// How long a no is kept.
        "cacheUnauthorizedTTL" cache_unauthorized_ttl: plain Duration = "30s";
    }
}
