//! What is told of events to an API server: the first of its kind as an object, the next ones as a higher count of it, many similar
//! ones as one, and of an object that never rests only a few.
//!
//! The rules are those of kubelet 1.36's client library; [`crate::pod::PodEvent`] is what there is to tell.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::meta::{ObjectMeta, Time};
use rubelet_api::v1::{self, EventSource, ObjectReference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::now::{Mono, Now, Wall};

mod recent;

use recent::{Key, Recent};

/// kubelet 1.36: `source.component` and `reportingComponent`.
pub const COMPONENT: &str = "kubelet";
/// Where events about objects without a namespace are.
const CLUSTER_NAMESPACE: &str = "default";
/// kubelet 1.36: so many kinds, groups and objects are remembered.
const REMEMBERED: usize = 4096;
/// kubelet 1.36: the tenth different message of one reason, none of them 10 min after another, is told as one of many.
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";
/// kubelet 1.36: an object may have so many events of a type at once, and one more every 5 min.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// The longest name of an object.
const NAME_MAX: usize = 253;

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// `Pod`, `Node`.
    pub kind: &'static str,
    /// Empty for what is in none.
    pub namespace: String,
    pub name: String,
    /// Empty where it is not known.
    pub uid: String,
    pub resource_version: String,
    /// The container, `spec.containers{name}`; empty for the whole.
    pub field_path: String,
}

impl About {
    /// A pod, or one of its containers.
    pub fn pod(pod: &v1::Pod, field_path: &str) -> Self {
        let meta = &pod.metadata;
        let text = |of: &Option<String>| of.clone().unwrap_or_default();
        Self {
            kind: "Pod",
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            field_path: field_path.to_owned(),
        }
    }

