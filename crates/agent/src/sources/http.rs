//! The static pod URL: asked periodically; what it answered last stays in force while it does not answer.

use std::time::Duration;

use jiff::Timestamp;
use rubelet_api::pod::{Gates, Origin, Source as ApiSource, static_pods};
use rubelet_core::pod::Source;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::claims::Claims;
use super::{DesiredPod, DesiredSet, Problem, is_same_wish};

mod fetch;

#[cfg(test)]
mod tests;

use fetch::Fetcher;

/// kubelet 1.36: a request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The URL source, as configured.
#[derive(Clone, Debug)]
pub struct HttpSource {
    /// `staticPodURL`, `http` or `https`.
    pub url: String,
    /// `staticPodURLHeader`, in order, names may repeat.
    pub headers: Vec<(String, String)>,
    /// `httpCheckFrequency`.
    pub check_every: Duration,
    /// Name of the node, part of static pods' names and UIDs.
    pub node_name: String,
    pub gates: Gates,
}

impl HttpSource {
    /// Runs as a task of its own until the receiver is gone.
    pub fn spawn(self, out: mpsc::Sender<DesiredSet>) -> AbortHandle {
        rubelet_host::task::spawn(self.run(out)).abort_handle()
    }

    /// Sends the first complete set after the first good answer and then every other one, until the receiver is gone.
    pub async fn run(self, out: mpsc::Sender<DesiredSet>) {
        let fetcher = match Fetcher::new(&self.url, &self.headers) {
            Ok(fetcher) => fetcher,
            Err(e) => {
                tracing::error!(url = %self.url, err = %e, "static pod URL can't be used, no pod comes from it");
                return out.closed().await;
            }
        };
        let mut tick = interval(self.check_every.max(Duration::from_millis(100)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut task = Task {
            source: self,
            hash: None,
            claims: Claims::default(),
            told: None,
            pods: None,
            conflicts: Vec::new(),
            trouble: None,
        };
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = out.closed() => return,
            }
            let answer = match tokio::time::timeout(TIMEOUT, fetcher.get()).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
            };
            let Some(set) = task.learn(answer, Timestamp::now()) else { continue };
            if out.send(set).await.is_err() {
                return;
            }
        }
    }
}

struct Task {
    source: HttpSource,
    /// Of the body that was taken up last.
    hash: Option<[u8; 32]>,
    claims: Claims,
    told: Option<DesiredSet>,
    /// In force; `None` before the first good answer.
    pods: Option<Vec<DesiredPod>>,
    /// Among the pods of the last body.
    conflicts: Vec<Problem>,
    /// What was logged, so that it is said once.
    trouble: Option<String>,
}

impl Task {
    /// The set to send, if this answer makes a new one.
    fn learn(&mut self, answer: Result<Vec<u8>, String>, now: Timestamp) -> Option<DesiredSet> {
        let mut problems = Vec::new();
        let taken = answer.and_then(|body| self.take_up(&body, now));
        if let Err(message) = taken {
            let message =
                if self.pods.is_some() { format!("{message} (what it answered last stays in force)") } else { message };
            problems.push(Problem::new(&self.source.url, message));
        }
        if self.hash.is_none() && self.pods.is_some() {
            let message = format!("zero-length data received from {}", self.source.url);
            problems.push(Problem::new(&self.source.url, message));
        }
        problems.extend(self.conflicts.iter().cloned());
        let words: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        let trouble = (!words.is_empty()).then(|| words.join("; "));
        match &trouble {
            Some(message) if self.trouble != trouble => {
                tracing::error!(url = %self.source.url, err = %message, "static pod URL gives no pods that can be used");
            }
            None if self.trouble.is_some() => {
                tracing::info!(url = %self.source.url, "static pod URL is in order again")
            }
            _ => {}
        }
        self.trouble = trouble;
        let pods = self.pods.clone()?;
        let set = DesiredSet { source: Source::Http, complete: true, pods, problems };
        if self.told.as_ref().is_some_and(|told| is_same_wish(told, &set)) {
            return None;
        }
        self.told = Some(set.clone());
        Some(set)
    }

    /// kubelet 1.36: an empty body wants no pods and is an error; a list with one bad pod is refused whole.
    fn take_up(&mut self, body: &[u8], now: Timestamp) -> Result<(), String> {
        if body.is_empty() {
            (self.hash, self.pods) = (None, Some(Vec::new()));
            self.conflicts.clear();
            return Ok(());
        }
        let hash: [u8; 32] = Sha256::digest(body).into();
        if self.hash == Some(hash) {
            return Ok(());
        }
        let url = self.source.url.clone();
        let origin =
            Origin { source: ApiSource::Http, path_or_url: url.clone(), node_name: self.source.node_name.clone() };
        let decoded = static_pods(body, &origin, now, self.source.gates).map_err(|e| e.to_string())?;
        let mut candidates = Vec::new();
        for pod in decoded {
            let pod = pod.map_err(|e| e.to_string())?;
            for warning in &pod.warnings {
                tracing::warn!(url = %url, "{warning}");
            }
            candidates.push(DesiredPod::from_static(pod, &url));
        }
        let before = self.pods.take().unwrap_or_default();
        for fresh in &mut candidates {
            if let Some(same) = before.iter().find(|b| b.is_same(fresh)) {
                *fresh = same.clone();
            }
        }
        let (pods, conflicts) = self.claims.settle(candidates);
        (self.pods, self.hash, self.conflicts) = (Some(pods), Some(hash), conflicts);
        Ok(())
    }
}
