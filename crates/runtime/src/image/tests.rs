//! Pulls from a server of the test's own, which can be as bad as registries are. See `registry` for a real one.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use super::*;
use crate::snapshot::compression::tests::gzip;
use crate::snapshot::extract::tests::Tar;

mod archives;
mod auth;
mod broken;
mod collecting;
mod registry_program;
pub(super) mod server;

use server::{Reply, Server};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that a test made: its blobs by digest.
#[derive(Clone, Default)]
pub(super) struct Sample {
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(super) manifest: Option<Digest>,
    pub(super) config: Option<Digest>,
    pub(super) layers: Vec<Digest>,
}

impl Sample {
    pub(super) fn new(layers: &[Vec<u8>]) -> Self {
        Self::with_config(layers, serde_json::json!({"User": "7:8", "Cmd": ["sh"], "Env": null}))
    }

    pub(super) fn with_config(layers: &[Vec<u8>], config: serde_json::Value) -> Self {
        let mut sample = Self::default();
        let diff_ids: Vec<Digest> = layers.iter().map(|l| Digest::of(l)).collect();
        let platform = Platform::of_this_machine();
        let config = serde_json::json!({
            "os": "linux", "architecture": platform.architecture, "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = sample.add(config.to_string().into_bytes());
        let described: Vec<_> = layers
            .iter()
            .map(|layer| {
                let packed = gzip(layer);
                let size = packed.len();
                let digest = sample.add(packed);
                sample.layers.push(digest);
                serde_json::json!({"mediaType": format!("{}+gzip", LAYER), "digest": digest, "size": size})
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": document::OCI_MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": sample.blobs[&config].len()},
            "layers": described,
        });
        sample.manifest = Some(sample.add(manifest.to_string().into_bytes()));
        sample.config = Some(config);
        sample
    }

    pub(super) fn add(&mut self, content: Vec<u8>) -> Digest {
        let digest = Digest::of(&content);
        self.blobs.insert(digest, content);
        digest
    }

    /// A layer whose packed form is large: bytes that do not compress.
    pub(super) fn large() -> Vec<u8> {
        let mut seed = 1u32;
        let noise: String = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + u8::try_from((seed >> 24) % 90).unwrap())
        })
        .take(3 << 20)
        .collect();
        Tar::new().file("noise", &noise).end()
    }

    pub(super) fn two_layers() -> Self {
        let below = Tar::new().dir("./", 0o755).dir("etc", 0o755).file("etc/a", "A").file("etc/b", "B").end();
        Self::new(&[below, Tar::new().file("etc/.wh.b", "").file("etc/c", "C").end()])
    }

    pub(super) fn id(&self) -> String {
        self.config.unwrap().to_string()
    }

    /// What a registry answers that has this image as `any/name:1` (and by digest).
    pub(super) fn answer(&self, request: &server::Request) -> Reply {
        let Some((kind, name)) =
            request.path.rsplit_once('/').and_then(|(rest, name)| Some((rest.rsplit('/').next()?, name)))
        else {
            return Reply::status(404);
        };
        let name = name.split('?').next().unwrap();
        let digest = match (kind, name) {
            ("manifests", "1") => self.manifest,
            _ => name.parse().ok(),
        };
        let Some(content) = digest.and_then(|d| self.blobs.get(&d)) else { return Reply::status(404) };
        let mut reply = Reply::with(content.clone());
        if kind == "manifests" {
            reply = reply.header("docker-content-digest", &digest.unwrap().to_string());
        }
        reply
    }
}

/// A store in a temporary directory.
pub(super) struct Ground {
    pub(super) dir: tempfile::TempDir,
    pub(super) images: Images,
}

pub(super) fn options() -> Options {
    Options {
        retry: Retry { attempts: 3, pause: Duration::from_millis(1) },
        patience: Patience { connect: Duration::from_secs(5), silence: Duration::from_secs(5) },
        ..Options::default()
    }
}

impl Ground {
    pub(super) fn new() -> Self {
        Self::with(options())
    }

