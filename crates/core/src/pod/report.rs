//! What the API server is told of the pods of one name: what it has, and what is shown here, give the next request.

mod merge;
mod patch;
#[cfg(test)]
mod tests;

use rubelet_api::v1;
use serde_json::{Value, json};

use super::Source;
use super::mirror;
use super::stage::Standing;

/// A pod as the node shows it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub source: Source,
    pub pod: &'a v1::Pod,
    pub status: &'a v1::PodStatus,
    pub standing: Standing,
}

/// The next request about the pods of one name.
#[derive(Clone, PartialEq, Debug)]
pub enum Request<'a> {
    /// Nothing to say.
    None,
    /// A strategic merge patch of the object's status; the UID in it is its precondition.
    Patch(Value),
    /// The object of this UID ends at once.
    Delete { uid: &'a str },
    /// The same, once it is certain that there is no static pod of this UID on the node.
    DeleteUnless { uid: &'a str, shows: &'a str },
    /// A mirror of this static pod.
    Mirror(&'a v1::Pod),
}

/// The next request: `object` is what the API server has under the name, as far as it is known; `told` what is here.
pub fn next<'a>(object: Option<&'a v1::Pod>, told: &[Told<'a>]) -> Request<'a> {
    let Some(object) = object else { return missing(told) };
    let Some(uid) = object.metadata.uid.as_deref() else { return Request::None };
    match mirror::shows(object) {
        Some(shows) => of_mirror(object, uid, shows, told),
        None => of_own(object, uid, told),
    }
}

/// kubelet 1.36: a static pod gets its mirror once no older pod of its name is there.
fn missing<'a>(told: &[Told<'a>]) -> Request<'a> {
    match told {
        [one] if one.source.is_static() && one.standing == Standing::Wanted => Request::Mirror(one.pod),
        _ => Request::None,
    }
}

fn of_mirror<'a>(object: &'a v1::Pod, uid: &'a str, shows: &'a str, told: &[Told<'a>]) -> Request<'a> {
    let statics = || told.iter().filter(|t| t.source.is_static());
    match statics().find(|t| mirror::hash(t.pod) == Some(shows)) {
        Some(shown) if object.metadata.deletion_timestamp.is_none() => patch(object, uid, shown),
        // It shows another pod, or goes: another one takes its place.
        Some(_) => Request::Delete { uid },
        None if statics().next().is_some() => Request::Delete { uid },
        None => Request::DeleteUnless { uid, shows },
    }
}

/// kubelet 1.36: a pod that is to be deleted goes when its end was told and nothing is used by it any more.
fn of_own<'a>(object: &'a v1::Pod, uid: &'a str, told: &[Told<'a>]) -> Request<'a> {
    let is_it = |t: &&Told<'_>| t.source == Source::Api && t.pod.metadata.uid.as_deref() == Some(uid);
    let Some(shown) = told.iter().find(is_it) else { return Request::None };
    match patch(object, uid, shown) {
        Request::None if object.metadata.deletion_timestamp.is_some() && shown.standing == Standing::Reclaimed => {
            Request::Delete { uid }
        }
        request => request,
    }
}

fn patch<'a>(object: &'a v1::Pod, uid: &'a str, shown: &Told<'a>) -> Request<'a> {
    let unsaid = v1::PodStatus::default();
    let known = object.status.as_ref().unwrap_or(&unsaid);
    let merged = merge::merged(known, shown.status, mirror::shows(object).is_some());
    match patch::of_status(known, &merged) {
        Some(status) => Request::Patch(json!({"metadata": {"uid": uid}, "status": status})),
        None => Request::None,
    }
}
