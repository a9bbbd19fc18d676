//! Images. These scenarios have names in the registry for themselves.

use std::sync::Arc;
use std::time::Duration;

use rubelet_proto::cri;

use super::checks::{ensure, refused, same, some};
use super::{Bench, Result, suite};

suite! {
    "an image is pulled by tag and removed" [Registry] => tag;
    "an image is pulled without a tag" [Registry] => no_tag;
    "an image is pulled by digest" [Registry] => digest;
    "an image is found by all its names" [Registry] => names;
    "an image that is pulled is seen at once" [Registry] => at_once;
    "images are listed one by one" [Registry] => listed;
    "the tags of an image are listed together" [Registry] => tags;
    "an image that is removed by one tag is gone with all" [Registry] => removed_by_tag;
    "an image can be removed by many at once" [Registry] => removed_at_once;
    "an image that never was is removed without harm" => never_was;
    "an image's user is told" [Registry] => user;
    "an image that is nowhere is not pulled" [Registry] => nowhere;
    "a pull that is broken off can be made again" [Registry] => broken_off;
    "a pull of an image that is there is quick and the same" [Registry] => again;
    "details of an image are told when asked" [Registry] => details;
    "a container keeps its image's name" [Registry] => in_use;
}

fn spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..Default::default() }
}

impl Bench {
    async fn pull(&self, name: &str) -> Result<String> {
        Ok(self.runtime().pull_image(spec(&self.in_registry(name)), None, None).await?)
    }

    /// By its full name.
    async fn image(&self, name: &str) -> Result<Option<cri::Image>> {
        Ok(self.runtime().image_status(spec(name), false).await?.image)
    }

    async fn forget(&self, name: &str) -> Result {
        Ok(self.runtime().remove_image(spec(&self.in_registry(name))).await?)
    }

    /// Images of the registry that are here: their tags without the registry's name.
    async fn tags(&self) -> Result<Vec<Vec<String>>> {
        let images = self.runtime().list_images(None).await?;
        let prefix = format!("{}/", self.settings.registry);
        let tags = |image: cri::Image| {
            let ours = image.repo_tags.iter().filter_map(|tag| tag.strip_prefix(&prefix));
            let mut ours: Vec<String> = ours.map(str::to_owned).collect();
            ours.sort();
            ours
        };
        let mut all: Vec<Vec<String>> = images.into_iter().map(tags).filter(|tags| !tags.is_empty()).collect();
        all.sort();
        Ok(all)
    }

    /// Removes every image of the registry.
    async fn clear(&self) -> Result {
        for tag in self.tags().await?.into_iter().flatten() {
            self.forget(&tag).await?;
        }
        same("images of the registry", self.tags().await?, Vec::<Vec<String>>::new())
    }
}

async fn pulled_and_removed(bench: &Arc<Bench>, name: &str, shown: &str) -> Result {
    bench.clear().await?;
    let reference = bench.pull(name).await?;
    ensure(!reference.is_empty(), || "no reference is told".to_owned())?;
    let full = bench.in_registry(name);
    let image = some("the image", bench.image(&full).await?)?;
    ensure(image.size > 0, || "its size is not told".to_owned())?;
    ensure(image.repo_tags.contains(&bench.in_registry(shown)), || format!("its tags: {:?}", image.repo_tags))?;
    let repository = full.rsplit_once(':').map_or(full.as_str(), |(repository, _)| repository);
    ensure(!image.repo_digests.is_empty() && image.repo_digests.iter().all(|d| d.contains("@sha256:")), || {
        format!("its digests: {:?}", image.repo_digests)
    })?;
    ensure(image.repo_digests[0].starts_with(repository) || !name.contains(':'), || {
        format!("its digests: {:?}", image.repo_digests)
    })?;
    bench.forget(name).await?;
    same("after its removal", bench.image(&full).await?, None)?;
    bench.forget(name).await
}

async fn tag(bench: Arc<Bench>) -> Result {
    pulled_and_removed(&bench, "contract/first:1", "contract/first:1").await
}

async fn no_tag(bench: Arc<Bench>) -> Result {
    pulled_and_removed(&bench, "contract/first", "contract/first:latest").await
}

async fn digest(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    bench.pull("contract/first:1").await?;
    let image = some("the image", bench.image(&bench.in_registry("contract/first:1")).await?)?;
    let by_digest = some("its digest", image.repo_digests.first().cloned())?;
    bench.clear().await?;
    bench.runtime().pull_image(spec(&by_digest), None, None).await?;
    let again = some("the image", bench.image(&by_digest).await?)?;
    same("the ids", again.id.as_str(), image.id.as_str())?;
    same("the digests", &again.repo_digests, &image.repo_digests)?;
    same("the tags", again.repo_tags, Vec::<String>::new())?;
    bench.runtime().remove_image(spec(&by_digest)).await?;
    same("after its removal", bench.image(&by_digest).await?, None)
}

async fn names(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    let reference = bench.pull("contract/first:1").await?;
    let image = some("the image", bench.image(&bench.in_registry("contract/first:1")).await?)?;
    let bare = image.id.trim_start_matches("sha256:").to_owned();
    let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id, &bare, &reference]);
    for name in names {
        let found = some(&format!("the image {name}"), bench.image(name).await?)?;
        same(name, found.id.as_str(), image.id.as_str())?;
    }
    // Not all runtimes narrow this list.
    let filter = cri::ImageFilter { image: Some(spec(&bench.in_registry("contract/first:1"))) };
    let rows = bench.runtime().list_images(Some(filter)).await?;
    ensure(rows.iter().any(|row| row.id == image.id), || "it is not in the list of this image".to_owned())
}