    pub(super) fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join("store"), options).unwrap();
        Self { dir, images }
    }

    pub(super) async fn pull(&self, server: &Server) -> Result<Pulled, ImageError> {
        self.images.pull(&server.image(), None, None).await
    }

    /// The files of an image as one would see them, path and content; what is hidden is left out.
    pub(super) async fn files(&self, image: &str) -> BTreeMap<String, String> {
        let rootfs = self.images.prepare("look", image).await.unwrap();
        let mut seen = BTreeMap::new();
        let mut hidden: Vec<PathBuf> = Vec::new();
        for lower in &rootfs.lower {
            let mut found = Vec::new();
            walk(lower, lower, &mut found);
            for (path, stat) in found {
                if hidden.iter().any(|h| path.starts_with(h)) || seen.contains_key(path.to_str().unwrap()) {
                    continue;
                }
                if stat.is_file() {
                    let text = fs::read_to_string(lower.join(&path)).unwrap();
                    seen.insert(path.to_str().unwrap().to_owned(), text);
                } else if stat.rdev() == 0 && !stat.is_dir() && !stat.is_symlink() {
                    hidden.push(path);
                }
            }
        }
        self.images.release("look").await.unwrap();
        seen
    }
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<(PathBuf, fs::Metadata)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            walk(root, &path, found);
        }
        found.push((path.strip_prefix(root).unwrap().to_owned(), stat));
    }
}

