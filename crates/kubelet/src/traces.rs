//! Traces, for those who collect them: spans with the target `trace` go to a collector over OTLP/gRPC.
//!
//! Off until [`Traces::start`]: then a span costs nothing but one look at a flag that is known at its place in the code
//! (`tracing`'s interest cache). What is exported: steps of pods, calls to the runtime, requests to our server.
//!
//! Fields with a meaning: `otel.name` (else the span's name), `otel.kind` (`server` or `client`), `otel.error` (it failed,
//! and how), `otel.parent` (a `traceparent` that came from outside), `otel.of` (spans of the same thing are one trace).
//! All others are attributes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rubelet_proto::otlp::any_value::Value;
use rubelet_proto::otlp::span::SpanKind;
use rubelet_proto::otlp::status::StatusCode;
use rubelet_proto::otlp::{AnyValue, KeyValue, Span, Status};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::assemble::Assembled;

mod export;
#[cfg(test)]
mod tests;

/// kubelet 1.36: where spans go when it is not said.
const ENDPOINT: &str = "localhost:4317";
/// Target of the spans that are exported.
pub(crate) const TARGET: &str = "trace";
/// Spans that wait to be sent; more are dropped.
const WAITING_MAX: usize = 2048;
/// Attributes of one span, and bytes of one text.
const ATTRIBUTES_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 1024;

/// Which traces are kept, and where they go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TraceSettings {
    /// `tracing.endpoint`: host and port.
    pub(crate) endpoint: String,
    /// `tracing.samplingRatePerMillion`: of the traces that begin here. One that came from outside is kept if it is there.
    pub(crate) per_million: u32,
    pub(crate) node_name: String,
}

impl TraceSettings {
    /// `None` without `tracing` in the configuration.
    pub(crate) fn of(assembled: &Assembled) -> Option<Self> {
        let wished = assembled.config.logs.tracing.as_ref()?;
        Some(Self {
            endpoint: wished.endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned()),
            // Not negative: checked.
            per_million: wished.sampling_rate_per_million.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(0),
            node_name: assembled.node_name.clone(),
        })
    }
}

/// Collects spans. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_on: AtomicBool,
    hasher: RandomState,
    made: AtomicU64,
    out: OnceLock<(mpsc::Sender<Span>, u32)>,
}

/// Who a span is: of which trace, itself, and whether anybody wants it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Identity {
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

impl Traces {
    /// Whether spans are wanted.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    /// Sends spans from now on, by a task of the runtime that this is called on. Once.
    pub(crate) fn start(&self, settings: TraceSettings) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        if self.0.out.set((sender, settings.per_million)).is_ok() {
            rubelet_host::task::spawn(export::run(settings, receiver));
            self.0.is_on.store(true, Ordering::Relaxed);
            tracing::callsite::rebuild_interest_cache();
        }
    }

    fn random(&self) -> [u8; 8] {
        // A keyed hash of a counter: never twice, and nobody can tell the next one.
        let number = self.0.made.fetch_add(1, Ordering::Relaxed);
        self.0.hasher.hash_one(number).to_be_bytes()
    }

    /// A new span's identity, and its parent's.
    fn identify(&self, parent: Option<Identity>, fields: &Fields) -> (Identity, Option<[u8; 8]>) {
        let span = self.random();
        if let Some(parent) = parent.or(fields.parent) {
            return (Identity { span, ..parent }, Some(parent.span));
        }
        let mut trace = [0; 16];
        let (high, low) = match &fields.of {
            Some(of) => (self.0.hasher.hash_one((of, 0)), self.0.hasher.hash_one((of, 1))),
            None => (u64::from_be_bytes(self.random()), u64::from_be_bytes(self.random())),
        };
        trace[..8].copy_from_slice(&high.to_be_bytes());
        trace[8..].copy_from_slice(&low.to_be_bytes());
        let per_million = self.0.out.get().map_or(0, |(_, per_million)| *per_million);
        // Like OpenTelemetry's own: decided by the trace's number, so that all its spans agree.
        let is_sampled = u128::from(low >> 1) * 1_000_000 < u128::from(per_million) << 63;
        (Identity { trace, span, is_sampled }, None)
    }
}

/// What is known of a span under way.
struct Open {
    identity: Identity,
    parent: Option<[u8; 8]>,
    start: SystemTime,
    fields: Fields,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() != TARGET || !self.is_on() {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = span.scope().skip(1).find_map(|outer| outer.extensions().get::<Open>().map(|open| open.identity));
        let (identity, parent) = self.identify(parent, &fields);
        span.extensions_mut().insert(Open { identity, parent, start: SystemTime::now(), fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        if let Some((out, _)) = self.0.out.get().filter(|_| open.identity.is_sampled) {
            // Too many wait: this one is lost.
            let _ = out.try_send(finished(open, span.metadata()));
        }
    }
}

fn finished(open: Open, metadata: &Metadata<'_>) -> Span {
    let Open { identity, parent, start, fields } = open;
    let nanos = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    Span {
        trace_id: identity.trace.to_vec(),
        span_id: identity.span.to_vec(),
        parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: fields.name.unwrap_or_else(|| metadata.name().to_owned()),
        kind: fields.kind.into(),
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(SystemTime::now()),
        attributes: fields.attributes,
        status: fields.error.map(|message| Status { message, code: StatusCode::Error.into() }),
    }
}

/// What was said of a span.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    kind: Kind,
    error: Option<String>,
    parent: Option<Identity>,
    of: Option<String>,
    attributes: Vec<KeyValue>,
}

/// Internal unless it is said.
#[derive(Clone, Copy, Default)]
struct Kind(Option<SpanKind>);

impl From<Kind> for i32 {
    fn from(kind: Kind) -> Self {
        kind.0.unwrap_or(SpanKind::Internal).into()
    }
}

impl Fields {
    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        match field.name() {
            "otel.name" => self.name = Some(text),
            "otel.kind" => {
                self.kind = Kind(match text.as_str() {
                    "server" => Some(SpanKind::Server),
                    "client" => Some(SpanKind::Client),
                    _ => None,
                });
            }
            "otel.error" => self.error = Some(text),
            "otel.parent" => self.parent = parent(&text),
            "otel.of" => self.of = Some(text),
            _ => self.attribute(field, Value::StringValue(text)),
        }
    }

    fn attribute(&mut self, field: &Field, value: Value) {
        let key = field.name();
        let value = Some(AnyValue { value: Some(value) });
        if let Some(known) = self.attributes.iter_mut().find(|known| known.key == key) {
            known.value = value;
        } else if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push(KeyValue { key: key.to_owned(), value });
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attribute(field, Value::BoolValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attribute(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attribute(field, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(field, Value::DoubleValue(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}

/// A W3C `traceparent`: version, trace, parent's span, flags. `None`: it is none.
fn parent(text: &str) -> Option<Identity> {
    let mut parts = text.split('-');
    let version = parts.next().filter(|version| version.len() == 2 && *version != "ff")?;
    let (trace, span, flags) = (bytes(parts.next()?)?, bytes(parts.next()?)?, bytes::<1>(parts.next()?)?);
    let has_end = version != "00" || parts.next().is_none();
    (has_end && trace != [0; 16] && span != [0; 8]).then_some(Identity { trace, span, is_sampled: flags[0] & 1 == 1 })
}

/// As many bytes, in lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.len() == 2 * N && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut found = [0; N];
    for (at, byte) in found.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2).filter(|_| is_hex)?, 16).ok()?;
    }
    Some(found)
}
