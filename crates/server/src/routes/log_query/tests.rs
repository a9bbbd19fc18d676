use http_body_util::BodyExt as _;

use super::*;

async fn ask(dir: &Path, below: &str, query: &str) -> Result<(u16, String), String> {
    match answer(dir, below, &Query::parse(query), &HeaderMap::new()).await {
        Outcome::None => Err("none".to_owned()),
        Outcome::File(name) => Err(format!("file {name}")),
        Outcome::Answer(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        }
    }
}

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("three")).unwrap();
    for (name, text) in [("one", "1\n"), ("two.log", "2\n"), ("three/three.log", "3\n")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[tokio::test]
async fn what_is_wrong_is_told_in_upstreams_words() {
    let dir = dir();
    for (below, query, status, body) in [
        ("", "query=", 400, r#"query: Invalid value: [""]: may not be empty"#),
        ("", "query=%20&query=", 400, r#"query: Invalid value: [" ",""]: may not be empty"#),
        ("", "query=a&sinceTime=now", 400, r#"sinceTime: Invalid value: "now": invalid time format"#),
        ("", "query=a&boot=x", 400, r#"boot: Invalid value: "x": strconv.Atoi: parsing "x": invalid syntax"#),
        (
            "",
            "query=a&untilTime=x&tailLines=y",
            400,
            r#"[untilTime: Invalid value: "x": invalid time format, tailLines: Invalid value: "y": strconv.Atoi: parsing "y": invalid syntax]"#,
        ),
        ("sub", "query=a", 406, "path not allowed in query mode"),
        ("", "tailLines=3", 406, "query: Required value: cannot be empty with options"),
        ("", "query=a;b&query=x%20y", 406, r#"query: Invalid value: "x y": input contains unsupported characters"#),
        ("", "query=a&query=b&query=c&query=d&query=e", 406, "query: Too many: 5: must have at most 4 items"),
        ("", "query=a&query=/b", 406, r#"query: Invalid value: "[/b], [a]": cannot specify a file and service"#),
        ("", "query=/a&query=/b", 406, r#"query: Invalid value: ["/a","/b"]: cannot specify more than one file"#),
        (
            "",
            "query=three/three.log&boot=0",
            406,
            r#"query: Invalid value: ["three/three.log"]: cannot specify file with options"#,
        ),
        ("", "query=a&boot=1", 406, "boot: Invalid value: 1: must be less than 1"),
        ("", "query=a&tailLines=-1", 406, "tailLines: Invalid value: -1: must be between 0 and 100000, inclusive"),
        (
            "",
            "query=a&tailLines=100001",
            406,
            "tailLines: Invalid value: 100001: must be between 0 and 100000, inclusive",
        ),
        (
            "",
            "query=a&sinceTime=2024-01-02T00:00:00Z&untilTime=2024-01-01T00:00:00Z",
            406,
            r#"untilTime: Invalid value: "2024-01-01T00:00:00Z": must be after `sinceTime`"#,
        ),
        (
            "",
            "query=../../etc/passwd",
            406,
            r#"query: Invalid value: ["../../etc/passwd"]: statat ../../etc/passwd: path escapes from parent"#,
        ),
        (
            "",
            "query=three/none",
            406,
            r#"query: Invalid value: ["three/none"]: statat three/none: no such file or directory"#,
        ),
    ] {
        let got = ask(dir.path(), below, query).await.unwrap();
        assert_eq!(got, (status, format!("{body}\n")), "{query}");
    }
    let long = format!("query={}", "x".repeat(257));
    let (status, body) = ask(dir.path(), "", &long).await.unwrap();
    assert_eq!(status, 406);
    assert!(body.ends_with("length must be less than 256\n"), "{body}");
}

#[tokio::test]
async fn no_query_and_files_are_others() {
    let dir = dir();
    assert_eq!(ask(dir.path(), "", "").await, Err("none".into()));
    assert_eq!(ask(dir.path(), "x", "other=1").await, Err("none".into()));
    assert_eq!(ask(dir.path(), "", "query=three/three.log").await, Err("file three/three.log".into()));
}

#[tokio::test]
async fn services_without_a_journal_are_looked_for_in_files() {
    let dir = dir();
    let got = ask(dir.path(), "", "query=one&query=two&query=three&query=none").await.unwrap();
    assert_eq!(got, (200, "1\n2\n3\n\nlog not found for none\n".into()));
    let got = ask(dir.path(), "", "query=one&query=two&tailLines=1").await.unwrap();
    let why = "\noptions present and query resolved to log files for [one two]\ntry without specifying options\n";
    assert_eq!(got, (200, why.into()));
}

#[tokio::test]
async fn an_answer_may_be_compressed() {
    let dir = dir();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let Outcome::Answer(response) = answer(dir.path(), "", &Query::parse("query=one&query=two"), &headers).await else {
        panic!("no answer");
    };
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n");
}

#[test]
fn the_journal_is_asked_as_upstream_asks_it() {
    let query =
        "query=a&sinceTime=2024-01-02T03:04:05Z&untilTime=2024-11-12T13:14:15%2B01:00&tailLines=5&pattern=x.*&boot=-1";
    let asked = LogQuery::parse(&Query::parse(query)).unwrap();
    let services: Vec<&String> = asked.services.iter().collect();
    let wanted = "--utc --no-pager --output=short-precise --since=2024-1-2 03:4:5 --until=2024-11-12 12:14:15 --pager-end \
                  --lines=5 --unit=a --grep=x.* --boot -1";
    assert_eq!(arguments(&asked.options, &services).join(" "), wanted);
}
