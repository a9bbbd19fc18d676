//! What is wrong with a manifest, where, and in upstream's words.

use std::fmt;

/// A place in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A field of an object, `.name`.
    Field(String),
    /// A key of a map, `[key]`.
    Key(String),
    /// An element of a list, `[0]`.
    Index(usize),
}

/// The path of a field as upstream prints it: `spec.containers[0].resources.limits[cpu]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The path of the object itself, printed as nothing.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a field of this object.
    pub fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    /// The path of a field some levels deeper, written with dots.
    pub fn at(&self, dotted: &str) -> Self {
        dotted.split('.').fold(self.clone(), |path, name| path.field(name))
    }

    /// The path of a value of this map.
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// The path of an element of this list.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The path of what is at `inner` in this object.
    pub fn join(&self, inner: &Self) -> Self {
        Self(self.0.iter().chain(&inner.0).cloned().collect())
    }

    /// The steps, outermost first.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if nth == 0 => f.write_str(&cut(name))?,
                Segment::Field(name) => write!(f, ".{}", cut(name))?,
                Segment::Key(key) => write!(f, "[{}]", cut(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A text that is not longer than what anybody reads.
fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    const LONGEST: usize = 256;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// One thing wrong, at one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, or the root when it concerns the whole manifest.
    pub path: Path,
    /// What is wrong, without path and position.
    pub message: String,
    /// Where the field, or the nearest thing around it that is written, stands.
    pub position: Option<Position>,
    /// The place to point at when it is another than `path`, such as the one bad key of a map.
    pub(crate) spot: Option<Path>,
}

impl Problem {
    /// A problem whose position is not known yet.
    pub fn new(path: Path, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), position: None, spot: None }
    }
}

impl fmt::Display for Problem {
    /// `line:column: path: message`, each part where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.path.segments().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// A manifest that cannot become a pod: every reason found, in the order of the file.
///
/// Displays as `FILE:LINE:COLUMN: PATH: MESSAGE`, several joined by `; `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// Path or URL of the manifest.
    pub origin: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
    /// What was ignored on the way, such as misspelled fields: often the cause of what is wrong.
    pub ignored: Vec<Problem>,
}

/// Most problems that one manifest is told, and most fields that are called ignored.
const TOLD: usize = 100;

/// At most [`TOLD`], and how many more there are.
pub(crate) fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    if problems.len() > TOLD {
        let more = problems.len() - TOLD;
        problems.truncate(TOLD);
        problems.push(Problem::new(Path::root(), format!("and {more} more like these")));
    }
    problems
}

impl ManifestError {
    /// The error of a manifest, with not more problems than anybody reads.
    pub(crate) fn new(origin: &str, problems: Vec<Problem>, ignored: Vec<Problem>) -> Self {
        Self { origin: origin.to_owned(), problems: bounded(problems), ignored: bounded(ignored) }
    }

    /// The messages, one line each, each with the manifest's path or URL.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().chain(&self.ignored).map(|problem| located(&self.origin, problem))
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, line) in self.lines().enumerate() {
            if nth > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

/// `FILE:LINE:COLUMN: PATH: MESSAGE`, or `FILE: …` without a position.
pub(crate) fn located(origin: &str, problem: &Problem) -> String {
    match problem.position {
        Some(_) => format!("{origin}:{problem}"),
        None => format!("{origin}: {problem}"),
    }
}

/// How a value looks in `Invalid value: …`.
pub(crate) trait Shown {
    /// Strings quoted, numbers and booleans bare.
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        match cut(self) {
            std::borrow::Cow::Borrowed(whole) => format!("{whole:?}"),
            std::borrow::Cow::Owned(start) => format!("{:?}...", start.trim_end_matches("...")),
        }
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

macro_rules! shown_bare {
    ($($kind:ty),*) => { $(impl Shown for $kind { fn shown(&self) -> String { self.to_string() } })* };
}
shown_bare!(i32, i64, usize, bool);

/// Collects problems while rules run.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Everything collected.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// Adds a message in its own words.
    pub(crate) fn add(&mut self, path: &Path, message: impl Into<String>) {
        self.0.push(Problem::new(path.clone(), message));
    }

    /// Lets the problems from the `from`th on point at another place than their path.
    pub(crate) fn point_at(&mut self, from: usize, spot: &Path) {
        for problem in self.0.iter_mut().skip(from) {
            problem.spot = Some(spot.clone());
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    fn with_detail(&mut self, path: &Path, message: String, detail: &str) {
        let message = if detail.is_empty() { message } else { format!("{message}: {detail}") };
        self.add(path, message);
    }

    /// `Required value[: detail]`.
    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.with_detail(path, "Required value".to_owned(), detail);
    }

    /// `Invalid value: VALUE[: detail]`.
    pub(crate) fn invalid<V: Shown + ?Sized>(&mut self, path: &Path, value: &V, detail: &str) {
        self.with_detail(path, format!("Invalid value: {}", value.shown()), detail);
    }

    /// `Unsupported value: VALUE: supported values: "A", "B"`.
    pub(crate) fn unsupported<V: Shown + ?Sized>(&mut self, path: &Path, value: &V, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        self.with_detail(path, format!("Unsupported value: {}", value.shown()), &detail);
    }

    /// `Duplicate value: VALUE`.
    pub(crate) fn duplicate<V: Shown + ?Sized>(&mut self, path: &Path, value: &V) {
        self.add(path, format!("Duplicate value: {}", value.shown()));
    }

    /// `Not found: VALUE`.
    pub(crate) fn not_found<V: Shown + ?Sized>(&mut self, path: &Path, value: &V) {
        self.add(path, format!("Not found: {}", value.shown()));
    }

    /// `Forbidden: detail`.
    pub(crate) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.with_detail(path, "Forbidden".to_owned(), detail);
    }

    /// `Too long: may not be more than N bytes`.
    pub(crate) fn too_long(&mut self, path: &Path, most: usize) {
        self.add(path, format!("Too long: may not be more than {most} bytes"));
    }

    /// `Too many: COUNT: must have at most N items`.
    pub(crate) fn too_many(&mut self, path: &Path, count: usize, most: usize) {
        let unit = if most == 1 { "item" } else { "items" };
        self.add(path, format!("Too many: {count}: must have at most {most} {unit}"));
    }
}
