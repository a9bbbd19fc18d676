//! The requests themselves.

use std::sync::{Arc, Mutex, PoisonError};

use rubelet_api::ids::PodKey;
use rubelet_api::v1;
use rubelet_apiserver::{Client, DeleteOptions, Error, Patch, Path, Preconditions, nodes};
use rubelet_core::pod::mirror;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::roster::RosterNote;

/// One request, or a question and a request.
pub(super) enum Errand {
    Patch {
        key: PodKey,
        patch: Value,
    },
    Delete {
        key: PodKey,
        uid: String,
    },
    /// Unless the roster knows a pod of the UID `shows`.
    DeleteUnless {
        key: PodKey,
        uid: String,
        shows: String,
    },
    Mirror(Arc<v1::Pod>),
}

/// What became of it.
pub(super) enum Done {
    /// The object as it is now.
    Object(Box<v1::Pod>),
    Well,
    /// The object is no longer there, as far as the API server knows; the watch will tell.
    Gone,
    /// It is not known yet whether it is to be done, or the object has changed meanwhile: it is decided anew.
    Later,
    Failed(Error),
}

/// Who sends.
pub(super) struct Post {
    client: Client,
    node_name: String,
    /// Of the node's object, once it is known.
    node_uid: Mutex<Option<String>>,
    roster: mpsc::Sender<RosterNote>,
}

impl Post {
    pub(super) fn new(client: Client, node_name: &str, roster: mpsc::Sender<RosterNote>) -> Self {
        Self { client, node_name: node_name.to_owned(), node_uid: Mutex::new(None), roster }
    }

    pub(super) async fn run(&self, errand: Errand) -> Done {
        match errand {
            Errand::Patch { key, patch } => {
                let path = path(&key).part("status");
                match self.client.patch::<v1::Pod>(&path, &Patch::StrategicMerge(patch)).await {
                    Ok(object) => Done::Object(Box::new(object)),
                    Err(error) => refused(error),
                }
            }
            Errand::Delete { key, uid } => self.delete(&key, uid).await,
            Errand::DeleteUnless { key, uid, shows } => match self.is_known(&shows).await {
                Some(false) => self.delete(&key, uid).await,
                // Known and not shown: it comes or goes. Whether it goes, nobody else tells.
                Some(true) | None => Done::Later,
            },
            Errand::Mirror(pod) => self.mirror(&pod).await,
        }
    }

    async fn delete(&self, key: &PodKey, uid: String) -> Done {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
        };
        match self.client.delete(&path(key), &options).await {
            Ok(()) => Done::Well,
            Err(error) => refused(error),
        }
    }

    /// Whether the node has a pod of this UID; `None`: not every source has spoken.
    async fn is_known(&self, uid: &str) -> Option<bool> {
        let (asker, answer) = oneshot::channel();
        self.roster.send(RosterNote::Known(asker)).await.ok()?;
        let known = answer.await.ok()?;
        let is_there = known.uids.iter().any(|known| known.as_str() == uid);
        (known.is_all || is_there).then_some(is_there)
    }

    async fn mirror(&self, pod: &v1::Pod) -> Done {
        let node_uid = match self.node_uid().await {
            Ok(Some(uid)) => uid,
            Ok(None) => return Done::Later,
            // The node registers itself: it will be there.
            Err(error) if error.is_not_found() => return Done::Later,
            Err(error) => return Done::Failed(error),
        };
        let object = mirror::object(pod, &self.node_name, &node_uid);
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        match self.client.create(&Path::within::<v1::Pod>(&namespace), &object).await {
            Ok(object) => Done::Object(Box::new(object)),
            Err(error) => {
                // Another node of that name may have taken its place.
                *self.node_uid.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Done::Failed(error)
            }
        }
    }

    /// `None`: the node is being deleted.
    async fn node_uid(&self) -> Result<Option<String>, Error> {
        if let Some(known) = self.node_uid.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(Some(known));
        }
        let node = nodes::get_cached(&self.client, &self.node_name).await?;
        let uid = node.metadata.uid.filter(|_| node.metadata.deletion_timestamp.is_none());
        self.node_uid.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&uid);
        Ok(uid)
    }
}

/// A conflict may be with another object of the name, or with somebody who writes the same one all the time: only in the first case will
/// the watch tell anything new.
fn refused(error: Error) -> Done {
    match error {
        error if error.is_not_found() => Done::Gone,
        error if error.is_conflict() => Done::Later,
        error => Done::Failed(error),
    }
}

fn path(key: &PodKey) -> Path {
    Path::to::<v1::Pod>(&key.namespace, &key.name)
}
