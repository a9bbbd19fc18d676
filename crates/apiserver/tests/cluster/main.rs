//! The client against a real API server. `./x test cluster` runs it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rubelet_api::groups::authentication_v1::TokenRequestSpec;
use rubelet_api::groups::authorization_v1::{ResourceAttributes, SubjectAccessReviewSpec};
use rubelet_api::groups::coordination_v1::{Lease, LeaseSpec};
use rubelet_api::meta::ObjectMeta;
use rubelet_api::v1::{ConfigMap, Node, Pod, ServiceAccount};
use rubelet_apiserver::{
    Change, Client, DeleteOptions, Force, Identity, Patch, Path, Preconditions, Selector, Settings, Token, Watch,
    certificates, lease, nodes, reviews, tokens,
};
use serde_json::json;
use tokio::time::timeout;

mod plane;

use plane::{Plane, Wire, audited};

const PATIENCE: Duration = Duration::from_secs(60);

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

fn maps() -> Path {
    Path::within::<ConfigMap>("default")
}

fn value(map: &ConfigMap) -> &str {
    &map.data.as_ref().unwrap()["k"]
}

fn name(map: &ConfigMap) -> String {
    map.metadata.name.clone().unwrap()
}

async fn next(watch: &mut Watch<ConfigMap>) -> Change<ConfigMap> {
    timeout(PATIENCE, watch.next()).await.expect("a change in time").expect("the watch goes on")
}

/// The next change that is not about a lost connection.
async fn next_good(watch: &mut Watch<ConfigMap>) -> Change<ConfigMap> {
    loop {
        match next(watch).await {
            Change::Interrupted(error) => eprintln!("interrupted: {error}"),
            change => return change,
        }
    }
}

