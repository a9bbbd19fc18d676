//! The log in klog's text or JSON form, on stderr.
//!
//! What is shown: errors, warnings and info always; debug from `--v=2`, trace from `--v=4`; Kubernetes events
//! (info with target `event`) from `--v=3`, as upstream does. Debug and trace of other people's crates need
//! `--v=8` and `--v=10`. `--vmodule` raises the level for files by name. Lines that say nothing new are left out
//! ([`repeats`]), unless everything is to be shown (`--v=4` and more).

mod fields;
mod json;
mod repeats;
mod text;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Zoned;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use fields::{Fields, Shown};
use repeats::Repeats;

use crate::traces::{self, Traces};

/// Target of the log lines that repeat a Kubernetes event: they read `"Event occurred" … message="…"`,
/// with the line's own message as the event's.
pub(crate) const EVENT_TARGET: &str = "event";

/// Level of detail that a Kubernetes event needs; from kubelet 1.36: `--v=3`.
const EVENT_LEVEL: u32 = 3;

/// From this level of detail on, repeated lines are shown as well.
const ALL_LEVEL: u32 = 4;

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// `I1123 17:19:54.123456   12345 main.rs:307] "Message" key="value"`.
    Text,
    /// One JSON object.
    Json,
}

/// What can be changed while the program runs.
#[derive(Debug)]
struct Settings {
    is_json: AtomicBool,
    verbosity: AtomicU32,
    has_patterns: AtomicBool,
    patterns: RwLock<Vec<(String, u32)>>,
    traces: Traces,
}

/// Changes the log of a running program.
#[derive(Clone, Debug)]
pub(crate) struct Control(Arc<Settings>);

impl Control {
    fn new() -> Self {
        Self(Arc::new(Settings {
            is_json: AtomicBool::new(false),
            verbosity: AtomicU32::new(0),
            has_patterns: AtomicBool::new(false),
            patterns: RwLock::new(Vec::new()),
            traces: Traces::default(),
        }))
    }

    /// Chooses the form of the following lines.
    pub(crate) fn set_format(&self, format: Format) {
        self.0.is_json.store(format == Format::Json, Ordering::Relaxed);
    }

    /// Shows everything up to this level of detail.
    pub(crate) fn set_verbosity(&self, verbosity: u32) {
        self.0.verbosity.store(verbosity, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Levels of detail for files whose name without `.rs` matches a pattern with `*` and `?`.
    pub(crate) fn set_patterns(&self, patterns: Vec<(String, u32)>) {
        self.0.has_patterns.store(!patterns.is_empty(), Ordering::Relaxed);
        *self.0.patterns.write().unwrap_or_else(PoisonError::into_inner) = patterns;
        tracing::callsite::rebuild_interest_cache();
    }

    /// What collects traces, once it is started.
    pub(crate) fn traces(&self) -> &Traces {
        &self.0.traces
    }

    /// Spans of the log always, spans of traces when somebody wants them.
    fn has_span(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != traces::TARGET || self.0.traces.is_on()
    }

    fn is_shown(&self, metadata: &Metadata<'_>) -> bool {
        let need = needed(metadata);
        if need <= self.0.verbosity.load(Ordering::Relaxed) {
            return true;
        }
        let Some(file) = metadata.file().filter(|_| self.0.has_patterns.load(Ordering::Relaxed)) else { return false };
        let stem = base_name(file).trim_end_matches(".rs");
        let patterns = self.0.patterns.read().unwrap_or_else(PoisonError::into_inner);
        patterns.iter().find(|(pattern, _)| matches(pattern, stem)).is_some_and(|(_, level)| need <= *level)
    }
}

/// The level of detail that a line needs to be shown.
fn needed(metadata: &Metadata<'_>) -> u32 {
    let is_ours = metadata.target().starts_with("rubelet") || metadata.target() == EVENT_TARGET;
    match (*metadata.level(), is_ours) {
        (Level::INFO, _) if metadata.target() == EVENT_TARGET => EVENT_LEVEL,
        (Level::ERROR | Level::WARN | Level::INFO, _) => 0,
        (Level::DEBUG, true) => 2,
        (Level::TRACE, true) => 4,
        (Level::DEBUG, false) => 8,
        (Level::TRACE, false) => 10,
    }
}

/// The file's name without its directories.
fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether the name matches the pattern, in which `*` stands for any text and `?` for one character.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_rest.as_str();
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(rest, &name[at..]))
        }
        Some(wanted) => {
            let mut name_rest = name.chars();
            name_rest.next().is_some_and(|c| wanted == '?' || wanted == c)
                && matches(pattern_rest.as_str(), name_rest.as_str())
        }
    }
}

