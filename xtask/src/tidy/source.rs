//! Source files: sizes, names, and words that stand for a broken rule.

use super::{FILE_LINES_MAX, File, Problem};

/// Words that say nothing, as parts of type names. (`Handler` is CRI's word for a runtime's variant.)
const BANNED_IN_TYPES: [&str; 9] = ["Manager", "Helper", "Helpers", "Util", "Utils", "Common", "Impl", "Data", "Info"];
/// Names of files that collect what has no place.
const BANNED_FILES: [&str; 9] =
    ["mod.rs", "util.rs", "utils.rs", "helper.rs", "helpers.rs", "common.rs", "types.rs", "manager.rs", "misc.rs"];
/// Where the kernel is called without a safe wrapper.
const UNSAFE_CRATES: [&str; 2] = ["crates/host/", "crates/shim/"];
/// What the pure crate cannot name: clock, files, sockets, environment, processes, threads, logs, chance, hash order.
const NOT_IN_CORE: [&str; 15] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::os",
    "SystemTime",
    "Instant",
    "TcpStream",
    "UdpSocket",
    "tokio",
    "tracing",
    "HashMap",
    "HashSet",
    "println",
];
/// Marks of unfinished work, spelled so that this file does not find itself.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn problems(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    if BANNED_FILES.contains(&name) {
        problems.push(Problem::new(
            &file.path,
            0,
            "a file is named after what it does, a module's front door `name.rs`",
        ));
    }
    if file.is_generated() {
        if !file.path.starts_with("crates/proto/src/") {
            problems.push(Problem::new(&file.path, 0, "generated files live in crates/proto only"));
        }
        return problems;
    }
    if file.line_count() > FILE_LINES_MAX {
        problems.push(Problem::new(&file.path, 0, format!("{} lines, at most {FILE_LINES_MAX}", file.line_count())));
    }
    let is_core = file.path.starts_with("crates/core/src/") && !file.path.ends_with("tests.rs");
    for (index, line) in file.text.lines().enumerate() {
        let mut found = |what: String| problems.push(Problem::new(&file.path, index + 1, what));
        if let Some(mark) = MARKS.iter().find(|mark| words(line).any(|word| word == **mark)) {
            found(format!("{mark}: do it, or open an issue"));
        }
        let code = code(line);
        if let Some(banned) = type_name(&code).and_then(banned_part) {
            found(format!("`{banned}` in a type's name says nothing"));
        }
        let may_leave = UNSAFE_CRATES.iter().any(|crate_| file.path.starts_with(crate_));
        if !may_leave && words(&code).any(|word| word == concat!("un", "safe")) {
            found("only crates/host and crates/shim may leave the safe language".to_owned());
        }
        if let Some(word) = NOT_IN_CORE.iter().find(|word| is_core && mentions(&code, word)) {
            found(format!("core is pure, it does not know {word}"));
        }
    }
    problems
}

/// A line without its comment and without what stands in quotes.
fn code(line: &str) -> String {
    let outside: String = line.replace("\\\"", "").split('"').step_by(2).collect();
    outside.split("//").next().unwrap_or("").to_owned()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Whether `code` has `path` between characters that do not belong to a name.
fn mentions(code: &str, path: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path)
        .any(|(at, _)| !code[..at].ends_with(is_part) && !code[at + path.len()..].starts_with(is_part))
}

/// The name of the type that a line defines; what a foreign trait names (indented) is not ours to choose.
fn type_name(code: &str) -> Option<&str> {
    if code.starts_with(' ') {
        return None;
    }
    let mut words = words(code).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        match word {
            "struct" | "enum" | "trait" | "type" => return words.next(),
            "pub" | "crate" | "super" | "in" => {}
            _ => return None,
        }
    }
    None
}

/// The banned word among the words of a name in camel case.
fn banned_part(name: &str) -> Option<&'static str> {
    BANNED_IN_TYPES.into_iter().find(|banned| {
        name.match_indices(banned)
            .any(|(at, _)| !name[at + banned.len()..].starts_with(|next: char| next.is_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        problems(&file).iter().map(|problem| format!("{}: {}", problem.line, problem.what)).collect()
    }

    #[test]
    fn long_files_are_found() {
        assert!(found("crates/api/src/a.rs", &"\n".repeat(800)).is_empty());
        assert_eq!(found("crates/api/src/a.rs", &"\n".repeat(801)), ["0: 801 lines, at most 800"]);
    }

    #[test]
    fn types_that_say_nothing_are_found() {
        assert!(found("a.rs", "    type Data = Bytes;\nlet x = \"struct Info\";\npub(crate) struct Database;\nstruct Podmanager;\nfn manager() {}").is_empty());
        for name in ["PodManager", "Utils", "DataSource"] {
            assert_eq!(found("a.rs", &format!("pub struct {name} {{")).len(), 1, "{name}");
        }
        assert_eq!(found("crates/api/src/utils.rs", "").len(), 1);
    }

    #[test]
    fn core_stays_pure() {
        assert!(
            found("crates/core/src/a.rs", "use std::net::IpAddr; // not std::fs\nlet an_instant = Instants;")
                .is_empty()
        );
        assert!(found("crates/agent/src/a.rs", "use std::fs;").is_empty());
        assert_eq!(found("crates/core/src/a.rs", "\nuse std::fs;"), ["2: core is pure, it does not know std::fs"]);
        assert_eq!(found("crates/core/src/a.rs", "let now = Instant::now();").len(), 1);
    }

    #[test]
    fn marks_generated_files_and_the_language_below_have_their_place() {
        assert_eq!(found("a.rs", concat!("// TO", "DO: later")).len(), 1);
        assert_eq!(found("crates/api/src/x.rs", "// This file is @generated by prost-build.\n").len(), 1);
        assert!(found("crates/proto/src/x.rs", "// This file is @generated by prost-build.\n").is_empty());
        let block = concat!("un", "safe { x() }");
        assert_eq!(found("crates/agent/src/x.rs", block).len(), 1);
        assert!(found("crates/host/src/x.rs", block).is_empty());
        assert!(found("crates/shim/src/x.rs", block).is_empty());
    }
}
