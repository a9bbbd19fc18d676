//! The node log query: `/logs/?query=kubelet&tailLines=100`. Services' logs come from the journal or from files.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use rubelet_host::exec::{self, Order};
use rubelet_host::paths::{PathError, open_file_beneath};
use tokio::sync::mpsc;

use crate::query::Query;
use crate::respond::{self, Reply, Sent};

mod gzip;
#[cfg(test)]
mod tests;

/// From kubelet 1.36: how long a query may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
const TAIL_LINES_MAX: i64 = 100_000;
const NAME_MAX: usize = 256;
const SERVICES_MAX: usize = 4;
/// Names of units that are read.
const UNITS_MAX: usize = 4 << 20;
const PIECE: usize = 64 << 10;

/// What a query leads to.
pub(super) enum Outcome {
    /// There is none.
    None,
    Answer(Box<Response<Reply>>),
    /// A file below the directory.
    File(String),
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
struct LogQuery {
    services: Vec<String>,
    files: Vec<String>,
    options: Options,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail_lines: Option<i64>,
    boot: Option<i64>,
    pattern: String,
}

/// Answers a query for the logs in `dir`; `below`: the path that was asked for in it.
pub(super) async fn answer(dir: &Path, below: &str, query: &Query, headers: &HeaderMap) -> Outcome {
    let refuse = |status, problems: Vec<String>| Outcome::Answer(Box::new(respond::error(status, together(&problems))));
    let asked = match LogQuery::parse(query) {
        Ok(asked) => asked,
        Err(problems) => return refuse(StatusCode::BAD_REQUEST, problems),
    };
    if asked == LogQuery::default() {
        return Outcome::None;
    }
    if !below.is_empty() && below != "/" {
        return refuse(StatusCode::NOT_ACCEPTABLE, vec!["path not allowed in query mode".to_owned()]);
    }
    let problems = asked.problems(dir);
    if !problems.is_empty() {
        return refuse(StatusCode::NOT_ACCEPTABLE, problems);
    }
    if let [file] = asked.files.as_slice() {
        return Outcome::File(file.replace('\\', "/").trim_start_matches('/').to_owned());
    }
    let is_gzip = headers.get(ACCEPT_ENCODING).is_some_and(|value| value == "gzip");
    let (sender, receiver) = mpsc::channel(1);
    let dir = dir.to_owned();
    rubelet_host::task::spawn(async move {
        let (mut out, written) = (gzip::Out::new(sender, is_gzip), tokio::time::Instant::now() + PATIENCE);
        // Late or not: what was written is what there is.
        let _ = tokio::time::timeout_at(written, copy(&asked, &dir, &mut out)).await;
        out.finish().await;
    });
    let mut response = respond::stream("text/plain;charset=UTF-8", Sent(receiver));
    if is_gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Outcome::Answer(Box::new(response))
}

/// Go's aggregate: one as it is, more in brackets.
fn together(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

impl LogQuery {
    /// Reads the parameters; the problems are kubelet 1.36's.
    fn parse(query: &Query) -> Result<Self, Vec<String>> {
        let mut asked = Self::default();
        let mut problems = Vec::new();
        let names: Vec<&str> = query.values("query").collect();
        for name in &names {
            if name.contains(['/', '\\']) {
                asked.files.push((*name).to_owned());
            } else if !name.trim().is_empty() {
                asked.services.push((*name).to_owned());
            }
        }
        if !names.is_empty() && asked.files.is_empty() && asked.services.is_empty() {
            problems.push(format!("query: Invalid value: {}: may not be empty", serde_json::json!(names)));
        }
        let given = |name| query.first(name).filter(|text| !text.is_empty());
        let mut time = |name| {
            let text = given(name)?;
            let parsed = text.parse::<Timestamp>().ok();
            if parsed.is_none() {
                problems.push(format!("{name}: Invalid value: {text:?}: invalid time format"));
            }
            parsed
        };
        (asked.options.since, asked.options.until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name| {
            let text = given(name)?;
            let parsed = text.parse::<i64>().ok();
            if parsed.is_none() {
                let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                problems.push(format!("{name}: Invalid value: {text:?}: {why}"));
            }
            parsed
        };
        (asked.options.boot, asked.options.tail_lines) = (number("boot"), number("tailLines"));
        asked.options.pattern = given("pattern").unwrap_or_default().to_owned();
        if problems.is_empty() { Ok(asked) } else { Err(problems) }
    }

    /// What makes no sense, in kubelet 1.36's words.
    fn problems(&self, dir: &Path) -> Vec<String> {
        let mut problems: Vec<String> = self.services.iter().filter_map(|name| service_problem(name)).collect();
        if self.services.len() > SERVICES_MAX {
            let count = self.services.len();
            problems.push(format!("query: Too many: {count}: must have at most {SERVICES_MAX} items"));
        }
        let files = serde_json::json!(self.files);
        match (self.files.as_slice(), self.services.as_slice()) {
            ([], []) => problems.push("query: Required value: cannot be empty with options".to_owned()),
            ([_, ..], [_, ..]) => {
                let both = format!("[{}], [{}]", self.files.join(" "), self.services.join(" "));
                problems.push(format!("query: Invalid value: {both:?}: cannot specify a file and service"));
            }
            ([_, _, ..], []) => {
                problems.push(format!("query: Invalid value: {files}: cannot specify more than one file"));
            }
            ([_], []) if self.options != Options::default() => {
                problems.push(format!("query: Invalid value: {files}: cannot specify file with options"));
            }
            ([file], []) => problems.extend(file_problem(dir, file, &files)),
            ([], [_, ..]) => {}
        }
        let options = &self.options;
        if let (Some(since), Some(until)) = (options.since, options.until)
            && since > until
        {
            problems.push(format!("untilTime: Invalid value: \"{until}\": must be after `sinceTime`"));
        }
        if let Some(boot) = options.boot.filter(|boot| *boot > 0) {
            problems.push(format!("boot: Invalid value: {boot}: must be less than 1"));
        }
        if let Some(lines) = options.tail_lines.filter(|lines| !(0..=TAIL_LINES_MAX).contains(lines)) {
            let why = format!("must be between 0 and {TAIL_LINES_MAX}, inclusive");
            problems.push(format!("tailLines: Invalid value: {lines}: {why}"));
        }
        problems
    }
}

fn service_problem(name: &str) -> Option<String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    let why = if name.len() > NAME_MAX {
        format!("length must be less than {NAME_MAX}")
    } else if !name.bytes().all(is_safe) {
        "input contains unsupported characters".to_owned()
    } else {
        return None;
    };
    Some(format!("query: Invalid value: {name:?}: {why}"))
}

fn file_problem(dir: &Path, file: &str, shown: &serde_json::Value) -> Option<String> {
    let why = match open_file_beneath(dir, Path::new(file)) {
        Ok(_) => return None,
        Err(PathError::NotBeneath { .. } | PathError::Escapes { .. }) => "path escapes from parent".to_owned(),
        Err(PathError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            "no such file or directory".to_owned()
        }
        Err(error) => rubelet_host::chain(&error),
    };
    Some(format!("query: Invalid value: {shown}: statat {file}: {why}"))
}

/// Writes the logs of all services: those that the journal knows, then those in files.
async fn copy(asked: &LogQuery, dir: &Path, out: &mut gzip::Out) {
    let known = units().await;
    let is_native = |name: &&String| known.contains(&format!("{name}.service"));
    let (native, files): (Vec<&String>, Vec<&String>) = asked.services.iter().partition(is_native);
    if !native.is_empty() {
        journal(&asked.options, &native, out).await;
    }
    if files.is_empty() {
        return;
    }
    if asked.options != Options::default() {
        let names: Vec<&str> = files.iter().map(|name| name.as_str()).collect();
        let why = format!(
            "\noptions present and query resolved to log files for [{}]\ntry without specifying options\n",
            names.join(" ")
        );
        return out.write(why.into_bytes()).await;
    }
    for name in files {
        copy_file(dir, name, out).await;
    }
}

/// All units that the journal knows of, as text; nothing without a journal.
async fn units() -> String {
    let asked = rubelet_host::task::blocking(|| {
        let program = journalctl()?;
        let arguments = [OsStr::new("--field"), OsStr::new("_SYSTEMD_UNIT")];
        let order = Order {
            program: Path::new(program),
            arguments: &arguments,
            environment: &[],
            input: b"",
            patience: PATIENCE,
            output_max: UNITS_MAX,
        };
        let answer = exec::run(&order).ok()?;
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
    });
    asked.await.ok().flatten().unwrap_or_default()
}

fn journalctl() -> Option<&'static str> {
    ["/usr/bin/journalctl", "/bin/journalctl"].into_iter().find(|path| Path::new(path).exists())
}

/// The arguments of `journalctl`, as kubelet 1.36 gives them.
fn arguments(options: &Options, services: &[&String]) -> Vec<String> {
    let mut all: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"].map(str::to_owned).into();
    let date = |at: &Timestamp| at.strftime("%Y-%-m-%-d %H:%-M:%-S").to_string();
    all.extend(options.since.iter().map(|at| format!("--since={}", date(at))));
    all.extend(options.until.iter().map(|at| format!("--until={}", date(at))));
    if let Some(lines) = options.tail_lines {
        all.extend(["--pager-end".to_owned(), format!("--lines={lines}")]);
    }
    all.extend(services.iter().map(|name| format!("--unit={name}")));
    if !options.pattern.is_empty() {
        all.push(format!("--grep={}", options.pattern));
    }
    if let Some(boot) = options.boot {
        all.extend(["--boot".to_owned(), boot.to_string()]);
    }
    all
}

/// What `journalctl` writes, as it writes it. It is killed when nobody takes it any more.
async fn journal(options: &Options, services: &[&String], out: &mut gzip::Out) {
    let started = io::pipe().and_then(|(reader, writer)| {
        let program = journalctl().ok_or(io::ErrorKind::NotFound)?;
        let child = tokio::process::Command::new(program)
            .args(arguments(options, services))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .kill_on_drop(true)
            .spawn()?;
        Ok((tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?, child))
    });
    let Ok((mut reader, mut child)) = started else {
        if options.boot.unwrap_or_default() == 0 {
            out.write(b"\nerror: journal output not available\n".to_vec()).await;
        }
        return;
    };
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        match tokio::io::AsyncReadExt::read_buf(&mut reader, &mut bytes).await {
            Ok(count) if count > 0 && !out.is_closed() => out.write(bytes).await,
            _ => break,
        }
    }
    drop(reader);
    // Its status says nothing that it did not write.
    let _ = child.wait().await;
}

