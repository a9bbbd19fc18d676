//! klog's text form.

use std::fmt::Write as _;

use tracing::Level;

use super::fields::{Fields, Shown};
use super::{Origin, base_name};
use crate::flags::scan::quote_into;

/// A whole line, or several when a value has several, with its line feed.
pub(super) fn line(origin: &Origin<'_>, said: &Fields) -> String {
    let letter = match origin.level {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO | Level::DEBUG | Level::TRACE => 'I',
    };
    let at = &origin.at;
    let mut out = String::with_capacity(160);
    // Writing to a String never fails.
    let _ = write!(
        out,
        "{letter}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:7} {}:{}] ",
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1000,
        origin.pid,
        base_name(origin.path),
        origin.line,
    );
    quote_into(&mut out, &said.message);
    for (name, value) in &said.values {
        out.push(' ');
        out.push_str(name);
        append(&mut out, value);
    }
    out.push('\n');
    out
}

fn append(out: &mut String, value: &Shown) {
    let _ = match value {
        Shown::Text(text) if text.contains('\n') => {
            lines(out, text);
            Ok(())
        }
        Shown::Text(text) => {
            out.push('=');
            quote_into(out, text);
            Ok(())
        }
        Shown::Structure(text) => write!(out, "={text}"),
        Shown::Signed(number) => write!(out, "={number}"),
        Shown::Unsigned(number) => write!(out, "={number}"),
        Shown::Float(number) => write!(out, "={number}"),
        Shown::Switch(on) => write!(out, "={on}"),
    };
}

/// A text of several lines: `=<`, each line after a tab, and ` >`.
fn lines(out: &mut String, text: &str) {
    out.push_str("=<\n");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\t');
        out.push_str(line);
        out.push('\n');
    }
    out.push_str(" >");
}
