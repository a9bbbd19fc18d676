//! Who may use the node's API, by the word of a real API server.
//!
//! `RUBELET_TEST_CONTROLPLANE`: a program that runs kube-apiserver by its first argument; etcd is to be in `PATH`. Not run
//! without.

use std::net::TcpListener as Blocking;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};

use rubelet_api::v1;
use rubelet_apiserver::{Client, Path, Settings};
use serde_json::json;

use super::*;
use crate::by_api_server;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Ended when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever is not there any more needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct ControlPlane {
    admin: Client,
    node: Client,
    _folder: TempDir,
    // The API server goes before its store.
    _api_server: Process,
    _store: Process,
}

fn free_port() -> u16 {
    Blocking::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn start(command: &mut Command, log: &FilePath) -> Process {
    let log = std::fs::File::create(log).unwrap();
    command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
    Process(command.spawn().unwrap())
}

fn client(folder: &FilePath, port: u16, token: &str) -> Client {
    let cluster = json!({"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true});
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = folder.join(format!("{token}.kubeconfig"));
    std::fs::write(&path, text.to_string()).unwrap();
    Client::connect(Settings::from_kubeconfig(&path).unwrap()).unwrap()
}

fn accounts() -> Path {
    Path::of("", "v1", "serviceaccounts").in_namespace("default")
}

impl ControlPlane {
    async fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (store, peers, port) = (free_port(), free_port(), free_port());
        let (store, peers) = (format!("http://127.0.0.1:{store}"), format!("http://127.0.0.1:{peers}"));
        let store_process = start(
            Command::new("etcd")
                .arg("--data-dir")
                .arg(at("etcd"))
                .args(["--listen-client-urls", &store, "--advertise-client-urls", &store])
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--initial-cluster", &format!("default={peers}")]),
            &at("etcd.log"),
        );
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(at("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(at("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(at("tokens"), "admin,admin,1,system:masters\nnode,system:node:node-a,2,system:nodes\n").unwrap();
        let flag = |name: &str, file: &str| format!("--{name}={}", at(file).display());
        let api_server = start(
            Command::new(program)
                .args(["kube-apiserver", "--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC"])
                .args([&format!("--etcd-servers={store}"), &format!("--secure-port={port}")])
                .args([flag("cert-dir", "certs"), flag("token-auth-file", "tokens")])
                .args([flag("service-account-key-file", "sa.pub")])
                .args([flag("service-account-signing-key-file", "sa.key")])
                .arg("--service-account-issuer=https://kubernetes.default.svc")
                .arg("--service-cluster-ip-range=10.0.0.0/24"),
            &at("api-server.log"),
        );
        let (admin, node) = (client(folder.path(), port, "admin"), client(folder.path(), port, "node"));
        let ready = async {
            while admin.get::<v1::Namespace>(&Path::to_cluster::<v1::Namespace>("default")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(120), ready).await.is_err() {
            panic!("{}", std::fs::read_to_string(at("api-server.log")).unwrap());
        }
        Self { admin, node, _folder: folder, _api_server: api_server, _store: store_process }
    }

    /// A service account that may do this, and its token.
    async fn account(&self, name: &str, verbs: &[&str], resources: &[&str]) -> String {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.admin.create_json(&accounts(), &account).await.unwrap();
        let role = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
        });
        let binding = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        });
        self.admin.create_json(&Path::of(RBAC, "v1", "clusterroles"), &role).await.unwrap();
        self.admin.create_json(&Path::of(RBAC, "v1", "clusterrolebindings"), &binding).await.unwrap();
        self.token(name, &[]).await
    }

    async fn token(&self, name: &str, audiences: &[&str]) -> String {
        let wish = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 3600},
        });
        let made = self.admin.create_json(&accounts().named(name).part("token"), &wish).await.unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }
}

/// Our server, and the folder with its certificate.
struct Node {
    servers: Servers,
    folder: TempDir,
}

