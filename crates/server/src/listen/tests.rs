//! Real sockets, real TLS, and a client that is not ours.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::view::shown::{Shown, healthy, pod};
use crate::{Authentication, CacheTimes, Certificate, TlsVersion};

mod access;
mod api_server;
mod attacks;
mod certificates;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn view() -> Arc<dyn View> {
    Arc::new(Shown { pods: vec![pod("a"), pod("b")], ..healthy() })
}

fn tls(folder: &Path, authentication: Authentication) -> TlsServerConfig {
    TlsServerConfig {
        address: ANY_PORT,
        certificate: Certificate::SelfSigned,
        cert_dir: folder.to_owned(),
        host_name: "node-a".to_owned(),
        node_name: "node-a".to_owned(),
        min_version: TlsVersion::Tls12,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
        authentication,
        authorization: AuthorizationMode::AlwaysAllow,
        cache_times: CacheTimes::default(),
        has_debugging: true,
    }
}

fn anonymous() -> Authentication {
    Authentication { anonymous: true, ..Authentication::default() }
}

async fn serve_tls(config: TlsServerConfig) -> Servers {
    serve(ServerConfig { tls: Some(config), ..ServerConfig::default() }, view(), None).await.unwrap()
}

struct Got {
    status: u16,
    content_type: String,
    body: String,
}

