//! Seeing that an image is there: look, pull by policy, one at a time or in parallel as configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::ContainerName;
use rubelet_core::pod::fact::{Done, ImageFound, Pulled, VolumeImage};
use rubelet_core::pod::step::{ImageWish, PullPolicy};
use rubelet_core::pod::{Fact, Outcome, StepFailure};
use rubelet_core::pulled::Credentials;
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::failed;
use crate::credentials::{Found, of_secrets};
use crate::hands::Hands;
use crate::pulled::PullRecords;
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
    let policy = match wish.policy {
        PullPolicy::Always => "always",
        PullPolicy::IfNotPresent => "ifnotpresent",
        PullPolicy::Never => "never",
    };
    let wanted = |is_present, is_pulled| hands.metrics.image_wanted(policy, is_present, is_pulled);
    let reference = with_tag(&wish.image).inspect_err(|_| wanted(None, None))?;
    let spec = cri::ImageSpec {
        image: reference,
        user_specified_image: wish.image.clone(),
        runtime_handler: wish.runtime_handler.clone(),
        ..Default::default()
    };
    let is_present = match wish.policy {
        PullPolicy::Always => None,
        PullPolicy::IfNotPresent | PullPolicy::Never => {
            let look = hands.runtime.image_status(spec.clone(), false).await;
            let found = look.map_err(|e| inspect_failed(wish, &e)).inspect_err(|_| wanted(None, None))?.image;
            if let Some(image) = &found
                && may_have(hands, wish, &spec.image, &image.id).await
            {
                wanted(Some(true), Some(false));
                let is_unchecked = hands.pulled.is_none();
                return Ok(ImageFound { is_unchecked, ..there(image, None) });
            }
            Some(found.is_some())
        }
    };
    if wish.policy == PullPolicy::Never {
        wanted(is_present, is_present.filter(|is| *is));
        // Kubelet 1.36: the same words for one that is here and not for this pod, which need not know that it is.
        return Err(failed(
            "ErrImageNeverPull",
            format!("Container image \"{}\" is not present with pull policy of Never", wish.image),
        ));
    }
    wanted(is_present, Some(true));
    if let Some((inbox, container)) = told
        && inbox.send(Note::Fact(Fact::Pulling(container))).await.is_err()
    {
        tracing::trace!("a pull outlived its worker");
    }
    pull(hands, wish, spec).await
}

/// Whether the pod may have an image that is here as it is.
async fn may_have(hands: &Hands, wish: &ImageWish, reference: &str, image_ref: &str) -> bool {
    let Some(records) = hands.pulled.clone() else { return true };
    let (found, problems) = of_secrets(reference, &wish.pull_secrets);
    warn_of(wish, problems);
    let shown: Vec<_> = found.into_iter().filter_map(|one| one.secret).collect();
    let (image, image_ref) = (wish.image.clone(), image_ref.to_owned());
    let judged = rubelet_host::task::blocking(move || records.may_have(&image, &image_ref, &shown)).await;
    judged.unwrap_or_else(|err| {
        tracing::error!(%err, image = wish.image, "asking whether a pod may have an image failed, it must be pulled");
        false
    })
}

async fn pull(hands: &Hands, wish: &ImageWish, spec: cri::ImageSpec) -> Result<ImageFound, StepFailure> {
    let under_way = UnderWay::begin(hands.pulled.clone(), &wish.image).await?;
    let waited_since = Instant::now();
    let _turn = hands.pulls.turn().await.map_err(|message| failed("ErrImagePull", message))?;
    let pulled_since = Instant::now();
    let (reference, credentials) = pull_with_credentials(hands, wish, &spec).await?;
    let took = pulled_since.elapsed();
    let took_with_waiting = waited_since.elapsed();
    under_way.succeeded(&reference, credentials).await;
    let pulled = cri::ImageSpec { image: reference, ..spec };
    let image = hands.runtime.image_status(pulled, false).await.map_err(|e| inspect_failed(wish, &e))?.image;
    let Some(image) = image else {
        return Err(failed("ErrImagePull", format!("image \"{}\" was pulled and is not there", wish.image)));
    };
    hands.metrics.pull(image.size).took(took);
    let pulled = Pulled { took, took_with_waiting, size_bytes: image.size };
    Ok(there(&image, Some(pulled)))
}

/// A pull that was written down. When it is dropped it has failed, or nobody waits for it any more.
struct UnderWay {
    records: Option<Arc<PullRecords>>,
    image: String,
}

impl UnderWay {
    async fn begin(records: Option<Arc<PullRecords>>, image: &str) -> Result<Self, StepFailure> {
        let image = image.to_owned();
        let Some(records) = records else { return Ok(Self { records: None, image }) };
        let name = image.clone();
        // When nobody waits for it any more, what it returns is dropped.
        let begin = move || records.begin(&name).map(|()| Self { records: Some(records), image: name });
        let begun = rubelet_host::task::blocking(begin).await.map_err(|e| e.to_string());
        begun.and_then(|begun| begun).map_err(|e| {
            let reason = format!("failed to record image pull intent: {e}");
            let words = format!("Failed to record image pull intent for container image \"{image}\": {reason}");
            failed(&reason, words)
        })
    }

    async fn succeeded(mut self, reference: &str, credentials: Credentials) {
        let Some(records) = self.records.take() else { return };
        let (image, reference) = (std::mem::take(&mut self.image), reference.to_owned());
        let noted = rubelet_host::task::blocking(move || records.pulled(&image, &reference, &credentials)).await;
        if let Err(err) = noted {
            tracing::error!(%err, "writing down how an image was pulled failed");
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(records) = self.records.take() {
            records.ended(&self.image);
        }
    }
}

/// Tries each credential that fits the image, or none when there is none; the image's id, and who may have it for that.
async fn pull_with_credentials(
    hands: &Hands,
    wish: &ImageWish,
    spec: &cri::ImageSpec,
) -> Result<(String, Credentials), StepFailure> {
    let (found, problems) = hands.credentials.all_for_image(&spec.image, &wish.pull_secrets).await;
    warn_of(wish, problems);
    let mut tries: Vec<(Option<cri::AuthConfig>, Credentials)> = Vec::new();
    for Found { auth, secret } in found {
        // One that has failed would fail again.
        if tries.iter().all(|(before, _)| before.as_ref() != Some(&auth)) {
            tries.push((Some(auth), secret.map_or_else(Credentials::for_all, Credentials::of_secret)));
        }
    }
    if tries.is_empty() {
        tries.push((None, Credentials::for_all()));
    }
    let mut errors = Vec::new();
    for (auth, credentials) in tries {
        match hands.runtime.pull_image(spec.clone(), auth, Some((*wish.sandbox).clone())).await {
            Ok(reference) => return Ok((reference, credentials)),
            Err(e) => errors.push(e),
        }
    }
    Err(pull_failed(&errors))
}

fn warn_of(wish: &ImageWish, problems: Vec<String>) {
    for problem in problems {
        tracing::warn!(image = %wish.image, err = %problem, "credentials cannot be used, they are left out");
    }
}

fn pull_failed(errors: &[RuntimeError]) -> StepFailure {
    // Kubelet 1.36: what is said twice is told once.
    let mut said: Vec<String> = Vec::new();
    for text in errors.iter().map(ToString::to_string) {
        if !said.contains(&text) {
            said.push(text);
        }
    }
    let message = match &said[..] {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
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
        is_unchecked: false,
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