#[tokio::test]
async fn an_image_is_pulled_named_and_unpacked() {
    let sample = Sample::two_layers();
    let server = Server::of(&sample).await;
    let ground = Ground::new();
    let most = Arc::new(Mutex::new(Vec::new()));
    let told = most.clone();
    let sink: ProgressSink = Arc::new(move |p| told.lock().unwrap().push(p));
    let pulled = ground.images.pull(&server.image(), None, Some(sink)).await.unwrap();
    assert_eq!((pulled.id.clone(), pulled.credential), (sample.id(), None));
    let image = ground.images.status(&server.image()).unwrap();
    assert_eq!(image.repo_tags, [server.image()]);
    let by_digest = format!("{}@{}", server.image().strip_suffix(":1").unwrap(), sample.manifest.unwrap());
    assert_eq!(image.repo_digests, std::slice::from_ref(&by_digest));
    assert_eq!(image.uid, Some(cri::Int64Value { value: 7 }));
    assert_eq!(image.size, sample.blobs.values().map(|b| b.len() as u64).sum::<u64>());
    for name in [&by_digest, &sample.id(), &sample.id()[..20], &sample.config.unwrap().hex()] {
        assert_eq!(ground.images.status(name).as_ref(), Some(&image), "{name}");
    }
    assert_eq!(ground.images.status("other"), None);
    assert_eq!(ground.images.list(None), [image]);
    let files = ground.files(&pulled.id).await;
    assert_eq!(files, BTreeMap::from([("etc/a".into(), "A".into()), ("etc/c".into(), "C".into())]));
    assert_eq!(ground.images.config(&pulled.id).await.unwrap().config.cmd, ["sh"]);
    let told = ground.images.image_status(&pulled.id, true).await.unwrap();
    assert!(told.image.is_some() && told.info["info"].contains(r#""Cmd":["sh"]"#), "{told:?}");
    assert!(ground.images.image_status("other", true).await.unwrap().image.is_none());
    assert!(ground.images.last_used(&pulled.id).is_some());
    let last = most.lock().unwrap().iter().map(|p| p.done_bytes).max();
    let packed: u64 = sample.layers.iter().map(|l| sample.blobs[l].len() as u64).sum();
    assert_eq!(last, Some(packed));
    // Once more: the registry is asked, and nothing is fetched.
    server.forget();
    ground.pull(&server).await.unwrap();
    assert_eq!(server.asked(), ["HEAD /v2/some/image/manifests/1"]);
    // Packed layers are not kept.
    let kept = ground.images.store.blobs.list().unwrap();
    assert_eq!(kept.len(), 2);
}

#[tokio::test]
async fn failures_have_containerds_words() {
    let status = Arc::new(AtomicUsize::new(404));
    let answer = status.clone();
    let server =
        Server::start(move |_| Reply::status(answer.load(std::sync::atomic::Ordering::SeqCst).try_into().unwrap()))
            .await;
    let ground = Ground::new();
    let image = server.image();
    let failed = async || ground.pull(&server).await.unwrap_err();
    let prefix = format!(r#"failed to pull and unpack image "{image}": failed to resolve reference "{image}": "#);
    let error = failed().await.into_runtime("PullImage");
    assert_eq!(error.to_string(), format!("rpc error: code = NotFound desc = {prefix}{image}: not found"));
    status.store(500, std::sync::atomic::Ordering::SeqCst);
    let url = format!("http://{}/v2/some/image/manifests/1", server.address);
    let expected = format!("{prefix}unexpected status from HEAD request to {url}: 500 Internal Server Error");
    assert_eq!(failed().await.into_runtime("PullImage").to_string(), expected);
    status.store(403, std::sync::atomic::Ordering::SeqCst);
    let expected = format!("{prefix}unexpected status from HEAD request to {url}: 403 Forbidden");
    assert_eq!(failed().await.to_string(), expected);
    drop(server);
    // A port where nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let image = format!("{free}/x:1");
    let error = ground.images.pull(&image, None, None).await.unwrap_err().to_string();
    let expected = format!(
        r#"failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: Head "http://{free}/v2/x/manifests/1": dial tcp {free}: connect: connection refused"#
    );
    assert_eq!(error, expected);
    let error = ground.images.pull("registry.invalid/x", None, None).await.unwrap_err().to_string();
    assert!(
        error.contains(r#"Head "https://registry.invalid/v2/x/manifests/latest": dial tcp: lookup registry.invalid: "#),
        "{error}"
    );
    let error = ground.images.pull("UPPER/Case:::", None, None).await.unwrap_err().to_string();
    let words = "invalid reference format: repository name (Case) must be lowercase";
    assert_eq!(error, format!(r#"failed to parse image reference "UPPER/Case:::": {words}"#));
}

#[tokio::test]
async fn an_index_leads_to_this_platform() {
    let mut sample = Sample::two_layers();
    let platform = Platform::of_this_machine();
    let (manifest, config) = (sample.manifest.unwrap(), sample.config.unwrap());
    let entry = |digest: Digest, size: usize, architecture: &str| {
        let platform = serde_json::json!({"os": "linux", "architecture": architecture});
        serde_json::json!({"mediaType": document::OCI_MANIFEST, "digest": digest, "size": size, "platform": platform})
    };
    let size = sample.blobs[&manifest].len();
    let list = [entry(config, 3, "s390x"), entry(manifest, size, &platform.architecture)];
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": document::OCI_INDEX, "manifests": list});
    sample.manifest = Some(sample.add(index.to_string().into_bytes()));
    let server = Server::of(&sample).await;
    let ground = Ground::new();
    let pulled = ground.pull(&server).await.unwrap();
    assert_eq!(pulled.id, sample.id());
    assert!(pulled.image.repo_digests[0].ends_with(&format!("@{}", sample.manifest.unwrap())), "the index is the name");
    assert_eq!(ground.images.store.blobs.list().unwrap().len(), 3);
    let other = Options { platform: Platform { architecture: "riscv64".into(), ..platform }, ..options() };
    let error = Ground::with(other).pull(&server).await.unwrap_err();
    assert!(error.to_string().ends_with("no match for platform in manifest: not found"), "{error}");
    assert_eq!(error.code(), rubelet_cri::Code::NotFound);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_told_whose_image_it_is() {
    let sample = Sample::two_layers();
    let (upstream, mirror) = (Server::of(&sample).await, Server::of(&sample).await);
    let is_down = Arc::new(AtomicBool::new(false));
    let (down, served) = (is_down.clone(), sample.clone());
    let flaky = Server::start(move |request| match down.load(std::sync::atomic::Ordering::SeqCst) {
        true => Reply::status(503),
        false => served.answer(request),
    })
    .await;
    let config = tempfile::tempdir().unwrap();
    let dir = config.path().join(upstream.address.to_string());
    fs::create_dir(&dir).unwrap();
    let text = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        mirror.address, flaky.address
    );
    fs::write(dir.join("hosts.toml"), text).unwrap();
    let hosts = HostsConfig { dirs: vec![config.path().to_owned()], insecure: Vec::new() };
    let ground = Ground::with(Options { hosts: hosts.clone(), ..options() });
    ground.pull(&upstream).await.unwrap();
    assert_eq!(flaky.asked(), [format!("HEAD /v2/some/image/manifests/1?ns={}", upstream.address)]);
    assert_eq!(mirror.asked().len(), 4, "{:?}", mirror.asked());
    assert!(upstream.asked().is_empty());
    is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    drop(mirror);
    Ground::with(Options { hosts, ..options() }).pull(&upstream).await.unwrap();
    assert_eq!(upstream.asked().len(), 5, "{:?}", upstream.asked());
}

#[tokio::test]
async fn two_pulls_fetch_a_shared_layer_once() {
    let shared = Sample::large();
    let own = |name: &str| Tar::new().file(name, name).end();
    let first = Sample::new(&[shared.clone(), own("a")]);
    let mut both = Sample::new(&[shared, own("b")]);
    let layer = both.layers[0];
    let second = both.manifest.unwrap();
    both.blobs.extend(first.blobs.clone());
    both.manifest = first.manifest;
    let server = Server::of(&both).await;
    let ground = Ground::new();
    let by_digest = format!("{}@{second}", server.image().strip_suffix(":1").unwrap());
    let (a, b) = tokio::join!(ground.pull(&server), ground.images.pull(&by_digest, None, None));
    let (a, b) = (a.unwrap().id, b.unwrap().id);
    assert_ne!(a, b);
    let fetched = server.asked().iter().filter(|r| r.ends_with(&layer.to_string())).count();
    assert_eq!(fetched, 1, "{:?}", server.asked());
    assert_eq!(ground.images.store.state().layers.len(), 3);
    assert!(ground.files(&a).await.contains_key("a") && ground.files(&b).await.contains_key("b"));
    assert!(ground.images.status(&by_digest).unwrap().repo_tags.is_empty());
}

#[tokio::test]
async fn a_tag_moves() {
    let (old, new) = (Sample::two_layers(), Sample::new(&[Tar::new().file("x", "new").end()]));
    let now = Arc::new(Mutex::new(old.clone()));
    let served = now.clone();
    let server = Server::start(move |request| served.lock().unwrap().answer(request)).await;
    let ground = Ground::new();
    ground.pull(&server).await.unwrap();
    *now.lock().unwrap() = new.clone();
    ground.pull(&server).await.unwrap();
    assert_eq!(ground.images.status(&server.image()).unwrap().id, new.id());
    let left = ground.images.status(&old.id()).unwrap();
    assert_eq!((left.repo_tags.len(), left.repo_digests.len()), (0, 1));
}

#[tokio::test]
async fn layers_that_are_not_what_they_claim_are_refused() {
    let mut sample = Sample::two_layers();
    // The configuration promises other content.
    let lie = gzip(&Tar::new().file("etc/evil", "x").end());
    let layer = sample.layers[0];
    let text = String::from_utf8(sample.blobs[&sample.manifest.unwrap()].clone()).unwrap();
    let size = sample.blobs[&layer].len();
    let other = sample.add(lie.clone());
    let text = text
        .replace(&layer.to_string(), &other.to_string())
        .replace(&format!("\"size\":{size}}}"), &format!("\"size\":{}}}", lie.len()));
    sample.manifest = Some(sample.add(text.into_bytes()));
    let server = Server::of(&sample).await;
    let ground = Ground::new();
    let error = ground.pull(&server).await.unwrap_err().to_string();
    assert!(
        error.contains("failed to extract layer") && error.contains("wrong diff id calculated on extraction"),
        "{error}"
    );
    assert_eq!(ground.images.list(None), []);
    assert!(ground.images.store.state().layers.is_empty());
}

#[tokio::test]
async fn a_proxy_is_asked_unless_it_is_not_to_be() {
    let sample = Sample::two_layers();
    let server = Server::of(&sample).await;
    // It gets requests with the whole address, and answers by itself.
    let proxy = Proxy { http: format!("http://{}", server.address), ..Proxy::default() };
    let config = HostsConfig { insecure: vec!["registry.invalid:81".into()], ..HostsConfig::default() };
    let ground = Ground::with(Options { proxy: proxy.clone(), hosts: config.clone(), ..options() });
    let image = "registry.invalid:81/some/image:1";
    ground.images.pull(image, None, None).await.unwrap();
    assert_eq!(server.asked()[0], "HEAD http://registry.invalid:81/v2/some/image/manifests/1");
    let none = Proxy { no: "other.test,.invalid".into(), ..proxy };
    let error = Ground::with(Options { proxy: none, hosts: config, ..options() }).images.pull(image, None, None).await;
    assert!(error.unwrap_err().to_string().contains("dial tcp: lookup registry.invalid"));
    // With TLS it is asked for a tunnel, which this one refuses.
    let refusing = Server::start(|_| Reply::status(407)).await;
    let proxy = Proxy { https: format!("http://u:p@{}", refusing.address), ..Proxy::default() };
    let ground = Ground::with(Options { proxy, ..options() });
    let error = ground.images.pull("registry.invalid/x:1", None, None).await.unwrap_err().to_string();
    assert!(error.ends_with("407 Status"), "{error}");
    let asked = refusing.requests();
    assert_eq!(refusing.asked(), ["CONNECT registry.invalid:443"]);
    assert_eq!(asked[0].header("proxy-authorization"), Some("Basic dTpw"));
    // Loopback is asked directly.
    ground.pull(&server).await.unwrap();
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let sample = Sample::two_layers();
    let (server, certificate) = Server::over_tls(&sample).await;
    let to = server.address;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy { https: format!("http://{}", listener.local_addr().unwrap()), ..Proxy::default() };
    let tunnels = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut open = tokio::task::JoinSet::new();
        while let Ok((mut here, _)) = listener.accept().await {
            open.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(here.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"CONNECT registry.invalid:443 HTTP/1.1\r\n"));
                here.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let mut there = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            });
        }
    });
    let config = tempfile::tempdir().unwrap();
    let dir = config.path().join("registry.invalid");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.crt"), certificate).unwrap();
    let hosts = HostsConfig { dirs: vec![config.path().to_owned()], insecure: Vec::new() };
    let ground = Ground::with(Options { proxy, hosts, ..options() });
    ground.images.pull("registry.invalid/some/image:1", None, None).await.unwrap();
    assert!(server.asked().iter().all(|r| r.contains(" /v2/some/image/")));
    tunnels.abort();
}

#[tokio::test]
async fn tls_believes_the_system_and_what_hosts_toml_names() {
    let sample = Sample::two_layers();
    let (server, certificate) = Server::over_tls(&sample).await;
    let config = tempfile::tempdir().unwrap();
    let hosts = HostsConfig { dirs: vec![config.path().to_owned()], insecure: Vec::new() };
    let ground = Ground::with(Options { hosts, ..options() });
    let dir = config.path().join(server.address.to_string());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.pem"), certificate).unwrap();
    let origin = format!("server = \"https://{}\"\n", server.address);
    fs::write(dir.join("hosts.toml"), &origin).unwrap();
    let error = ground.pull(&server).await.unwrap_err().to_string();
    assert!(
        error.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{error}"
    );
    fs::write(dir.join("hosts.toml"), format!("{origin}ca = \"ca.pem\"\n")).unwrap();
    ground.pull(&server).await.unwrap();
    fs::write(dir.join("hosts.toml"), format!("{origin}skip_verify = true\n")).unwrap();
    ground.pull(&server).await.unwrap();
}
