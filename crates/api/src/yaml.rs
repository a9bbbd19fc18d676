//! YAML and JSON as a tree whose every node knows its line and column.
//!
//! The words mean what they mean to upstream: plain scalars follow YAML 1.1 (`yes` is true, `0644` is octal), `<<`
//! merges, keys become strings, of two equal keys the last one counts, of several documents the first.

mod scalar;
pub(crate) mod text;

use std::collections::BTreeMap;

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::problem::{Position, Shown};

/// Most nodes of a tree, with everything that aliases repeat.
const NODES: usize = 300_000;
/// Most warnings about a text.
const WARNINGS: usize = 100;
/// Most bytes of text that aliases may repeat.
const ALIAS_BYTES: usize = 16 << 20;
/// Deepest nesting.
const DEPTH: usize = 100;
/// The prefix of the tags that YAML itself defines.
const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) contents: Contents,
    /// The scalar as it is written, where that is not how its value is written: `yes`, `0644`.
    pub(crate) written: Option<Box<str>>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Contents {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value; keys are unique in their map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Of the key.
    pub(crate) position: Position,
    pub(crate) value: Node,
}

impl Node {
    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.contents {
            Contents::Map(entries) => entries,
            _ => &[],
        }
    }

    /// An entry of a map by its key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// An element of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.contents {
            Contents::List(items) => items.get(index),
            _ => None,
        }
    }

    /// The same without positions.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.contents {
            Contents::Null => Value::Null,
            Contents::Bool(value) => Value::from(*value),
            Contents::Integer(number) => match i64::try_from(*number) {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(*number as f64),
            },
            Contents::Float(number) => Value::from(*number),
            Contents::Text(text) => Value::from(text.as_str()),
            Contents::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Contents::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }
}

/// What a text holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// The first document; none when there is nothing at all.
    pub(crate) root: Option<Node>,
    /// Whether there are further documents, which nobody reads.
    pub(crate) more: bool,
    /// Keys that came again, and that there is more than one document.
    pub(crate) warnings: Vec<(Position, String)>,
}

/// A text that is neither YAML nor JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

/// Reads the first document of a text.
///
/// # Errors
///
/// What is wrong with the text, where the parser noticed it.
pub(crate) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options()),
        anchors: BTreeMap::new(),
        size: Size::default(),
        repeated_bytes: 0,
        more: false,
        warnings: Vec::new(),
    };
    let read = reader.document();
    match read {
        Ok(root) => Ok(Document { root, more: reader.more, warnings: reader.warnings }),
        Err(error) => match json(text) {
            Some(root) => Ok(Document { root: Some(root), more: false, warnings: Vec::new() }),
            None => Err(error),
        },
    }
}

/// JSON has a few writings that YAML lacks, such as pairs of `\u` escapes. Positions are unknown then.
fn json(text: &str) -> Option<Node> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok().map(|value| from_json(&value))
}

pub(crate) fn from_json(value: &serde_json::Value) -> Node {
    use serde_json::Value;
    let start = Position { line: 1, column: 1 };
    let contents = match value {
        Value::Null => Contents::Null,
        Value::Bool(value) => Contents::Bool(*value),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => Contents::Integer(whole),
            (None, float) => Contents::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => Contents::Text(text.clone()),
        Value::Array(items) => Contents::List(items.iter().map(from_json).collect()),
        Value::Object(fields) => Contents::Map(
            fields
                .iter()
                .map(|(key, value)| Entry { key: key.clone(), position: start, value: from_json(value) })
                .collect(),
        ),
    };
    Node { position: start, contents, written: None }
}

