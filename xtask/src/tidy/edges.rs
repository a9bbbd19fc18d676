//! Edges between crates: what the manifests say against the table in ARCHITECTURE.md, and each edge to a lower floor.

use std::collections::BTreeMap;

use super::{File, Problem};

const TABLE: &str = "ARCHITECTURE.md";
const PREFIX: &str = "rubelet-";
/// The edges inside a floor: the embedded runtime fulfils the contract that `cri` states, speaks the protocol of `shim`, gives its pods
/// their network by `network`, and serves the streams of its containers with `streaming`.
const INSIDE_A_FLOOR: [(&str, &str); 4] =
    [("runtime", "cri"), ("runtime", "shim"), ("runtime", "network"), ("runtime", "streaming")];

/// A row of the table: the crate's floor and what it may depend on.
struct Row<'a> {
    line: usize,
    floor: u32,
    may_use: Vec<&'a str>,
}

pub(super) fn problems(files: &[File]) -> Vec<Problem> {
    let Some(page) = files.iter().find(|file| file.path == TABLE) else {
        return vec![Problem::new(TABLE, 0, "is missing")];
    };
    let rows = rows(&page.text);
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for file in files {
        let Some(name) = file.path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml")) else {
            continue;
        };
        seen.push(name);
        let Some(row) = rows.get(name) else {
            problems.push(Problem::new(TABLE, 0, format!("the table of crates does not have `{name}`")));
            continue;
        };
        for (line, used) in used(&file.text) {
            if !row.may_use.contains(&used) {
                problems.push(Problem::new(
                    &file.path,
                    line,
                    format!("{name} → {used} is not in the table of {TABLE}"),
                ));
            }
            let is_known = INSIDE_A_FLOOR.contains(&(name, used));
            if rows.get(used).is_some_and(|lower| lower.floor > row.floor || (lower.floor == row.floor && !is_known)) {
                problems.push(Problem::new(
                    &file.path,
                    line,
                    format!("{name} → {used} does not point to a lower floor"),
                ));
            }
        }
    }
    for (name, row) in &rows {
        if !seen.contains(name) {
            problems.push(Problem::new(TABLE, row.line, format!("there is no crate `{name}`")));
        }
    }
    problems
}

/// The rows `| `crate` | F<floor> | `a`, `b` | …`.
fn rows(page: &str) -> BTreeMap<&str, Row<'_>> {
    let mut rows = BTreeMap::new();
    for (index, line) in page.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [name, floor, may_use, ..] = cells.as_slice() else { continue };
        let Some(floor) = floor.strip_prefix('F').and_then(|number| number.parse().ok()) else { continue };
        let may_use =
            may_use.split(',').map(|name| name.trim().trim_matches('`')).filter(|name| *name != "–").collect();
        rows.insert(name.trim_matches('`'), Row { line: index + 1, floor, may_use });
    }
    rows
}

/// Crates of the workspace that a manifest depends on, with the line. Tests may use what the crate may use.
fn used(manifest: &str) -> Vec<(usize, &str)> {
    let mut in_dependencies = false;
    let mut used = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.contains("dependencies");
        } else if in_dependencies && let Some(rest) = line.strip_prefix(PREFIX) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            used.push((index + 1, &rest[..end]));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| crate | floor | may use |\n|---|---|---|\n| `api` | F0 | – |\n| `core` | F1 | `api` |\n";

    fn found(page: &str, manifests: &[(&str, &str)]) -> Vec<String> {
        let mut files = vec![File { path: TABLE.to_owned(), text: page.to_owned() }];
        for (name, uses) in manifests {
            let text = format!("[package]\nname = \"x\"\n[dependencies]\n{uses}\n");
            files.push(File { path: format!("crates/{name}/Cargo.toml"), text });
        }
        problems(&files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn edges_of_the_table_are_fine() {
        assert!(found(PAGE, &[("api", "serde = \"1\""), ("core", "rubelet-api.workspace = true")]).is_empty());
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_found() {
        let manifests = [("api", ""), ("core", "rubelet-host = { path = \"../host\" }")];
        assert_eq!(
            found(PAGE, &manifests),
            ["crates/core/Cargo.toml:4: core → host is not in the table of ARCHITECTURE.md"]
        );
    }

    #[test]
    fn an_edge_upwards_is_found_even_in_the_table() {
        let page = PAGE.replace("F0 | –", "F0 | `core`");
        let manifests = [("api", "rubelet-core.workspace = true"), ("core", "")];
        assert_eq!(found(&page, &manifests), ["crates/api/Cargo.toml:4: api → core does not point to a lower floor"]);
    }

    #[test]
    fn an_edge_inside_a_floor_is_found_unless_it_is_the_contract() {
        let page = "| `cri` | F2 | – |\n| `runtime` | F2 | `cri` |\n| `volumes` | F2 | `cri` |\n";
        let uses = "rubelet-cri.workspace = true";
        assert_eq!(
            found(page, &[("cri", ""), ("runtime", uses), ("volumes", uses)]),
            ["crates/volumes/Cargo.toml:4: volumes → cri does not point to a lower floor"]
        );
    }

    #[test]
    fn table_and_crates_are_the_same() {
        assert_eq!(
            found(PAGE, &[("api", ""), ("new", "")]),
            ["ARCHITECTURE.md: the table of crates does not have `new`", "ARCHITECTURE.md:4: there is no crate `core`"]
        );
    }
}