    /// A node. kubelet 1.36: by its name only.
    pub fn node(name: &str) -> Self {
        Self { kind: "Node", name: name.to_owned(), ..Self::default() }
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Happening {
    pub about: About,
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    pub reason: String,
    pub message: String,
    pub annotations: BTreeMap<String, String>,
    pub at: Wall,
}

/// What is to be told.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// The whole event: created if it is the first, or if the one that it repeats is not there any more.
    pub event: v1::Event,
    /// What changes of an event of this name that was told before.
    pub change: Option<Value>,
}

/// An event that was told.
#[derive(Clone, Debug)]
struct Last {
    name: String,
    first: Wall,
    count: i32,
}

/// Events of one reason about one object.
#[derive(Clone, Debug, Default)]
struct Similar {
    messages: Vec<Key>,
    last: Mono,
}

/// Remembers what was told, and says how to tell more.
#[derive(Debug)]
pub struct Correlator {
    host: String,
    told: Recent<Last>,
    similar: Recent<Similar>,
    /// When all that an object may tell at once is there again.
    rested: Recent<Mono>,
    last_named: i128,
}

impl Correlator {
    /// Of the node of this name; nothing was told yet.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            told: Recent::new(REMEMBERED),
            similar: Recent::new(REMEMBERED),
            rested: Recent::new(REMEMBERED),
            last_named: i128::MIN,
        }
    }

    /// How to tell of it; `None`: not at all, its object has told enough.
    pub fn tell(&mut self, happening: Happening, now: Now) -> Option<Told> {
        let kind = Key::of(&kind_of(&happening));
        let (key, message, at, annotations) = match self.group(&happening, now.mono) {
            // kubelet 1.36: annotations and reporter are those of one event only.
            Some(group) => (group, format!("{COMBINED}{}", happening.message), now.wall, None),
            None => (kind, happening.message.clone(), happening.at, Some(happening.annotations.clone())),
        };
        let before = self.told.get(&key).cloned();
        let last = match &before {
            Some(before) => Last { count: before.count.saturating_add(1), ..before.clone() },
            None => Last { name: self.name(&happening.about, at), first: at, count: 1 },
        };
        self.told.put(key, last.clone());
        // Counted before: what is not told counts too, and is told with the next one that is.
        if !self.may_tell(&happening, now.mono) {
            return None;
        }
        let change = before.map(|_| change(last.count, at, &message));
        Some(Told { event: self.event(happening, last, at, message, annotations), change })
    }

    /// The key of the group, once it is told of as one.
    fn group(&mut self, happening: &Happening, now: Mono) -> Option<Key> {
        let key = Key::of(&[&kind_of_object(happening)[..], &[happening.type_, &happening.reason, "of"]].concat());
        let mut similar = match self.similar.take(&key) {
            Some(similar) if now.since(similar.last) <= SIMILAR_WITHIN => similar,
            _ => Similar::default(),
        };
        similar.last = now;
        let message = Key::of(&[&happening.message]);
        let is_new = !similar.messages.contains(&message);
        let count = similar.messages.len() + usize::from(is_new);
        // Those that are told on their own stay the same ones.
        if is_new && count < SIMILAR {
            similar.messages.push(message);
        }
        self.similar.put(key.clone(), similar);
        (count >= SIMILAR).then_some(key)
    }

    fn may_tell(&mut self, happening: &Happening, now: Mono) -> bool {
        let key = Key::of(&[&kind_of_object(happening)[..], &[happening.type_]].concat());
        let rested = self.rested.get(&key).copied().unwrap_or_default().max(now);
        let may = rested.since(now) <= REFILL * (BURST - 1);
        self.rested.put(key, if may { rested + REFILL } else { rested });
        may
    }

    /// A name that no other event has. kubelet 1.36: after object and time, or a UUID where that is no name.
    fn name(&mut self, about: &About, at: Wall) -> String {
        let nanos = at.as_nanosecond().max(self.last_named.saturating_add(1));
        self.last_named = nanos;
        let name = format!("{}.{nanos:x}", about.name);
        if is_name(&name) { name } else { uuid(&[&name, about.kind, &about.namespace]) }
    }

    fn event(
        &self,
        happening: Happening,
        last: Last,
        at: Wall,
        message: String,
        annotations: Option<BTreeMap<String, String>>,
    ) -> v1::Event {
        let Happening { about, type_, reason, .. } = happening;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let namespace = if about.namespace.is_empty() { CLUSTER_NAMESPACE.to_owned() } else { about.namespace.clone() };
        let is_single = annotations.is_some();
        v1::Event {
            metadata: ObjectMeta {
                name: Some(last.name),
                namespace: Some(namespace),
                annotations: annotations.filter(|a| !a.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: some(about.kind.to_owned()),
                namespace: some(about.namespace),
                name: some(about.name),
                uid: some(about.uid),
                api_version: Some("v1".to_owned()),
                resource_version: some(about.resource_version),
                field_path: some(about.field_path),
            },
            reason: Some(reason),
            message: Some(message),
            source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(self.host.clone()) }),
            first_timestamp: Some(Time(last.first)),
            last_timestamp: Some(Time(at)),
            count: Some(last.count),
            type_: Some(type_.to_owned()),
            reporting_component: is_single.then(|| COMPONENT.to_owned()),
            reporting_instance: is_single.then(|| self.host.clone()),
            ..v1::Event::default()
        }
    }
}

/// What of an event that was told is different now.
fn change(count: i32, at: Timestamp, message: &str) -> Value {
    let mut change = json!({"count": count, "lastTimestamp": Time(at)});
    if !message.is_empty() {
        change["message"] = json!(message);
    }
    change
}

fn kind_of_object(happening: &Happening) -> [&str; 4] {
    let about = &happening.about;
    [about.kind, &about.namespace, &about.name, &about.uid]
}

fn kind_of(happening: &Happening) -> [&str; 8] {
    let [kind, namespace, name, uid] = kind_of_object(happening);
    let Happening { about, type_, reason, message, .. } = happening;
    [kind, namespace, name, uid, &about.field_path, type_, reason, message]
}

/// Whether an object may be called this: a subdomain of RFC 1123.
fn is_name(name: &str) -> bool {
    let is_alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(first, last)| is_alphanumeric(*first) && is_alphanumeric(*last))
            && bytes.iter().all(|c| is_alphanumeric(*c) || *c == b'-')
    };
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

/// A UUID that follows from these words.
fn uuid(words: &[&str]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(words.join("\n"))[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests;
