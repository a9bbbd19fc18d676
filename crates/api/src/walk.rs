//! From a tree of YAML or JSON to the fields that a type has, in the types they have.

use serde_json::{Map, Value};

use crate::duration::Duration;
use crate::problem::{Path, Position, Problem, Segment};
use crate::quantity;
use crate::schema::{Kind, Shape};
use crate::yaml::{Contents, Entry, Node};

/// A problem at a node.
pub(crate) fn at(node: &Node, path: &Path, message: String) -> Problem {
    Problem { position: Some(node.position), ..Problem::new(path.clone(), message) }
}

/// How a message calls what was found.
pub(crate) fn found(node: &Node) -> String {
    let what = match &node.contents {
        Contents::Null => "nothing".to_owned(),
        Contents::Bool(value) => format!("the boolean {value}"),
        Contents::Integer(value) => format!("the integer {value}"),
        Contents::Float(value) => format!("the number {value}"),
        Contents::Text(text) => format!("string {}", crate::problem::Shown::shown(text.as_str())),
        Contents::List(items) => format!("a list of {}", items.len()),
        Contents::Map(_) => "an object".to_owned(),
    };
    match &node.written {
        Some(written) => format!("{what}, which is what {written} means in YAML"),
        None => what,
    }
}

/// What to do about a wrong type, when that is plain.
fn remedy(node: &Node, kind: &Kind) -> &'static str {
    match (kind, &node.contents) {
        (Kind::Pointer(inner), _) => remedy(node, inner),
        (Kind::Text, Contents::Bool(_) | Contents::Integer(_) | Contents::Float(_)) => {
            " (put it in quotes to make it a string)"
        }
        (Kind::Int32 | Kind::Int64, Contents::Text(text)) if text.parse::<i64>().is_ok() => " (leave out the quotes)",
        (Kind::Bool, Contents::Text(text)) if ["true", "false", "yes", "no", "on", "off"].contains(&text.as_str()) => {
            " (leave out the quotes)"
        }
        (Kind::List(_), Contents::Map(_) | Contents::Text(_)) => " (every element of a list starts with \"- \")",
        _ => "",
    }
}

/// What the author of an unknown field may have meant.
pub(crate) type Hint = fn(&str, &Shape) -> Option<String>;

/// A walk over a tree along a table; collects everything that is wrong.
pub(crate) struct Walk {
    /// Wrong types.
    pub(crate) problems: Vec<Problem>,
    /// Unknown fields.
    pub(crate) warnings: Vec<Problem>,
    hint: Hint,
}

impl Walk {
    /// A walk that has found nothing yet.
    pub(crate) fn new(hint: Hint) -> Self {
        Self { problems: Vec::new(), warnings: Vec::new(), hint }
    }

    /// The fields of an object that its type has, in their types; without `null`s and without zero values that mean
    /// nothing.
    pub(crate) fn object(&mut self, node: &Node, shape: &'static Shape, path: &Path) -> Map<String, Value> {
        let mut fields = Map::new();
        for entry in node.entries() {
            let Some(kind) = shape.field(&entry.key) else {
                self.unknown(entry, shape, path);
                continue;
            };
            let value = self.value(&entry.value, kind, &path.field(&entry.key));
            match value.filter(|value| keeps(kind, value)) {
                Some(value) => fields.insert(entry.key.clone(), value),
                None => fields.remove(&entry.key),
            };
        }
        fields
    }

    fn unknown(&mut self, entry: &Entry, shape: &'static Shape, path: &Path) {
        let mut message = format!("unknown field of {}, ignored", shape.name);
        if let Some(hint) = (self.hint)(&entry.key, shape) {
            message = format!("{message} ({hint})");
        }
        let problem = Problem { position: Some(entry.position), ..Problem::new(path.field(&entry.key), message) };
        self.warnings.push(problem);
    }

    /// The value in its type; none for `null` and for what is wrong.
    fn value(&mut self, node: &Node, kind: &'static Kind, path: &Path) -> Option<Value> {
        match (kind, &node.contents) {
            (_, Contents::Null) => None,
            (Kind::Pointer(inner), _) => self.value(node, inner, path),
            (Kind::Object(shape), Contents::Map(_)) => Some(Value::Object(self.object(node, shape, path))),
            (Kind::Map(inner), Contents::Map(_)) => Some(self.map(node, inner, path)),
            (Kind::List(inner), Contents::List(items)) => {
                let values = items.iter().enumerate().map(|(nth, item)| {
                    let path = path.index(nth);
                    self.value(item, inner, &path).unwrap_or_else(|| nothing(inner))
                });
                Some(Value::Array(values.collect()))
            }
            (Kind::Anything, _) => Some(node.to_json()),
            (Kind::Bool, Contents::Bool(value)) => Some(Value::from(*value)),
            (Kind::Text | Kind::IntOrString, Contents::Text(text)) => Some(Value::from(text.as_str())),
            (Kind::Int32 | Kind::IntOrString, _) => {
                self.integer(node, i64::from(i32::MIN), i64::from(i32::MAX), kind, path)
            }
            (Kind::Int64, _) => self.integer(node, i64::MIN, i64::MAX, kind, path),
            (Kind::Uint32, _) => self.integer(node, 0, u32::MAX.into(), kind, path),
            (Kind::DurationOrNanos, Contents::Integer(_)) => self.integer(node, i64::MIN, i64::MAX, kind, path),
            (Kind::Duration | Kind::DurationOrNanos, Contents::Text(text)) => self.duration(node, text, path),
            (Kind::Float, Contents::Integer(_) | Contents::Float(_)) => Some(node.to_json()),
            (Kind::Quantity, _) => self.quantity(node, path),
            (Kind::Time, Contents::Text(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    let message = format!("expected a time such as 2026-01-31T12:00:00Z, found string {text:?}");
                    self.problems.push(at(node, path, message));
                }
                Some(Value::from(text.as_str()))
            }
            (
                Kind::Object(_)
                | Kind::Map(_)
                | Kind::List(_)
                | Kind::Bool
                | Kind::Text
                | Kind::Time
                | Kind::Float
                | Kind::Duration
                | Kind::DurationOrNanos,
                _,
            ) => {
                self.wrong(node, kind, path);
                None
            }
        }
    }

