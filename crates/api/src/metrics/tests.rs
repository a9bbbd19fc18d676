use super::*;

const OPERATIONS: Family = Family::counter("operations_total", Stability::Alpha, "Things done.", &["kind", "who"]);
const TIMES: Family = Family::histogram("times_seconds", Stability::Stable, "How long.", &["kind"], &[0.5, 2.592e6]);
const LEVEL: Family = Family::gauge("level", Stability::Unsaid, "How high.", &[]);

fn written(write: impl Fn(&mut Text<'_>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut Text::new(&mut bytes)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn numbers_as_go_prints_them() {
    for (number, text) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-3.0, "-3"),
        (604_800.0, "604800"),
        (2_592_000.0, "2.592e+06"),
        (641_089_114.0, "6.41089114e+08"),
        (1e-8, "1e-08"),
        (9.999999999999999e-6, "9.999999999999999e-06"),
        (0.00016, "0.00016"),
        (0.1534127404634391, "0.1534127404634391"),
        (298.0232238769531, "298.0232238769531"),
        (123_456.5, "123456.5"),
        (1_234_567.5, "1.2345675e+06"),
        (1.8446744073709552e19, "1.8446744073709552e+19"),
        (1e100, "1e+100"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(number::text(number), text);
    }
}

#[test]
fn counters_with_labels_appear_when_they_count() {
    let counter = Labelled::<Counter>::new(&OPERATIONS);
    assert_eq!(written(|text| counter.tell(text)), "");
    counter.of(&["a\"b\\c\nd", ""]).add_one();
    counter.of(&["z", "me"]).add_one();
    counter.of(&["z", "me"]).add_one();
    let expected = "# HELP operations_total [ALPHA] Things done.\n# TYPE operations_total counter\n\
                    operations_total{kind=\"a\\\"b\\\\c\\nd\",who=\"\"} 1\noperations_total{kind=\"z\",who=\"me\"} 2\n";
    assert_eq!(written(|text| counter.tell(text)), expected);
    counter.forget(|labels| &*labels[1] == "me");
    assert!(!written(|text| counter.tell(text)).contains("me"));
}

#[test]
fn distributions_sum_up() {
    let times = Labelled::<Histogram>::new(&TIMES);
    for size in [0.1, 0.5, 0.6, 3e6] {
        times.of(&["x"]).observe(size);
    }
    let expected = "# HELP times_seconds [STABLE] How long.\n# TYPE times_seconds histogram\n\
                    times_seconds_bucket{kind=\"x\",le=\"0.5\"} 2\n\
                    times_seconds_bucket{kind=\"x\",le=\"2.592e+06\"} 3\n\
                    times_seconds_bucket{kind=\"x\",le=\"+Inf\"} 4\n\
                    times_seconds_sum{kind=\"x\"} 3.0000012e+06\ntimes_seconds_count{kind=\"x\"} 4\n";
    assert_eq!(written(|text| times.tell(text)), expected);
    assert_eq!(TIMES.bucket_texts(), ["0.5", "2.592e+06", "+Inf"]);
}

#[test]
fn gauges_and_times() {
    let level = Plain::<Gauge>::new(&LEVEL);
    level.set(2.5);
    level.add(-1.0);
    assert_eq!(written(|text| level.tell(text)), "# HELP level How high.\n# TYPE level gauge\nlevel 1.5\n");
    assert_eq!(written(|text| text.sample_at(&LEVEL, &[], 1.0, Some(1234))), "level 1 1234\n");
}

crate::counted! {
    /// What happened here.
    struct Happened {
        /// Things.
        things: Plain<Counter> = Family::counter("things_total", Stability::Alpha, "Things.", &[]);
        /// Only where there are some.
        some: Labelled<Gauge> = Family::gauge("some", Stability::Beta, "Some.", &[]);
    }
}

#[test]
fn families_are_said_once() {
    let names: Vec<&str> = Happened::FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names, ["things_total", "some"]);
    let happened = Happened::default();
    let things = "# HELP things_total [ALPHA] Things.\n# TYPE things_total counter\nthings_total 0\n";
    assert_eq!(written(|text| happened.tell(text)), things);
    happened.some.of(&[]).set(3.0);
    let some = "# HELP some [BETA] Some.\n# TYPE some gauge\nsome 3\n";
    assert_eq!(written(|text| happened.tell(text)), format!("{things}{some}"));
}
