//! The runtime in memory: directly, and behind a socket.

use std::sync::Arc;
use std::time::Duration;

use rubelet_cri::{Remote, Runtime};
use rubelet_testkit::contract::{Bench, Settings};
use rubelet_testkit::{FakeRuntime, Temper};

use crate::report::play;

/// What the fake does otherwise.
const KNOWN: &[(&str, &str)] = &[];

fn bench(runtime: Arc<dyn Runtime>, folder: &tempfile::TempDir) -> Arc<Bench> {
    let settings = Settings {
        image: "localhost/busybox:1".to_owned(),
        folder: folder.path().to_owned(),
        cgroup_parent: String::new(),
        has: Vec::new(),
        registry: String::new(),
    };
    Bench::new(runtime, settings)
}

#[tokio::test(start_paused = true)]
async fn the_runtime_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::new(Temper::default());
    play("fake", &bench(Arc::new(fake.clone()), &folder), KNOWN).await;
    assert_eq!(fake.running(), [], "nothing is left");
}

#[tokio::test]
async fn the_runtime_in_memory_behind_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cri.sock");
    let fake = FakeRuntime::new(Temper { latency: Duration::ZERO, ..Temper::default() });
    let serving = {
        let (fake, path) = (fake.clone(), path.clone());
        tokio::spawn(async move { rubelet_cri::serve(Arc::new(fake), &path).await })
    };
    let connected = async {
        while tokio::net::UnixStream::connect(&path).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), connected).await.expect("it is served");
    let remote = Remote::connect(path.to_str().unwrap(), "", Duration::from_secs(60)).unwrap();
    play("fake behind a socket", &bench(Arc::new(remote), &folder), KNOWN).await;
    serving.abort();
}
