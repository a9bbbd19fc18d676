//! With a driver on real sockets.

use rubelet_testkit::dra_driver::{DraDriver, Options};
use rubelet_volumes::csi;
use serde_json::{Value, json};

use super::*;
use crate::life::LifeEnd;

const DRIVER: &str = "dra.test.rubelet.io";

struct Stage {
    dir: tempfile::TempDir,
    life: Life,
    /// Tasks end with it.
    _end: LifeEnd,
}

impl Stage {
    fn new() -> Self {
        let (life, end) = Life::new();
        Self { dir: tempfile::tempdir().unwrap(), life, _end: end }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The node in another life.
    fn open(&self) -> Arc<ResourceClaims> {
        let settings = Settings {
            root_dir: self.dir.path().to_owned(),
            node: "here".to_owned(),
            extended: true,
            watches_health: true,
            tells_messages: true,
        };
        Arc::new(ResourceClaims::open(settings, None, Clock::start(), Arc::default()))
    }

    fn options(&self) -> Options {
        Options::new(&self.path("plugins_registry"), &self.path("data"), &self.path("cdi"))
    }

    async fn register(&self, claims: &Arc<ResourceClaims>) -> csi::Plugin {
        let [socket] = csi::sockets(&self.path("plugins_registry")).into_iter().collect::<Vec<_>>().try_into().unwrap();
        let plugin = csi::ask(&socket).await.unwrap();
        assert_eq!((plugin.kind.as_str(), plugin.name.as_str()), ("DRAPlugin", DRIVER));
        claims.register(&plugin, &self.life).unwrap();
        plugin
    }

    fn calls(&self, method: &str) -> usize {
        let text = std::fs::read_to_string(self.path("data/calls.jsonl")).unwrap();
        let calls = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        calls.filter(|call| call["method"] == *method).count()
    }
}

fn wish(claim: &str) -> Wish {
    let claim = ObjectName { namespace: "ns".to_owned(), name: claim.to_owned() };
    Wish { uid: format!("uid-{}", claim.name), claim, drivers: [DRIVER.to_owned()].into() }
}

fn pod(uid: &str, claim: &str) -> v1::Pod {
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": {
        "containers": [{"name": "main", "resources": {"claims": [{"name": "c"}]}}],
        "resourceClaims": [{"name": "c", "resourceClaimName": claim}]}}))
    .unwrap()
}

/// Time is real here: the driver is at the other end of a socket.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let look = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), look).await.expect(what);
}

/// Waits for the driver's connection.
async fn connected(claims: &ResourceClaims, is: bool) {
    let is_so = || claims.plugin(DRIVER).is_ok_and(|plugin| plugin.is_connected()) == is;
    until("it connects, or is gone", is_so).await;
}

/// Waits for how a pod's only device is told to be.
async fn shown(claims: &ResourceClaims, pod: &v1::Pod, wanted: &str) {
    let word = || {
        let all = claims.health(pod);
        let one = all.get("main")?.first()?.resources.as_ref()?.first()?.clone();
        Some(format!("{} {}", one.health.unwrap_or_default(), one.message.unwrap_or_default()))
    };
    until(wanted, || word().as_deref() == Some(wanted)).await;
}

#[tokio::test]
async fn a_driver_prepares_and_takes_back_over_lives() {
    let stage = Stage::new();
    let claims = stage.open();
    let (one, two) = (PodUid::new("p1"), PodUid::new("p2"));
    let missing = Err(format!("DRA driver {DRIVER} is not registered"));
    assert_eq!(claims.prepare(&one, &[wish("a")]).await, missing);
    assert!(claims.pods().is_empty() && !stage.path(CHECKPOINT).exists(), "nothing was begun");

    let driver = DraDriver::start(stage.options()).unwrap();
    let mut told = claims.changed.subscribe();
    stage.register(&claims).await;
    connected(&claims, true).await;
    assert!(told.borrow_and_update().contains(&one), "who waits hears of it");
    claims.prepare(&one, &[wish("a")]).await.unwrap();
    claims.prepare(&two, &[wish("a")]).await.unwrap();
    assert_eq!(stage.calls("NodePrepareResources"), 1);
    let ids = claims.cdi_devices(&pod("p1", "a"), "main").unwrap();
    assert_eq!(ids, [format!("{DRIVER}/device=uid-a-dev-0")]);
    assert_eq!(claims.in_use(), [("<any>".to_owned(), 1), (DRIVER.to_owned(), 1)]);

    // Another life: what was prepared is known, and a container that starts again gets the same.
    let later = stage.open();
    assert_eq!(later.cdi_devices(&pod("p1", "a"), "main"), Ok(ids));
    assert_eq!(later.release(&two).await, Ok(()), "another pod uses it: nobody is asked");
    assert_eq!(later.release(&one).await, missing);
    stage.register(&later).await;
    connected(&later, true).await;
    assert_eq!(later.release(&one).await, Ok(()));
    assert_eq!(stage.calls("NodeUnprepareResources"), 1);
    assert!(later.pods().is_empty() && stage.open().pods().is_empty());
    drop(driver);
}

