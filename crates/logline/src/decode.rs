//! A container's log, decoded as its bytes come.
//!
//! A line is `<time> <stream> <tags> <text>`; the tag `P` says that the text goes on in another line. Docker's JSON lines are
//! read too. The text of a line is passed on as it comes, so that no line is too long.

use super::moment::{Moment, Second, Written};

#[cfg(test)]
mod tests;

/// Bytes before the text of a line; more means that it is none.
const HEAD_MAX: usize = 1024;
/// A line of JSON must be whole before it says anything.
const JSON_MAX: usize = 1 << 20;

/// Which lines are wanted, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub stdout: bool,
    pub stderr: bool,
    /// Nothing older.
    pub since: Option<Moment>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Bytes to give at most.
    pub bytes_max: Option<u64>,
    /// Lines of the file to read at most.
    pub lines_max: Option<u64>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    More,
    /// All that may be given was given.
    Enough,
}

/// Why nothing more can be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("failed to get parse function: unsupported log format: {0:?}")]
    Format(String),
    #[error("unexpected stream type {0:?}")]
    Stream(String),
}

/// The state between two pieces of the file.
#[derive(Debug)]
pub struct Decoder {
    wanted: Wanted,
    format: Format,
    state: State,
    /// The beginning of a line, while it does not tell yet what it is.
    head: Vec<u8>,
    /// Of the line before: the next one's is mostly the same.
    second: Second,
    /// Whether the next text begins a line of the output.
    is_new_line: bool,
    bytes_left: u64,
    lines_left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Unknown,
    Cri,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Between lines, or in the first bytes of one.
    Head,
    /// In the text of a line.
    Text { is_shown: bool, is_partial: bool },
    /// In a line that is none.
    Skip,
}

/// What stands before a line's text.
struct Head {
    at: Written,
    is_stdout: bool,
    is_partial: bool,
    /// Its length.
    len: usize,
}

impl Decoder {
    pub fn new(wanted: Wanted) -> Self {
        let (bytes_left, lines_left) = (wanted.bytes_max.unwrap_or(u64::MAX), wanted.lines_max.unwrap_or(u64::MAX));
        Self {
            wanted,
            format: Format::Unknown,
            state: State::Head,
            head: Vec::new(),
            second: Second::default(),
            is_new_line: true,
            bytes_left,
            lines_left,
        }
    }

