use super::*;
use crate::testing::{Server, http};

fn pod(name: &str, version: u32) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i:v{version}"}}]}}}}"#
    )
}

fn list(pods: &[String]) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"PodList","items":[{}]}}"#, pods.join(","))
}

struct Rig {
    server: Server,
    told: mpsc::Receiver<DesiredSet>,
}

impl Rig {
    async fn start(first: Vec<u8>) -> Self {
        let server = Server::plain(move |_| first.clone()).await;
        let source = HttpSource {
            url: format!("http://{}/pods", server.address),
            headers: vec![("X-Key".into(), "k1".into()), ("X-Key".into(), "k2".into())],
            check_every: Duration::from_millis(100),
            node_name: "node-a".into(),
            gates: Gates::default(),
        };
        let (out, told) = mpsc::channel(16);
        source.spawn(out);
        Self { server, told }
    }

    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let set = tokio::time::timeout(Duration::from_secs(10), self.told.recv()).await.unwrap().unwrap();
        assert!(set.complete && set.source == Source::Http);
        let image = |p: &DesiredPod| p.pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        let pods = set.pods.iter().map(|p| format!("{} {}", p.key(), image(p))).collect();
        (pods, set.problems.into_iter().map(|p| p.message).collect())
    }
}

#[tokio::test]
async fn a_pod_and_a_list_of_pods_are_taken() {
    let mut rig = Rig::start(http(200, "", pod("a", 1))).await;
    assert_eq!(rig.next().await, (vec!["default/a-node-a i:v1".to_owned()], vec![]));
    let request = rig.server.requests().remove(0);
    assert!(request.starts_with("GET /pods HTTP/1.1\r\n"), "{request}");
    for line in ["x-key: k1\r\n", "x-key: k2\r\n", &format!("host: {}\r\n", rig.server.address)] {
        assert!(request.contains(line), "{request}");
    }
    let body = list(&[pod("a", 2), pod("b", 1)]);
    rig.server.answer(move |_| http(200, "", &body));
    let want = vec!["default/a-node-a i:v2".to_owned(), "default/b-node-a i:v1".to_owned()];
    assert_eq!(rig.next().await, (want, vec![]));
    let body = list(&[pod("a", 3), pod("a", 4)]);
    rig.server.answer(move |_| http(200, "", &body));
    let (pods, problems) = rig.next().await;
    assert_eq!(pods, ["default/a-node-a i:v3"]);
    assert!(problems.len() == 1 && problems[0].contains("is already defined in"), "{problems:?}");
}

#[tokio::test]
async fn the_last_good_answer_stays_in_force() {
    let mut rig = Rig::start(http(200, "", pod("a", 1))).await;
    rig.next().await;
    let one_bad = list(&[pod("a", 9), r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#.to_owned()]);
    let large = vec![b' '; (10 << 20) + 1];
    for (answer, want) in [
        (http(500, "", "broken"), "500"),
        (http(200, "", "nonsense: ["), "not valid YAML"),
        (http(200, "", one_bad), "spec"),
        (http(200, "", large), "at most 10485760 bytes"),
        (http(302, "location: /pods\r\n", ""), "stopped after 10 redirects"),
        (b"garbage".to_vec(), ""),
    ] {
        rig.server.answer(move |_| answer.clone());
        let (pods, problems) = rig.next().await;
        assert_eq!(pods, ["default/a-node-a i:v1"], "{problems:?}");
        assert!(problems.len() == 1 && problems[0].contains(want), "{want}: {problems:?}");
        assert!(problems[0].ends_with("(what it answered last stays in force)"), "{problems:?}");
    }
    rig.server.answer(|_| http(200, "", pod("a", 1)));
    assert_eq!(rig.next().await, (vec!["default/a-node-a i:v1".to_owned()], vec![]));
    rig.server.answer(|_| http(200, "", ""));
    let (pods, problems) = rig.next().await;
    assert!(pods.is_empty() && problems[0].starts_with("zero-length data received from http://"), "{problems:?}");
}

#[tokio::test]
async fn nothing_is_told_before_the_first_good_answer() {
    let mut rig = Rig::start(http(404, "", "")).await;
    let asked_twice = async {
        while rig.server.requests().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked_twice).await.unwrap();
    assert!(rig.told.try_recv().is_err());
    rig.server.answer(|head| match head.starts_with("GET /pods ") {
        true => http(307, "location: moved/here\r\n", ""),
        false => http(200, "", list(&[])),
    });
    assert_eq!(rig.next().await, (vec![], vec![]));
    assert!(rig.server.requests().last().unwrap().starts_with("GET /moved/here HTTP"));
}

#[tokio::test]
async fn an_unknown_authority_is_not_believed() {
    let server = Server::tls(|_| http(200, "", pod("a", 1))).await;
    let fetcher = Fetcher::new(&format!("https://{}/", server.address), &[]).unwrap();
    let error = fetcher.get().await.unwrap_err();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let other = Server::plain(|_| http(200, "", "there")).await;
    let target = format!("http://localhost:{}/", other.port());
    let server = Server::plain(move |_| http(302, &format!("location: {target}\r\n"), "")).await;
    let headers = [("Authorization".to_owned(), "secret".to_owned()), ("X-Other".to_owned(), "x".to_owned())];
    let fetcher = Fetcher::new(&format!("http://{}/", server.address), &headers).unwrap();
    assert_eq!(fetcher.get().await.unwrap(), b"there");
    assert!(server.requests()[0].contains("authorization: secret"));
    let last = other.requests().remove(0);
    assert!(!last.contains("authorization") && last.contains("x-other: x"), "{last}");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    for (url, want) in [
        ("ftp://h/", "not an http or https URL"),
        ("/path", "not an http or https URL"),
        ("http:// h/", "not a URL"),
        ("http://user:word@h/", "user and password in the URL are not supported, use staticPodURLHeader"),
    ] {
        let error = Fetcher::new(url, &[]).err().unwrap();
        assert!(error.starts_with(want), "{url}: {error}");
    }
    let bad = [("a b".to_owned(), "x".to_owned())];
    assert!(Fetcher::new("http://h/", &bad).err().unwrap().contains("is no header name"));
}
