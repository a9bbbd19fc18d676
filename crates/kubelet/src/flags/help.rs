//! `--help`: every flag with its type, default and notice, laid out as pflag does.

use std::fmt::Write as _;

use super::scan::quoted;
use super::table::{Flag, Kind, SECTIONS};

/// The whole text of `--help` for a program of that name.
pub(crate) fn help(program: &str) -> String {
    let mut out = format!(
        "{program} runs the pods of one Kubernetes node: those that the API server assigns to it and those of its \
         static manifests.\n\nUsage:\n  {program} [flags]\n"
    );
    let width = SECTIONS.iter().flat_map(|section| section.flags).map(|flag| head(flag).len()).max().unwrap_or(0);
    for section in SECTIONS.iter().filter(|section| program != "kubelet" || !section.is_rubelets()) {
        // Writing to a String never fails.
        let _ = writeln!(out, "\n{}:", section.heading);
        for flag in section.flags {
            let _ = writeln!(out, "{:width$}   {}", head(flag), tail(flag).replace('\n', &indent(width)));
        }
    }
    out
}

fn indent(width: usize) -> String {
    format!("\n{}", " ".repeat(width + 3))
}

/// `  -v, --v Level`.
fn head(flag: &Flag) -> String {
    let mut out = match flag.short {
        Some(letter) => format!("  -{letter}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let label = named_type(flag.usage).unwrap_or_else(|| flag.kind.label());
    if !label.is_empty() {
        out.push(' ');
        out.push_str(label);
    }
    if flag.kind == Kind::Version {
        out.push_str("[=true]");
    }
    out
}

/// The word in backquotes, which stands for the type.
fn named_type(usage: &'static str) -> Option<&'static str> {
    let (_, rest) = usage.split_once('`')?;
    rest.split_once('`').map(|(word, _)| word)
}

/// The usage, the default and the notice.
fn tail(flag: &Flag) -> String {
    let mut out = flag.usage.replace('`', "");
    let _ = match (flag.default, flag.kind) {
        ("", _) => Ok(()),
        (default, Kind::Text) => write!(out, " (default {})", quoted(default)),
        (default, _) => write!(out, " (default {default})"),
    };
    if !flag.notice.text().is_empty() {
        let _ = write!(out, " (DEPRECATED: {})", flag.notice.text());
    }
    out
}