impl Node {
    async fn start(plane: &ControlPlane) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authentication = Authentication { webhook: true, ..anonymous() };
        let config =
            TlsServerConfig { authorization: AuthorizationMode::Webhook, ..super::tls(folder.path(), authentication) };
        let config = ServerConfig { tls: Some(config), ..ServerConfig::default() };
        let servers = serve(config, view(), Some(by_api_server(plane.node.clone(), Arc::default()))).await.unwrap();
        Self { servers, folder }
    }

    /// Status and body, which is that of a refusal.
    async fn ask(&self, token: &str, method: &str, path: &str) -> (u16, String) {
        let at = self.servers.tls_address().unwrap();
        let stream = TokioIo::new(secure_stream(at, &self.folder, Protocol::Http1, None).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "node-a");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        if may(status) {
            // Some have no end.
            return (status, String::new());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

/// What is let through may be anything that the path answers.
fn may(status: u16) -> bool {
    !matches!(status, 401 | 403 | 500)
}

#[tokio::test]
async fn service_accounts_may_what_their_roles_say() {
    let Ok(program) = std::env::var("RUBELET_TEST_CONTROLPLANE") else {
        return eprintln!("not run: RUBELET_TEST_CONTROLPLANE names no program");
    };
    let plane = ControlPlane::start(&program).await;
    let scraper = plane.account("scraper", &["get"], &["nodes/metrics", "nodes/stats"]).await;
    let lister = plane.account("lister", &["get"], &["nodes/pods", "nodes/healthz"]).await;
    let all = plane.account("all", &["*"], &["nodes/proxy"]).await;
    let none = plane.account("none", &["get"], &["configmaps"]).await;
    let elsewhere = plane.token("all", &["https://elsewhere.example"]).await;
    let node = Node::start(&plane).await;

    for (token, user, method, path, wanted) in [
        (&scraper, "scraper", "GET", "/metrics", Ok(())),
        (&scraper, "scraper", "GET", "/metrics/cadvisor", Ok(())),
        (&scraper, "scraper", "GET", "/stats/summary", Ok(())),
        (&scraper, "scraper", "POST", "/stats/summary", Err("verb=create, resource=nodes, subresource(s)=[stats]")),
        (&scraper, "scraper", "GET", "/pods", Err("verb=get, resource=nodes, subresource(s)=[pods proxy]")),
        (&scraper, "scraper", "GET", "/logs/", Err("verb=get, resource=nodes, subresource(s)=[log]")),
        (&scraper, "scraper", "GET", "/exec/a/b/c", Err("verb=get, resource=nodes, subresource(s)=[proxy]")),
        (&lister, "lister", "GET", "/pods", Ok(())),
        (&lister, "lister", "GET", "/healthz", Ok(())),
        (&lister, "lister", "GET", "/runningpods/", Ok(())),
        (&lister, "lister", "GET", "/configz", Err("verb=get, resource=nodes, subresource(s)=[configz proxy]")),
        (&all, "all", "GET", "/pods", Ok(())),
        (&all, "all", "GET", "/configz", Ok(())),
        (&all, "all", "POST", "/run/a/b/c", Ok(())),
        (&all, "all", "GET", "/metrics", Err("verb=get, resource=nodes, subresource(s)=[metrics]")),
        (&none, "none", "GET", "/healthz", Err("verb=get, resource=nodes, subresource(s)=[healthz proxy]")),
    ] {
        let (status, body) = node.ask(token, method, path).await;
        match wanted {
            Ok(()) => assert!(may(status), "{user} {method} {path}: {status} {body}"),
            Err(said) => {
                let said = format!("Forbidden (user=system:serviceaccount:default:{user}, {said})\n");
                assert_eq!((status, body), (403, said), "{user} {method} {path}");
            }
        }
    }
    for token in ["nosuch", elsewhere.as_str(), &format!("{all}x")] {
        let (status, body) = node.ask(token, "GET", "/pods").await;
        assert_eq!((status, body.as_str()), (401, "Unauthorized"), "{token}");
    }
    let (status, body) = node.ask("", "GET", "/metrics").await;
    let said = "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[metrics])\n";
    assert_eq!((status, body.as_str()), (403, said));

    // An account that is deleted is remembered for two minutes; a node that has not asked yet learns it as soon as the
    // API server knows.
    let gone = accounts().named("all");
    plane.admin.delete(&gone, &rubelet_apiserver::DeleteOptions::default()).await.unwrap();
    let known = async {
        while Node::start(&plane).await.ask(&all, "GET", "/pods").await.0 != 401 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), known).await.expect("the API server forgets the account");
    assert!(may(node.ask(&all, "GET", "/pods").await.0));
}
