use rubelet_core::pod::needs::ObjectName;
use rubelet_core::pod::services::{Service, ServicePort};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::*;

/// A desk whose fetches are played by the test.
struct World {
    references: References,
    /// Each fetch that began.
    opened: mpsc::UnboundedReceiver<(Root, u64, Sender<Report>)>,
    /// Who holds the other end of a running fetch.
    running: Arc<Mutex<BTreeMap<u64, Root>>>,
    _end: crate::life::LifeEnd,
}

struct Running(u64, Arc<Mutex<BTreeMap<u64, Root>>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.1.lock().unwrap().remove(&self.0);
    }
}

impl World {
    fn new(is_polled: bool) -> Self {
        let (life, end) = Life::new();
        let (tx, opened) = mpsc::unbounded_channel();
        let running = Arc::new(Mutex::new(BTreeMap::new()));
        let (spawner, held) = (life.clone(), running.clone());
        let references = References::start_with(&life, is_polled, move |root, number, reports| {
            held.lock().unwrap().insert(number, root.clone());
            let guard = Running(number, held.clone());
            tx.send((root, number, reports)).unwrap();
            spawner.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            })
        });
        Self { references, opened, running, _end: end }
    }

    async fn next(&mut self) -> (Root, u64, Sender<Report>) {
        timeout(Duration::from_secs(5), self.opened.recv()).await.expect("a fetch begins").expect("the desk lives")
    }

    async fn tell(&self, (root, number, reports): &(Root, u64, Sender<Report>), got: Got) {
        reports.send(Report { root: root.clone(), number: *number, got }).await.unwrap();
    }
}

fn named(name: &str) -> Need {
    Need::ConfigMap(ObjectName { namespace: "ns".into(), name: name.into() })
}

fn text(text: &str) -> Got {
    Got::NotFound(text.into())
}

async fn heard(inbox: &mut Receiver<Note>) -> BTreeMap<Need, Got> {
    match timeout(Duration::from_secs(5), inbox.recv()).await.expect("a note").expect("an inbox") {
        Note::Fact(Fact::Inputs(got)) => got,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn two_pods_share_a_fetch_and_the_last_one_ends_it() {
    let mut world = World::new(false);
    let (a, mut hears_a) = channel(8);
    let (b, mut hears_b) = channel(8);
    let (one, two) = (PodUid::new("1"), PodUid::new("2"));
    world.references.want(&one, &[named("m")].into(), &a.downgrade());
    let fetch = world.next().await;
    assert_eq!(fetch.0, Root::Of(named("m")));
    world.tell(&fetch, text("x")).await;
    assert_eq!(heard(&mut hears_a).await, BTreeMap::from([(named("m"), text("x"))]));

    world.references.want(&two, &[named("m"), named("n")].into(), &b.downgrade());
    let other = world.next().await;
    assert_eq!(other.0, Root::Of(named("n")), "m is there already");
    assert_eq!(heard(&mut hears_b).await, BTreeMap::from([(named("m"), text("x"))]));
    world.tell(&other, text("y")).await;
    assert_eq!(heard(&mut hears_b).await.len(), 2);
    assert!(hears_a.try_recv().is_err(), "nothing new for the first");

    world.references.want(&one, &Needs::new(), &a.downgrade());
    world.references.want(&two, &[named("n")].into(), &b.downgrade());
    assert_eq!(heard(&mut hears_b).await, BTreeMap::from([(named("n"), text("y"))]));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let left: Vec<Root> = world.running.lock().unwrap().values().cloned().collect();
    assert_eq!(left, [Root::Of(named("n"))]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_a_full_inbox_hears_later() {
    let mut world = World::new(false);
    let (full, mut hears) = channel(1);
    full.send(Note::Fact(Fact::Tick)).await.unwrap();
    world.references.want(&PodUid::new("1"), &[named("m")].into(), &full.downgrade());
    let fetch = world.next().await;
    world.tell(&fetch, text("x")).await;
    tokio::time::sleep(INBOX_PAUSE * 3).await;
    assert!(matches!(hears.recv().await, Some(Note::Fact(Fact::Tick))));
    assert_eq!(heard(&mut hears).await, BTreeMap::from([(named("m"), text("x"))]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_watched_is_asked_for_anew_for_each_pod() {
    let mut world = World::new(true);
    let (a, mut hears_a) = channel(8);
    let (b, mut hears_b) = channel(8);
    world.references.want(&PodUid::new("1"), &[named("m")].into(), &a.downgrade());
    let first = world.next().await;
    world.tell(&first, text("old")).await;
    assert_eq!(heard(&mut hears_a).await, BTreeMap::from([(named("m"), text("old"))]));
    world.references.want(&PodUid::new("2"), &[named("m")].into(), &b.downgrade());
    let second = world.next().await;
    world.tell(&first, text("late")).await;
    world.tell(&second, text("new")).await;
    assert_eq!(heard(&mut hears_b).await, BTreeMap::from([(named("m"), text("new"))]), "the second hears nothing old");
    assert_eq!(heard(&mut hears_a).await, BTreeMap::from([(named("m"), text("new"))]));
}

#[tokio::test(start_paused = true)]
async fn services_are_fetched_once_and_shown_by_namespace() {
    let mut world = World::new(false);
    let service = |namespace: &str, name: &str| Service {
        namespace: namespace.into(),
        name: name.into(),
        cluster_ip: "10.0.0.1".into(),
        ports: vec![ServicePort { name: String::new(), port: 80, protocol: "TCP".into() }],
    };
    let (a, mut hears_a) = channel(8);
    let (b, mut hears_b) = channel(8);
    let need = |namespace: &str| Need::Services { namespace: namespace.into() };
    world.references.want(&PodUid::new("1"), &[need("x")].into(), &a.downgrade());
    world.references.want(&PodUid::new("2"), &[need("y")].into(), &b.downgrade());
    let fetch = world.next().await;
    let all = vec![service("default", "kubernetes"), service("x", "web")];
    world.tell(&fetch, Got::Services(Arc::new(all.clone()))).await;
    assert_eq!(heard(&mut hears_a).await, BTreeMap::from([(need("x"), Got::Services(Arc::new(all.clone())))]));
    assert_eq!(heard(&mut hears_b).await, BTreeMap::from([(need("y"), Got::Services(Arc::new(all[..1].to_vec())))]));
    let more = vec![all[0].clone(), all[1].clone(), service("x", "web-2")];
    world.tell(&fetch, Got::Services(Arc::new(more))).await;
    assert!(matches!(heard(&mut hears_a).await.get(&need("x")), Some(Got::Services(s)) if s.len() == 3));
    assert!(hears_b.try_recv().is_err(), "a service of x means nothing in y");
    assert!(world.opened.try_recv().is_err());
}
