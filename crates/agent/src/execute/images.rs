//! Seeing that an image is there: look, pull by policy, one at a time or in parallel as configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::ContainerName;
use rubelet_core::pod::fact::{Done, ImageFound, Pulled, VolumeImage};
use rubelet_core::pod::step::{ImageWish, PullPolicy};
use rubelet_core::pod::{Fact, Outcome, StepFailure};
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::failed;
use crate::hands::Hands;
use crate::worker::Note;

/// Kubelet 1.36: these prefixes of a runtime's pull error become the waiting reason.
const REASONS_IN_ERRORS: [&str; 2] = ["RegistryUnavailable", "SignatureValidationFailed"];

pub(super) async fn ensure(
    hands: &Arc<Hands>,
    container: ContainerName,
    wish: ImageWish,
    inbox: &mpsc::Sender<Note>,
) -> Outcome {
    let mut volumes = BTreeMap::new();
    for of in &wish.volumes {
        let one = ImageWish { image: of.image.clone(), policy: of.policy, volumes: Vec::new(), ..wish.clone() };
        let found = find(hands, &one, None).await;
        let found = found.map_err(|e| failed(&e.reason, format!("image volume {:?}: {}", of.volume, e.message)))?;
        let image = VolumeImage { image: of.image.clone(), image_ref: found.image_ref, pulled: found.pulled };
        volumes.insert(of.volume.clone(), image);
    }
    let found = find(hands, &wish, Some((inbox, container))).await?;
    Ok(Done::Image(ImageFound { volumes, ..found }))
}

/// One image by its policy; `told` hears before it is pulled.
async fn find(
    hands: &Hands,
    wish: &ImageWish,
    told: Option<(&mpsc::Sender<Note>, ContainerName)>,
) -> Result<ImageFound, StepFailure> {
    let reference = with_tag(&wish.image)?;
    let spec = cri::ImageSpec {
        image: reference,
        user_specified_image: wish.image.clone(),
        runtime_handler: wish.runtime_handler.clone(),
        ..Default::default()
    };
    let found = hands.runtime.image_status(spec.clone(), false).await.map_err(|e| inspect_failed(wish, &e))?.image;
    let (policy, is_pulled) = match wish.policy {
        PullPolicy::Always => ("always", true),
        PullPolicy::IfNotPresent => ("ifnotpresent", found.is_none()),
        PullPolicy::Never => ("never", false),
    };
    hands.metrics.image_wanted(policy, found.is_some(), is_pulled);
    match (wish.policy, found) {
        (PullPolicy::Never | PullPolicy::IfNotPresent, Some(image)) => Ok(there(&image, None)),
        (PullPolicy::Never, None) => Err(failed(
            "ErrImageNeverPull",
            format!("Container image \"{}\" is not present with pull policy of Never", wish.image),
        )),
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => {
            if let Some((inbox, container)) = told
                && inbox.send(Note::Fact(Fact::Pulling(container))).await.is_err()
            {
                tracing::trace!("a pull outlived its worker");
            }
            pull(hands, wish, spec).await
        }
    }
}

async fn pull(hands: &Hands, wish: &ImageWish, spec: cri::ImageSpec) -> Result<ImageFound, StepFailure> {
    let waited_since = Instant::now();
    let _turn = hands.pulls.turn().await.map_err(|message| failed("ErrImagePull", message))?;
    let pulled_since = Instant::now();
    let reference = pull_with_credentials(hands, wish, &spec).await?;
    let took = pulled_since.elapsed();
    let took_with_waiting = waited_since.elapsed();
    let pulled = cri::ImageSpec { image: reference, ..spec };
    let image = hands.runtime.image_status(pulled, false).await.map_err(|e| inspect_failed(wish, &e))?.image;
    let Some(image) = image else {
        return Err(failed("ErrImagePull", format!("image \"{}\" was pulled and is not there", wish.image)));
    };
    hands.metrics.pull(image.size).took(took);
    let pulled = Pulled { took, took_with_waiting, size_bytes: image.size };
    Ok(there(&image, Some(pulled)))
}

