//! What the compiler does not hold: edges between crates, sizes, names, and that the documents tell the truth.
//!
//! `cargo run -p xtask -- tidy` prints the problems and how long the files are; a test of this crate wants no problem.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod documents;
mod edges;
mod source;

/// Lines of a source file at most.
const FILE_LINES_MAX: usize = 800;
/// Lines of a source file that one aims for.
const FILE_LINES_GOAL: usize = 500;

/// One thing that is not as the house rules want it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Path below the workspace.
    path: String,
    /// Line, from 1; 0 for the whole file.
    line: usize,
    what: String,
}

impl Problem {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(to, "{}: {}", self.path, self.what),
            line => write!(to, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A text file of the workspace.
pub(crate) struct File {
    /// Path below the workspace, with slashes.
    path: String,
    text: String,
}

impl File {
    fn line_count(&self) -> usize {
        self.text.lines().count()
    }

    fn is_generated(&self) -> bool {
        self.text.starts_with("// This file is @generated")
    }
}

/// What was looked at and found.
pub(crate) struct Report {
    pub(crate) problems: Vec<Problem>,
    /// Lines of each source file that is written by hand, ascending.
    lengths: Vec<usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(to, "{problem}")?;
        }
        let at = |part: usize| self.lengths.get(self.lengths.len() * part / 100).or(self.lengths.last()).unwrap_or(&0);
        let long = self.lengths.iter().filter(|lines| **lines > FILE_LINES_GOAL).count();
        write!(
            to,
            "{} files, {} lines; lines of a file: p90 {}, p99 {}, most {}; {long} above the goal of {FILE_LINES_GOAL}; {} problems",
            self.lengths.len(),
            self.lengths.iter().sum::<usize>(),
            at(90),
            at(99),
            self.lengths.last().unwrap_or(&0),
            self.problems.len()
        )
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Looks at everything below `root`.
pub(crate) fn look(root: &Path) -> io::Result<Report> {
    let mut files = Vec::new();
    for top in ["crates", "xtask", "docs"] {
        read_below(root, top, &mut files)?;
    }
    for name in ["README.md", "ARCHITECTURE.md", "STYLE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        files.push(File { path: name.to_owned(), text: fs::read_to_string(root.join(name))? });
    }
    let mut problems = edges::problems(&files);
    problems.extend(documents::problems(&files, |path| root.join(path).exists()));
    let sources: Vec<&File> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    problems.extend(sources.iter().flat_map(|file| source::problems(file)));
    let mut lengths: Vec<usize> =
        sources.iter().filter(|file| !file.is_generated()).map(|file| file.line_count()).collect();
    lengths.sort_unstable();
    problems.sort_unstable();
    Ok(Report { problems, lengths })
}

fn read_below(root: &Path, folder: &str, files: &mut Vec<File>) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(folder))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_below(root, &path, files)?;
        } else if [".rs", ".md", ".toml"].iter().any(|end| path.ends_with(end)) {
            files.push(File { text: fs::read_to_string(entry.path())?, path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let report = look(&workspace()).unwrap();
        assert!(report.problems.is_empty(), "{report}");
        assert!(report.lengths.len() > 20, "too few files seen: {report}");
    }
}