/// Names and values of a complete list.
fn replaced(change: Change<ConfigMap>) -> Vec<(String, String)> {
    let Change::Replaced(maps, version) = change else { panic!("{change:?} is not the whole list") };
    assert!(version.parse::<u64>().unwrap() > 0);
    maps.iter().map(|map| (name(map), value(map).to_owned())).collect()
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn objects_are_written_and_read() {
    let plane = Plane::start(&[]);
    let client = plane.client("admin");
    client.health().await.unwrap();
    let a = client.create(&maps(), &map("a", "1")).await.unwrap();
    assert_eq!((value(&a), a.metadata.managed_fields.clone()), ("1", None));
    assert!(client.create(&maps(), &map("a", "2")).await.unwrap_err().is_already_exists());
    let path = maps().named("a");
    for (patch, wanted) in [
        (Patch::StrategicMerge(json!({"data": {"k": "s"}})), "s"),
        (Patch::Merge(json!({"data": {"k": "m"}})), "m"),
        (Patch::Json(json!([{"op": "replace", "path": "/data/k", "value": "j"}])), "j"),
        (
            Patch::Apply {
                manager: "test".to_owned(),
                force: Force::Yes,
                wanted: json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "a"}}),
            },
            "a",
        ),
    ] {
        let patched: ConfigMap = client.patch(&path, &patch).await.unwrap();
        assert_eq!(value(&patched), wanted);
        assert_eq!(value(&client.get::<ConfigMap>(&path).await.unwrap()), wanted);
    }
    // The first version is no longer the newest.
    let conflict = client.update(&path, &a).await.unwrap_err();
    assert!(conflict.is_conflict(), "{conflict}");
    let stale = DeleteOptions {
        preconditions: Some(Preconditions { uid: Some("other".to_owned()), resource_version: None }),
        ..DeleteOptions::default()
    };
    assert!(client.delete(&path, &stale).await.unwrap_err().is_conflict());
    client.delete(&path, &DeleteOptions::default()).await.unwrap();
    let gone = client.get::<ConfigMap>(&path).await.unwrap_err();
    assert!(gone.is_not_found());
    assert_eq!(gone.to_string(), "get /api/v1/namespaces/default/configmaps/a: configmaps \"a\" not found");
    let invalid = client.create(&maps(), &map("NOT A NAME", "")).await.unwrap_err();
    assert!(invalid.is_invalid() && invalid.refusal().unwrap().status.details.is_some(), "{invalid}");
    let forbidden = plane.client("node-a").get::<ConfigMap>(&path).await.unwrap_err();
    assert!(forbidden.is_forbidden() && forbidden.to_string().contains("no relationship found"), "{forbidden}");
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn long_lists_come_in_pages() {
    let plane = Plane::start(&[]);
    let client = plane.client("admin");
    for number in 0..520 {
        client.create(&maps(), &map(&format!("m{number:03}"), "x")).await.unwrap();
    }
    let listed = client.list::<ConfigMap>(&maps(), &Selector::all()).await.unwrap();
    assert_eq!(listed.items.len(), 520);
    let one = client.list::<ConfigMap>(&maps(), &Selector::name("m007")).await.unwrap();
    assert_eq!(one.items.iter().map(name).collect::<Vec<_>>(), ["m007"]);
    assert!(one.items[0].metadata.managed_fields.is_none());
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn a_node_asks_what_it_may() {
    let plane = Plane::start(&["--controllers"]);
    let (admin, client) = (plane.client("admin"), plane.client("node-a"));
    let node =
        Node { metadata: ObjectMeta { name: Some("node-a".to_owned()), ..ObjectMeta::default() }, ..Node::default() };
    let uid = nodes::create(&client, &node).await.unwrap().metadata.uid.unwrap();
    assert!(nodes::create(&client, &node).await.unwrap_err().is_already_exists());
    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    let patched = nodes::patch_status(&client, "node-a", condition).await.unwrap();
    assert_eq!(patched.status.unwrap().conditions.unwrap()[0].type_, "Ready");
    assert_eq!(nodes::get_cached(&client, "node-a").await.unwrap().metadata.uid.unwrap(), uid);

    assert!(lease::get(&client, "node-a").await.unwrap().is_none());
    let sign = Lease {
        metadata: ObjectMeta { name: Some("node-a".to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec { holder_identity: Some("node-a".to_owned()), ..LeaseSpec::default() }),
    };
    let mut sign = lease::create(&client, &sign).await.unwrap();
    sign.spec.as_mut().unwrap().lease_duration_seconds = Some(40);
    let renewed = lease::update(&client, "node-a", &sign).await.unwrap();
    assert_eq!(renewed.spec.unwrap().lease_duration_seconds, Some(40));
    assert!(lease::update(&client, "node-a", &sign).await.unwrap_err().is_conflict());

    let known = reviews::token(&client, "admin-token", &[]).await.unwrap();
    assert_eq!(known.user.unwrap().username.as_deref(), Some("admin"));
    let unknown = reviews::token(&client, "no-token", &[]).await.unwrap();
    assert_ne!(unknown.authenticated, Some(true));
    let may = |user: &str, groups: &[&str]| SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        groups: Some(groups.iter().map(|&group| group.to_owned()).collect()),
        resource_attributes: Some(ResourceAttributes {
            verb: Some("get".to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some("proxy".to_owned()),
            name: Some("node-a".to_owned()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    assert!(reviews::access(&client, may("admin", &["system:masters"])).await.unwrap().allowed);
    assert!(!reviews::access(&client, may("eve", &[])).await.unwrap().allowed);

    // A token is bound to a pod of the node.
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"nodeName": "node-a", "containers": [{"name": "c", "image": "i"}]}}))
    .unwrap();
    let pod = admin.create(&Path::within::<Pod>("default"), &pod).await.unwrap();
    let spec: TokenRequestSpec =
        serde_json::from_value(json!({"audiences": [], "expirationSeconds": 600, "boundObjectRef":
        {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod.metadata.uid}}))
        .unwrap();
    let token = tokens::request(&client, "default", "default", spec).await.unwrap();
    assert_eq!(token.lives_secs, Some(600));
    let owner = reviews::token(&client, &token.status.token.unwrap(), &[]).await.unwrap().user.unwrap();
    assert_eq!(owner.username.as_deref(), Some("system:serviceaccount:default:default"));
    assert!(admin.get::<ServiceAccount>(&Path::to::<ServiceAccount>("default", "default")).await.is_ok());
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn a_certificate_is_asked_for_and_used() {
    let plane = Plane::start(&["--controllers"]);
    let bootstrap = plane.client("bootstrap");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wish = rcgen::CertificateParams::default();
    wish.distinguished_name = rcgen::DistinguishedName::new();
    wish.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    wish.distinguished_name.push(rcgen::DnType::CommonName, "system:node:node-b");
    let wanted = certificates::Wanted {
        name: Some("node-csr-test".to_owned()),
        request: wish.serialize_request(&key).unwrap().pem().unwrap().into_bytes(),
        signer: "kubernetes.io/kube-apiserver-client-kubelet",
        usages: &["digital signature", "client auth"],
        expiration_seconds: Some(3600),
    };
    let (name, uid) = certificates::request(&bootstrap, &wanted).await.unwrap();
    // The same key again finds the same request.
    assert_eq!(certificates::request(&bootstrap, &wanted).await.unwrap(), (name.clone(), uid.clone()));
    let signed = certificates::signed(&bootstrap, &name, &uid, PATIENCE).await.unwrap();

    // Certificate and key in one file, as a kubelet keeps them; first something else is there.
    let file = plane.path("current.pem");
    let (certificate, other) =
        (fs::read(plane.path("apiserver-kubelet-client.crt")).unwrap(), plane.path("apiserver-kubelet-client.key"));
    fs::write(&file, [certificate, fs::read(other).unwrap()].concat()).unwrap();
    let pem = rubelet_apiserver::Pem::File(file.clone());
    let settings = Settings {
        identity: Identity { certificate: Some((pem.clone(), pem)), ..Identity::default() },
        ..plane.settings("admin")
    };
    let client = Client::connect(settings).unwrap();
    assert_eq!(who_am_i(&client).await, "kube-apiserver-kubelet-client");
    fs::write(plane.path("new.pem"), [signed.as_slice(), key.serialize_pem().as_bytes()].concat()).unwrap();
    fs::rename(plane.path("new.pem"), &file).unwrap();
    let changed = async {
        while who_am_i(&client).await != "system:node:node-b" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("the new certificate is shown");
}

async fn who_am_i(client: &Client) -> String {
    let path = Path::of("authentication.k8s.io", "v1", "selfsubjectreviews");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = client.create_json(&path, &review).await.unwrap();
    answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn a_token_that_is_not_believed_is_read_again() {
    let plane = Plane::start(&[]);
    let file = plane.path("token");
    fs::write(&file, "old").unwrap();
    let identity = Identity { token: Some(Token::File(file.clone())), ..Identity::default() };
    let client = Client::connect(Settings { identity, ..plane.settings("admin") }).unwrap();
    let path = Path::to_cluster::<Node>("x");
    assert!(client.get::<Node>(&path).await.unwrap_err().is_unauthorized());
    fs::write(&file, "admin-token").unwrap();
    assert!(client.get::<Node>(&path).await.unwrap_err().is_not_found());
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn a_watch_survives_lost_connections_restarts_and_forgotten_versions() {
    for etcd in ["etcd", "etcd-forky"] {
        let mut plane = Plane::start(&["--etcd", etcd]);
        let admin = plane.client("admin");
        let wire = Wire::to(plane.address()).await;
        let client = wire.client(&plane, "admin");
        for map in [map("a", "1"), map("b", "1"), map("other", "1")] {
            admin.create(&maps(), &map).await.unwrap();
        }
        let mut watch = client.list_watch::<ConfigMap>(maps(), Selector::fields("metadata.name!=other"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(replaced(next(&mut watch).await), [pair("a", "1"), pair("b", "1")], "{etcd}");
        let set = async |name: &str, value: &str| {
            let patch = Patch::Merge(json!({"data": {"k": value}}));
            admin.patch::<ConfigMap>(&maps().named(name), &patch).await.unwrap();
        };
        set("other", "2").await;
        set("a", "2").await;
        assert!(matches!(next(&mut watch).await, Change::Upserted(map) if name(&map) == "a" && value(&map) == "2"));
        admin.delete(&maps().named("b"), &DeleteOptions::default()).await.unwrap();
        assert!(matches!(next(&mut watch).await, Change::Removed(map) if name(&map) == "b"));

        // The connection is lost: what happens meanwhile is told later, and only that.
        wire.cut();
        assert!(matches!(next(&mut watch).await, Change::Interrupted(error) if error.is_unreachable()));
        set("a", "3").await;
        wire.mend();
        assert!(matches!(next_good(&mut watch).await, Change::Upserted(map) if value(&map) == "3"));

        // The API server dies and comes back.
        plane.order("kill apiserver");
        plane.order("start apiserver");
        // This thread was busy: it has not seen its connections end.
        admin.redial().await;
        set("a", "4").await;
        // Its memory begins anew: it may remember our version, or not.
        match next_good(&mut watch).await {
            Change::Upserted(map) => assert_eq!(value(&map), "4"),
            change => assert_eq!(replaced(change), [pair("a", "4")]),
        }

        // What we saw last is forgotten: the list is read again.
        wire.cut();
        set("a", "5").await;
        let version: u64 =
            admin.list::<ConfigMap>(&maps(), &Selector::all()).await.unwrap().resource_version.parse().unwrap();
        compact(&plane, version);
        plane.order("kill apiserver");
        plane.order("start apiserver");
        // This thread was busy: it has not seen its connections end.
        admin.redial().await;
        wire.mend();
        assert_eq!(replaced(next_good(&mut watch).await), [pair("a", "5")], "{etcd}");
    }
}

fn compact(plane: &Plane, version: u64) {
    let body = json!({"revision": version.to_string(), "physical": true}).to_string();
    let url = format!("http://{}/v3/kv/compaction", plane.etcd());
    let script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], sys.argv[2].encode()).status)";
    let done = Command::new("python3").args(["-c", script, &url, &body]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn lists_are_streamed_where_the_server_can() {
    for (etcd, is_streamed) in [("etcd", false), ("etcd-forky", true)] {
        let plane = Plane::start(&["--etcd", etcd, "--audit"]);
        let client = plane.client("node-a");
        for _ in 0..2 {
            let mut watch = client.list_watch::<Pod>(Path::all::<Pod>(), Selector::fields("spec.nodeName=node-a"));
            let first = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
            assert!(matches!(&first, Change::Replaced(pods, _) if pods.is_empty()), "{first:?}");
        }
        let log = plane.path("audit.jsonl");
        let lists = audited(&log, r#""verb":"list""#);
        let streams = audited(&log, "sendInitialEvents=true");
        // A refusal is remembered for all watches.
        assert_eq!((streams, lists), if is_streamed { (2, 0) } else { (1, 2) }, "{etcd}");
    }
}

#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn many_watches_share_few_connections() {
    let plane = Plane::start(&["--etcd", "etcd-forky"]);
    let wire = Wire::to(plane.address()).await;
    let client = wire.client(&plane, "admin");
    let mut watches: Vec<_> =
        (0..200).map(|n| client.list_watch::<ConfigMap>(maps(), Selector::name(&format!("m{n}")))).collect();
    for watch in &mut watches {
        assert!(replaced(next(watch).await).is_empty());
    }
    assert_eq!(wire.connections.load(Ordering::SeqCst), 3);
    client.create(&maps(), &map("m150", "x")).await.unwrap();
    assert!(matches!(next(&mut watches[150]).await, Change::Upserted(map) if name(&map) == "m150"));
    drop(watches);
    client.get::<ConfigMap>(&maps().named("m150")).await.unwrap();
    assert_eq!(wire.connections.load(Ordering::SeqCst), 3);
}
