use super::*;
use rubelet_proto::cri::AuthConfig;

fn password(user: &str) -> Option<AuthConfig> {
    Some(AuthConfig { username: user.into(), password: "secret".into(), ..AuthConfig::default() })
}

/// A registry that wants a token, which its own token server gives to anybody (but `nobody`), with the user's name in it.
async fn with_tokens(sample: &Sample) -> Server {
    let sample = sample.clone();
    let address = Arc::new(Mutex::new(String::new()));
    let own = address.clone();
    let server = Server::start(move |request| {
        let proof = request.header("authorization").unwrap_or_default();
        if request.path.starts_with("/token") {
            if request.method == "POST" {
                let is_right = request.body.contains("grant_type=refresh_token&refresh_token=long%2Flived");
                return if is_right {
                    Reply::with(br#"{"access_token":"T-refreshed"}"#.to_vec())
                } else {
                    Reply::status(401)
                };
            }
            let user = match proof.strip_prefix("Basic ") {
                None => "anonymous".to_owned(),
                Some(pair) => {
                    use base64::Engine;
                    let pair = base64::engine::general_purpose::STANDARD.decode(pair).unwrap();
                    String::from_utf8(pair).unwrap().split(':').next().unwrap().to_owned()
                }
            };
            if user == "nobody" {
                return Reply::status(401);
            }
            return Reply::with(format!(r#"{{"token":"T-{user}"}}"#).into_bytes());
        }
        let challenge = |more: &str| {
            let realm = format!("http://{}/token", own.lock().unwrap());
            let value = format!(r#"Bearer realm="{realm}",service="here",scope="repository:some/image:pull"{more}"#);
            Reply::status(401).header("www-authenticate", &value)
        };
        match proof.strip_prefix("Bearer T-") {
            None => challenge(""),
            Some("anonymous") => challenge(r#",error="insufficient_scope""#),
            Some(_) => sample.answer(request),
        }
    })
    .await;
    *address.lock().unwrap() = server.address.to_string();
    server
}

#[tokio::test]
async fn a_token_is_got_for_each_credential_and_kept_for_none() {
    let server = with_tokens(&Sample::two_layers()).await;
    let ground = Ground::new();
    let first = ground.images.pull(&server.image(), password("ann"), None).await.unwrap();
    let second = ground.images.pull(&server.image(), password("bob"), None).await.unwrap();
    assert!(first.credential.is_some() && first.credential != second.credential);
    let proofs: Vec<String> = server
        .requests()
        .iter()
        .filter(|r| r.path.contains("/manifests/1"))
        .map(|r| r.header("authorization").unwrap_or("none").to_owned())
        .collect();
    assert_eq!(proofs, ["none", "Bearer T-ann", "none", "Bearer T-bob"]);
    let token = server.requests().iter().find(|r| r.path.starts_with("/token")).unwrap().path.clone();
    assert_eq!(token, "/token?service=here&scope=repository%3Asome%2Fimage%3Apull");
    // Within one pull the token is used again.
    assert_eq!(server.asked().iter().filter(|r| r.contains("/token")).count(), 2);
    // Without credential the image is not given, although it is here.
    let error = ground.pull(&server).await.unwrap_err();
    let image = server.image();
    let expected = format!(
        r#"failed to pull and unpack image "{image}": failed to resolve reference "{image}": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn other_ways_to_a_token() {
    let server = with_tokens(&Sample::two_layers()).await;
    let ground = Ground::new();
    let identity = AuthConfig { identity_token: "long/lived".into(), ..AuthConfig::default() };
    ground.images.pull(&server.image(), Some(identity), None).await.unwrap();
    let ready = AuthConfig { registry_token: "T-ready".into(), ..AuthConfig::default() };
    ground.images.pull(&server.image(), Some(ready), None).await.unwrap();
    let error = ground.images.pull(&server.image(), password("nobody"), None).await.unwrap_err().to_string();
    let words = format!(
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request to http://{}/token?service=here&scope=repository%3Asome%2Fimage%3Apull: 401 Unauthorized",
        server.address
    );
    assert!(error.ends_with(&words), "{error}");
}

#[tokio::test]
async fn user_and_password_where_they_are_asked_for() {
    let sample = Sample::two_layers();
    let server = Server::start(move |request| match request.header("authorization") {
        // ann:secret
        Some("Basic YW5uOnNlY3JldA==") => sample.answer(request),
        _ => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let ground = Ground::new();
    ground.images.pull(&server.image(), password("ann"), None).await.unwrap();
    let error = ground.images.pull(&server.image(), password("bob"), None).await.unwrap_err().to_string();
    assert!(error.ends_with("401 Unauthorized"), "{error}");
    let error = ground.pull(&server).await.unwrap_err().to_string();
    assert!(error.ends_with("authorization failed: no basic auth credentials"), "{error}");
}

#[tokio::test]
async fn redirects_do_not_carry_who_we_are() {
    let sample = Sample::two_layers();
    let storage = Server::of(&sample).await;
    let elsewhere = storage.address;
    let layers = sample.layers.clone();
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::status(401).header("www-authenticate", "Basic realm=x");
        }
        match layers.iter().find(|l| request.path.ends_with(&l.to_string())) {
            Some(layer) => Reply::status(307).header("location", &format!("http://{elsewhere}/x/blobs/{layer}")),
            None => sample.answer(request),
        }
    })
    .await;
    let ground = Ground::new();
    ground.images.pull(&server.image(), password("ann"), None).await.unwrap();
    let requests = storage.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.header("authorization").is_none()), "{requests:?}");
    // Round in circles.
    let circle = Server::start(|r| Reply::status(302).header("location", &r.path)).await;
    let error = ground.pull(&circle).await.unwrap_err().to_string();
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
}
