//! The JSON form of Kubernetes' components.

use std::fmt::Write as _;

use serde_json::Value;
use tracing::Level;

use super::Origin;
use super::fields::{Fields, Shown};

/// A whole line with its line feed; `ts` is in milliseconds, `v` is missing for errors.
pub(super) fn line(origin: &Origin<'_>, said: &Fields) -> String {
    let mut out = String::with_capacity(160);
    let micros = origin.at.timestamp().as_microsecond();
    // Writing to a String never fails.
    let _ = write!(
        out,
        "{{\"ts\":{}.{:03},\"caller\":{},\"msg\":{}",
        micros.div_euclid(1000),
        micros.rem_euclid(1000),
        text(&format!("{}:{}", short_path(origin.path), origin.line)),
        text(&said.message),
    );
    if origin.level != Level::ERROR {
        let _ = write!(out, ",\"v\":{}", origin.verbosity);
    }
    for (name, value) in &said.values {
        let _ = write!(out, ",{}:", text(name));
        let _ = match value {
            Shown::Text(value) | Shown::Structure(value) => write!(out, "{}", text(value)),
            Shown::Signed(number) => write!(out, "{number}"),
            Shown::Unsigned(number) => write!(out, "{number}"),
            Shown::Float(number) => write!(out, "{}", Value::from(*number)),
            Shown::Switch(on) => write!(out, "{on}"),
        };
    }
    out.push_str("}\n");
    out
}

fn text(value: &str) -> String {
    Value::from(value).to_string()
}

/// The file's name with the last of its directories.
fn short_path(path: &str) -> &str {
    path.rmatch_indices('/').nth(1).map_or(path, |(at, _)| &path[at + 1..])
}
