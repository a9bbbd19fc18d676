//! The text, written as it comes: nothing of it is kept.

use std::io::{self, Write};

use super::{Family, Kind, Stability, number};

/// Writes families, one after another. All samples of a family come in a row.
pub struct Text<'w> {
    out: &'w mut dyn Write,
    /// The line in the making, so that the sink is called once for each.
    line: Vec<u8>,
}

impl<'w> Text<'w> {
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, line: Vec::with_capacity(512) }
    }

    /// Says what follows: help and type.
    ///
    /// # Errors
    /// The sink's; all methods here have no others.
    pub fn head(&mut self, family: &Family) -> io::Result<()> {
        let word = family.stability.as_str();
        match family.stability {
            Stability::Unsaid => writeln!(self.line, "# HELP {} {}", family.name, family.help)?,
            Stability::Alpha | Stability::Beta | Stability::Stable | Stability::Internal => {
                writeln!(self.line, "# HELP {} [{word}] {}", family.name, family.help)?;
            }
        }
        writeln!(self.line, "# TYPE {} {}", family.name, family.kind.as_str())?;
        self.flush_line()
    }

    /// One sample. `labels` are values in the order of the family's names.
    pub fn sample(&mut self, family: &Family, labels: &[&str], value: f64) -> io::Result<()> {
        self.sample_at(family, labels, value, None)
    }

    /// One sample with the time it was taken, milliseconds since 1970.
    pub fn sample_at(
        &mut self,
        family: &Family,
        labels: &[&str],
        value: f64,
        at_millis: Option<i64>,
    ) -> io::Result<()> {
        self.line.extend_from_slice(family.name.as_bytes());
        let mut separator = b'{';
        for (name, value) in family.labels.iter().zip(labels) {
            separator = self.label(separator, name, value);
        }
        if separator == b',' {
            self.line.push(b'}');
        }
        self.end(value, at_millis)
    }

    /// Labels as they stand in the text, for many samples; to be given to [`Text::sample_of`].
    pub fn rendered(names: &[&str], values: &[&str]) -> Box<[u8]> {
        let mut text = Text { out: &mut io::sink(), line: Vec::new() };
        for (at, (name, value)) in names.iter().zip(values).enumerate() {
            text.label(if at == 0 { b'{' } else { b',' }, name, value);
        }
        // Where it stands there may be something before it.
        text.line.into_iter().skip(1).collect()
    }

    /// One sample of many with the same labels, and some of its own.
    pub fn sample_of(
        &mut self,
        family: &Family,
        rendered: &[u8],
        own: &[(&str, &str)],
        value: f64,
        at_millis: Option<i64>,
    ) -> io::Result<()> {
        self.line.extend_from_slice(family.name.as_bytes());
        let mut separator = b'{';
        for (name, value) in own {
            separator = self.label(separator, name, value);
        }
        self.line.push(separator);
        self.line.extend_from_slice(rendered);
        self.line.push(b'}');
        self.end(value, at_millis)
    }

    /// A family with one number and no labels.
    pub fn single(&mut self, family: &Family, value: f64) -> io::Result<()> {
        self.head(family)?;
        self.sample(family, &[], value)
    }

    /// A distribution: `counts` by bucket (not summed up), one more than the family has bounds.
    pub fn distribution(&mut self, family: &Family, labels: &[&str], counts: &[u64], sum: f64) -> io::Result<()> {
        debug_assert!(family.kind == Kind::Histogram && counts.len() == family.buckets.len() + 1);
        let mut total = 0_u64;
        for (count, bound) in counts.iter().zip(family.buckets.iter().copied().chain([f64::INFINITY])) {
            total += count;
            self.part(family, "_bucket", labels);
            let open = if labels.is_empty() { b'{' } else { b',' };
            self.line.push(open);
            self.line.extend_from_slice(b"le=\"");
            number::write(&mut self.line, bound)?;
            self.line.extend_from_slice(b"\"}");
            self.end(total as f64, None)?;
        }
        self.part(family, "_sum", labels);
        self.close(labels);
        self.end(sum, None)?;
        self.part(family, "_count", labels);
        self.close(labels);
        self.end(total as f64, None)
    }

    fn part(&mut self, family: &Family, suffix: &str, labels: &[&str]) {
        self.line.extend_from_slice(family.name.as_bytes());
        self.line.extend_from_slice(suffix.as_bytes());
        let mut separator = b'{';
        for (name, value) in family.labels.iter().zip(labels) {
            separator = self.label(separator, name, value);
        }
    }

    fn close(&mut self, labels: &[&str]) {
        if !labels.is_empty() {
            self.line.push(b'}');
        }
    }

    fn label(&mut self, separator: u8, name: &str, value: &str) -> u8 {
        self.line.push(separator);
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"=\"");
        for byte in value.bytes() {
            match byte {
                b'\\' => self.line.extend_from_slice(b"\\\\"),
                b'"' => self.line.extend_from_slice(b"\\\""),
                b'\n' => self.line.extend_from_slice(b"\\n"),
                byte => self.line.push(byte),
            }
        }
        self.line.push(b'"');
        b','
    }

    fn end(&mut self, value: f64, at_millis: Option<i64>) -> io::Result<()> {
        self.line.push(b' ');
        number::write(&mut self.line, value)?;
        if let Some(at) = at_millis {
            write!(self.line, " {at}")?;
        }
        self.line.push(b'\n');
        self.flush_line()
    }

    fn flush_line(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.line);
        self.line.clear();
        written
    }
}
