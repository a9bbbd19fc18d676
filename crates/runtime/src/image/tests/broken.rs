use super::*;
use std::sync::atomic::Ordering::SeqCst;

/// Serves the image; of each answer to a request for the large layer only `step` bytes arrive.
async fn breaking(sample: &Sample, step: usize, does_parts: bool) -> Server {
    let sample = sample.clone();
    Server::start(move |request| {
        let reply = sample.answer(request);
        if !request.path.ends_with(&sample.layers[0].to_string()) {
            return reply;
        }
        let mut reply = if does_parts { reply.part(request) } else { reply };
        reply.cut = (reply.body.len() > step).then_some(step);
        reply
    })
    .await
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let sample = Sample::new(&[Sample::large()]);
    let size = sample.blobs[&sample.layers[0]].len();
    let step = size / 6;
    let server = breaking(&sample, step, true).await;
    let ground = Ground::new();
    ground.pull(&server).await.unwrap();
    let begins: Vec<usize> = server
        .requests()
        .iter()
        .filter(|r| r.path.contains(&sample.layers[0].to_string()))
        .map(|r| r.begin().unwrap_or(0))
        .collect();
    assert_eq!(begins.len(), 7, "{begins:?}");
    assert!(begins.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= step), "{begins:?}");
    assert!(ground.files(&sample.id()).await["noise"].len() == 3 << 20);
}

#[tokio::test]
async fn without_progress_it_is_given_up_and_what_arrived_is_kept() {
    let sample = Sample::new(&[Sample::large()]);
    let size = sample.blobs[&sample.layers[0]].len();
    // This server does not do parts, and never gets beyond two thirds.
    let server = breaking(&sample, size * 2 / 3, false).await;
    let ground = Ground::new();
    let error = ground.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains("failed to copy: read http://") && error.ends_with("unexpected EOF"), "{error}");
    let kept = fs::metadata(ground.images.store.blobs.ingest_path(sample.layers[0])).unwrap().len();
    assert_eq!(kept, (size * 2 / 3) as u64);
    // A better server has the rest to give, also to the next process.
    let Ground { dir, images } = ground;
    drop(images);
    let images = Images::open(&dir.path().join("store"), options()).unwrap();
    let better = breaking(&sample, size, true).await;
    images.pull(&better.image(), None, None).await.unwrap();
    let begins: Vec<_> = better
        .requests()
        .iter()
        .filter(|r| r.path.contains(&sample.layers[0].to_string()))
        .map(|r| r.begin())
        .collect();
    assert_eq!(begins, [Some(size * 2 / 3)]);
}

#[tokio::test]
async fn damage_on_disk_is_noticed_and_the_download_repeated() {
    let sample = Sample::new(&[Sample::large()]);
    let layer = sample.layers[0];
    let ground = Ground::new();
    fs::write(ground.images.store.blobs.ingest_path(layer), vec![0; 5000]).unwrap();
    let size = sample.blobs[&layer].len();
    let server = breaking(&sample, size, true).await;
    ground.pull(&server).await.unwrap();
    let begins: Vec<_> =
        server.requests().iter().filter(|r| r.path.contains(&layer.to_string())).map(|r| r.begin()).collect();
    assert_eq!(begins, [Some(5000), None]);
}

#[tokio::test]
async fn content_of_another_digest_is_refused() {
    let sample = Sample::new(&[Sample::large()]);
    let layer = sample.layers[0];
    let served = sample.clone();
    let server = Server::start(move |request| {
        let mut reply = served.answer(request);
        if request.path.ends_with(&layer.to_string()) {
            reply.body[1000] ^= 1;
        }
        reply
    })
    .await;
    let ground = Ground::new();
    let error = ground.pull(&server).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("failed to copy: unexpected commit digest sha256:"), "{text}");
    assert!(text.ends_with(&format!("expected {layer}: failed precondition")), "{text}");
    assert_eq!(fs::metadata(ground.images.store.blobs.ingest_path(layer)).unwrap().len(), 0);
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let sample = Sample::two_layers();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Server::start(move |request| match counted.fetch_add(1, SeqCst) {
        0 => Reply::status(503),
        1 => Reply::status(429).header("retry-after", "0"),
        3 => Reply { cut: Some(0), ..Reply::with(vec![1; 10]) },
        _ => sample.answer(request),
    })
    .await;
    Ground::new().pull(&server).await.unwrap();
    assert!(count.load(SeqCst) > 6);
}

#[tokio::test]
async fn documents_without_end_are_refused() {
    let server = Server::start(|_| Reply::with(vec![b' '; 5 << 20])).await;
    let error = Ground::new().pull(&server).await.unwrap_err().to_string();
    assert!(error.contains("the answer has more than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing_in_the_way() {
    let sample = Sample::new(&[Sample::large()]);
    let layer = sample.layers[0];
    let (served, reached) = (sample.clone(), Arc::new(tokio::sync::Notify::new()));
    let told = reached.clone();
    let server = Server::start(move |request| {
        let mut reply = served.answer(request);
        if request.path.ends_with(&layer.to_string()) {
            told.notify_one();
            // Promised and never sent: the connection stays.
            reply = reply.header("x-slow", "1");
            reply.body.truncate(reply.body.len() / 2);
            reply.cut = Some(reply.body.len());
        }
        reply
    })
    .await;
    let ground = Ground::new();
    tokio::select! {
        outcome = ground.pull(&server) => panic!("{outcome:?}"),
        () = reached.notified() => {}
    }
    assert!(ground.images.store.state().leases.is_empty());
    let good = Server::of(&sample).await;
    ground.pull(&good).await.unwrap();
}

/// A disk of few bytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn of(bytes: u64) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        let size = rubelet_host::mount::Tmpfs { size_bytes: Some(bytes), noswap: false, is_data_only: false };
        rubelet_host::mount::tmpfs(this.0.path(), size).unwrap();
        this
    }

    fn grow(&self) {
        let grown = std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(self.0.path()).status();
        assert!(grown.unwrap().success());
    }

    fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.0.path().join(folder)).unwrap().count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rubelet_host::mount::unmount(self.0.path(), rubelet_host::mount::Unmount::Lazy).unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_and_has_its_room_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root may mount a small disk");
        return;
    }
    let sample = Sample::new(&[Tar::new().file("small", "below").end(), Sample::large()]);
    let server = Server::of(&sample).await;
    // The packed layer has no room; it has, and its files have not.
    for bytes in [1 << 20, 5 << 20] {
        let disk = SmallDisk::of(bytes);
        let images = Images::open(disk.0.path(), options()).unwrap();
        let error = images.pull(&server.image(), None, None).await.unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
        assert!(images.list(None).is_empty());
        super::collecting::settled(&disk.0.path().join("layers")).await;
        let left = (disk.count("ingest"), disk.count("blobs/sha256"), disk.count("layers"));
        // Two directories of layers are always there.
        assert_eq!(left, (0, 0, 2), "of {bytes} bytes");
        disk.grow();
        images.pull(&server.image(), None, None).await.unwrap();
        assert_eq!(images.list(None).len(), 1);
    }
}