/// The first of three files that is there.
async fn copy_file(dir: &Path, name: &str, out: &mut gzip::Out) {
    for file in [name.to_owned(), format!("{name}.log"), format!("{name}/{name}.log")] {
        let (dir, path) = (dir.to_owned(), file);
        let opened = rubelet_host::task::blocking(move || {
            let file = open_file_beneath(&dir, Path::new(&path))?;
            let meta = file.metadata().map_err(|source| PathError::Open { path: dir.join(&path), source })?;
            Ok::<_, PathError>(meta.is_file().then_some(file))
        });
        match opened.await {
            Ok(Ok(Some(file))) => return copy_opened(file, out).await,
            Ok(Ok(None)) => {}
            Ok(Err(PathError::Open { source, .. })) if source.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) => {
                let mut text = String::new();
                let _ = write!(text, "\nerror getting log for {name}: {}\n", rubelet_host::chain(&error));
                return out.write(text.into_bytes()).await;
            }
            Err(_) => return,
        }
    }
    out.write(format!("\nlog not found for {name}\n").into_bytes()).await;
}

async fn copy_opened(file: std::fs::File, out: &mut gzip::Out) {
    let mut file = file;
    while !out.is_closed() {
        let piece = rubelet_host::task::blocking(move || {
            let mut bytes = vec![0; PIECE];
            let count = file.read(&mut bytes)?;
            bytes.truncate(count);
            Ok::<_, io::Error>((file, bytes))
        });
        match piece.await {
            Ok(Ok((back, bytes))) if !bytes.is_empty() => {
                file = back;
                out.write(bytes).await;
            }
            _ => return,
        }
    }
}
