//! Metrics: what a family is, values that count, and the text that tells them.
//!
//! A value is counted where the thing happens, through a reference that was passed there; there is no registry that
//! everybody reaches. The text is Prometheus' format 0.0.4, which OpenMetrics' clients take, too.

mod number;
mod text;
mod value;

#[cfg(test)]
mod tests;

pub use text::Text;
pub use value::{Counter, Gauge, Histogram, Labelled, Plain, Value};

/// What kind of numbers a family has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The format's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What users may rely on. kubelet 1.36: stands before the help text, in brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stability {
    Alpha,
    Beta,
    Stable,
    Internal,
    /// Families that are not Kubernetes' own say nothing.
    Unsaid,
}

impl Stability {
    /// The word in the help text; empty when nothing is said.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Stable => "STABLE",
            Self::Internal => "INTERNAL",
            Self::Unsaid => "",
        }
    }
}

/// One family: its name and what belongs to all of its samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub stability: Stability,
    pub help: &'static str,
    /// Names of labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets, without the last one, which is infinite.
    pub buckets: &'static [f64],
}

/// Labels of a family.
pub type Names = &'static [&'static str];

impl Family {
    /// A family that only grows.
    pub const fn counter(name: &'static str, stability: Stability, help: &'static str, labels: Names) -> Self {
        Self { name, kind: Kind::Counter, stability, help, labels, buckets: &[] }
    }

    /// A family that goes up and down.
    pub const fn gauge(name: &'static str, stability: Stability, help: &'static str, labels: Names) -> Self {
        Self { name, kind: Kind::Gauge, stability, help, labels, buckets: &[] }
    }

    /// A family of distributions.
    pub const fn histogram(
        name: &'static str,
        stability: Stability,
        help: &'static str,
        labels: Names,
        buckets: &'static [f64],
    ) -> Self {
        Self { name, kind: Kind::Histogram, stability, help, labels, buckets }
    }

    /// The bounds as they stand in the text, the infinite one included; empty for other kinds.
    pub fn bucket_texts(&self) -> Vec<String> {
        if self.kind != Kind::Histogram {
            return Vec::new();
        }
        self.buckets.iter().map(|bound| number::text(*bound)).chain(["+Inf".to_owned()]).collect()
    }
}

/// Prometheus' own bounds, seconds.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Makes a structure whose fields are families that are counted: `Default`, a list `FAMILIES`, and `tell`, which writes them all.
/// What a family is called is said once, beside the field.
#[macro_export]
macro_rules! counted {
    ($(#[$note:meta])* $seen:vis struct $name:ident { $($(#[$about:meta])* $shown:vis $field:ident: $value:ty = $family:expr;)* }) => {
        $(#[$note])*
        #[derive(Debug)]
        $seen struct $name { $($(#[$about])* $shown $field: $value,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: { static FAMILY: $crate::metrics::Family = $family; <$value>::new(&FAMILY) },)* }
            }
        }

        impl $name {
            /// All of them, in the order in which they are told.
            $seen const FAMILIES: &'static [&'static $crate::metrics::Family] = &[$(&$family,)*];

            /// Writes them.
            ///
            /// # Errors
            /// The sink's.
            $seen fn tell(&self, text: &mut $crate::metrics::Text<'_>) -> std::io::Result<()> {
                $(self.$field.tell(text)?;)*
                Ok(())
            }
        }
    };
}
