//! Documents: every path of the project that they name exists.

use super::{File, Problem};

/// A word in backticks that starts so is a path of the project.
const TOPS: [&str; 7] = ["crates/", "docs/", "examples/", "tests/", "xtask/", ".ci/", "./x"];

pub(super) fn problems(files: &[File], exists: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (index, line) in file.text.lines().enumerate() {
            for path in named(line).chain(linked(line, &file.path)) {
                if !exists(&path) {
                    problems.push(Problem::new(&file.path, index + 1, format!("{path} does not exist")));
                }
            }
        }
    }
    problems
}

/// Paths in backticks; what contains a placeholder (`<`, `*`, `{`, `…`) is not one path.
fn named(line: &str) -> impl Iterator<Item = String> {
    line.split('`').skip(1).step_by(2).filter_map(|quoted| {
        let path = quoted.split_whitespace().next()?;
        let is_path = TOPS.iter().any(|top| path.starts_with(top)) && !path.contains(['<', '*', '{', '…']);
        is_path.then(|| path.trim_end_matches([',', '.', ':']).to_owned())
    })
}

/// Targets of Markdown links inside the project, from the folder of `file`.
fn linked(line: &str, file: &str) -> impl Iterator<Item = String> {
    let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    line.split("](").skip(1).filter_map(move |rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then(|| format!("{folder}{target}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(text: &str) -> Vec<String> {
        let file = File { path: "docs/page.md".to_owned(), text: text.to_owned() };
        problems(&[file], |path| path == "crates/api" || path == "docs/other.md")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn paths_in_backticks_and_links_are_looked_up() {
        assert!(missing("see `crates/api`, `cargo test`, `crates/<name>` and [this](other.md#part)").is_empty());
        assert_eq!(missing("see `crates/gone`"), ["docs/page.md:1: crates/gone does not exist"]);
        assert_eq!(missing("\n[this](gone.md)"), ["docs/page.md:2: docs/gone.md does not exist"]);
    }
}
