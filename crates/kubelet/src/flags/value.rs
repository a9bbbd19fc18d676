//! One flag's value: from the command line's text to the form that the configuration file would have.

use std::net::IpAddr;

use rubelet_api::pod::{label_value_problems, qualified_name_problems};
use serde_json::{Map, Value, json};

use super::scan::{ScanError, quoted, scan_bool, scan_duration, scan_int, scan_level, show_duration};
use super::table::{Flag, Kind};

/// Why a flag's value was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ValueError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("parse error")]
    Foreign,
    #[error("{0} is not a valid IP address")]
    Ip(String),
    #[error("malformed pair, expect {0}")]
    Pair(&'static str),
    #[error("invalid value of {key}: {value}, err: {source}")]
    BoolOf { key: String, value: String, source: ScanError },
    #[error("parse error on line 1, column {0}: bare \" in non-quoted-field")]
    BareQuote(usize),
    #[error("parse error on line 1, column {0}: extraneous or missing \" in quoted-field")]
    OpenQuote(usize),
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Quantity,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("{0} does not have the pattern=N format")]
    Vmodule(String),
    #[error("parsing verbosity in {item}: {source}")]
    VmoduleLevel { item: String, source: ScanError },
    #[error("invalid taint spec: {0}")]
    Taint(String),
    #[error("invalid taint spec: {spec}, {why}")]
    TaintNames { spec: String, why: String },
    #[error("invalid taint effect: {0}, unsupported taint effect")]
    TaintEffect(String),
    #[error("duplicated taints with the same key and effect: {0}")]
    TaintTwice(String),
    #[error("the reserved memory has incorrect format, expected numaNodeID:type=quantity[,type=quantity...], got {0}")]
    ReservedMemory(String),
    #[error("failed to convert the NUMA node ID, expected integer, got {0}")]
    NumaNode(String),
    #[error("the reserved limit has incorrect value, expected type=quantity, got {0}")]
    MemoryLimit(String),
    #[error("failed to parse the quantity: {0}")]
    MemoryAmount(String),
    #[error("memory type conversion error, unknown type: {0}")]
    MemoryType(String),
}

/// Reads one value of a flag and adds it to what earlier uses of the same flag gave.
///
/// The result has the form of the configuration file: durations and quantities as text, lists, maps.
pub(crate) fn take(flag: &Flag, earlier: Option<Value>, text: &str) -> Result<Value, ValueError> {
    match read(flag.kind, earlier, text) {
        Err(ValueError::Scan(_)) if flag.is_foreign() => Err(ValueError::Foreign),
        other => other,
    }
}

fn read(kind: Kind, earlier: Option<Value>, text: &str) -> Result<Value, ValueError> {
    Ok(match kind {
        Kind::Bool => scan_bool(text)?.into(),
        Kind::Int32 => scan_int(text, 32)?.into(),
        Kind::Int64 => scan_int(text, 64)?.into(),
        Kind::Level => scan_level(text)?.into(),
        Kind::Text => text.into(),
        Kind::Duration => show_duration(scan_duration(text)?).into(),
        Kind::Ip => ip(text)?.into(),
        Kind::Quantity => quantity(text)?.into(),
        Kind::List => {
            let mut all = array(earlier);
            all.extend(fields(text)?.into_iter().map(Value::from));
            all.into()
        }
        Kind::Map => pairs(object(earlier), text, '=', "string=string")?.into(),
        Kind::LooseMap => loose_pairs(object(earlier), text).into(),
        Kind::LangleMap => pairs(object(earlier), text, '<', "string<string")?.into(),
        Kind::BoolMap => switches(object(earlier), text)?.into(),
        Kind::Multimap => headers(object(earlier), text)?.into(),
        Kind::Taints => taints(text)?.into(),
        Kind::ReservedMemory => reserved_memory(array(earlier), text)?.into(),
        Kind::Vmodule => vmodule(array(earlier), text)?.into(),
        Kind::Version => version(text)?,
    })
}

fn array(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn version(text: &str) -> Result<Value, ValueError> {
    match text {
        "raw" => Ok("raw".into()),
        _ => Ok(scan_bool(text)?.into()),
    }
}

/// An address; leading zeros in IPv4 numbers are ignored, as upstream does.
fn ip(text: &str) -> Result<&str, ValueError> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return Ok(text);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let is_sloppy = parts.len() == 4
        && parts.iter().all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_digit())
                && matches!(part.trim_start_matches('0'), rest if rest.is_empty() || rest.parse::<u8>().is_ok())
        });
    if is_sloppy { Ok(text) } else { Err(ValueError::Ip(quoted(text))) }
}

fn quantity(text: &str) -> Result<&str, ValueError> {
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number_len = unsigned.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_len);
    let has_digits = number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    match (has_digits, SUFFIXES.contains(&suffix) || is_exponent) {
        (true, true) => Ok(text),
        (true, false)
            if suffix
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .trim_end_matches(['+', '-'])
                .chars()
                .all(|c| "eEinumkKMGTP".contains(c)) =>
        {
            Err(ValueError::Suffix)
        }
        _ => Err(ValueError::Quantity),
    }
}

