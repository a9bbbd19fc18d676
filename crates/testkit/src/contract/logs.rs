//! Logs in CRI's format.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::checks::{ensure, refused, same, until};
use super::pod::SOON;
use super::{Bench, Failure, Need, Result, suite};

suite! {
    "a log has each line with time, stream and tag" [Processes] => lines;
    "a long line comes in parts" [Processes] => parts;
    "a last line without its end is whole" [Processes] => unfinished;
    "a log is opened anew after it was moved" [Processes] => reopen;
    "the log of a container that does not run is not opened anew" [Processes] => reopen_of_ended;
    "bytes that are no text are kept" [Processes] => bytes;
    "a container without a log path has no log" [Processes] => without;
    "a flood of lines arrives whole" [Processes] => flood;
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) time: String,
    pub(super) stream: String,
    /// `F`: it ends here; `P`: it goes on in the next line.
    pub(super) tag: String,
    pub(super) text: String,
}

impl Line {
    /// The text with its end, if that is here.
    pub(super) fn shown(&self) -> String {
        let end = if self.tag == "F" { "\n" } else { "" };
        format!("{}{end}", self.text.trim_end_matches('\r'))
    }
}

/// The whole lines of a log; an error for a line of another form.
pub(super) fn read(path: &Path) -> Result<Vec<Line>> {
    let bytes = fs::read(path).map_err(|error| Failure::Said(format!("read the log {}: {error}", path.display())))?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.split('\n').filter(|line| !line.is_empty()).map(parse).collect()
}

fn parse(line: &str) -> Result<Line> {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let line = Line { time: next(), stream: next(), tag: next(), text: next() };
    let is_time = line.time.len() >= 20 && line.time.as_bytes().get(10) == Some(&b'T');
    let is_formed = is_time && ["stdout", "stderr"].contains(&line.stream.as_str());
    ensure(is_formed && ["F", "P"].contains(&line.tag.as_str()), || format!("no line of a log: {line:?}"))?;
    Ok(line)
}

/// How long after its end a container's output may still be on its way to the log: CRI promises nothing.
const LATE: Duration = Duration::from_secs(10);

/// Stream, tag and text of each line that a script wrote: that many, or what is there when no more come.
async fn written(bench: &Arc<Bench>, script: &str, lines: usize) -> Result<Vec<(String, String, String)>> {
    let pod = bench.pod().await?;
    let id = pod.start(pod.container("a", &["sh", "-c", script])).await?;
    pod.ended(&id).await?;
    let give_up_at = Instant::now() + LATE;
    let all = until("the log", LATE + LATE, async || {
        let is_late = Instant::now() > give_up_at;
        match pod.log("a") {
            Ok(found) => Ok((found.len() >= lines || is_late).then_some(found)),
            // The last line may be half there.
            Err(error) if is_late => Err(error),
            Err(_) => Ok(None),
        }
    });
    Ok(all.await?.into_iter().map(|line| (line.stream, line.tag, line.text)).collect())
}

fn line(stream: &str, tag: &str, text: &str) -> (String, String, String) {
    (stream.to_owned(), tag.to_owned(), text.to_owned())
}

async fn lines(bench: Arc<Bench>) -> Result {
    let script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo; sleep 0.2; echo ' three  words '";
    let wanted = [
        line("stdout", "F", "one"),
        line("stderr", "F", "two"),
        line("stdout", "F", ""),
        line("stdout", "F", " three  words "),
    ];
    same("the log", written(&bench, script, wanted.len()).await?, wanted)
}

async fn parts(bench: Arc<Bench>) -> Result {
    // 40000 letters and an end, then a short line.
    let found = written(&bench, "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end", 4).await?;
    let tags: Vec<&str> = found.iter().map(|(_, tag, _)| tag.as_str()).collect();
    let whole: String = found.iter().take(found.len().saturating_sub(1)).map(|(_, _, text)| text.as_str()).collect();
    same("the text's length", whole.len(), 40_000)?;
    ensure(found.iter().all(|(_, _, text)| text.len() <= 16 << 10), || "a part is longer than 16 KiB".to_owned())?;
    same("the tags", tags, ["P", "P", "F", "F"])?;
    same("the last line", found.last().cloned(), Some(line("stdout", "F", "end")))
}

async fn unfinished(bench: Arc<Bench>) -> Result {
    // The tag of such a line differs between runtimes; readers take what is there.
    let found = written(&bench, "printf 'a\\nb'", 2).await?;
    let texts: Vec<&str> = found.iter().map(|(_, _, text)| text.as_str()).collect();
    same("the lines", texts, ["a", "b"])
}

async fn reopen(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.start(pod.container("a", &["sh", "-c", "while true; do echo tick; sleep 0.05; done"])).await?;
    let path = Path::new(&pod.config.log_directory).join("a.log");
    let moved = path.with_extension("old");
    let ticks = async |path: &Path| {
        until("lines are written", SOON, async || Ok((path.exists() && read(path)?.len() >= 2).then_some(()))).await
    };
    ticks(&path).await?;
    fs::rename(&path, &moved)?;
    bench.runtime().reopen_container_log(&id).await?;
    ensure(path.exists(), || "there is no new file".to_owned())?;
    let length = fs::metadata(&moved)?.len();
    ticks(&path).await?;
    same("the moved file's length, which grows no more", fs::metadata(&moved)?.len(), length)
}

async fn reopen_of_ended(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let created = pod.create(pod.container("a", &["true"])).await?;
    refused("reopening before the start", bench.runtime().reopen_container_log(&created).await)?;
    let ended = pod.start(pod.container("b", &["true"])).await?;
    pod.ended(&ended).await?;
    refused("reopening after the end", bench.runtime().reopen_container_log(&ended).await).map(drop)
}

async fn bytes(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.start(pod.container("a", &["sh", "-c", "printf 'a\\377\\000b\\n'"])).await?;
    pod.ended(&id).await?;
    let found = fs::read(Path::new(&pod.config.log_directory).join("a.log"))?;
    ensure(found.ends_with(b"stdout F a\xff\0b\n"), || format!("the log: {:?}", String::from_utf8_lossy(&found)))
}

async fn without(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting_with("a", |config| config.log_path.clear()).await?;
    same("files in the logs' directory", fs::read_dir(&pod.config.log_directory)?.count(), 0)?;
    bench.runtime().stop_container(&id, 1).await?;
    ensure(bench.has(Need::Processes), String::new)
}

async fn flood(bench: Arc<Bench>) -> Result {
    let found = written(&bench, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", 20_000).await?;
    same("the number of lines", found.len(), 20_000)?;
    let wrong = found.iter().enumerate().find(|(number, (_, _, text))| *text != format!("line {number}"));
    ensure(wrong.is_none(), || format!("out of order: {wrong:?}"))
}
