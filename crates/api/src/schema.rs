//! The shape of a document: every field's name and kind, as a table.
//!
//! Typed structs drop unknown fields in silence and stop at the first wrong type without a position. A walk over such
//! a table ([`crate::walk`]) finds every unknown field and every wrong type at once, and knows where each stands.

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
    /// A whole number of 32 bits that is not negative.
    Uint32,
    /// Any number.
    Float,
    /// A duration such as `1m0s`.
    Duration,
    /// A duration, or nanoseconds as a bare number.
    DurationOrNanos,
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
            | Self::Uint32
            | Self::Float
            | Self::Duration
            | Self::DurationOrNanos
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
            Self::Int32 | Self::Int64 | Self::Uint32 => "an integer",
            Self::Float => "a number",
            Self::Duration | Self::DurationOrNanos => "a duration such as 1m30s",
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
