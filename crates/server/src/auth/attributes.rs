//! What a request wants, in the API server's words: a verb on a part of the node.

use std::sync::Arc;

use http::Method;

use super::Caller;

/// May `caller` do `verb` on `nodes/<subresource>` of the node `name`? (Group: the core, version: v1, no namespace.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessQuestion {
    pub caller: Arc<Caller>,
    /// Of the API, not of HTTP; empty for a method that has none.
    pub verb: &'static str,
    /// Of the node.
    pub name: Arc<str>,
    pub subresource: &'static str,
}

/// kubelet 1.36: the API's verb of a method; others (also HEAD) have none.
pub(super) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// kubelet 1.36: what to ask for, in this order; the first that is allowed is enough. `path` is decoded.
pub(super) fn subresources(path: &str) -> &'static [&'static str] {
    const TABLE: [(&str, &[&str]); 10] = [
        ("/pods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/stats", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/statusz", &["statusz"]),
        ("/flagz", &["configz"]),
    ];
    let is_below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    TABLE.iter().find(|(top, _)| is_below(top)).map_or(&["proxy"], |(_, subresources)| subresources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finest_right_comes_first() {
        for (path, wanted) in [
            ("/pods", "pods proxy"),
            ("/pods/", "pods proxy"),
            ("/pods/x", "pods proxy"),
            ("/podsx", "proxy"),
            ("/runningpods/", "pods proxy"),
            ("/runningpods", "pods proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/flagz", "configz"),
            ("/statusz", "statusz"),
            ("/metrics/cadvisor", "metrics"),
            ("/stats/summary", "stats"),
            ("/logs/", "log"),
            ("/logs", "log"),
            ("/logs/../pods", "log"),
            ("/checkpoint/a/b/c", "checkpoint"),
            ("/containerLogs/a/b/c", "proxy"),
            ("/exec/a/b/c", "proxy"),
            ("/run/a/b/c", "proxy"),
            ("/debug/pprof/", "proxy"),
            ("/", "proxy"),
            ("", "proxy"),
            ("//metrics", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), wanted, "{path}");
        }
    }

    #[test]
    fn verbs_are_the_apis() {
        let verbs: Vec<_> = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "get"]
            .map(|method| verb(&method.parse().unwrap()))
            .into();
        assert_eq!(verbs, ["get", "create", "update", "patch", "delete", "", "", ""]);
    }
}
