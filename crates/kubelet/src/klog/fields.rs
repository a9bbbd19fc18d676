//! A line's message and its values, in the order in which they were given.

use std::fmt;

use tracing::field::{Field, Visit};

/// One value of a log line.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Shown {
    /// A text; quoted in the text form.
    Text(String),
    /// The debug form of a list or structure; stands as it is in the text form.
    Structure(String),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
    Switch(bool),
}

/// What one line says.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) values: Vec<(&'static str, Shown)>,
}

impl Fields {
    /// Puts an enclosing span's values before these, except those named here again.
    pub(super) fn surround_with(&mut self, outer: &Fields) {
        let missing = outer.values.iter().filter(|(name, _)| !self.values.iter().any(|(own, _)| own == name));
        let mut values: Vec<_> = missing.cloned().collect();
        values.append(&mut self.values);
        self.values = values;
    }

    /// Makes this the line of a Kubernetes event: the event's own text becomes the value `message`.
    pub(super) fn tell_event(&mut self) {
        const WORDS: &str = "Event occurred";
        let said = std::mem::replace(&mut self.message, WORDS.to_owned());
        if said == WORDS {
            return;
        }
        match self.values.iter_mut().find(|(name, _)| *name == "message") {
            Some((_, value)) => *value = Shown::Text(said),
            None => self.values.push(("message", Shown::Text(said))),
        }
    }

    fn push(&mut self, field: &Field, value: Shown) {
        match (field.name(), value) {
            ("message", Shown::Text(text) | Shown::Structure(text)) => {
                let earlier = std::mem::replace(&mut self.message, text);
                if !earlier.is_empty() {
                    self.values.push(("message", Shown::Text(earlier)));
                }
            }
            (name, value) => match self.values.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.values.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Shown::Text(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Shown::Switch(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Shown::Signed(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Shown::Unsigned(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push(field, Shown::Signed(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push(field, Shown::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Shown::Float(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, Shown::Text(chain(value)));
    }

    /// Both `%x` and `?x` arrive here: a bracketed debug form stands as it is, all else is a text.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() != "message"
            && text.starts_with('"')
            && let Ok(plain) = serde_json::from_str::<String>(&text)
        {
            return self.push(field, Shown::Text(plain));
        }
        let is_structure =
            (text.starts_with('[') && text.ends_with(']')) || (text.starts_with('{') && text.ends_with('}'));
        if field.name() != "message" && is_structure {
            self.push(field, Shown::Structure(text));
        } else {
            self.push(field, Shown::Text(text));
        }
    }
}

/// An error and its sources, each after a colon.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = inner.source();
    }
    text
}
