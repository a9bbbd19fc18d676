//! Messages full of values, made from the protocol's own text: no field is forgotten because a test forgot it.

use std::collections::BTreeMap;

const PROTO: &str = include_str!("../../../../proto/protos/cri.proto");

/// What the protocol's text says.
pub(super) struct Schema {
    messages: BTreeMap<String, Vec<Field>>,
    /// The methods of both services.
    pub(super) verbs: Vec<Verb>,
}

#[derive(Clone, Debug)]
pub(super) struct Verb {
    pub(super) name: String,
    /// `/runtime.v1.RuntimeService/Version`
    pub(super) path: String,
    pub(super) request: String,
    pub(super) answer: String,
    pub(super) is_stream: bool,
}

struct Field {
    kind: Kind,
    is_repeated: bool,
    number: u64,
}

enum Kind {
    Flag,
    Number,
    Double,
    Text,
    Message(String),
    /// From texts.
    Map(Box<Kind>),
}

impl Schema {
    pub(super) fn read() -> Self {
        let mut this = Self { messages: BTreeMap::new(), verbs: Vec::new() };
        let (mut service, mut message, mut in_enum) = (String::new(), String::new(), false);
        let enums: Vec<&str> =
            PROTO.lines().filter_map(|line| line.trim().strip_prefix("enum ")?.strip_suffix(" {")).collect();
        for line in PROTO.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("service ").and_then(|rest| rest.strip_suffix(" {")) {
                name.clone_into(&mut service);
            } else if let Some(rest) = line.strip_prefix("message ") {
                message = rest.split(' ').next().unwrap().to_owned();
                this.messages.insert(message.clone(), Vec::new());
            } else if line.starts_with("enum ") {
                in_enum = true;
            } else if line == "}" {
                in_enum = false;
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                this.verbs.push(verb(&service, rest));
            } else if !in_enum && let Some(field) = field(line, &enums) {
                this.messages.get_mut(&message).unwrap().push(field);
            }
        }
        for fields in this.messages.values_mut() {
            fields.sort_by_key(|field| field.number);
        }
        this
    }

    /// A message in which every field has a value, encoded as prost encodes it.
    pub(super) fn full(&self, message: &str, seed: &mut u64) -> Vec<u8> {
        let mut out = Vec::new();
        for field in &self.messages[message] {
            self.fill(field, seed, &mut out);
        }
        out
    }

    fn fill(&self, field: &Field, seed: &mut u64, out: &mut Vec<u8>) {
        let times = if field.is_repeated { 2 } else { 1 };
        match &field.kind {
            Kind::Number if field.is_repeated => {
                let mut packed = Vec::new();
                (0..times).for_each(|_| varint(number(seed), &mut packed));
                bytes(field.number, &packed, out);
            }
            Kind::Map(values) => {
                let mut entries: Vec<Vec<u8>> = Vec::new();
                for order in 0..2 {
                    let mut entry = Vec::new();
                    bytes(1, format!("{order}-{}", number(seed)).as_bytes(), &mut entry);
                    self.value(values, 2, seed, &mut entry);
                    entries.push(entry);
                }
                entries.iter().for_each(|entry| bytes(field.number, entry, out));
            }
            kind => (0..times).for_each(|_| self.value(kind, field.number, seed, out)),
        }
    }

    fn value(&self, kind: &Kind, at: u64, seed: &mut u64, out: &mut Vec<u8>) {
        match kind {
            Kind::Flag => {
                varint(at << 3, out);
                varint(1, out);
            }
            Kind::Number => {
                varint(at << 3, out);
                varint(number(seed), out);
            }
            Kind::Double => {
                varint(at << 3 | 1, out);
                let value = u32::try_from(number(seed)).unwrap();
                out.extend(f64::from(value).to_le_bytes());
            }
            Kind::Text => bytes(at, format!("ä{}", number(seed)).as_bytes(), out),
            Kind::Message(name) => bytes(at, &self.full(name, seed), out),
            Kind::Map(_) => unreachable!("a map is no value of a map"),
        }
    }
}

fn verb(service: &str, line: &str) -> Verb {
    let words: Vec<&str> = line.split(['(', ')', ' ', ';']).filter(|word| !word.is_empty()).collect();
    let (name, request, rest) = match words.as_slice() {
        [name, request, "returns", rest @ ..] => (*name, *request, rest),
        other => panic!("{other:?}"),
    };
    Verb {
        name: name.to_owned(),
        path: format!("/runtime.v1.{service}/{name}"),
        request: request.to_owned(),
        answer: (*rest.last().unwrap()).to_owned(),
        is_stream: rest[0] == "stream",
    }
}

fn field(line: &str, enums: &[&str]) -> Option<Field> {
    let (declared, number) = line.strip_suffix(';')?.split_once(" = ")?;
    let number = number.parse().ok()?;
    let kind = |name: &str| match name {
        "bool" => Some(Kind::Flag),
        "int32" | "int64" | "uint32" | "uint64" => Some(Kind::Number),
        "double" => Some(Kind::Double),
        "string" | "bytes" => Some(Kind::Text),
        name if enums.contains(&name) => Some(Kind::Number),
        name if name.starts_with(char::is_uppercase) => Some(Kind::Message(name.to_owned())),
        _ => None,
    };
    if let Some((values, _)) = declared.strip_prefix("map<string, ").and_then(|rest| rest.split_once('>')) {
        return Some(Field { kind: Kind::Map(Box::new(kind(values)?)), is_repeated: false, number });
    }
    let (is_repeated, declared) = declared.strip_prefix("repeated ").map_or((false, declared), |rest| (true, rest));
    let mut words = declared.split(' ');
    let (name, Some(_), None) = (words.next()?, words.next(), words.next()) else { return None };
    Some(Field { kind: kind(name)?, is_repeated, number })
}

fn bytes(at: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(at << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend(value);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Follows from the seed, is never zero.
fn number(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    1000 + (*seed >> 44)
}
