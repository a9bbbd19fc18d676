//! Who gets what answer where, compared with what upstream's server was seen to answer.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{AccessQuestion, Caller, ReviewError, Reviewing, Reviews};

const RECORDED: &str = include_str!("../../../../../tests/golden/server-access.tsv");
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"];

/// An API server that knows the token `good` as `u`, and allows nothing, or cannot be asked.
struct Strict {
    is_broken: bool,
}

impl Reviews for Strict {
    fn token(&self, token: &str) -> Reviewing<Option<Caller>> {
        let caller = (token == "good").then(|| Caller { name: "u".to_owned(), ..Caller::default() });
        Box::pin(async move { Ok(caller) })
    }

    fn access(&self, question: &AccessQuestion) -> Reviewing<bool> {
        assert_eq!((&*question.name, question.caller.name.is_empty()), ("node-a", false));
        let answer = if self.is_broken { Err(ReviewError::Refused("unreachable".to_owned())) } else { Ok(false) };
        Box::pin(async move { answer })
    }
}

#[derive(Debug)]
struct Row {
    status: u16,
    location: String,
    /// Of GET.
    body: String,
}

/// By whether there is debugging, state of the caller, and path.
fn recorded() -> BTreeMap<(bool, &'static str), Vec<(&'static str, Row)>> {
    let mut rows = BTreeMap::<_, Vec<_>>::new();
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let [debugging, state, path, status, location, body] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        let body = serde_json::from_str(body).unwrap();
        let row = Row { status: status.parse().unwrap(), location: location.to_owned(), body };
        rows.entry((debugging == "true", state)).or_default().push((path, row));
    }
    rows
}

/// One who asks, by header and certificate, and whose answers it is to get.
struct Asker<'a> {
    is_anonymous_allowed: bool,
    is_broken: bool,
    identity: Option<&'a Identity>,
    header: &'static str,
    state: &'static str,
    user: &'static str,
}

#[tokio::test]
async fn everyone_gets_upstreams_answer_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (known, foreign) = (Identity::named(&folder, "known", "u"), Identity::named(&folder, "foreign", "u"));
    let asker = |identity, header, state, user| Asker {
        is_anonymous_allowed: false,
        is_broken: state == "error",
        identity,
        header,
        state,
        user,
    };
    let askers = [
        asker(None, "", "none", ""),
        asker(Some(&foreign), "", "none", ""),
        asker(None, "Authorization: Bearer bad\r\n", "none", ""),
        asker(None, "Authorization: Basic dTp1\r\n", "none", ""),
        asker(Some(&known), "", "known", "u"),
        asker(Some(&known), "Authorization: Bearer bad\r\n", "known", "u"),
        asker(None, "Authorization: Bearer good\r\n", "known", "u"),
        asker(Some(&foreign), "Authorization: Bearer good\r\n", "known", "u"),
        asker(Some(&known), "", "error", "u"),
        Asker { is_anonymous_allowed: true, ..asker(None, "", "known", "system:anonymous") },
        Asker { is_anonymous_allowed: true, ..asker(Some(&foreign), "", "none", "") },
        Asker { is_anonymous_allowed: true, ..asker(None, "Authorization: Bearer bad\r\n", "none", "") },
    ];
    let recorded = recorded();
    let mut compared = 0;
    for has_debugging in [true, false] {
        for asker in &askers {
            let authentication = Authentication {
                anonymous: asker.is_anonymous_allowed,
                client_ca_file: Some(known.authority.clone()),
                webhook: true,
                ..Authentication::default()
            };
            let config = TlsServerConfig {
                has_debugging,
                authorization: AuthorizationMode::Webhook,
                ..tls(folder.path(), authentication)
            };
            let reviews: Arc<dyn Reviews> = Arc::new(Strict { is_broken: asker.is_broken });
            let config = ServerConfig { tls: Some(config), ..ServerConfig::default() };
            let servers = serve(config, view(), Some(reviews)).await.unwrap();
            let at = servers.tls_address().unwrap();
            let mut stream = secure_stream(at, &folder, Protocol::Http1, asker.identity).await;
            for (path, row) in &recorded[&(has_debugging, asker.state)] {
                for method in METHODS {
                    let got = ask(&mut stream, method, path, asker.header).await;
                    let (header, user) = (asker.header, asker.user);
                    assert_eq!(got, wanted(row, method, user), "{method} {path} {header:?} as {user:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 11_000, "{compared}");
}

fn wanted(row: &Row, method: &str, user: &str) -> (u16, String, String) {
    let verb = match method {
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let body = match (method, row.status) {
        ("HEAD", _) => String::new(),
        ("GET", 307) => row.body.clone(),
        (_, 307) => String::new(),
        _ => row.body.replace("verb=VERB", &format!("verb={verb}")).replace("user=u,", &format!("user={user},")),
    };
    (row.status, row.location.clone(), body)
}

/// Writes the path as it is. Status, place and body.
pub(super) async fn ask(stream: &mut Secured, method: &str, path: &str, header: &str) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node-a\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let length = if method == "HEAD" { 0 } else { field("content-length: ").parse().unwrap() };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, field("location: "), String::from_utf8(body).unwrap())
}
