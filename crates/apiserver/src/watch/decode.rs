//! One event of a watch, decoded straight into its type.

use std::fmt;
use std::marker::PhantomData;

use rubelet_api::meta::{ObjectMeta, Status};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::object::{Kept, Object};

/// Marks the bookmark after a streamed list.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// What a line says.
#[derive(Debug)]
pub(super) enum Event<T> {
    Upserted(T),
    Removed(T),
    Bookmark { version: String, is_initial_end: bool },
    Error(Box<Status>),
}

/// What is of use in a bookmark.
#[derive(serde::Deserialize)]
struct Bookmark {
    metadata: ObjectMeta,
}

impl<'de, T: Object> Deserialize<'de> for Event<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor(PhantomData))
    }
}

struct EventVisitor<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for EventVisitor<T> {
    type Value = Event<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of a watch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event<T>, A::Error> {
        let mut kind: Option<String> = None;
        let mut early: Option<Value> = None;
        let mut event = None;
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), &kind) {
                ("type", _) => kind = Some(map.next_value()?),
                ("object", Some(kind)) => event = Some(map.next_value_seed(OfKind::<T>(kind, PhantomData))?),
                // No server writes the object first, but it may.
                ("object", None) => early = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (event, early, kind) {
            (Some(event), ..) => Ok(event),
            (None, Some(early), Some(kind)) => {
                let text = serde_json::to_vec(&early).map_err(A::Error::custom)?;
                let mut again = serde_json::Deserializer::from_slice(&text);
                let seed = OfKind::<T>(&kind, PhantomData);
                serde::de::DeserializeSeed::deserialize(seed, &mut again).map_err(A::Error::custom)
            }
            (None, None, _) => Err(A::Error::missing_field("object")),
            (None, Some(_), None) => Err(A::Error::missing_field("type")),
        }
    }
}

/// Decodes the object of an event by the event's type.
struct OfKind<'a, T>(&'a str, PhantomData<T>);

impl<'de, T: Object> serde::de::DeserializeSeed<'de> for OfKind<'_, T> {
    type Value = Event<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event<T>, D::Error> {
        match self.0 {
            "ADDED" | "MODIFIED" => Kept::deserialize(deserializer).map(|Kept(object)| Event::Upserted(object)),
            "DELETED" => Kept::deserialize(deserializer).map(|Kept(object)| Event::Removed(object)),
            "BOOKMARK" => {
                let Bookmark { metadata } = Bookmark::deserialize(deserializer)?;
                let mark = metadata.annotations.as_ref().and_then(|marks| marks.get(INITIAL_END));
                let is_initial_end = mark.is_some_and(|mark| mark == "true");
                Ok(Event::Bookmark { version: metadata.resource_version.unwrap_or_default(), is_initial_end })
            }
            "ERROR" => Status::deserialize(deserializer).map(|status| Event::Error(Box::new(status))),
            other => Err(D::Error::custom(format!("unknown event {other:?}"))),
        }
    }
}
