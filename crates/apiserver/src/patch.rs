//! The kinds of change to an object.

use serde_json::Value;

use crate::path::Query;

/// What to change of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// Kubernetes' own: lists of things with names are merged by name.
    StrategicMerge(Value),
    /// RFC 7396: lists are replaced.
    Merge(Value),
    /// RFC 6902: a list of operations.
    Json(Value),
    /// Server-side apply: all that `manager` wants; `force` takes fields from others.
    Apply { manager: String, force: Force, wanted: Value },
}

/// What an apply does about fields that others manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::StrategicMerge(_) => "application/strategic-merge-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Json(_) => "application/json-patch+json",
            // JSON is YAML.
            Self::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Self::StrategicMerge(body) | Self::Merge(body) | Self::Json(body) | Self::Apply { wanted: body, .. } => {
                body
            }
        }
    }

    pub(crate) fn query(&self) -> Query {
        match self {
            Self::StrategicMerge(_) | Self::Merge(_) | Self::Json(_) => Query::default(),
            Self::Apply { manager, force, .. } => {
                let query = Query::default().with("fieldManager", manager);
                match force {
                    Force::Yes => query.with("force", "true"),
                    Force::No => query,
                }
            }
        }
    }
}