#[tokio::test]
async fn what_fails_is_told_in_upstreams_words_and_may_be_tried_again() {
    let stage = Stage::new();
    let claims = stage.open();
    let options = Options { version: "v1beta1".to_owned(), ..stage.options() };
    let driver = DraDriver::start(options).unwrap();
    let plugin = stage.register(&claims).await;
    let again = claims.register(&plugin, &stage.life).unwrap_err();
    assert!(again.ends_with(&format!("already registered for DRA driver plugin {DRIVER}")), "{again}");
    connected(&claims, true).await;
    let pod = PodUid::new("p1");
    std::fs::write(stage.path("data/fail/NodePrepareResources"), "14 not today").unwrap();
    let words = "NodePrepareResources: rpc error: code = Unavailable desc = not today";
    assert_eq!(claims.prepare(&pod, &[wish("a")]).await, Err(words.to_owned()));
    assert_eq!(claims.pods().len(), 1, "it may have been prepared by half");
    std::fs::remove_file(stage.path("data/fail/NodePrepareResources")).unwrap();
    claims.prepare(&pod, &[wish("a")]).await.unwrap();
    std::fs::write(stage.path("data/fail/NodeUnprepareResources"), "9 busy").unwrap();
    let words = "NodeUnprepareResources: rpc error: code = FailedPrecondition desc = busy";
    assert_eq!(claims.release(&pod).await, Err(words.to_owned()));
    // The driver goes without a word: calls fail, and its plugin is still registered.
    drop(driver);
    connected(&claims, false).await;
    let away = claims.release(&pod).await.unwrap_err();
    assert!(
        away.starts_with("NodeUnprepareResources: rpc error: code = Unavailable desc = connection error"),
        "{away}"
    );
    claims.deregister(DRIVER, &plugin.endpoint, &stage.life);
    assert_eq!(claims.release(&pod).await, Err(format!("DRA driver {DRIVER} is not registered")));
    // Nobody knows the pod any more, and the driver comes back.
    std::fs::remove_file(stage.path("data/fail/NodeUnprepareResources")).unwrap();
    let _driver = DraDriver::start(Options { version: "v1".to_owned(), ..stage.options() }).unwrap();
    stage.register(&claims).await;
    connected(&claims, true).await;
    claims.abandon(&pod, &stage.life);
    until("it is given back", || claims.pods().is_empty()).await;
}

#[tokio::test]
async fn health_is_what_the_driver_says_while_it_is_there() {
    let stage = Stage::new();
    let claims = stage.open();
    let driver = DraDriver::start(stage.options()).unwrap();
    let plugin = stage.register(&claims).await;
    connected(&claims, true).await;
    let pod = pod("p1", "a");
    claims.prepare(&PodUid::new("p1"), &[wish("a")]).await.unwrap();
    shown(&claims, &pod, "Healthy ").await;
    std::fs::write(stage.path("data/health/dev-0"), "hot").unwrap();
    shown(&claims, &pod, "Unhealthy hot").await;
    drop(driver);
    shown(&claims, &pod, "Unknown ").await;
    claims.deregister(DRIVER, &plugin.endpoint, &stage.life);
    let other = csi::Plugin { versions: vec!["1.0.0".to_owned()], ..plugin };
    let why = claims.register(&other, &stage.life).unwrap_err();
    assert!(
        why.starts_with("RegisterPlugin error -- plugin validation failed with err: invalid supported gRPC"),
        "{why}"
    );
}
