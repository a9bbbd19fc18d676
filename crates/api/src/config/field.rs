//! How a field of the configuration reads, writes and fills itself; the table behind every section.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::duration::Duration;
use crate::quantity::Amount;
use crate::schema::Kind;

/// A type that a field may have.
pub(crate) trait Field: Serialize + Default {
    /// What a file may say.
    const KIND: Kind;

    /// Whether a field behind no pointer is left out when the configuration is written.
    fn is_left_out(&self) -> bool {
        false
    }

    /// Whether a field behind a pointer is left out.
    fn is_absent(&self) -> bool {
        false
    }

    /// Puts in the defaults of what is inside.
    fn fill(_value: &mut Value) {}
}

macro_rules! simple {
    ($($kind:ident $type:ty, $zero:expr;)*) => { $(
        impl Field for $type {
            const KIND: Kind = Kind::$kind;

            fn is_left_out(&self) -> bool {
                *self == $zero
            }
        }
    )* };
}
simple! { Bool bool, false; Int32 i32, 0; Int64 i64, 0; Uint32 u32, 0; Float f64, 0.0; Text String, ""; }

impl Field for Duration {
    const KIND: Kind = Kind::Duration;
}

impl<T: Field> Field for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn is_left_out(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    const KIND: Kind = Kind::Map(&T::KIND);

    fn is_left_out(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// A duration that a file may also write as a bare number of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Flush(pub Duration);

impl<'de> Deserialize<'de> for Flush {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Nanos(i64),
            Text(Duration),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Nanos(nanos) => Duration { nanos },
            Written::Text(duration) => duration,
        }))
    }
}

impl Field for Flush {
    const KIND: Kind = Kind::DurationOrNanos;
}

/// A quantity in its canonical writing; a file may also write a bare number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity(pub String);

impl Quantity {
    /// Its value.
    pub fn amount(&self) -> Amount {
        // Only texts that are quantities become one.
        Amount::parse(&self.0).unwrap_or(Amount::ZERO)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self("0".to_owned())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let amount = Amount::parse(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(amount.to_string()))
    }
}

impl Field for Quantity {
    const KIND: Kind = Kind::Quantity;
}

/// The object that this value is made if it is none.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // Made one above.
        _ => unreachable!(),
    }
}

/// One section of the configuration: a struct, the table of its fields' kinds, its defaults, how it is written.
///
/// A field is `"jsonName" rust_name: MODE Type = default;`. The mode says what upstream's type is: `plain`, where zero
/// is the same as nothing said; `pointer`, where it is not; `always`, which is written even when zero.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident as $shown:literal {
        $($(#[$doc:meta])* $json:literal $field:ident: $mode:ident $type:ty $(= $default:expr)?;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$doc])* #[serde(rename = $json)] pub $field: $type,)*
        }

        impl $name {
            pub(crate) const FIELDS: &'static [(&'static str, crate::schema::Kind)] =
                &[$(($json, $crate::config::field::kind!($mode $type)),)*];

            /// Puts in the defaults of what is not said.
            pub(crate) fn fill_in(map: &mut serde_json::Map<String, serde_json::Value>) {
                $(
                    $(map.entry($json).or_insert_with(|| serde_json::json!($default));)?
                    let inner = map.entry($json).or_insert(serde_json::Value::Null);
                    <$type as crate::config::field::Field>::fill(inner);
                    if inner.is_null() {
                        map.shift_remove($json);
                    }
                )*
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $(
                    if !$crate::config::field::left_out!($mode &self.$field) {
                        map.serialize_entry($json, &self.$field)?;
                    }
                )*
                map.end()
            }
        }

        impl crate::config::field::Field for $name {
            const KIND: crate::schema::Kind =
                crate::schema::Kind::Object(&crate::schema::Shape { name: $shown, fields: Self::FIELDS });

            fn fill(value: &mut serde_json::Value) {
                Self::fill_in(crate::config::field::object(value));
            }
        }
    };
}

macro_rules! kind {
    (pointer $type:ty) => {
        crate::schema::Kind::Pointer(&<$type as crate::config::field::Field>::KIND)
    };
    ($mode:ident $type:ty) => {
        <$type as crate::config::field::Field>::KIND
    };
}

macro_rules! left_out {
    (plain $field:expr) => {
        crate::config::field::Field::is_left_out($field)
    };
    (pointer $field:expr) => {
        crate::config::field::Field::is_absent($field)
    };
    (always $field:expr) => {
        false
    };
}

pub(crate) use {kind, left_out, section};
