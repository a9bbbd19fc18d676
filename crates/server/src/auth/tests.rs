//! Scripted answers of an API server, in virtual time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http_body_util::BodyExt;
use tokio::time::Instant;

use super::*;

/// Answers what it was told to, in turn; then as the last time.
#[derive(Default)]
struct Script {
    tokens: Mutex<VecDeque<Result<Option<Caller>, ReviewError>>>,
    allowed: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<String>>,
    /// Of each answer.
    slowness: Duration,
    broken: bool,
}

impl Script {
    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Reviews for Script {
    fn token(&self, token: &str) -> Reviewing<Option<Caller>> {
        self.note(token.to_owned());
        let mut tokens = self.tokens.lock().unwrap();
        let answer = if tokens.len() > 1 { tokens.pop_front() } else { tokens.front().cloned() };
        let slowness = self.slowness;
        Box::pin(async move {
            tokio::time::sleep(slowness).await;
            answer.unwrap()
        })
    }

    fn access(&self, question: &AccessQuestion) -> Reviewing<bool> {
        let AccessQuestion { caller, verb, name, subresource } = question;
        self.note(format!("{} {verb} {name}/{subresource}", caller.name));
        let answer = match self.broken {
            true => Err(ReviewError::Refused("broken".to_owned())),
            false => Ok(self.allowed.lock().unwrap().contains(subresource)),
        };
        Box::pin(async move { answer })
    }
}

fn known(name: &str) -> Result<Option<Caller>, ReviewError> {
    Ok(Some(Caller { name: name.to_owned(), ..Caller::default() }))
}

fn busy() -> Result<Option<Caller>, ReviewError> {
    Err(ReviewError::Busy("429".to_owned()))
}

fn script(tokens: impl IntoIterator<Item = Result<Option<Caller>, ReviewError>>) -> Arc<Script> {
    Arc::new(Script { tokens: Mutex::new(tokens.into_iter().collect()), ..Script::default() })
}

fn gate(script: &Arc<Script>) -> Gate {
    let times = CacheTimes::default();
    Gate {
        is_anonymous_allowed: false,
        tokens: Some(Tokens::new(script.clone(), times.token, Arc::default())),
        access: Access::AlwaysAllow,
    }
}

fn bearing(token: &str) -> HeaderMap {
    [(http::header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}

async fn who(gate: &Gate, token: &str) -> Option<String> {
    let mut headers = bearing(token);
    let admitted = gate.admit(Ok(None), &Method::GET, "/pods", &mut headers).await.ok();
    assert_eq!(headers.is_empty(), admitted.is_some(), "a good token goes no further");
    admitted.map(|caller| caller.name.clone())
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_asked_for_once_in_two_minutes() {
    let script = script([known("ada")]);
    let gate = gate(&script);
    for _ in 0..3 {
        assert_eq!(who(&gate, "t").await.as_deref(), Some("ada"));
        tokio::time::advance(Duration::from_secs(39)).await;
    }
    assert_eq!(script.asked(), 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(who(&gate, "t").await.as_deref(), Some("ada"));
    assert_eq!(script.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobodys_token_is_remembered_and_an_error_is_not() {
    let nobody = script([Ok(None)]);
    let gate_of_nobody = gate(&nobody);
    let broken = script([Err(ReviewError::Refused("no".to_owned())), known("ada")]);
    let gate_of_broken = gate(&broken);
    assert_eq!(who(&gate_of_nobody, "t").await, None);
    assert_eq!(who(&gate_of_nobody, "t").await, None);
    assert_eq!(nobody.asked(), 1);
    assert_eq!(who(&gate_of_broken, "t").await, None);
    assert_eq!(who(&gate_of_broken, "t").await.as_deref(), Some("ada"));
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_asked_five_times() {
    let script = script([busy(), busy(), busy(), busy(), known("ada")]);
    let since = Instant::now();
    assert_eq!(who(&gate(&script), "t").await.as_deref(), Some("ada"));
    // 0.5 + 0.75 + 1.125 + 1.6875 s, and up to a fifth more.
    let took = since.elapsed().as_secs_f64();
    assert!((4.06..4.9).contains(&took), "{took}");
    let script = self::script([busy()]);
    assert_eq!(who(&gate(&script), "t").await, None);
    assert_eq!(script.asked(), 5);
}

#[tokio::test(start_paused = true)]
async fn many_with_one_token_are_one_question() {
    let mut answers = Script { slowness: Duration::from_secs(2), ..Script::default() };
    answers.tokens.get_mut().unwrap().push_back(known("ada"));
    let script = Arc::new(answers);
    let gate = Arc::new(gate(&script));
    let asking: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn({
                let gate = gate.clone();
                async move { who(&gate, "t").await }
            })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.unwrap().as_deref(), Some("ada"));
    }
    assert_eq!(script.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_the_question_to_others() {
    let mut answers = Script { slowness: Duration::from_secs(2), ..Script::default() };
    answers.tokens.get_mut().unwrap().push_back(known("ada"));
    let script = Arc::new(answers);
    let gate = Arc::new(gate(&script));
    let ask = || {
        tokio::spawn({
            let gate = gate.clone();
            async move { who(&gate, "t").await }
        })
    };
    let (first, second) = (ask(), ask());
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    assert_eq!(second.await.unwrap().as_deref(), Some("ada"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_is_not_waited_for_without_end() {
    let mut answers = Script { slowness: Duration::from_secs(3600), ..Script::default() };
    answers.tokens.get_mut().unwrap().push_back(known("ada"));
    let since = Instant::now();
    assert_eq!(who(&gate(&Arc::new(answers)), "t").await, None);
    assert_eq!(since.elapsed(), Duration::from_secs(30));
}

fn caller(name: &str) -> Certified {
    Ok(Some(Caller { name: name.to_owned(), ..Caller::default() }.authenticated()))
}

async fn answer(gate: &Gate, certified: Certified, method: Method, path: &str) -> (u16, String) {
    match gate.admit(certified, &method, path, &mut HeaderMap::new()).await {
        Ok(_) => (200, String::new()),
        Err(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }
}

fn webhook(script: &Arc<Script>) -> Gate {
    let access = Access::webhook(script.clone(), CacheTimes::default(), "node-a");
    Gate { is_anonymous_allowed: false, tokens: None, access }
}

#[tokio::test(start_paused = true)]
async fn the_finer_right_is_asked_for_first() {
    let script = Arc::new(Script { allowed: Mutex::new(vec!["proxy"]), ..Script::default() });
    let gate = webhook(&script);
    assert_eq!(answer(&gate, caller("ada"), Method::GET, "/pods").await.0, 200);
    assert_eq!(answer(&gate, caller("ada"), Method::POST, "/exec/a/b/c").await.0, 200);
    assert_eq!(
        *script.asked.lock().unwrap(),
        ["ada get node-a/pods", "ada get node-a/proxy", "ada create node-a/proxy"]
    );
    let refused = answer(&gate, caller("ada"), Method::GET, "/metrics").await;
    assert_eq!(refused, (403, "Forbidden (user=ada, verb=get, resource=nodes, subresource(s)=[metrics])\n".into()));
    script.allowed.lock().unwrap().clear();
    let refused = answer(&gate, caller("bob"), Method::HEAD, "/pods").await;
    assert_eq!(refused, (403, "Forbidden (user=bob, verb=, resource=nodes, subresource(s)=[pods proxy])\n".into()));
}

#[tokio::test(start_paused = true)]
async fn a_yes_holds_longer_than_a_no() {
    let script = Arc::new(Script { allowed: Mutex::new(vec!["metrics"]), ..Script::default() });
    let gate = webhook(&script);
    let mut asked = Vec::new();
    for _ in 0..11 {
        answer(&gate, caller("ada"), Method::GET, "/metrics").await;
        answer(&gate, caller("ada"), Method::GET, "/stats/summary").await;
        asked.push(script.asked());
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    assert_eq!(asked, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13], "a no for 30 s, a yes for 5 min");
}

#[tokio::test(start_paused = true)]
async fn groups_make_another_caller() {
    let script = Arc::new(Script::default());
    let gate = webhook(&script);
    let member = |groups: &[&str]| {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Ok(Some(Caller { name: "ada".into(), groups, ..Caller::default() }.authenticated()))
    };
    for groups in [&["a", "b"][..], &["a"], &["b"], &["ab"], &["a", "b"]] {
        assert_eq!(answer(&gate, member(groups), Method::GET, "/metrics").await.0, 403);
    }
    assert_eq!(script.asked(), 4);
}

#[tokio::test]
async fn an_api_server_that_cannot_be_asked_is_our_fault() {
    let script = Arc::new(Script { broken: true, ..Script::default() });
    let got = answer(&webhook(&script), caller("ada"), Method::GET, "/pods").await;
    assert_eq!(got, (500, "Authorization error (user=ada, verb=get, resource=nodes, subresource=pods)".to_owned()));
}

#[tokio::test]
async fn anyone_is_who_shows_nothing() {
    let script = Arc::new(Script::default());
    let mut gate = webhook(&script);
    assert_eq!(answer(&gate, Ok(None), Method::GET, "/pods").await, (401, "Unauthorized".into()));
    gate.is_anonymous_allowed = true;
    let refused = answer(&gate, Ok(None), Method::GET, "/metrics").await;
    assert_eq!(refused.1, "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[metrics])\n");
    assert_eq!(answer(&gate, Err("bad".into()), Method::GET, "/metrics").await.0, 401);
    let nobody = script_of_nobody();
    gate.tokens = Some(Tokens::new(nobody, Duration::ZERO, Arc::default()));
    let with_token = gate.admit(Ok(None), &Method::GET, "/metrics", &mut bearing("t")).await;
    assert_eq!(with_token.err().unwrap().status(), 401, "nor is who shows a token that is nobody's");
}

fn script_of_nobody() -> Arc<Script> {
    script([Ok(None)])
}

#[tokio::test]
async fn a_good_token_makes_up_for_a_bad_certificate() {
    let script = script([known("ada")]);
    let gate = gate(&script);
    let admitted = gate.admit(Err("bad".into()), &Method::GET, "/pods", &mut bearing("t")).await.ok().unwrap();
    assert_eq!(admitted.groups, ["system:authenticated"]);
}