async fn at_once(bench: Arc<Bench>) -> Result {
    for _ in 0..3 {
        bench.clear().await?;
        bench.pull("contract/second:1").await?;
        same("the list", bench.tags().await?, [["contract/second:1"]])?;
        some("the status", bench.image(&bench.in_registry("contract/second:1")).await?)?;
        bench.forget("contract/second:1").await?;
        same("the status after", bench.image(&bench.in_registry("contract/second:1")).await?, None)?;
        same("the list after", bench.tags().await?, Vec::<Vec<String>>::new())?;
    }
    Ok(())
}

async fn listed(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    for name in ["contract/first:1", "contract/second:1", "contract/third:1"] {
        bench.pull(name).await?;
    }
    same("the images", bench.tags().await?, [["contract/first:1"], ["contract/second:1"], ["contract/third:1"]])?;
    bench.clear().await
}

const TAGS: [&str; 3] = ["contract/tags:a", "contract/tags:b", "contract/tags:c"];

async fn tags(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    for name in TAGS {
        bench.pull(name).await?;
    }
    same("the images", bench.tags().await?, [TAGS])?;
    bench.clear().await
}

async fn removed_by_tag(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    for name in TAGS {
        bench.pull(name).await?;
    }
    bench.forget(TAGS[1]).await?;
    same("the images", bench.tags().await?, Vec::<Vec<String>>::new())
}

async fn removed_at_once(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    bench.pull("contract/first:1").await?;
    let mut removals = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let bench = bench.clone();
        removals.spawn(async move { bench.forget("contract/first:1").await });
    }
    while let Some(done) = removals.join_next().await {
        done.map_err(|error| super::Failure::Said(error.to_string()))??;
    }
    same("the images", bench.tags().await?, Vec::<Vec<String>>::new())
}

async fn never_was(bench: Arc<Bench>) -> Result {
    let name = spec("localhost/never/was:1");
    for _ in 0..2 {
        bench.runtime().remove_image(name.clone()).await?;
    }
    Ok(())
}

async fn user(bench: Arc<Bench>) -> Result {
    let told = async |name: &str| -> Result<(Option<i64>, String)> {
        bench.pull(name).await?;
        let image = some("the image", bench.image(&bench.in_registry(name)).await?)?;
        Ok((image.uid.map(|uid| uid.value), image.username))
    };
    same("a number", told("contract/user:1").await?, (Some(1002), String::new()))?;
    same("a name", told("contract/username:1").await?, (None, "www-data".to_owned()))?;
    // Root is told as a number, or not at all.
    let (uid, name) = told("contract/first:1").await?;
    ensure(name.is_empty() && uid.unwrap_or(0) == 0, || format!("nobody: {uid:?} {name:?}"))
}

async fn nowhere(bench: Arc<Bench>) -> Result {
    let error = refused(
        "an image that is nowhere",
        bench.runtime().pull_image(spec(&bench.in_registry("contract/no:1")), None, None).await,
    )?;
    ensure(error.message().contains("contract/no"), || format!("the image is not named: {error}"))?;
    same("the code", error.code(), Some(rubelet_cri::Code::NotFound))
}

async fn broken_off(bench: Arc<Bench>) -> Result {
    bench.clear().await?;
    let name = bench.in_registry("contract/third:1");
    let pull = bench.runtime().pull_image(spec(&name), None, None);
    let soon = tokio::time::timeout(Duration::from_millis(1), pull).await;
    ensure(soon.is_err(), || "it took less than a millisecond".to_owned())?;
    bench.pull("contract/third:1").await?;
    some("the image", bench.image(&name).await?).map(drop)
}

async fn again(bench: Arc<Bench>) -> Result {
    let first = bench.pull("contract/first:1").await?;
    same("the second reference", bench.pull("contract/first:1").await?, first)
}

async fn details(bench: Arc<Bench>) -> Result {
    bench.pull("contract/entry:1").await?;
    let spec = spec(&bench.in_registry("contract/entry:1"));
    let answer = bench.runtime().image_status(spec.clone(), true).await?;
    // The kubelet reads the image's configuration from here.
    let info = some("the details", answer.info.get("info"))?;
    ensure(info.contains("imageSpec") && info.contains("of the image"), || format!("the details: {info}"))?;
    let brief = bench.runtime().image_status(spec, false).await?;
    ensure(brief.info.is_empty(), || "nobody asked".to_owned())
}

async fn in_use(bench: Arc<Bench>) -> Result {
    let reference = bench.pull("contract/second:1").await?;
    let name = bench.in_registry("contract/second:1");
    let pod = bench.pod().await?;
    // As the kubelet does: by what the pull answered, with the manifest's name beside it.
    let id = pod
        .waiting_with("a", |config| {
            config.image = Some(cri::ImageSpec {
                image: reference.clone(),
                user_specified_image: name.clone(),
                ..Default::default()
            });
        })
        .await?;
    let status = pod.status(&id).await?;
    let shown = status.image.map(|image| image.image).unwrap_or_default();
    ensure(shown == name || shown == reference, || format!("the image is called {shown}"))?;
    bench.forget("contract/second:1").await?;
    same("the container runs", pod.status(&id).await?.state(), cri::ContainerState::ContainerRunning)?;
    pod.sh(&id, "ls /bin/busybox").await.map(drop)
}