/// The fields of one line of comma-separated values, in which double quotes may enclose a field.
fn fields(line: &str) -> Result<Vec<String>, ValueError> {
    let mut out = Vec::new();
    if line.is_empty() {
        return Ok(out);
    }
    let mut rest = line;
    loop {
        let column = line.len() - rest.len() + 1;
        let Some(inner) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if let Some(at) = field.find('"') {
                return Err(ValueError::BareQuote(column + at));
            }
            out.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(out),
            }
            continue;
        };
        let (field, after) = quoted_field(inner).ok_or(ValueError::OpenQuote(line.len() + 1))?;
        out.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(out),
            None => return Err(ValueError::OpenQuote(line.len() - after.len())),
        }
    }
}

/// The text up to the closing quote, with doubled quotes undone, and what follows.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

fn pairs(
    mut map: Map<String, Value>,
    text: &str,
    separator: char,
    form: &'static str,
) -> Result<Map<String, Value>, ValueError> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(separator).ok_or(ValueError::Pair(form))?;
        map.insert(key.trim().to_owned(), value.trim().into());
    }
    Ok(map)
}

/// `key=value` pairs, of which one without `=` has an empty value.
fn loose_pairs(mut map: Map<String, Value>, text: &str) -> Map<String, Value> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        map.insert(key.trim().to_owned(), value.trim().into());
    }
    map
}

fn switches(mut map: Map<String, Value>, text: &str) -> Result<Map<String, Value>, ValueError> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or(ValueError::Pair("string=bool"))?;
        let (key, value) = (key.trim().to_owned(), value.trim());
        match scan_bool(value) {
            Ok(on) => map.insert(key, on.into()),
            Err(source) => return Err(ValueError::BoolOf { key, value: value.to_owned(), source }),
        };
    }
    Ok(map)
}

fn headers(mut map: Map<String, Value>, text: &str) -> Result<Map<String, Value>, ValueError> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(':').ok_or(ValueError::Pair("string:string"))?;
        let mut values = array(map.remove(key.trim()));
        values.push(value.trim().into());
        map.insert(key.trim().to_owned(), values.into());
    }
    Ok(map)
}

fn taints(text: &str) -> Result<Vec<Value>, ValueError> {
    let mut all: Vec<Value> = Vec::new();
    if text.is_empty() {
        return Ok(all);
    }
    // A `-` at the end would take a taint away, which means nothing here.
    for spec in text.split(',').filter(|spec| !spec.ends_with('-')) {
        let taint = taint(spec)?;
        if all.iter().any(|other| other["key"] == taint["key"] && other["effect"] == taint["effect"]) {
            let part = |name: &str| taint[name].as_str().unwrap_or_default().to_owned();
            return Err(ValueError::TaintTwice(format!(
                "{{{} {} {} <nil>}}",
                part("key"),
                part("value"),
                part("effect")
            )));
        }
        all.push(taint);
    }
    Ok(all)
}

/// One `key[=value]:effect`.
fn taint(spec: &str) -> Result<Value, ValueError> {
    let refused = || ValueError::Taint(spec.to_owned());
    let (pair, effect) = match spec.split_once(':') {
        Some((_, rest)) if rest.contains(':') => return Err(refused()),
        Some((pair, effect)) => (pair, Some(effect)),
        None => (spec, None),
    };
    let (key, value) = match effect {
        Some(effect) if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) => {
            return Err(ValueError::TaintEffect(effect.to_owned()));
        }
        Some(_) => pair.split_once('=').unwrap_or((pair, "")),
        None => (pair, ""),
    };
    if value.contains('=') {
        return Err(refused());
    }
    for wrong in [label_value_problems(value), qualified_name_problems(key)] {
        if !wrong.is_empty() {
            return Err(ValueError::TaintNames { spec: spec.to_owned(), why: wrong.join("; ") });
        }
    }
    let mut taint = json!({ "key": key, "effect": effect.ok_or_else(refused)? });
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Ok(taint)
}

fn reserved_memory(mut all: Vec<Value>, text: &str) -> Result<Vec<Value>, ValueError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    for reservation in text.split(';') {
        let (node, types) = match reservation.split_once(':') {
            Some((node, types)) if !types.contains(':') => (node, types),
            _ => return Err(ValueError::ReservedMemory(reservation.to_owned())),
        };
        let node: i32 = node.parse().map_err(|_| ValueError::NumaNode(node.to_owned()))?;
        let mut limits = Map::new();
        for limit in types.split(',') {
            let (name, amount) = match limit.split_once('=') {
                Some((name, amount)) if !amount.contains('=') => (name, amount),
                _ => return Err(ValueError::MemoryLimit(limit.to_owned())),
            };
            if name != "memory" && !name.starts_with("hugepages-") {
                return Err(ValueError::MemoryType(quoted(name)));
            }
            let amount = quantity(amount).map_err(|_| ValueError::MemoryAmount(amount.to_owned()))?;
            limits.insert(name.to_owned(), amount.into());
        }
        all.push(json!({ "numaNode": node, "limits": limits }));
    }
    all.sort_by_key(|reservation| reservation["numaNode"].as_i64());
    Ok(all)
}

fn vmodule(mut all: Vec<Value>, text: &str) -> Result<Vec<Value>, ValueError> {
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let refused = || ValueError::Vmodule(quoted(item));
        let (pattern, level) = item.split_once('=').ok_or_else(refused)?;
        if pattern.is_empty() || level.is_empty() || level.contains('=') {
            return Err(refused());
        }
        let level = scan_level(level).map_err(|source| ValueError::VmoduleLevel { item: quoted(item), source })?;
        all.push(json!({ "filePattern": pattern, "verbosity": level }));
    }
    Ok(all)
}
