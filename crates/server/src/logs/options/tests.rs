use super::*;

fn parse(query: &str) -> Result<LogOptions, OptionsError> {
    LogOptions::parse(Query::parse(query))
}

#[test]
fn parameters_are_read_as_upstream_reads_them() {
    let none = LogOptions::default;
    let moment = |secs, nanos| Moment { secs, nanos };
    for (query, wanted) in [
        ("", none()),
        ("follow=true", LogOptions { follow: true, ..none() }),
        ("follow", LogOptions { follow: true, ..none() }),
        ("follow=1&timestamps=yes&previous=", LogOptions { follow: true, timestamps: true, previous: true, ..none() }),
        ("follow=0&timestamps=False&previous=FALSE", none()),
        ("tailLines=0", LogOptions { tail_lines: Some(0), ..none() }),
        ("tail=7", LogOptions { tail_lines: Some(7), ..none() }),
        ("tail=7&tailLines=9", LogOptions { tail_lines: Some(7), ..none() }),
        ("tail=all&tailLines=9", none()),
        ("tail=&tailLines=9", LogOptions { tail_lines: Some(9), ..none() }),
        ("limitBytes=%2b1", LogOptions { limit_bytes: Some(1), ..none() }),
        ("sinceSeconds=5", LogOptions { since_seconds: Some(5), ..none() }),
        ("sinceTime=1970-01-01T00:00:01.5Z", LogOptions { since_time: Some(Some(moment(1, 500_000_000))), ..none() }),
        ("sinceTime=1970-01-01T02:00:01%2B02:00", LogOptions { since_time: Some(Some(moment(1, 0))), ..none() }),
        ("sinceTime=", LogOptions { since_time: Some(None), ..none() }),
        ("stream=All&tailLines=1", LogOptions { stream: Some("All".into()), tail_lines: Some(1), ..none() }),
        ("stream=Stderr", LogOptions { stream: Some("Stderr".into()), ..none() }),
        ("unknown=1", none()),
    ] {
        assert_eq!(parse(query), Ok(wanted), "{query}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    use OptionsError::{Invalid, Undecodable};
    for (query, wanted) in [
        ("tailLines=x", Undecodable),
        ("tailLines=", Undecodable),
        ("tail=-", Undecodable),
        ("limitBytes=1e3", Undecodable),
        ("limitBytes=99999999999999999999", Undecodable),
        ("sinceTime=yesterday", Undecodable),
        ("sinceSeconds=1.5", Undecodable),
        ("tailLines=-1", Invalid),
        ("limitBytes=0", Invalid),
        ("sinceSeconds=0", Invalid),
        ("sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z", Invalid),
        ("stream=stdout", Invalid),
        ("stream=Stdout&tailLines=1", Invalid),
    ] {
        assert_eq!(parse(query), Err(wanted), "{query}");
    }
}

#[test]
fn since_counts_from_now() {
    let now = Moment { secs: 100, nanos: 7 };
    let since = |query: &str| parse(query).unwrap().reading("x".into(), now).wanted.since;
    assert_eq!(since("sinceSeconds=40"), Some(Moment { secs: 60, nanos: 7 }));
    assert_eq!(since("sinceTime=1970-01-01T00:00:09Z"), Some(Moment { secs: 9, nanos: 0 }));
    assert_eq!((since("sinceTime="), since("")), (None, None));
}
