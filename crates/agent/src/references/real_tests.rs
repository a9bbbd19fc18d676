//! On a real API server: the one of the kubeconfig that `RUBELET_TEST_KUBECONFIG` names, as a user who may do everything.

use rubelet_api::v1;
use rubelet_apiserver::{Client, DeleteOptions, Path, Settings};
use rubelet_core::pod::needs::{ObjectName, TokenNeed};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout_at};

use super::*;

const NAMESPACE: &str = "rubelet-references";

fn client() -> Option<Client> {
    let Some(path) = std::env::var_os("RUBELET_TEST_KUBECONFIG") else {
        eprintln!("not run: RUBELET_TEST_KUBECONFIG is not set");
        return None;
    };
    let settings = Settings::from_kubeconfig(std::path::Path::new(&path)).expect("a kubeconfig");
    Some(Client::connect(settings).expect("a client"))
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: NAMESPACE.into(), name: name.into() }
}

async fn put<T: rubelet_apiserver::Object + rubelet_api::Resource>(client: &Client, object: serde_json::Value) -> T {
    let object: T = serde_json::from_value(object).expect("an object");
    let name = object.metadata().name.clone().expect("a name");
    match client.create(&Path::within::<T>(NAMESPACE), &object).await {
        Err(error) if error.is_already_exists() => {
            client.update(&Path::to::<T>(NAMESPACE, &name), &object).await.expect("an update")
        }
        made => made.expect("an object"),
    }
}

async fn drop_object<T: rubelet_api::Resource>(client: &Client, name: &str) {
    match client.delete(&Path::to::<T>(NAMESPACE, name), &DeleteOptions::default()).await {
        Err(error) if !error.is_not_found() => panic!("{error}"),
        _ => {}
    }
}

async fn prepare(client: &Client) {
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("a namespace");
    match client.create::<v1::Namespace>(&Path::all::<v1::Namespace>(), &namespace).await {
        Err(error) if error.is_already_exists() => {}
        made => drop(made.expect("a namespace")),
    }
    for name in ["late", "fixed"] {
        drop_object::<v1::ConfigMap>(client, name).await;
    }
    drop_object::<v1::Secret>(client, "sec").await;
    put::<v1::ServiceAccount>(client, json!({"metadata": {"name": "robot"}})).await;
    put::<v1::Secret>(client, json!({"metadata": {"name": "sec"}, "data": {"k": "eA=="}})).await;
    put::<v1::ConfigMap>(client, json!({"metadata": {"name": "fixed"}, "data": {"k": "1"}, "immutable": true})).await;
}

/// Notes until what was heard satisfies `is_it`.
async fn until(inbox: &mut Receiver<Note>, is_it: impl Fn(&BTreeMap<Need, Got>) -> bool) -> BTreeMap<Need, Got> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = BTreeMap::new();
    loop {
        match timeout_at(deadline, inbox.recv()).await {
            Ok(Some(Note::Fact(Fact::Inputs(got)))) if is_it(&got) => return got,
            Ok(Some(Note::Fact(Fact::Inputs(got)))) => last = got,
            other => panic!("{other:?}; the last was {last:?}"),
        }
    }
}

fn references(client: &Client, strategy: Strategy) -> (References, crate::life::LifeEnd) {
    let (life, end) = Life::new();
    let settings = ReferenceSettings { client: client.clone(), strategy, period: Duration::from_millis(300), seed: 1 };
    let events = crate::events::Events::standalone(crate::clock::Clock::start());
    let around = Around { full: Arc::default(), node: "node-a".to_owned(), events, metrics: Arc::default() };
    (References::start(settings, around, &life), end)
}

fn secret_value(got: &Got) -> Option<&[u8]> {
    match got {
        Got::Secret(secret) => secret.data.as_ref()?.get("k").map(|v| v.0.as_slice()),
        other => panic!("{other:?}"),
    }
}

async fn objects_are_followed(strategy: Strategy) {
    let Some(client) = client() else { return };
    prepare(&client).await;
    let (references, _end) = references(&client, strategy);
    let (tx, mut inbox) = channel(64);
    let (late, fixed, sec) =
        (Need::ConfigMap(named("late")), Need::ConfigMap(named("fixed")), Need::Secret(named("sec")));
    let services = Need::Services { namespace: NAMESPACE.into() };
    let needs: Needs = [late.clone(), fixed.clone(), sec.clone(), services.clone()].into();
    references.want(&PodUid::new("1"), &needs, &tx.downgrade());
    // The server makes its own service a moment after it began to answer.
    let has_master = |got: &Got| matches!(got, Got::Services(all) if all.iter().any(|s| s.name == "kubernetes"));
    let got = until(&mut inbox, |got| got.len() == 4 && has_master(&got[&services])).await;
    assert!(matches!(&got[&late], Got::NotFound(text) if text.ends_with("\"late\" not found")), "{got:?}");
    assert!(matches!(&got[&fixed], Got::ConfigMap(m) if m.metadata.managed_fields.is_none()), "{got:?}");
    assert_eq!(secret_value(&got[&sec]), Some(b"x".as_slice()));

    put::<v1::ConfigMap>(&client, json!({"metadata": {"name": "late"}, "data": {"k": "v"}})).await;
    until(&mut inbox, |got| matches!(&got[&late], Got::ConfigMap(_))).await;
    put::<v1::Secret>(&client, json!({"metadata": {"name": "sec"}, "data": {"k": "eQ=="}})).await;
    until(&mut inbox, |got| matches!(got[&sec], Got::Secret(_)) && secret_value(&got[&sec]) == Some(b"y")).await;
    drop_object::<v1::Secret>(&client, "sec").await;
    until(&mut inbox, |got| matches!(&got[&sec], Got::NotFound(_))).await;
}

#[tokio::test]
async fn objects_are_followed_on_a_real_server_in_each_way() {
    for strategy in [Strategy::Watch, Strategy::Cache, Strategy::Get] {
        objects_are_followed(strategy).await;
    }
}

#[tokio::test]
async fn a_real_server_gives_tokens_bound_to_the_pod() {
    let Some(client) = client() else { return };
    prepare(&client).await;
    drop_object::<v1::Pod>(&client, "bound").await;
    let pod = json!({"metadata": {"name": "bound"}, "spec": {
        "serviceAccountName": "robot", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "none"}]}});
    let pod: v1::Pod = put(&client, pod).await;
    let (references, _end) = references(&client, Strategy::Watch);
    let (tx, mut inbox) = channel(64);
    let token = |account: &str| {
        Need::Token(TokenNeed {
            account: named(account),
            audience: Some("test".into()),
            expiration_secs: 600,
            pod_name: "bound".into(),
            pod_uid: pod.metadata.uid.clone().expect("a UID"),
        })
    };
    let needs: Needs = [token("robot"), token("nobody"), Need::Claim(named("none"))].into();
    references.want(&PodUid::new("1"), &needs, &tx.downgrade());
    let got = until(&mut inbox, |got| got.len() == 3).await;
    assert!(matches!(&got[&token("robot")], Got::Token(t) if t.text.split('.').count() == 3), "a JWT");
    let failed = |need: &Need| match &got[need] {
        Got::Failed(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(&token("nobody")), "failed to fetch token: serviceaccounts \"nobody\" not found");
    assert_eq!(
        failed(&Need::Claim(named("none"))),
        format!(
            "error processing PVC {NAMESPACE}/none: failed to fetch PVC from API server: \
             persistentvolumeclaims \"none\" not found"
        )
    );
    drop_object::<v1::Pod>(&client, "bound").await;
}
