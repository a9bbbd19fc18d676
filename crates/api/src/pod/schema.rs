//! The shape of a Pod: every field's name and kind, as a table.
//!
//! The typed structs drop unknown fields in silence and stop at the first wrong type without a position. A walk over
//! this table finds every unknown field and every wrong type at once, and knows where each stands in the file.
//! The names are those of core/v1 1.36; a test keeps the table and the structs together.

mod container;
mod object;
mod spec;
mod volume;

pub(crate) use object::POD;

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A whole number or a string, such as a port by number or by name.
    IntOrString,
    /// An amount such as `500m` or `1Gi`; a bare number is taken too.
    Quantity,
    /// A time as in RFC 3339.
    Time,
    /// Whatever is there is kept as it is.
    Anything,
    /// A sequence of one kind.
    List(&'static Kind),
    /// Free keys, values of one kind.
    Map(&'static Kind),
    /// Fixed fields.
    Object(&'static Shape),
    /// A field whose zero value (`""`, `0`, `false`) means something else than its absence. All others lose zero
    /// values, as upstream's JSON does.
    Pointer(&'static Kind),
}

/// One struct of the API.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The API's name of the type.
    pub(crate) name: &'static str,
    /// Field names as in JSON, with what they hold.
    pub(crate) fields: &'static [(&'static str, Kind)],
}

impl Shape {
    /// The kind of a field, if the type has it.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Kind> {
        self.fields.iter().find(|(own, _)| *own == name).map(|(_, kind)| kind)
    }
}

impl Kind {
    /// The object that this is, or that the list, map or pointer is made of.
    pub(crate) fn shape(&self) -> Option<&'static Shape> {
        match self {
            Self::Object(shape) => Some(shape),
            Self::List(inner) | Self::Map(inner) | Self::Pointer(inner) => inner.shape(),
            Self::Text
            | Self::Bool
            | Self::Int32
            | Self::Int64
            | Self::IntOrString
            | Self::Quantity
            | Self::Time
            | Self::Anything => None,
        }
    }

    /// How a message calls it.
    pub(crate) fn expected(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Bool => "true or false",
            Self::Int32 | Self::Int64 => "an integer",
            Self::IntOrString => "an integer or a string",
            Self::Quantity => "a quantity",
            Self::Time => "a time",
            Self::Anything => "anything",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Object(_) => "an object",
            Self::Pointer(inner) => inner.expected(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    /// A value with every field, as far as `depth` goes.
    fn full(kind: &Kind, depth: usize) -> Value {
        match kind {
            Kind::Text => json!("x"),
            Kind::Bool => json!(true),
            Kind::Int32 | Kind::Int64 | Kind::IntOrString => json!(7),
            Kind::Quantity => json!("1"),
            Kind::Time => json!("2026-01-31T12:00:00Z"),
            Kind::Anything => json!({}),
            Kind::List(inner) => Value::Array(vec![full(inner, depth)]),
            Kind::Map(inner) => json!({"k": full(inner, depth)}),
            Kind::Pointer(inner) => full(inner, depth),
            Kind::Object(shape) if depth == 0 => {
                let _ = shape;
                json!({})
            }
            Kind::Object(shape) => Value::Object(object(shape, depth)),
        }
    }

    fn object(shape: &Shape, depth: usize) -> Map<String, Value> {
        shape.fields.iter().map(|(name, kind)| ((*name).to_owned(), full(kind, depth - 1))).collect()
    }

    fn assert_kept(before: &Value, after: &Value, path: &str) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => {
                for (key, value) in before {
                    let kept = after.get(key).unwrap_or_else(|| panic!("the type has no field {path}.{key}"));
                    assert_kept(value, kept, &format!("{path}.{key}"));
                }
            }
            (Value::Array(before), Value::Array(after)) => assert_kept(&before[0], &after[0], path),
            _ => assert_eq!(before, after, "{path}"),
        }
    }

    #[test]
    fn every_field_of_the_table_is_a_field_of_the_type() {
        let mut pod = Value::Object(object(&POD, 20));
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        let typed: crate::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_kept(&pod, &serde_json::to_value(&typed).unwrap(), "");
    }

    #[test]
    fn tables_have_no_field_twice() {
        let mut names: Vec<&str> =
            POD.field("spec").and_then(Kind::shape).unwrap().fields.iter().map(|f| f.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(count, 42, "fields of PodSpec in 1.36");
    }
}
