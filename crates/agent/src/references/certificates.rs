//! Certificates of pods: requested with a new key, waited for, and requested again when the signer says so. kubelet 1.36: nothing of
//! them outlives the agent; after a restart, they are requested anew.

use std::time::Duration;

use rubelet_api::v1;
use rubelet_apiserver::backoff::{Backoff, Chance, Growth};
use rubelet_apiserver::pod_certificates::{self as wire, PodCertificateRequest, Spec};
use rubelet_apiserver::{Change, Path};
use rubelet_core::now::Wall;
use rubelet_core::pod::PodEvent;
use rubelet_core::pod::certificate::{CertificateNeed, Condition, Request, Seen, Standing, Task};
use rubelet_core::pod::needs::{Got, ObjectName};
use tokio::time::Instant;

use super::fetch::{PATIENCE, Teller, Tools, refusal_text};
use super::keys;
use crate::metrics::Entry;

/// How failed requests are tried again.
const AGAIN: Growth = Growth { first: Duration::from_millis(500), most: Duration::from_secs(60), jitter: 0.5 };
/// How long the clock is trusted: the machine may sleep, and its clock may be set.
const NAP_MAX: Duration = Duration::from_secs(300);

/// Keeps a certificate for ever.
pub(super) async fn follow(need: CertificateNeed, tools: &Tools, teller: &Teller) {
    let entry = Entry::new(&tools.around.metrics.certificates, &need.signer);
    let follower = Follower {
        standing: Standing::default(),
        version: None,
        chance: Chance::new(tools.seed()),
        late_at: Some(Instant::now() + PATIENCE),
        told: None,
        need,
        tools,
        teller,
        entry,
    };
    follower.run().await;
}

struct Follower<'a> {
    need: CertificateNeed,
    tools: &'a Tools,
    teller: &'a Teller,
    entry: Entry,
    standing: Standing,
    /// In which the server has requests, once it is known.
    version: Option<&'static str>,
    chance: Chance,
    /// When the pod is told that it takes long.
    late_at: Option<Instant>,
    /// The last that was told.
    told: Option<Got>,
}

