use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rubelet_api::groups::certificates_v1::CertificateSigningRequest;
use rubelet_apiserver::{Patch, Path as ApiPath, Selector};
use serde_json::json;
use tokio::time::timeout;

use super::*;

/// A self-signed certificate for a node that ends in this year, and its key.
fn made(node: &str, ends: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(ends, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn settings(folder: &Path) -> CertificateSettings {
    CertificateSettings { folder: folder.join("pki"), node: "node-a".to_owned(), seed: 1, metrics: Arc::default() }
}

#[test]
fn certificates_are_kept_in_upstreams_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("pki"), "kubelet-client");
    assert!(store.current().is_none());
    let (certificate, key) = made("node-a", 2090);
    let file = store.keep(certificate.as_bytes(), &key).unwrap();
    assert_eq!(store.current().unwrap().common_name, "system:node:node-a");
    assert_eq!(store.current_path(), folder.path().join("pki/kubelet-client-current.pem"));
    assert_eq!(fs::read_link(store.current_path()).unwrap(), file);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&file).unwrap().replace('\r', ""), format!("{certificate}{key}").replace('\r', ""));
    // A link that was taken away and not put back.
    fs::rename(store.current_path(), folder.path().join("pki/kubelet-client-updated.pem")).unwrap();
    assert!(store.current().is_some());
    assert!(store.current_path().exists());
}

#[test]
fn what_does_not_belong_together_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().to_owned(), "kubelet-client");
    let ((certificate, _), (_, key)) = (made("a", 2090), made("b", 2090));
    assert!(matches!(store.keep(certificate.as_bytes(), &key), Err(StoreError::Certificate(_))));
    assert!(matches!(store.keep(b"nothing", &key), Err(StoreError::Certificate(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // Somebody's own file is not replaced.
    fs::write(store.current_path(), "mine").unwrap();
    let (certificate, key) = made("a", 2090);
    assert!(matches!(store.keep(certificate.as_bytes(), &key), Err(StoreError::NoLink { .. })));
    assert_eq!(fs::read_to_string(store.current_path()).unwrap(), "mine");
}

#[test]
fn the_key_of_an_unsigned_request_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().to_owned(), "kubelet-client");
    let wish = Wish::of_client("node-a");
    let first = Request::with_kept_key(&store, &wish).unwrap();
    let second = Request::with_kept_key(&store, &wish).unwrap();
    let name = |request: &Request| request.wanted(CLIENT_SIGNER).name.unwrap();
    assert!(name(&first).starts_with("node-csr-") && name(&first).len() == 52, "{}", name(&first));
    assert_eq!(name(&first), name(&second));
    assert_ne!(name(&first), name(&Request::with_kept_key(&store, &Wish::of_client("node-b")).unwrap()));
    store.forget_key().unwrap();
    assert_ne!(name(&first), name(&Request::with_kept_key(&store, &wish).unwrap()));
}

/// A kubeconfig in a folder that shows a certificate in `pair.pem`.
fn kubeconfig(folder: &Path, user: &serde_json::Value) -> PathBuf {
    let path = folder.join("kubeconfig");
    let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://h:1", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": user}]});
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn a_kubeconfig_that_is_good_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = made("node-a", 2090);
    fs::write(folder.path().join("pair.pem"), certificate + &key).unwrap();
    let path = kubeconfig(folder.path(), &json!({"client-certificate": "pair.pem", "client-key": "pair.pem"}));
    let before = fs::read(&path).unwrap();
    // The bootstrap kubeconfig may be gone by now.
    let found = client_settings(&path, Some(&folder.path().join("gone")), &settings(folder.path()), false).unwrap();
    assert!(!found.is_bootstrap_needed && found.bootstrap.is_none() && found.settings.identity.rotated.is_none());
    assert_eq!(fs::read(&path).unwrap(), before);
    let rotating = client_settings(&path, None, &settings(folder.path()), true).unwrap();
    assert_eq!(rotating.settings.identity.rotated, Some(folder.path().join("pki/kubelet-client-current.pem")));
}

#[test]
fn a_kubeconfig_that_is_missing_or_over_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let bootstrap = kubeconfig(folder.path(), &json!({"token": "t"}));
    let path = folder.path().join("deep/kubelet.conf");
    for _ in 0..2 {
        let found = client_settings(&path, Some(&bootstrap), &settings(folder.path()), false).unwrap();
        assert!(found.is_bootstrap_needed && found.bootstrap.is_some());
        let current = rubelet_apiserver::Pem::File(folder.path().join("pki/kubelet-client-current.pem"));
        assert_eq!(found.settings.identity.certificate, Some((current.clone(), current)));
        assert_eq!(found.settings.server, "https://h:1");
        assert_eq!(found.settings.tls.authorities, Some(rubelet_apiserver::Pem::File(folder.path().join("ca.crt"))));
        // It has a certificate now, but an old one.
        let (certificate, key) = made("node-a", 2021);
        fs::create_dir_all(folder.path().join("pki")).unwrap();
        fs::write(folder.path().join("pki/kubelet-client-current.pem"), certificate + &key).unwrap();
    }
    let missing =
        client_settings(&folder.path().join("no"), Some(&folder.path().join("none")), &settings(folder.path()), false);
    assert!(missing.unwrap_err().to_string().starts_with("unable to load bootstrap kubeconfig: read kubeconfig "));
}

