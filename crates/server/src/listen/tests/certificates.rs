//! Certificates that come late, change, and are not to one's liking.

use std::os::unix::fs::symlink;

use super::*;

/// A file with key and certificate, as the kubelet's certificate store writes them.
fn write_pair(path: &Path, name: &str) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(path, certificate.pem() + &key.serialize_pem()).unwrap();
    certificate.der().clone()
}

/// The certificate that is served; an error when there is none.
async fn served(at: SocketAddr, trusted: &CertificateDer<'static>) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("node-a").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    stream.map(drop).map_err(|error| error.to_string())
}

/// Without what is under way being too late.
async fn a_second_passes() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_certificate_that_others_renew_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let current = folder.path().join("kubelet-server-current.pem");
    let config =
        TlsServerConfig { certificate: Certificate::Rotated(current.clone()), ..tls(folder.path(), anonymous()) };
    let first = write_pair(&folder.path().join("1.pem"), "node-a");
    let second = write_pair(&folder.path().join("2.pem"), "node-a");
    let servers = serve_tls(config).await;
    let at = servers.tls_address().unwrap();
    let refusal = served(at, &first).await.unwrap_err();
    assert!(refusal.contains("alert"), "{refusal}");

    symlink("1.pem", &current).unwrap();
    a_second_passes().await;
    assert_eq!(served(at, &first).await, Ok(()));
    assert!(served(at, &second).await.is_err());

    symlink("2.pem", folder.path().join("new")).unwrap();
    std::fs::rename(folder.path().join("new"), &current).unwrap();
    a_second_passes().await;
    assert_eq!(served(at, &second).await, Ok(()));
    assert!(!folder.path().join("kubelet.crt").exists(), "none is made by ourselves");
}

#[tokio::test]
async fn an_authority_that_changes_holds_for_connections_that_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Identity::make(&folder, "old"), Identity::make(&folder, "new"));
    let authority = folder.path().join("authority.pem");
    std::fs::copy(&old.authority, &authority).unwrap();
    let only = Authentication { client_ca_file: Some(authority.clone()), ..Authentication::default() };
    let servers = serve_tls(tls(folder.path(), only)).await;
    let at = servers.tls_address().unwrap();
    let mut stream = secure_stream(at, &folder, Protocol::Http1, Some(&old)).await;
    assert_eq!(access::ask(&mut stream, "GET", "/healthz", "").await.0, 200);

    std::fs::copy(&new.authority, &authority).unwrap();
    a_second_passes().await;
    assert_eq!(access::ask(&mut stream, "GET", "/healthz", "").await.0, 401);
    let mut stream = secure_stream(at, &folder, Protocol::Http1, Some(&new)).await;
    assert_eq!(access::ask(&mut stream, "GET", "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn old_versions_are_not_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let config = TlsServerConfig { min_version: TlsVersion::Tls13, ..tls(folder.path(), anonymous()) };
    let servers = serve_tls(config).await;
    let versions = [&rustls::version::TLS12];
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let stream = TcpStream::connect(servers.tls_address().unwrap()).await.unwrap();
    let name = ServerName::try_from("node-a").unwrap();
    let refusal = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap_err();
    assert!(refusal.to_string().contains("ProtocolVersion"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_is_left() {
    use tokio::io::AsyncReadExt;
    let folder = tempfile::tempdir().unwrap();
    let servers = serve_tls(tls(folder.path(), anonymous())).await;
    let mut stream = TcpStream::connect(servers.tls_address().unwrap()).await.unwrap();
    let since = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(since.elapsed(), HANDSHAKE);
}

#[tokio::test]
async fn an_authority_out_of_its_time_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (valid, expired) = (Identity::make(&folder, "valid"), Identity::expired(&folder, "expired"));
    let both = folder.path().join("both.pem");
    let pem = |identity: &Identity| std::fs::read_to_string(&identity.authority).unwrap();
    std::fs::write(&both, pem(&valid) + &pem(&expired)).unwrap();
    for (authority, identity, wanted) in [
        (&expired.authority, &expired, 401),
        (&both, &expired, 401),
        (&both, &valid, 200),
        (&valid.authority, &valid, 200),
    ] {
        let only = Authentication { client_ca_file: Some(authority.clone()), ..Authentication::default() };
        let servers = serve_tls(tls(folder.path(), only)).await;
        let at = servers.tls_address().unwrap();
        let got = secure_request(at, &folder, Protocol::Http1, Some(identity), "/healthz").await;
        assert_eq!(got.status, wanted, "{authority:?}");
    }
}
