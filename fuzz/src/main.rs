//! Tries what reads strangers' bytes on damaged ones: each target's corpus is mutated for a time. Nothing may panic, take long, or leave its
//! directory.
//!
//! usage: rubelet-fuzz [--seconds N] [--seed N] [TARGET ...], or rubelet-fuzz TARGET --file FILE to try one input.
//!
//! An input that does harm is written to `fuzz/found/TARGET-N`, with the command that tries it again. It needs no nightly compiler; runs are the
//! same for the same seed and number of tries.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod mutate;
mod targets;

use mutate::Chance;
use targets::{TARGETS, Target};

/// An input that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(10);
/// Inputs are rarely larger.
const BYTES_MAX: usize = 64 << 10;

struct Asked {
    seconds: u64,
    seed: u64,
    file: Option<PathBuf>,
    targets: Vec<&'static Target>,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked { seconds: 20, seed: 1, file: None, targets: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seconds" => asked.seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
            "--seed" => asked.seed = value()?.parse().map_err(|e| format!("--seed: {e}"))?,
            "--file" => asked.file = Some(value()?.into()),
            name => {
                let found = TARGETS.iter().find(|target| target.name == name);
                asked.targets.push(found.ok_or_else(|| format!("no target {name:?}"))?);
            }
        }
    }
    if asked.targets.is_empty() {
        asked.targets = TARGETS.iter().collect();
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(said) => {
            eprintln!("fuzz: {said}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &asked.file {
        let bytes = std::fs::read(file).expect("the file can be read");
        asked.targets.iter().for_each(|target| (target.run)(&bytes));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for target in &asked.targets {
        match fuzz(target, asked.seed, Duration::from_secs(asked.seconds)) {
            Ok(tries) => println!("fuzz {}: {tries} inputs, nothing found", target.name),
            Err(said) => {
                failed += 1;
                println!("fuzz {}: FOUND: {said}", target.name);
            }
        }
    }
    println!("{} passed, {failed} failed", asked.targets.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The input that is tried now, since when; for who watches.
#[derive(Default)]
struct Current {
    begun: Option<Instant>,
    input: Vec<u8>,
}

fn fuzz(target: &'static Target, seed: u64, time: Duration) -> Result<u64, String> {
    let corpus = corpus(target)?;
    let current = Arc::new(Mutex::new(Current::default()));
    let tries = Arc::new(AtomicU64::new(0));
    watch(target, &current);
    let mut chance = Chance::new(seed);
    let until = Instant::now() + time;
    let mut at = 0;
    while Instant::now() < until {
        // Each as it is first.
        let input = match corpus.get(at) {
            Some(whole) => whole.clone(),
            None => mutate::mutated(&corpus, &mut chance, BYTES_MAX),
        };
        at += 1;
        *current.lock().unwrap() = Current { begun: Some(Instant::now()), input: input.clone() };
        let done = std::panic::catch_unwind(|| (target.run)(&input));
        current.lock().unwrap().begun = None;
        tries.fetch_add(1, Ordering::Relaxed);
        if done.is_err() {
            return Err(keep(target, &input, "it panics"));
        }
    }
    Ok(tries.load(Ordering::Relaxed))
}

/// Ends everything when an input hangs.
fn watch(target: &'static Target, current: &Arc<Mutex<Current>>) {
    let current = Arc::downgrade(current);
    std::thread::spawn(move || {
        while let Some(current) = current.upgrade() {
            {
                let current = current.lock().unwrap();
                if current.begun.is_some_and(|begun| begun.elapsed() > LONGEST) {
                    println!("fuzz {}: FOUND: {}", target.name, keep(target, &current.input, "it hangs"));
                    std::process::exit(1);
                }
            }
            drop(current);
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(target: &Target) -> Result<Vec<Vec<u8>>, String> {
    let mut files = Vec::new();
    for dir in std::iter::once(format!("corpus/{}", target.name)).chain(target.more.iter().map(|&dir| dir.to_owned())) {
        let dir = here().join(dir);
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("read {}: {e}", dir.display()))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    files.sort();
    let all: Vec<Vec<u8>> =
        files.iter().filter_map(|file| std::fs::read(file).ok()).filter(|bytes| bytes.len() <= BYTES_MAX).collect();
    if all.is_empty() { Err("its corpus is empty".to_owned()) } else { Ok(all) }
}

fn keep(target: &Target, input: &[u8], what: &str) -> String {
    let dir = here().join("found");
    let path = (0..).map(|n| dir.join(format!("{}-{n}", target.name))).find(|path| !path.exists());
    let path = path.expect("numbers do not end");
    std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, input)).expect("what is found can be written");
    format!("{what}: ./x fuzz {} --file {}", target.name, path.display())
}
