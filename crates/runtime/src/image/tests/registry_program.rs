//! With Debian's registry, and what Debian's tools unpack of the same image.

use super::*;
use std::process::{Child, Command, Stdio};

/// Whether a program is here; says so if not.
fn has(program: &str) -> bool {
    let found = ["/usr/bin", "/usr/local/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        not_run(&format!("no {program} here"));
    }
    found
}

/// Says why a test is not run, also to the tally of `./x test`.
fn not_run(why: &str) {
    eprintln!("not run: {why}");
    if let Some(tally) = std::env::var_os("X_TALLY") {
        let mut tally = fs::File::options().append(true).open(tally).unwrap();
        writeln!(tally, "skipped 1 images of a real registry: {why}").unwrap();
    }
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn registry(dir: &Path, tls: &str) -> (Program, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {free}{tls}}}\n",
        dir.join("registry").display()
    );
    fs::write(dir.join("registry.yml"), config).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(dir.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
    let program = Program(command.spawn().unwrap());
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(free).await.is_ok() {
            return (program, free.to_string());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("docker-registry does not answer");
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An OCI layout in a directory, for skopeo and umoci.
fn write_layout(sample: &Sample, dir: &Path) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    for (digest, content) in &sample.blobs {
        fs::write(dir.join("blobs/sha256").join(digest.hex()), content).unwrap();
    }
    let manifest = sample.manifest.unwrap();
    let entry = serde_json::json!({"mediaType": document::OCI_MANIFEST, "digest": manifest, "size": sample.blobs[&manifest].len(),
        "annotations": {"org.opencontainers.image.ref.name": "1"}});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Each path with kind, mode, owner, time, link and content.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = Vec::new();
    walk(root, root, &mut found);
    let shown = |path: &Path, stat: &fs::Metadata| {
        let whole = root.join(path);
        let content = match stat.file_type() {
            kind if kind.is_symlink() => fs::read_link(&whole).unwrap().display().to_string(),
            kind if kind.is_file() => Digest::of(&fs::read(&whole).unwrap()).to_string(),
            _ => String::new(),
        };
        let mtime = if stat.is_dir() { 0 } else { stat.mtime() };
        let nlink = if stat.is_dir() { 0 } else { stat.nlink() };
        format!("{:o} {}:{} {mtime} {nlink} {content}", stat.mode(), stat.uid(), stat.gid())
    };
    found.iter().map(|(path, stat)| (path.clone(), shown(path, stat))).collect()
}

fn varied() -> Sample {
    let below = Tar::new()
        .dir("./", 0o755)
        .dir("etc", 0o755)
        .file("etc/a", "A")
        .file("etc/gone", "x")
        .dir("tmp", 0o1777)
        .link("lib", "usr/lib")
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .file("usr/lib/so", "so")
        .hard("usr/lib/so.1", "usr/lib/so")
        .dir("opt", 0o711)
        .file("opt/x", "x")
        .raw(tar::EntryType::Regular, "usr/su", "", 0o4755, b"su")
        .raw(tar::EntryType::Fifo, "usr/pipe", "", 0o600, b"")
        .end();
    let above = Tar::new()
        .dir("etc", 0o750)
        .file("etc/.wh.gone", "")
        .file("etc/a", "AA")
        .file("opt/.wh..wh..opq", "")
        .file("opt/y", "y")
        .file("tmp/z", "z")
        .end();
    Sample::new(&[below, above, Sample::large()])
}

#[tokio::test]
async fn the_same_as_umoci_makes_of_it() {
    if !(has("docker-registry") && has("skopeo") && has("umoci")) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        not_run("needs root");
        return;
    }
    let ground = Ground::new();
    let dir = ground.dir.path();
    let (_registry, address) = registry(dir, "").await;
    write_layout(&varied(), &dir.join("layout"));
    let layout = format!("oci:{}:1", dir.join("layout").display());
    let image = format!("{address}/a/b:1");
    run("skopeo", &["copy", "--dest-tls-verify=false", &layout, &format!("docker://{image}")]);
    let pulled = ground.images.pull(&image, None, None).await.unwrap();
    assert_eq!(pulled.image.repo_tags, std::slice::from_ref(&image));
    let bundle = dir.join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:1", dir.join("layout").display()), bundle.to_str().unwrap()]);
    let rootfs = ground.images.prepare("c", &pulled.id).await.unwrap();
    let merged = dir.join("merged");
    fs::create_dir(&merged).unwrap();
    let ours = std::thread::spawn(move || {
        rubelet_host::mount::enter_private_namespace().unwrap();
        rootfs.attach(&merged).unwrap();
        let listing = listing(&merged);
        rubelet_host::mount::unmount(&merged, rubelet_host::mount::Unmount::Plain).unwrap();
        listing
    });
    let (ours, theirs) = (ours.join().unwrap(), listing(&bundle.join("rootfs")));
    assert!(theirs.len() > 12);
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn docker_media_types_and_a_deleted_tag() {
    if !(has("docker-registry") && has("skopeo")) {
        return;
    }
    let ground = Ground::new();
    let dir = ground.dir.path();
    let (_registry, address) = registry(dir, "").await;
    write_layout(&Sample::two_layers(), &dir.join("layout"));
    let layout = format!("oci:{}:1", dir.join("layout").display());
    let image = format!("{address}/a/b:2");
    run("skopeo", &["copy", "--format=v2s2", "--dest-tls-verify=false", &layout, &format!("docker://{image}")]);
    let id = ground.images.pull(&image, None, None).await.unwrap().id;
    assert_eq!(ground.files(&id).await["etc/c"], "C");
    let saved = dir.join("saved.tar");
    run(
        "skopeo",
        &[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{image}"),
            &format!("docker-archive:{}:x:9", saved.display()),
        ],
    );
    let images = ground.images.clone();
    let file = fs::File::open(&saved).unwrap();
    let imported = std::thread::spawn(move || images.import(file, "saved", false)).join().unwrap().unwrap();
    assert_eq!(imported[0].repo_tags.last().unwrap(), "docker.io/library/x:9");
    let missing = format!("{address}/a/b:none");
    let error = ground.images.pull(&missing, None, None).await.unwrap_err().to_string();
    let expected = format!(
        r#"failed to pull and unpack image "{missing}": failed to resolve reference "{missing}": {missing}: not found"#
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn over_http2_with_tls() {
    if !(has("docker-registry") && has("skopeo")) {
        return;
    }
    let ground = Ground::new();
    let dir = ground.dir.path();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(dir.join("ca.crt"), certificate.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    let tls = format!(", tls: {{certificate: {0}/ca.crt, key: {0}/key.pem}}", dir.display());
    let (_registry, address) = registry(dir, &tls).await;
    write_layout(&varied(), &dir.join("layout"));
    let layout = format!("oci:{}:1", dir.join("layout").display());
    let image = format!("{address}/a/b:1");
    run("skopeo", &["copy", "--dest-tls-verify=false", &layout, &format!("docker://{image}")]);
    let hosts = dir.join("certs.d").join(&address);
    fs::create_dir_all(&hosts).unwrap();
    fs::write(hosts.join("hosts.toml"), format!("server = \"https://{address}\"\nca = \"{}/ca.crt\"\n", dir.display()))
        .unwrap();
    let hosts = HostsConfig { dirs: vec![dir.join("certs.d")], insecure: Vec::new() };
    let other = Ground::with(Options { hosts, ..options() });
    assert_eq!(other.images.pull(&image, None, None).await.unwrap().id, varied().id());
}