fn place(mark: &Marker) -> Position {
    Position { line: mark.line().max(1) as u64, column: mark.col() as u64 + 1 }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Finished nodes that have an anchor.
    anchors: BTreeMap<usize, (Node, Size)>,
    /// Of everything so far, with what aliases repeat.
    size: Size,
    /// Bytes of text that aliases repeat or may repeat.
    repeated_bytes: usize,
    more: bool,
    warnings: Vec<(Position, String)>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, SyntaxError> {
        self.parser.next_event().transpose().map_err(|error| syntax(&error))
    }

    fn document(&mut self) -> Result<Option<Node>, SyntaxError> {
        let root = loop {
            let Some((event, span)) = self.next()? else { return Ok(None) };
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                other => break self.node(other, span, 0)?.0,
            }
        };
        // Whatever follows is not read; wrong syntax in it harms nobody.
        while let Ok(Some((event, span))) = self.next() {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text.is_empty() => {}
                _ => {
                    let message = "only the first document is read; put every pod into a file of its own";
                    self.warnings.push((place(&span.start), message.to_owned()));
                    self.more = true;
                    break;
                }
            }
        }
        Ok(Some(root))
    }

    /// One node, begun by `event`, and its size with all below.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<(Node, Size), SyntaxError> {
        let position = place(&span.start);
        let fail = |message: &str| Err(SyntaxError { position, message: message.to_owned() });
        if depth >= DEPTH {
            return fail("nested too deeply (more than 100 levels)");
        }
        let before = self.size;
        self.count(Size { nodes: 1, bytes: 0 }, position)?;
        let mut written = None;
        let (contents, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return fail("this alias stands inside the very node it repeats");
                };
                self.repeat(size, position)?;
                return Ok((Node { position, ..node }, size));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                self.size.bytes += text.len();
                let known = tag.as_deref().and_then(|tag| tag.suffix_in_namespace(YAML_TAGS));
                let contents = scalar::resolve(&text, plain && tag.is_none(), known.as_deref())
                    .map_err(|message| SyntaxError { position, message })?;
                written = other_writing(&text, &contents);
                (contents, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth)?, anchor),
            _ => return fail("unexpected end of a node"),
        };
        let node = Node { position, contents, written };
        let size = Size { nodes: self.size.nodes - before.nodes, bytes: self.size.bytes - before.bytes };
        if anchor != 0 {
            self.repeat(size, position)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok((node, size))
    }

    fn count(&mut self, more: Size, position: Position) -> Result<(), SyntaxError> {
        self.size.nodes += more.nodes;
        self.size.bytes += more.bytes;
        if self.size.nodes > NODES {
            let message = format!("too large: more than {NODES} values, with what aliases repeat");
            return Err(SyntaxError { position, message });
        }
        Ok(())
    }

    /// Counts what an alias repeats, or what is kept for aliases to come.
    fn repeat(&mut self, size: Size, position: Position) -> Result<(), SyntaxError> {
        self.repeated_bytes += size.bytes;
        if self.repeated_bytes > ALIAS_BYTES {
            let message = format!("too large: aliases repeat more than {ALIAS_BYTES} bytes");
            return Err(SyntaxError { position, message });
        }
        self.count(size, position)
    }

    fn list(&mut self, depth: usize) -> Result<Contents, SyntaxError> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, span, depth + 1)?.0);
        }
        Ok(Contents::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Contents, SyntaxError> {
        let mut fields = Fields::default();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let position = place(&span.start);
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let (key, _) = self.node(event, span, depth + 1)?;
            let Some((event, span)) = self.next()? else { break };
            let (value, _) = self.node(event, span, depth + 1)?;
            if merge {
                merge_sources(value)?.into_iter().for_each(|entry| fields.merge(entry));
            } else {
                let key = key_text(&key)?;
                if fields.put(Entry { key: key.clone(), position, value }) {
                    self.again(position, &key);
                }
            }
        }
        Ok(Contents::Map(fields.entries))
    }

    /// Warns of a key that comes again; not without end.
    fn again(&mut self, position: Position, key: &str) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push((position, format!("{} is here a second time; only the last one counts", key.shown())));
        }
    }
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    /// Of text.
    bytes: usize,
}

/// The entries of a map while it is read.
///
/// kubelet 1.36: what `<<` brings is written where it stands: over the keys above it, under the keys below.
#[derive(Default)]
struct Fields {
    entries: Vec<Entry>,
    /// Where each key is, and whether it came by `<<`.
    places: BTreeMap<String, (usize, bool)>,
}

impl Fields {
    /// Adds an entry that is written out; true when its key was written out before.
    fn put(&mut self, entry: Entry) -> bool {
        self.insert(entry, false)
    }

    fn merge(&mut self, entry: Entry) {
        self.insert(entry, true);
    }

    fn insert(&mut self, entry: Entry, merged: bool) -> bool {
        match self.places.get_mut(&entry.key) {
            Some((at, before)) => {
                let again = !merged && !*before;
                *before = merged;
                self.entries[*at] = entry;
                again
            }
            None => {
                self.places.insert(entry.key.clone(), (self.entries.len(), merged));
                self.entries.push(entry);
                false
            }
        }
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH + 1;
    options.block_nesting_limit = DEPTH + 1;
    // As upstream, which takes a mark within a document for text.
    options.bom_inside_document_as_content = true;
    // As upstream: a last line without line break has none in a block scalar either.
    options.block_scalar_eof_without_line_feed = true;
    options
}

/// The parser's error in one line.
fn syntax(error: &ScanError) -> SyntaxError {
    let detail = error.info();
    let message = match error.kind() {
        ErrorKind::RecursionLimitExceeded => "nested too deeply (more than 100 levels)".to_owned(),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => "a tab cannot indent, use spaces".to_owned(),
        _ => detail.lines().next().unwrap_or_default().to_owned(),
    };
    SyntaxError { position: place(error.marker()), message }
}

/// The text, when the value would be written in another way.
fn other_writing(text: &str, contents: &Contents) -> Option<Box<str>> {
    let usual = match contents {
        Contents::Bool(value) => value.to_string(),
        Contents::Integer(number) => number.to_string(),
        Contents::Float(number) => number.to_string(),
        Contents::Null | Contents::Text(_) | Contents::List(_) | Contents::Map(_) => return None,
    };
    (usual != text).then(|| text.into())
}

/// The entries that `<<` brings in.
fn merge_sources(value: Node) -> Result<Vec<Entry>, SyntaxError> {
    let fail = |position| {
        Err(SyntaxError { position, message: "\"<<\" merges a map or a list of maps, nothing else".to_owned() })
    };
    match value.contents {
        Contents::Map(entries) => Ok(entries),
        Contents::List(items) => {
            let mut all = Vec::new();
            // Of several the first has the last word.
            for item in items.into_iter().rev() {
                match item.contents {
                    Contents::Map(entries) => all.extend(entries),
                    _ => return fail(item.position),
                }
            }
            Ok(all)
        }
        _ => fail(value.position),
    }
}

/// A key as JSON has it.
fn key_text(key: &Node) -> Result<String, SyntaxError> {
    match &key.contents {
        Contents::Text(text) => Ok(text.clone()),
        Contents::Bool(value) => Ok(value.to_string()),
        Contents::Integer(number) => Ok(number.to_string()),
        Contents::Float(number) => Ok(number.to_string()),
        Contents::Null | Contents::List(_) | Contents::Map(_) => {
            Err(SyntaxError { position: key.position, message: "a key must be a string".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests;