    /// Takes the next bytes of the file; what is to be given is added to `out`.
    ///
    /// # Errors
    /// The file is no log.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Flow, DecodeError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.is_enough() {
                return Ok(Flow::Enough);
            }
            let end = memchr::memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
            self.piece(piece, end.is_some(), out)?;
            rest = after;
        }
        Ok(if self.is_enough() { Flow::Enough } else { Flow::More })
    }

    /// The file ends here: the beginning of a line is a line.
    ///
    /// # Errors
    /// The file is no log.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.state == State::Head && !self.head.is_empty() && !self.is_enough() {
            let line = std::mem::take(&mut self.head);
            self.line(&line, out)?;
        }
        Ok(())
    }

    /// Another file follows, whose first byte begins a line.
    pub fn next_file(&mut self) {
        self.head.clear();
        self.state = State::Head;
    }

    fn is_enough(&self) -> bool {
        self.bytes_left == 0 || self.lines_left == 0
    }

    /// A line, or what is there of one.
    fn piece(&mut self, piece: &[u8], is_end: bool, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.state {
            State::Head if self.head.is_empty() && is_end => self.line(piece, out)?,
            State::Head => self.beginning(piece, is_end, out)?,
            State::Text { is_shown, is_partial } => {
                self.text(piece, is_end, is_shown, is_partial, out);
                if is_end {
                    self.count_line();
                }
            }
            State::Skip => {}
        }
        if is_end {
            self.state = State::Head;
        }
        Ok(())
    }

    /// More of a line whose head was not whole.
    fn beginning(&mut self, piece: &[u8], is_end: bool, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let max = if self.format == Format::Cri { HEAD_MAX } else { JSON_MAX };
        let room = max.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..room]);
        if is_end && room == piece.len() {
            let line = std::mem::take(&mut self.head);
            return self.line(&line, out);
        }
        if self.format != Format::Json
            && let Some(head) = head(&self.head, &mut self.second)
        {
            let (early, late) = (std::mem::take(&mut self.head), &piece[room..]);
            self.format = Format::Cri;
            let is_shown = self.begin(&head.at, head.is_stdout, out);
            self.state = State::Text { is_shown, is_partial: head.is_partial };
            let is_whole = is_end && late.is_empty();
            self.text(&early[head.len..], is_whole, is_shown, head.is_partial, out);
            if !late.is_empty() {
                self.text(late, is_end, is_shown, head.is_partial, out);
            }
            if is_end {
                self.count_line();
            }
            return Ok(());
        }
        if room < piece.len() {
            let shown = String::from_utf8_lossy(&self.head[..HEAD_MAX.min(self.head.len())]).into_owned();
            self.head = Vec::new();
            if self.format == Format::Unknown {
                return Err(DecodeError::Format(shown));
            }
            self.state = State::Skip;
        }
        Ok(())
    }

    /// A whole line, with its line feed unless the file ends without.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.format != Format::Json
            && let Some(head) = head(line, &mut self.second)
        {
            self.format = Format::Cri;
            let is_shown = self.begin(&head.at, head.is_stdout, out);
            let is_end = line.ends_with(b"\n");
            self.text(&line[head.len..], is_end, is_shown, head.is_partial, out);
            self.count_line();
            return Ok(());
        }
        if self.format != Format::Cri
            && let Some((at, stream, text)) = json(line)
        {
            self.format = Format::Json;
            let is_stdout = match stream.as_str() {
                "stdout" => true,
                "stderr" => false,
                // kubelet 1.36: what is too old is not looked at.
                _ if self.is_old(&at) => return Ok(()),
                _ => return Err(DecodeError::Stream(stream)),
            };
            let is_shown = self.begin(&at, is_stdout, out);
            self.text(text.as_bytes(), false, is_shown, false, out);
            self.count_line();
            return Ok(());
        }
        if self.format == Format::Unknown {
            let shown = &line[..HEAD_MAX.min(line.len())];
            return Err(DecodeError::Format(String::from_utf8_lossy(shown).into_owned()));
        }
        tracing::debug!(line = %String::from_utf8_lossy(&line[..HEAD_MAX.min(line.len())]), "not a line of a log; skipped");
        Ok(())
    }

    fn is_old(&self, at: &Written) -> bool {
        self.wanted.since.is_some_and(|since| at.moment < since)
    }

    /// Whether a line is shown; if it is, what stands before its text.
    fn begin(&mut self, at: &Written, is_stdout: bool, out: &mut Vec<u8>) -> bool {
        let is_wanted = if is_stdout { self.wanted.stdout } else { self.wanted.stderr };
        let is_shown = is_wanted && !self.is_old(at);
        if is_shown && self.wanted.timestamps && self.is_new_line {
            let before = out.len();
            at.write_to(out);
            self.spend(before, out);
        }
        // A line without text ends the line before it.
        self.is_new_line = true;
        is_shown
    }

    /// Text of a line, as far as it is there.
    fn text(&mut self, text: &[u8], is_end: bool, is_shown: bool, is_partial: bool, out: &mut Vec<u8>) {
        let text = if is_partial && is_end { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        if let Some(last) = text.last() {
            self.is_new_line = *last == b'\n';
        }
        if is_shown {
            let before = out.len();
            out.extend_from_slice(text);
            self.spend(before, out);
        }
    }

    /// Cuts what is more than may be given.
    fn spend(&mut self, before: usize, out: &mut Vec<u8>) {
        let added = (out.len() - before) as u64;
        if added > self.bytes_left {
            // Less than `added`, which is a length.
            out.truncate(before + self.bytes_left as usize);
        }
        self.bytes_left = self.bytes_left.saturating_sub(added);
    }

    fn count_line(&mut self) {
        self.lines_left = self.lines_left.saturating_sub(1);
    }
}

/// What stands before the text of a line of CRI's format; `None`: it is not whole, or none.
fn head(line: &[u8], second: &mut Second) -> Option<Head> {
    if let Some((at, rest)) = Written::parse_usual(line, second)
        && let is_stdout = rest.starts_with(b" stdout F ")
        && (is_stdout || rest.starts_with(b" stderr F "))
    {
        return Some(Head { at, is_stdout, is_partial: false, len: line.len() - rest.len() + b" stdout F ".len() });
    }
    let line = &line[..HEAD_MAX.min(line.len())];
    let space = memchr::memchr(b' ', line)?;
    let at = Written::parse(&line[..space])?;
    let rest = &line[space + 1..];
    let is_stdout = match rest.get(..7)? {
        b"stdout " => true,
        b"stderr " => false,
        _ => return None,
    };
    let tags_at = space + 8;
    let tags_len = memchr::memchr(b' ', &line[tags_at..])?;
    let tags = &line[tags_at..tags_at + tags_len];
    if tags.contains(&b'\n') {
        return None;
    }
    let first = tags.split(|byte| *byte == b':').next();
    Some(Head { at, is_stdout, is_partial: first == Some(b"P"), len: tags_at + tags_len + 1 })
}

/// A line of Docker's format: time, stream, text.
fn json(line: &[u8]) -> Option<(Written, String, String)> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| match value.as_object()?.get(name) {
        None | Some(serde_json::Value::Null) => Some(String::new()),
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    let at = match text("time")? {
        none if none.is_empty() => "0001-01-01T00:00:00Z".to_owned(),
        time => time,
    };
    Some((Written::parse(at.as_bytes())?, text("stream")?, text("log")?))
}
