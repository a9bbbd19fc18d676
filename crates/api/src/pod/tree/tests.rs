use super::*;

fn read(text: &str) -> Node {
    parse(text).unwrap().root.unwrap()
}

fn value(text: &str) -> serde_json::Value {
    read(text).to_json()
}

#[test]
fn plain_scalars_mean_what_they_mean_upstream() {
    for (text, expected) in [
        ("yes", serde_json::json!(true)),
        ("y", serde_json::json!(true)),
        ("Off", serde_json::json!(false)),
        ("0644", serde_json::json!(420)),
        ("0o17", serde_json::json!(15)),
        ("0x1F", serde_json::json!(31)),
        ("0b11", serde_json::json!(3)),
        ("1_000", serde_json::json!(1000)),
        ("-5", serde_json::json!(-5)),
        ("08", serde_json::json!(8.0)),
        ("1e3", serde_json::json!(1000.0)),
        ("1.5", serde_json::json!(1.5)),
        ("~", serde_json::json!(null)),
        ("1.2.3", serde_json::json!("1.2.3")),
        ("1:30", serde_json::json!("1:30")),
        ("2026-01-31", serde_json::json!("2026-01-31")),
        ("500m", serde_json::json!("500m")),
        ("'yes'", serde_json::json!("yes")),
        ("!!str 80", serde_json::json!("80")),
        ("!!binary aGk=", serde_json::json!("hi")),
    ] {
        assert_eq!(value(&format!("a: {text}"))["a"], expected, "{text}");
    }
}

#[test]
fn keys_become_strings_and_the_last_of_equal_ones_counts() {
    assert_eq!(value("{1: a, true: b, on: c}"), serde_json::json!({"1": "a", "true": "c"}));
    let document = parse("a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(document.root.unwrap().to_json(), serde_json::json!({"a": 3, "b": 2}));
    assert_eq!(document.warnings[0].0, Position { line: 3, column: 1 });
}

#[test]
fn merges_do_not_override() {
    let text = "base: &b {x: 1, z: 2}\nall:\n  <<: *b\n  z: 3\n";
    assert_eq!(value(text)["all"], serde_json::json!({"x": 1, "z": 3}));
    assert_eq!(value("a: &a {x: 1}\nb: {<<: [*a, {z: 2}]}")["b"], serde_json::json!({"x": 1, "z": 2}));
}

#[test]
fn every_node_knows_its_place() {
    let tree = read("spec:\n  list:\n  - name: web\n    port: 80\n");
    let item = tree.entry("spec").unwrap().value.entry("list").unwrap().value.item(0).unwrap();
    assert_eq!(item.position, Position { line: 3, column: 5 });
    let port = item.entry("port").unwrap();
    assert_eq!(port.position, Position { line: 4, column: 5 });
    assert_eq!(port.value.position, Position { line: 4, column: 11 });
}

#[test]
fn json_with_escaped_pairs_and_tabs_is_read() {
    assert_eq!(value("{\n\t\"a\": \"\\ud83d\\ude00\"\n}")["a"], serde_json::json!("😀"));
}

#[test]
fn only_the_first_document_counts() {
    let document = parse("a: 1\n---\nb: 2\n").unwrap();
    assert_eq!(document.root.unwrap().to_json(), serde_json::json!({"a": 1}));
    assert_eq!(document.warnings.len(), 1);
    assert_eq!(parse("# nothing\n").unwrap().root, None);
}

#[test]
fn bombs_and_pits_are_refused() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, before) in "bcdefgh".chars().zip("abcdefg".chars()) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(","));
    }
    assert!(parse(&bomb).unwrap_err().message.contains("too large"));
    assert!(parse(&("[".repeat(101) + &"]".repeat(101))).unwrap_err().message.contains("deep"));
    assert!(parse("a: &a [*a]").unwrap_err().message.contains("inside the very node"));
}
