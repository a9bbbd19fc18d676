//! The command line: upstream's flags, read as pflag reads them.
//!
//! [`parse`] knows the forms (`--a=b`, `--a b`, `-v2`, `_` for `-`) and the words of every error;
//! [`table`] knows the flags; the result holds each given flag's value in the form of the configuration file.

mod help;
pub(crate) mod scan;
mod table;
mod value;

use std::collections::BTreeMap;

use rubelet_api::gather::Gather;
use serde_json::Value;

pub(crate) use help::help;
use scan::quoted;
use table::{Flag, Notice, Target};
use value::ValueError;

#[cfg(test)]
mod tests;

/// Why a command line was refused, in pflag's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: '{letter}' in -{letters}")]
    UnknownShort { letter: char, letters: String },
    #[error("flag needs an argument: {0}")]
    NoArgument(String),
    #[error("flag needs an argument: '{letter}' in -{letters}")]
    NoShortArgument { letter: char, letters: String },
    #[error("invalid argument {text} for {flag} flag: {source}")]
    Value { text: String, flag: String, source: Box<ValueError> },
}

/// The flags that were given, and what was not a flag.
#[derive(Clone, Default, Debug)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Value>,
    /// What is no flag, in order.
    pub(crate) operands: Vec<String>,
}

impl Given {
    /// The value that was given for the flag, in the form of the configuration file.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The text of a flag, given or its default.
    pub(crate) fn text(&self, name: &str) -> String {
        match self.values.get(name) {
            Some(Value::String(text)) => text.clone(),
            _ => table::find(name).map_or_else(String::new, |flag| flag.default.to_owned()),
        }
    }

    /// Whether a switch is on; off by default.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The number of a flag, given or its default; 0 when there is none.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let default = || table::find(name).and_then(|flag| flag.default.parse().ok());
        self.values.get(name).and_then(Value::as_i64).or_else(default).unwrap_or(0)
    }

    /// The duration of a flag in nanoseconds, given or its default; 0 when there is none.
    pub(crate) fn duration_ns(&self, name: &str) -> i64 {
        scan::scan_duration(&self.text(name)).unwrap_or(0)
    }

    /// All flags of upstream's with their values, given or by default, as Go prints them.
    pub(crate) fn shown(&self) -> BTreeMap<String, String> {
        let upstreams = table::all().filter(|flag| !flag.is_rubelets());
        upstreams
            .map(|flag| {
                let shown = self.values.get(flag.name).map_or_else(|| flag.default.to_owned(), show);
                (flag.name.to_owned(), shown)
            })
            .into_map()
    }

    /// The `key=value` pairs of a flag.
    pub(crate) fn pairs(&self, name: &str) -> BTreeMap<String, String> {
        let Some(Value::Object(map)) = self.values.get(name) else { return BTreeMap::new() };
        map.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).into_map()
    }

    /// The given flags that set a field of the configuration: the field's dotted path and its value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.values.iter().filter_map(|(name, value)| match table::find(name)?.target {
            Target::Field(path) => Some((path, value)),
            Target::Own | Target::Ignored => None,
        })
    }

    /// The first of the given flags that upstream's command line does not have.
    pub(crate) fn rubelets(&self) -> Option<&'static str> {
        self.values.keys().copied().find(|name| table::find(name).is_some_and(Flag::is_rubelets))
    }

    /// The given flags that have no effect here.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied().filter(|name| table::find(name).is_some_and(|flag| flag.target == Target::Ignored))
    }
}

/// A value in one line.
fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", show(value))).collect::<Vec<_>>().join(",")
        }
    }
}

/// Reads the arguments after the program's name.
///
/// `notices` gets a line for each deprecated flag, once, also when the command line is refused later on.
///
/// # Errors
/// The first thing that is wrong, in the order of the arguments.
pub(crate) fn parse(arguments: &[String], notices: &mut Vec<String>) -> Result<Given, FlagError> {
    let mut reader = Reader { rest: arguments, given: Given::default(), notices };
    while let Some((argument, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        if argument == "--" {
            reader.given.operands.extend_from_slice(rest);
            break;
        } else if argument.starts_with("--") {
            reader.long(argument)?;
        } else if argument.len() > 1 && argument.starts_with('-') {
            reader.short(&argument[1..])?;
        } else {
            reader.given.operands.push(argument.clone());
        }
    }
    Ok(reader.given)
}

struct Reader<'a> {
    rest: &'a [String],
    given: Given,
    notices: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.clone())
    }

    fn long(&mut self, argument: &str) -> Result<(), FlagError> {
        let body = &argument[2..];
        if body.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(argument.to_owned()));
        }
        let (name, attached) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let flag = table::find(&name.replace('_', "-")).ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
        let value = match (attached, flag.kind.value_alone()) {
            (Some(value), _) => value.to_owned(),
            (None, Some(value)) => value.to_owned(),
            (None, None) => self.next().ok_or_else(|| FlagError::NoArgument(argument.to_owned()))?,
        };
        self.set(flag, &value)
    }

    /// Letters after one `-`: switches may stand together, the first that takes a value takes the rest.
    fn short(&mut self, letters: &str) -> Result<(), FlagError> {
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            let after = &rest[letter.len_utf8()..];
            let Some(flag) = table::find_short(letter) else {
                return Err(FlagError::UnknownShort { letter, letters: rest.to_owned() });
            };
            let value = match (after.strip_prefix('='), flag.kind.value_alone()) {
                (Some(value), _) if !value.is_empty() => value.to_owned(),
                (_, Some(value)) => {
                    self.set(flag, value)?;
                    rest = after;
                    continue;
                }
                (_, None) if !after.is_empty() => after.to_owned(),
                (_, None) => match self.next() {
                    Some(value) => value,
                    None => return Err(FlagError::NoShortArgument { letter, letters: rest.to_owned() }),
                },
            };
            return self.set(flag, &value);
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), FlagError> {
        let earlier = self.given.values.remove(flag.name);
        let is_first = earlier.is_none();
        let value = value::take(flag, earlier, text).map_err(|source| FlagError::Value {
            text: quoted(text),
            flag: quoted(&match flag.short {
                Some(letter) => format!("-{letter}, --{}", flag.name),
                None => format!("--{}", flag.name),
            }),
            source: Box::new(source),
        })?;
        self.given.values.insert(flag.name, value);
        if is_first && flag.notice != Notice::None {
            self.notices.push(format!("Flag --{} has been deprecated, {}", flag.name, flag.notice.text()));
        }
        Ok(())
    }
}