impl Follower<'_> {
    async fn run(mut self) {
        let mut backoff = Backoff::new(AGAIN, self.tools.seed());
        loop {
            self.remark();
            match self.standing.task(Wall::now()) {
                Task::Nothing => return std::future::pending().await,
                Task::WaitUntil(at) => {
                    backoff.reset();
                    tokio::time::sleep(until(at)).await;
                }
                Task::Request => match self.request().await {
                    // Why it failed before is no longer true.
                    Ok(()) if self.told.is_some() => self.tell_lack("").await,
                    Ok(()) => {}
                    Err(why) => {
                        let CertificateNeed { pod, .. } = &self.need;
                        tracing::warn!(namespace = pod.namespace, pod = pod.name, err = why, "a pod's certificate");
                        self.tell_lack(&why).await;
                        tokio::time::sleep(backoff.fail()).await;
                    }
                },
                Task::Watch(request) => {
                    self.watch(&request).await;
                    // One that was deleted is not made again at once.
                    if self.standing.task(Wall::now()) == Task::Request {
                        tokio::time::sleep(backoff.fail()).await;
                    }
                }
            }
        }
    }

    /// Makes a key and requests a certificate for it. kubelet 1.36: the words.
    async fn request(&mut self) -> Result<(), String> {
        let version = self.served().await?;
        let CertificateNeed { pod: ObjectName { namespace, .. }, account, .. } = self.need.clone();
        let account_path = Path::to::<v1::ServiceAccount>(&namespace, &account);
        let account_uid = self.uid(&account_path, "service account").await?;
        let node_name = self.tools.around.node.clone();
        let node_uid = self.uid(&Path::to_cluster::<v1::Node>(&node_name), "node").await?;
        let key = self.key().await?;
        let spec = Spec {
            signer: self.need.signer.clone(),
            pod_name: self.need.pod.name.clone(),
            pod_uid: self.need.pod_uid.clone(),
            account_name: account,
            account_uid,
            node_name,
            node_uid,
            expiration_secs_max: self.need.expiration_secs_max,
            stub: key.request,
            annotations: self.need.annotations.clone(),
        };
        let made = wire::request(&self.tools.client, version, &namespace, &spec).await.map_err(|error| {
            if error.is_not_found() {
                self.version = None;
            }
            format!("while creating PodCertificateRequest: {}", refusal_text(&error))
        })?;
        let made_at = made.at.map_or_else(Wall::now, |t| t.0);
        let request = Request::new(made.name, key.pem.into(), made_at, self.chance.share());
        self.standing = std::mem::take(&mut self.standing).requested(request);
        Ok(())
    }

    async fn served(&mut self) -> Result<&'static str, String> {
        use rubelet_api::Resource as _;
        if let Some(version) = self.version {
            return Ok(version);
        }
        let (group, resource) = (PodCertificateRequest::GROUP, PodCertificateRequest::URL_PATH_SEGMENT);
        let served = self.tools.client.served(group, resource, &wire::VERSIONS).await;
        let served = served.map_err(|e| format!("while looking for PodCertificateRequests: {}", refusal_text(&e)))?;
        let lack = || format!("the API server has no PodCertificateRequests ({})", wire::VERSIONS.join(", "));
        self.version = served;
        served.ok_or_else(lack)
    }

    /// What has this name now.
    async fn uid(&self, path: &Path, what: &str) -> Result<String, String> {
        let object = self.tools.client.get_json(path).await;
        let object = object.map_err(|e| format!("while fetching {what}: {}", refusal_text(&e)))?;
        Ok(object["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    async fn key(&self) -> Result<keys::Key, String> {
        let _turn = self.tools.keys.acquire().await.map_err(|e| format!("while generating keypair: {e}"))?;
        let key_type = self.need.key_type.clone();
        let made = rubelet_host::task::blocking(move || keys::make(&key_type)).await;
        made.map_err(|e| format!("while generating keypair: {e}"))?
    }

    /// Looks what becomes of a request until something does.
    async fn watch(&mut self, request: &Request) {
        let Some(version) = self.version else { return };
        let name = (self.need.pod.namespace.as_str(), request.name.as_str());
        let mut watch = wire::watch(&self.tools.client, version, name, &self.tools.around.node);
        let mut is_there = false;
        while self.standing.task(Wall::now()) == Task::Watch(request.clone()) {
            let missing_at = (!is_there).then(|| request.missing_until());
            let wake_at = missing_at.into_iter().chain(self.standing.remark_at()).min();
            let change = tokio::select! {
                change = watch.next() => change,
                () = late(self.late_at) => {
                    self.tell_lack("").await;
                    continue;
                }
                () = tokio::time::sleep(wake_at.map_or(NAP_MAX, until)) => {
                    self.remark();
                    if !is_there && Wall::now() >= request.missing_until() {
                        self.standing = std::mem::take(&mut self.standing).deleted();
                    }
                    continue;
                }
            };
            let seen = match change {
                None => return std::future::pending().await,
                Some(Change::Interrupted(error)) => {
                    tracing::debug!(name = request.name, err = %error, "watching a pod's certificate request is interrupted");
                    continue;
                }
                Some(Change::Removed(_)) => {
                    self.standing = std::mem::take(&mut self.standing).deleted();
                    continue;
                }
                Some(Change::Replaced(all, _)) => all.into_iter().next(),
                Some(Change::Upserted(one)) => Some(one),
            };
            is_there = seen.is_some();
            if let Some(seen) = seen {
                self.see(seen).await;
            }
        }
    }

    async fn see(&mut self, request: PodCertificateRequest) {
        let status = request.status;
        let condition =
            |c: rubelet_api::meta::Condition| Condition { type_: c.type_, reason: c.reason, message: c.message };
        let seen = Seen {
            conditions: status.conditions.into_iter().map(condition).collect(),
            chain: status.certificate_chain,
            begin_refresh_at: status.begin_refresh_at.map(|t| t.0),
            not_after: status.not_after.map(|t| t.0),
        };
        let before = std::mem::take(&mut self.standing);
        let (after, event) = before.seen(&self.need.pod.namespace, &seen, self.chance.share());
        self.standing = after;
        event.iter().for_each(|event| self.announce(event));
        self.entry.show(self.standing.phase());
        if !matches!(self.standing, Standing::Requested(_) | Standing::Renewing(..)) {
            self.tell(self.standing.got()).await;
        }
    }

    /// That there is no certificate yet, and why; nothing while the one before serves.
    async fn tell_lack(&mut self, why: &str) {
        match self.standing.got() {
            Got::Failed(text) if why.is_empty() => self.tell(Got::Failed(text)).await,
            Got::Failed(text) => self.tell(Got::Failed(format!("{text}: {why}"))).await,
            _ => self.late_at = None,
        }
    }

    async fn tell(&mut self, got: Got) {
        self.late_at = None;
        if self.told.as_ref() != Some(&got) {
            self.told = Some(got.clone());
            self.teller.tell(got).await;
        }
    }

    fn remark(&mut self) {
        let events = self.standing.remarks(Wall::now());
        events.iter().for_each(|event| self.announce(event));
    }

    fn announce(&self, event: &PodEvent) {
        let CertificateNeed { pod, pod_uid, .. } = &self.need;
        let mut about = v1::Pod::default();
        about.metadata.namespace = Some(pod.namespace.clone());
        about.metadata.name = Some(pod.name.clone());
        about.metadata.uid = Some(pod_uid.clone());
        self.tools.around.events.tell(&about, event);
    }
}

/// How long to sleep at most to be there at that time.
fn until(at: Wall) -> Duration {
    let left = Duration::try_from(at.duration_since(Wall::now())).unwrap_or_default();
    left.clamp(Duration::from_millis(100), NAP_MAX)
}

async fn late(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
