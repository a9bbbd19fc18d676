//! Events as they are told, and what happens when telling goes wrong.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::{Subscriber, set_global_default};

static GLOBAL: Once = Once::new();

thread_local! {
    static HERE: RefCell<Option<Told>> = const { RefCell::new(None) };
}

/// Somebody listens on this thread.
pub(crate) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        HERE.set(None);
    }
}

/// Gives events to who listens on their thread.
struct Router;

type Breaks = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The events told on this thread, as `object reason: message`.
#[derive(Clone, Default)]
pub(crate) struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    breaks: Arc<Mutex<Option<Breaks>>>,
}

impl Told {
    /// Listens until the guard is dropped.
    pub(crate) fn listen() -> (Self, Listening) {
        // One for the whole process: with one for each thread, tracing takes what another thread does not want for unwanted.
        GLOBAL.call_once(|| set_global_default(Router).expect("the first"));
        let told = Self::default();
        HERE.set(Some(told.clone()));
        (told, Listening)
    }

    fn take(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = format!("{} {}: {}", fields.object, fields.reason, fields.message);
        self.lines.lock().expect("whole").push(line.clone());
        let breaks = self.breaks.lock().expect("whole").as_ref().is_some_and(|breaks| breaks(&line));
        assert!(!breaks, "broken as told: {line}");
    }

    /// Whoever tells an event of this kind panics.
    pub(crate) fn break_on(&self, breaks: impl Fn(&str) -> bool + Send + Sync + 'static) {
        *self.breaks.lock().expect("whole") = Some(Box::new(breaks));
    }

    pub(crate) fn mend(&self) {
        *self.breaks.lock().expect("whole") = None;
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("whole").clone()
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.lines().iter().any(|line| line.contains(part))
    }
}

#[derive(Default)]
struct Fields {
    object: String,
    reason: String,
    /// The event's own; the line's title comes before it.
    message: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "object" => self.object = format!("{value:?}"),
            "reason" => self.reason = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Router {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "event"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let here = HERE.with_borrow(Clone::clone);
        if let Some(told) = here {
            told.take(event);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