/// On the control plane whose folder `RUBELET_TEST_KUBECONFIG` is in: its certificates are good for a minute.
#[tokio::test]
#[ignore = "needs a control plane: ./x test cluster"]
async fn a_node_joins_and_renews_its_certificates() {
    let admin = PathBuf::from(std::env::var_os("RUBELET_TEST_KUBECONFIG").expect("RUBELET_TEST_KUBECONFIG is set"));
    let folder = tempfile::tempdir().unwrap();
    let settings = CertificateSettings { node: "joins".to_owned(), ..settings(folder.path()) };
    let path = folder.path().join("kubelet.conf");
    let found = client_settings(&path, Some(&admin.with_file_name("bootstrap.conf")), &settings, true).unwrap();
    assert!(found.is_bootstrap_needed);
    let client = Client::connect(found.settings.clone()).unwrap();
    let early = client.health().await.unwrap_err();
    assert!(early.to_string().contains("kubelet-client-current.pem"), "{early}");
    let task = tokio::spawn(ClientTask::new(settings.clone(), client.clone(), &found, true).unwrap().run());
    let store = Store::new(settings.folder.clone(), "kubelet-client");
    let mut seen = Vec::new();
    let renewed = async {
        while seen.len() < 3 {
            if let Some(current) = store.current()
                && seen.last() != Some(&current.not_after)
            {
                seen.push(current.not_after);
                assert_eq!(who_am_i(&client).await, "system:node:joins");
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(180), renewed).await.expect("it is renewed twice");

    // The serving certificate is approved by hand.
    let wish = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Wish::of_server("joins", vec!["joins".to_owned()], addresses, false)
    };
    let (wishes, wish_rx) = watch::channel(wish(&[]));
    let serving = tokio::spawn(ServingTask { settings: settings.clone(), client, wish: wish_rx }.run());
    let admin = Client::connect(Settings::from_kubeconfig(&admin).unwrap()).unwrap();
    let approving = tokio::spawn(approve(admin));
    let store = Store::new(settings.folder.clone(), "kubelet-server");
    for addresses in [&["10.1.2.3"][..], &["10.1.2.3", "fd00::1"]] {
        let wanted = wish(addresses).unwrap();
        wishes.send_replace(Some(wanted.clone()));
        let got = async {
            while !store.current().is_some_and(|found| found.fulfils(&wanted)) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(60), got).await.expect("the addresses are in the certificate");
    }
    for task in [task, serving, approving] {
        task.abort();
    }
}

async fn who_am_i(client: &Client) -> String {
    let path = ApiPath::of("authentication.k8s.io", "v1", "selfsubjectreviews");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = client.create_json(&path, &review).await.unwrap();
    answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

/// Approves what nodes want for their servers.
async fn approve(admin: Client) {
    let all = ApiPath::all::<CertificateSigningRequest>();
    loop {
        let fields = Selector::fields(format!("spec.signerName={SERVING_SIGNER}"));
        for request in admin.list::<CertificateSigningRequest>(&all, &fields).await.unwrap().items {
            if request.status.and_then(|status| status.conditions).is_none() {
                let condition = json!({"type": "Approved", "status": "True", "reason": "Test", "message": ""});
                let patch = Patch::StrategicMerge(json!({"status": {"conditions": [condition]}}));
                let path = all.clone().named(&request.metadata.name.unwrap()).part("approval");
                admin.patch::<CertificateSigningRequest>(&path, &patch).await.unwrap();
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}