async fn request<S>(stream: S, protocol: Protocol, method: &str, path: &str) -> Got
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let request = |uri: String| Request::builder().method(method).uri(uri).header("host", "node-a");
    let stream = TokioIo::new(stream);
    let response = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(path.to_owned()).body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap()
        }
        Protocol::Http2 => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            let uri = format!("https://node-a{path}");
            sender.send_request(request(uri).body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap()
        }
    };
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Got { status, content_type, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn plain_request(at: SocketAddr, method: &str, path: &str) -> Got {
    request(TcpStream::connect(at).await.unwrap(), Protocol::Http1, method, path).await
}

type Secured = tokio_rustls::client::TlsStream<TcpStream>;

/// Over TLS, trusting the server's self-made certificate only, for its name.
async fn secure_stream(at: SocketAddr, folder: &TempDir, protocol: Protocol, identity: Option<&Identity>) -> Secured {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path().join("kubelet.crt")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(vec![identity.certificate.clone()], identity.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("node-a").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let wanted: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(wanted));
    stream
}

async fn secure_request(
    at: SocketAddr,
    folder: &TempDir,
    protocol: Protocol,
    identity: Option<&Identity>,
    path: &str,
) -> Got {
    request(secure_stream(at, folder, protocol, identity).await, protocol, "GET", path).await
}

/// A client's certificate, and the file of the authority that signed it.
struct Identity {
    certificate: CertificateDer<'static>,
    key_pem: String,
    authority: PathBuf,
}

impl Identity {
    fn make(folder: &TempDir, authority: &str) -> Self {
        Self::named(folder, authority, "ada")
    }

    fn named(folder: &TempDir, authority: &str, name: &str) -> Self {
        Self::signed(folder, authority, name, CertificateParams::new([]).unwrap())
    }

    /// By an authority whose time is over.
    fn expired(folder: &TempDir, authority: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        Self::signed(folder, authority, "ada", params)
    }

    fn signed(folder: &TempDir, authority: &str, name: &str, mut params: CertificateParams) -> Self {
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let path = folder.path().join(format!("{authority}.crt"));
        std::fs::write(&path, issuer.pem()).unwrap();
        Self { certificate: certificate.der().clone(), key_pem: key.serialize_pem(), authority: path }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn the_health_server_tells_health_only() {
    let config = ServerConfig { healthz: Some(ANY_PORT), ..ServerConfig::default() };
    let servers = serve(config, view(), None).await.unwrap();
    let at = servers.healthz_address().unwrap();
    let got = plain_request(at, "GET", "/healthz").await;
    assert_eq!((got.status, got.body.as_str()), (200, "ok"));
    assert_eq!(got.content_type, "text/plain; charset=utf-8");
    let got = plain_request(at, "GET", "/pods").await;
    assert_eq!((got.status, got.body.as_str()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn the_read_only_server_shows_pods() {
    let config = ServerConfig { read_only: Some(ANY_PORT), ..ServerConfig::default() };
    let servers = serve(config, view(), None).await.unwrap();
    let at = servers.read_only_address().unwrap();
    let got = plain_request(at, "GET", "/pods").await;
    assert_eq!((got.status, got.content_type.as_str()), (200, "application/json"));
    let list: Value = serde_json::from_str(&got.body).unwrap();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(plain_request(at, "DELETE", "/pods").await.status, 405);
    assert_eq!(plain_request(at, "GET", "/configz").await.status, 404);
    let head = plain_request(at, "HEAD", "/healthz").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn the_tls_server_speaks_both_http_and_is_who_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let servers = serve_tls(tls(folder.path(), anonymous())).await;
    let at = servers.tls_address().unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let got = secure_request(at, &folder, protocol, None, "/pods").await;
        assert_eq!(got.status, 200);
        assert_eq!(serde_json::from_str::<Value>(&got.body).unwrap()["kind"], "PodList");
        let got = secure_request(at, &folder, protocol, None, "/configz").await;
        assert_eq!(got.body, r#"{"kubeletconfig":{"port":10250}}"#);
    }
}

#[tokio::test]
async fn strangers_are_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let known = Identity::make(&folder, "known");
    let only_known = Authentication { client_ca_file: Some(known.authority), ..Authentication::default() };
    let servers = serve_tls(tls(folder.path(), only_known)).await;
    for path in ["/pods", "/healthz"] {
        let got = secure_request(servers.tls_address().unwrap(), &folder, Protocol::Http2, None, path).await;
        assert_eq!((got.status, got.body.as_str()), (401, "Unauthorized"), "{path}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (known, foreign) = (Identity::make(&folder, "known"), Identity::make(&folder, "foreign"));
    let only_known = Authentication { client_ca_file: Some(known.authority.clone()), ..Authentication::default() };
    let servers = serve_tls(tls(folder.path(), only_known.clone())).await;
    let at = servers.tls_address().unwrap();
    for (identity, status) in [(Some(&known), 200), (Some(&foreign), 401), (None, 401)] {
        let got = secure_request(at, &folder, Protocol::Http1, identity, "/healthz").await;
        assert_eq!(got.status, status, "{:?}", identity.map(|identity| &identity.authority));
    }

    let servers = serve_tls(tls(folder.path(), Authentication { anonymous: true, ..only_known })).await;
    let at = servers.tls_address().unwrap();
    let got = secure_request(at, &folder, Protocol::Http1, Some(&foreign), "/healthz").await;
    assert_eq!(got.status, 401, "who shows a strange certificate is not just anyone");
    assert_eq!(secure_request(at, &folder, Protocol::Http1, None, "/healthz").await.status, 200);
}

#[tokio::test]
async fn webhooks_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tls(folder.path(), Authentication { webhook: true, ..anonymous() });
    let start = |config| serve(ServerConfig { tls: Some(config), ..ServerConfig::default() }, view(), None);
    let refusal = start(config.clone()).await.unwrap_err();
    assert_eq!(refusal.to_string(), "no client provided, cannot use webhook authentication");
    config.authentication.webhook = false;
    config.authorization = AuthorizationMode::Webhook;
    let refusal = start(config.clone()).await.unwrap_err();
    assert_eq!(refusal.to_string(), "no client provided, cannot use webhook authorization");
    config.authorization = AuthorizationMode::AlwaysAllow;
    config.authentication.anonymous = false;
    let refusal = start(config).await.unwrap_err();
    assert_eq!(refusal.to_string(), "no authentication method configured");
}

#[tokio::test]
async fn given_files_must_be_usable() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tls(folder.path(), anonymous());
    let (certificate, key) = (folder.path().join("c"), folder.path().join("k"));
    config.certificate = Certificate::Files(crate::TlsFiles { certificate: certificate.clone(), key });
    let refusal = serve(ServerConfig { tls: Some(config), ..ServerConfig::default() }, view(), None).await.unwrap_err();
    assert!(refusal.to_string().contains(certificate.to_str().unwrap()), "{refusal}");
    assert!(!folder.path().join("kubelet.crt").exists(), "nothing is made when files are given");
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_of_the_big_servers_is_fatal_unless_it_is_a_predecessors() {
    let blocker = TcpListener::bind(ANY_PORT).await.unwrap();
    let taken = blocker.local_addr().unwrap();
    let config = || ServerConfig { read_only: Some(taken), ..ServerConfig::default() };
    let refusal = serve(config(), view(), None).await.unwrap_err();
    let words = rubelet_host::chain(&refusal);
    assert!(words.starts_with(&format!("listen tcp {taken}: bind: Address already in use")), "{words}");
    assert_eq!(words.matches("in use").count(), 1, "{words}");

    let gone = async {
        tokio::time::sleep(PREDECESSOR / 2).await;
        drop(blocker);
    };
    let (servers, ()) = tokio::join!(serve(config(), view(), None), gone);
    assert_eq!(servers.unwrap().read_only_address(), Some(taken));
}

#[tokio::test(start_paused = true)]
async fn the_health_server_waits_for_its_port() {
    let blocker = TcpListener::bind(ANY_PORT).await.unwrap();
    let taken = blocker.local_addr().unwrap();
    let since = tokio::time::Instant::now();
    let servers = serve(ServerConfig { healthz: Some(taken), ..ServerConfig::default() }, view(), None).await.unwrap();
    assert_eq!(servers.healthz_address(), None);
    drop(blocker);
    while TcpStream::connect(taken).await.is_err() {
        // Virtual: it passes as soon as nothing else is to be done.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(since.elapsed() < Duration::from_secs(60), "it was never bound again");
    }
    assert!(since.elapsed() >= BIND_AGAIN_AFTER);
}

#[tokio::test]
async fn dropped_servers_are_gone() {
    let config = ServerConfig { read_only: Some(ANY_PORT), ..ServerConfig::default() };
    let servers = serve(config, view(), None).await.unwrap();
    let at = servers.read_only_address().unwrap();
    drop(servers);
    let gone = async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("nobody listens any more");
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_taken_and_broken_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let reloading = Reloading::start(tls(folder.path(), anonymous())).unwrap();
    let first = reloading.current().rustls;
    let certificate = folder.path().join("kubelet.crt");
    std::fs::write(&certificate, "broken").unwrap();
    assert!(Arc::ptr_eq(&first, &reloading.current().rustls), "it is not looked at each time");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(Arc::ptr_eq(&first, &reloading.current().rustls), "a broken file changes nothing");

    std::fs::remove_file(&certificate).unwrap();
    std::fs::remove_file(folder.path().join("kubelet.key")).unwrap();
    Reloading::start(tls(folder.path(), anonymous())).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!Arc::ptr_eq(&first, &reloading.current().rustls), "the new pair is used");
}