    fn map(&mut self, node: &Node, inner: &'static Kind, path: &Path) -> Value {
        let mut fields = Map::new();
        for entry in node.entries() {
            let path = path.key(&entry.key);
            let value = self.value(&entry.value, inner, &path).unwrap_or_else(|| nothing(inner));
            fields.insert(entry.key.clone(), value);
        }
        Value::Object(fields)
    }

    fn integer(&mut self, node: &Node, least: i64, most: i64, kind: &Kind, path: &Path) -> Option<Value> {
        let whole = match node.contents {
            Contents::Integer(number) => Some(number),
            // JSON knows one sort of number: 80.0 is 80.
            Contents::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some(number as i128),
            _ => None,
        };
        let Some(number) = whole else {
            self.wrong(node, kind, path);
            return None;
        };
        match i64::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(Value::from(number)),
            Ok(_) | Err(_) => {
                let message = format!("expected an integer from {least} to {most}, found {number}");
                self.problems.push(at(node, path, message));
                None
            }
        }
    }

    fn duration(&mut self, node: &Node, text: &str, path: &Path) -> Option<Value> {
        if let Err(error) = text.parse::<Duration>() {
            self.problems.push(at(node, path, error.to_string()));
        }
        Some(Value::from(text))
    }

    fn quantity(&mut self, node: &Node, path: &Path) -> Option<Value> {
        let text = match &node.contents {
            Contents::Text(text) => text.trim().to_owned(),
            Contents::Integer(number) => number.to_string(),
            Contents::Float(number) => number.to_string(),
            Contents::Null | Contents::Bool(_) | Contents::List(_) | Contents::Map(_) => {
                self.wrong(node, &Kind::Quantity, path);
                return None;
            }
        };
        match quantity::canonical(&text) {
            Some(canonical) => Some(Value::from(canonical)),
            None => {
                let message = format!("expected a quantity such as 500m, 2 or 1Gi, found {}", found(node));
                self.problems.push(at(node, path, message));
                None
            }
        }
    }

    fn wrong(&mut self, node: &Node, kind: &Kind, path: &Path) {
        let message = format!("expected {}, found {}{}", kind.expected(), found(node), remedy(node, kind));
        self.problems.push(at(node, path, message));
    }
}

/// What an element of a list or map is when it says `null`.
fn nothing(kind: &Kind) -> Value {
    match kind {
        Kind::Text | Kind::IntOrString | Kind::Time => Value::from(""),
        Kind::Quantity => Value::from("0"),
        Kind::Bool => Value::from(false),
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Float => Value::from(0),
        Kind::Duration | Kind::DurationOrNanos => Value::from("0s"),
        Kind::List(_) => Value::Array(Vec::new()),
        Kind::Map(_) | Kind::Object(_) => Value::Object(Map::new()),
        Kind::Pointer(inner) => nothing(inner),
        Kind::Anything => Value::Null,
    }
}

/// Whether a field's value says something: zero values do only behind a pointer, empty objects always do.
fn keeps(kind: &Kind, value: &Value) -> bool {
    match kind {
        Kind::Pointer(_) | Kind::Object(_) | Kind::Anything => true,
        Kind::Duration | Kind::DurationOrNanos => match value {
            Value::String(text) => text.parse() != Ok(Duration::ZERO),
            value => value.as_i64() != Some(0),
        },
        Kind::Text
        | Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Float
        | Kind::IntOrString
        | Kind::Quantity
        | Kind::Time
        | Kind::List(_)
        | Kind::Map(_) => match value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        },
    }
}

/// Where a path, or as much of it as is written, stands in the tree of the object at `base`.
pub(crate) fn locate(node: &Node, base: &Path, path: &Path) -> Option<Position> {
    let steps = path.segments().get(base.segments().len()..)?;
    let mut place = node;
    let mut position = node.position;
    for step in steps {
        let next = match step {
            Segment::Field(name) | Segment::Key(name) => place.entry(name).map(|entry| (entry.position, &entry.value)),
            Segment::Index(index) => place.item(*index).map(|item| (item.position, item)),
        };
        match next {
            Some((at, deeper)) => {
                position = at;
                place = deeper;
            }
            None => break,
        }
    }
    Some(position)
}