/// What stands before a line's message.
struct Origin<'a> {
    at: Zoned,
    pid: u32,
    level: Level,
    verbosity: u32,
    path: &'a str,
    line: u32,
}

type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Writes what `tracing` reports.
struct Klog {
    control: Control,
    now: fn() -> Zoned,
    pid: u32,
    sink: Sink,
    /// Since any time, never going back.
    elapsed: Box<dyn Fn() -> Duration + Send + Sync>,
    repeats: Mutex<Repeats>,
}

/// Makes this the log of the whole process; called once, first thing in `main`.
///
/// The log is text with `--v=0` until the returned control says otherwise.
pub(crate) fn install() -> Control {
    let control = Control::new();
    let sink: Sink = Box::new(|line| {
        // A log that cannot be written has nobody to tell.
        let _ = std::io::stderr().lock().write_all(line);
    });
    let start = Instant::now();
    let layer = Klog {
        control: control.clone(),
        now: Zoned::now,
        pid: std::process::id(),
        sink,
        elapsed: Box::new(move || start.elapsed()),
        repeats: Mutex::default(),
    };
    // Refused only when a log is installed already, which then stays.
    let traces = control.traces().clone();
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer).with(traces));
    control
}

impl Klog {
    /// How many lines like this one were left out before it; `None`: leave it out as well.
    fn left_out(&self, metadata: &Metadata<'_>, said: &Fields) -> Option<u64> {
        if needed(metadata) > 0 || self.control.0.verbosity.load(Ordering::Relaxed) >= ALL_LEVEL {
            return Some(0);
        }
        let place = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).admit(place, said, (self.elapsed)())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Klog {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match metadata.is_span() {
            true if self.control.has_span(metadata) => Interest::always(),
            true => Interest::never(),
            false if needed(metadata) == 0 => Interest::always(),
            false => Interest::sometimes(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        if metadata.is_span() { self.control.has_span(metadata) } else { self.control.is_shown(metadata) }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let settings = &self.control.0;
        if settings.has_patterns.load(Ordering::Relaxed) {
            return Some(LevelFilter::TRACE);
        }
        Some(match settings.verbosity.load(Ordering::Relaxed) {
            0..2 => LevelFilter::INFO,
            2..4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == traces::TARGET {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if !self.control.is_shown(metadata) {
            return;
        }
        let mut said = Fields::default();
        event.record(&mut said);
        if metadata.target() == EVENT_TARGET {
            said.tell_event();
        }
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(outer) = span.extensions().get::<Fields>() {
                    said.surround_with(outer);
                }
            }
        }
        let Some(left_out) = self.left_out(metadata, &said) else { return };
        if left_out > 0 {
            said.values.push(("leftOut", Shown::Unsigned(left_out.into())));
        }
        let origin = Origin {
            at: (self.now)(),
            pid: self.pid,
            level: *metadata.level(),
            verbosity: needed(metadata),
            path: metadata.file().unwrap_or("???"),
            line: metadata.line().unwrap_or(1),
        };
        let line = if self.control.0.is_json.load(Ordering::Relaxed) {
            json::line(&origin, &said)
        } else {
            text::line(&origin, &said)
        };
        (self.sink)(line.as_bytes());
    }
}
