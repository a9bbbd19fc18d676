use std::sync::Mutex;

use super::*;

fn noon() -> Zoned {
    "2026-11-03T07:09:54.123456789+01:00[+01:00]".parse().unwrap()
}

/// The lines that come out of `work` with such settings.
fn lines(set: impl Fn(&Control), work: impl Fn()) -> Vec<String> {
    let out = Arc::new(Mutex::new(Vec::new()));
    let kept = out.clone();
    let sink: Sink = Box::new(move |line| kept.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap()));
    let control = Control::new();
    set(&control);
    let repeats = Mutex::default();
    let layer = Klog { control, now: noon, pid: 12345, sink, elapsed: Box::new(|| Duration::ZERO), repeats };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    out.lock().unwrap().clone()
}

/// The line without its number in this file.
fn unnumbered(line: &str) -> String {
    let (before, rest) = line.split_once("tests.rs:").unwrap();
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}tests.rs:N{rest}")
}

#[test]
fn an_event_as_upstream_shows_it() {
    let text = "Container image \"a\" present";
    let shown = lines(
        |control| control.set_verbosity(3),
        || {
            tracing::info!(
                target: EVENT_TARGET, object = "default/web-node-a", fieldPath = "spec.containers{main}", kind = "Pod",
                apiVersion = "v1", r#type = "Normal", reason = "Pulled", "{text}"
            );
            tracing::info!(
                target: EVENT_TARGET, object = "default/web-node-a", fieldPath = "spec.containers{main}", kind = "Pod",
                apiVersion = "v1", r#type = "Normal", reason = "Pulled", message = text,
            );
        },
    );
    assert_eq!(shown.len(), 2);
    for line in shown {
        assert_eq!(
            unnumbered(&line),
            "I1103 07:09:54.123456   12345 tests.rs:N] \"Event occurred\" object=\"default/web-node-a\" fieldPath=\"spec.containers{main}\" kind=\"Pod\" apiVersion=\"v1\" type=\"Normal\" reason=\"Pulled\" message=\"Container image \\\"a\\\" present\"\n"
        );
    }
}

#[test]
fn values_of_each_form() {
    let error = std::io::Error::other("no\tsuch \u{1}thing ü");
    let shown = lines(
        |_| (),
        || tracing::warn!(err = %error, n = -3, u = 7_u64, on = true, f = 0.5, list = ?["a", "b"], path = ?"x y", "It \"failed\""),
    );
    assert_eq!(
        unnumbered(&shown[0]),
        "W1103 07:09:54.123456   12345 tests.rs:N] \"It \\\"failed\\\"\" err=\"no\\tsuch \\x01thing ü\" n=-3 u=7 on=true f=0.5 list=[\"a\", \"b\"] path=\"x y\"\n"
    );
}

#[test]
fn values_of_several_lines() {
    let shown = lines(|_| (), || tracing::error!(err = "a\nb\n", more = "c\nd", "Bad"));
    assert_eq!(
        unnumbered(&shown[0]),
        "E1103 07:09:54.123456   12345 tests.rs:N] \"Bad\" err=<\n\ta\n\tb\n > more=<\n\tc\n\td\n >\n"
    );
}

#[test]
fn spans_come_first_and_the_event_wins() {
    let shown = lines(
        |_| (),
        || {
            let _outer = tracing::info_span!("a", pod = "default/web", node = "n").entered();
            let _inner = tracing::info_span!("b", container = "main").entered();
            tracing::info!(node = "m", "Started");
        },
    );
    assert!(shown[0].ends_with("] \"Started\" pod=\"default/web\" container=\"main\" node=\"m\"\n"), "{shown:?}");
}

#[test]
fn what_each_level_of_detail_shows() {
    let work = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
        tracing::info!(target: EVENT_TARGET, "v");
        tracing::debug!(target: "hyper::client", "foreign");
    };
    for (verbosity, expected) in
        [(0, "ewi"), (1, "ewi"), (2, "ewid"), (3, "ewidv"), (4, "ewidtv"), (7, "ewidtv"), (8, "ewidtvforeign")]
    {
        let shown: String = lines(|control| control.set_verbosity(verbosity), work)
            .iter()
            .map(|line| line.trim_end().split('"').nth(1).unwrap().replace("Event occurred", "v"))
            .collect();
        assert_eq!(shown, expected, "--v={verbosity}");
    }
}

#[test]
fn patterns_raise_the_level_of_files() {
    let work = || tracing::debug!("d");
    for (pattern, level, expected) in
        [("tests", 2, 1), ("te*s", 2, 1), ("t?sts", 4, 1), ("tests", 1, 0), ("test", 9, 0)]
    {
        let set = |control: &Control| control.set_patterns(vec![(pattern.to_owned(), level)]);
        assert_eq!(lines(set, work).len(), expected, "{pattern}={level}");
    }
}

#[test]
fn json_lines() {
    let shown = lines(
        |control| control.set_format(Format::Json),
        || {
            tracing::info!(pod = "default/web", n = 3, on = false, "Started \"it\"");
            tracing::error!(err = "no", "Failed");
        },
    );
    assert_eq!(
        shown.iter().map(|line| unnumbered(line)).collect::<Vec<_>>(),
        [
            "{\"ts\":1793686194123.456,\"caller\":\"klog/tests.rs:N\",\"msg\":\"Started \\\"it\\\"\",\"v\":0,\"pod\":\"default/web\",\"n\":3,\"on\":false}\n",
            "{\"ts\":1793686194123.456,\"caller\":\"klog/tests.rs:N\",\"msg\":\"Failed\",\"err\":\"no\"}\n",
        ]
    );
}

#[test]
fn what_was_just_said_is_not_said_again() {
    let work = || {
        for pod in ["default/a", "default/a", "default/b"] {
            tracing::warn!(pod, "It failed");
        }
    };
    assert_eq!(lines(|_| (), work).len(), 2);
    assert_eq!(lines(|control| control.set_verbosity(4), work).len(), 3, "all is wished for");
}