/// Tries each credential that fits the image, or none when there is none.
async fn pull_with_credentials(hands: &Hands, wish: &ImageWish, spec: &cri::ImageSpec) -> Result<String, StepFailure> {
    let (found, problems) = hands.credentials.all_for_image(&spec.image, &wish.pull_secrets).await;
    for problem in problems {
        tracing::warn!(image = %wish.image, err = %problem, "credentials cannot be used, they are left out");
    }
    let mut auths: Vec<Option<cri::AuthConfig>> = found.into_iter().map(Some).collect();
    if auths.is_empty() {
        auths.push(None);
    }
    let mut errors = Vec::new();
    for auth in auths {
        match hands.runtime.pull_image(spec.clone(), auth, Some((*wish.sandbox).clone())).await {
            Ok(reference) => return Ok(reference),
            Err(e) => errors.push(e),
        }
    }
    Err(pull_failed(&errors))
}

fn pull_failed(errors: &[RuntimeError]) -> StepFailure {
    let message = match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    for reason in REASONS_IN_ERRORS {
        if let [one] = errors
            && let Some(rest) = one.message().strip_prefix(reason)
        {
            return failed(reason, rest.trim_start_matches([':', ' ']).to_owned());
        }
    }
    failed("ErrImagePull", message)
}

fn inspect_failed(wish: &ImageWish, error: &RuntimeError) -> StepFailure {
    failed("ImageInspectError", format!("Failed to inspect image \"{}\": {error}", wish.image))
}

fn there(image: &cri::Image, pulled: Option<Pulled>) -> ImageFound {
    // Kubelet 1.36: an image that names no user runs as root.
    let root = image.username.is_empty().then_some(0);
    ImageFound {
        image_ref: image.id.clone(),
        uid: image.uid.as_ref().map(|u| u.value).or(root),
        username: image.username.clone(),
        pulled,
        volumes: BTreeMap::new(),
    }
}

/// Adds `:latest` to a reference that has neither tag nor digest.
///
/// Kubelet 1.36: a reference that cannot be one is `InvalidImageName`.
fn with_tag(image: &str) -> Result<String, StepFailure> {
    let invalid = |why: &str| {
        let text =
            format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}");
        failed("InvalidImageName", text)
    };
    let first = image.split('/').next().filter(|f| f.len() < image.len());
    let has_domain =
        first.is_some_and(|f| f.contains(['.', ':']) || f == "localhost" || f.bytes().any(|b| b.is_ascii_uppercase()));
    let remainder = match first {
        Some(first) if has_domain => image[first.len() + 1..].to_owned(),
        Some(_) => image.to_owned(),
        None => format!("library/{image}"),
    };
    let remote_name = remainder.split(':').next().unwrap_or_default();
    if remote_name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(invalid(&format!("invalid reference format: repository name ({remote_name}) must be lowercase")));
    }
    let (name, digest) = remainder.split_once('@').map_or((remainder.as_str(), None), |(n, d)| (n, Some(d)));
    let after_slash = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[after_slash..].find(':') {
        Some(i) => (&name[..after_slash + i], Some(&name[after_slash + i + 1..])),
        None => (name, None),
    };
    let is_component = |c: &str| {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !c.is_empty()
            && c.bytes().all(|b| alnum(b) || b"._-".contains(&b))
            && alnum(c.as_bytes()[0])
            && alnum(c.as_bytes()[c.len() - 1])
    };
    let tag_ok = tag.is_none_or(|t| {
        !t.is_empty()
            && t.len() <= 128
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !t.starts_with(['.', '-'])
    });
    let digest_ok = digest.is_none_or(|d| {
        d.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        })
    });
    if !repository.split('/').all(is_component) || !tag_ok || !digest_ok {
        return Err(invalid("invalid reference format"));
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tag_is_latest_and_nothing_else_changes() {
        for (given, wanted) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.15", "nginx:1.15"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            (
                "registry.k8s.io/pause@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "registry.k8s.io/pause@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
        ] {
            assert_eq!(with_tag(given).as_deref(), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in ["", ":tag", "Nginx", "a//b", "nginx:", "nginx:a b", "-x", "nginx@sha256:12", "a/b?c"] {
            let failure = with_tag(bad).expect_err(bad);
            assert_eq!(failure.reason, "InvalidImageName", "{bad}");
        }
    }
}
