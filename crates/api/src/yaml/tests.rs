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
        ("08", serde_json::json!(8)),
        ("1e3", serde_json::json!(1000)),
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
fn what_merges_bring_stands_where_it_is_written() {
    let text = "base: &b {x: 1, z: 2}\nall:\n  <<: *b\n  z: 3\n";
    assert_eq!(value(text)["all"], serde_json::json!({"x": 1, "z": 3}));
    assert_eq!(value("a: &a {x: 1}\nb: {x: 2, <<: *a}")["b"], serde_json::json!({"x": 1}));
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

/// Where we read what upstream's library refuses; nothing is lost by it.
const ALSO_READ: [&str; 5] = [r#"a: "\ud83d\ude00""#, r#"{"a": "\/x"}"#, "\ta: b", "a: \u{2028}x", "a: \u{85}x"];

/// Recorded from sigs.k8s.io/yaml 1.6: each text's value, or that it is refused.
#[test]
fn recorded_texts_mean_the_same() {
    let mut wrong = Vec::new();
    for line in include_str!("../../../../tests/golden/yaml.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap();
        let ours = match text::decode(text.as_bytes()) {
            Err(_) if text.is_empty() => Ok(serde_json::Value::Null),
            Err(error) => Err(error.message),
            Ok(text) => match parse(&text) {
                Ok(document) => Ok(document.root.map_or(serde_json::Value::Null, |root| root.to_json())),
                Err(error) => Err(error.message),
            },
        };
        let same = match (&ours, row.get("value")) {
            (Ok(ours), Some(theirs)) => alike(ours, theirs),
            (Err(_), None) => true,
            (Ok(_), None) => ALSO_READ.contains(&text),
            (Err(_), Some(_)) => false,
        };
        if !same {
            wrong.push(format!("{text:?}: {ours:?}, upstream: {row}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The same value; numbers by size, however they are kept.
fn alike(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, value)| other.get(key).is_some_and(|o| alike(value, o)))
        }
        _ => one == other,
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        if let Ok(text) = text::decode(&bytes) {
            drop(parse(&text));
        }
    }

    #[test]
    fn no_text_of_yaml_signs_makes_it_panic(text in "[ \\n\\t:a-c0-9.&*!<>|#?%@'\"\\[\\]{},_~+-]{0,200}") {
        if let Err(error) = parse(&text) {
            proptest::prop_assert!(!error.message.is_empty() && !error.message.contains('\n'), "{:?}", error);
        }
    }
}
