//! The life of containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rubelet_api::ids::ContainerId;
use rubelet_cri::Code;
use rubelet_proto::cri::{self, ContainerState};

use super::checks::{ensure, refused, same};
use super::{Bench, Pod, Result, suite};

suite! {
    "a container is created and told with all its attributes" => creates;
    "a container is started" => starts;
    "a container is started only once" => starts_once;
    "a container is stopped, twice without harm" => stops;
    "a container that was created only can be removed" => removes_created;
    "a running container is removed by force" => removes_running;
    "a stopped container is removed, twice without harm" => removes_stopped;
    "containers that never were are stopped and removed without harm" => unknown;
    "the list of containers can be narrowed" => filters;
    "a container needs a sandbox that is there" => needs_a_sandbox;
    "no container is started in a stopped sandbox" => needs_a_ready_sandbox;
    "a container needs an image that is there" [Processes] => needs_an_image;
    "a container's status tells details when asked" [Processes] => details;
    "the image's id is told" [Processes] => image_id;
}

async fn state(pod: &Pod, id: &ContainerId) -> Result<ContainerState> {
    Ok(pod.status(id).await?.state())
}

async fn creates(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let config = pod.container("a", &["sleep", "1000"]);
    let id = pod.create(config.clone()).await?;
    let status = pod.status(&id).await?;
    same("the id", status.id.as_str(), id.as_str())?;
    same("the state", status.state(), ContainerState::ContainerCreated)?;
    same("the metadata", &status.metadata, &config.metadata)?;
    same("the labels", &status.labels, &config.labels)?;
    same("the annotations", &status.annotations, &config.annotations)?;
    same("the log", status.log_path.as_str(), format!("{}/a.log", pod.config.log_directory))?;
    same("the image's name", status.image.map(|image| image.image), config.image.as_ref().map(|i| i.image.clone()))?;
    ensure(!status.image_ref.is_empty(), || "the image's reference is not told".to_owned())?;
    ensure(status.created_at > 0, || "the time of its creation is not told".to_owned())?;
    same("times that are not yet", (status.started_at, status.finished_at), (0, 0))?;

    let filter = cri::ContainerFilter { id: id.to_string(), ..Default::default() };
    let rows = bench.runtime().list_containers(Some(filter)).await?;
    same("the number of rows", rows.len(), 1)?;
    let row = &rows[0];
    same("the row's sandbox", row.pod_sandbox_id.as_str(), pod.id.as_str())?;
    same("the row's state", row.state(), ContainerState::ContainerCreated)?;
    same("the row's metadata", &row.metadata, &config.metadata)?;
    same("the row's labels", &row.labels, &config.labels)?;
    same("the row's annotations", &row.annotations, &config.annotations)?;
    same("the row's image", row.image.as_ref().map(|i| &i.image), config.image.as_ref().map(|i| &i.image))?;
    same("the row's image reference", row.image_ref.as_str(), status.image_ref.as_str())?;
    same("the row's time", row.created_at, status.created_at)
}

async fn starts(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let status = pod.status(&id).await?;
    same("the state", status.state(), ContainerState::ContainerRunning)?;
    ensure(status.started_at >= status.created_at, || format!("its times: {status:?}"))?;
    same("what is not yet", (status.finished_at, status.exit_code, status.reason.as_str()), (0, 0, ""))
}

async fn starts_once(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    refused("another start", bench.runtime().start_container(&id).await)?;
    same("the state", state(&pod, &id).await?, ContainerState::ContainerRunning)?;
    bench.runtime().stop_container(&id, 2).await?;
    refused("a start after the end", bench.runtime().start_container(&id).await).map(drop)
}

async fn stops(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let mut finished = None;
    for _ in 0..2 {
        bench.runtime().stop_container(&id, 2).await?;
        let status = pod.status(&id).await?;
        same("the state", status.state(), ContainerState::ContainerExited)?;
        ensure(status.finished_at >= status.started_at, || format!("its times: {status:?}"))?;
        same("its end", *finished.get_or_insert(status.finished_at), status.finished_at)?;
    }
    Ok(())
}

async fn is_gone(pod: &Pod, id: &ContainerId) -> Result {
    let error = refused("the status of what was removed", pod.runtime().container_status(id, false).await)?;
    same("the code", error.code(), Some(Code::NotFound))?;
    let filter = cri::ContainerFilter { id: id.to_string(), ..Default::default() };
    same("the list", pod.listed(filter).await?, Vec::<String>::new())
}

async fn removes_created(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.create(pod.container("a", &["true"])).await?;
    bench.runtime().remove_container(&id).await?;
    is_gone(&pod, &id).await
}

async fn removes_running(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    bench.runtime().remove_container(&id).await?;
    is_gone(&pod, &id).await
}

async fn removes_stopped(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    bench.runtime().stop_container(&id, 2).await?;
    for _ in 0..2 {
        bench.runtime().remove_container(&id).await?;
        is_gone(&pod, &id).await?;
    }
    bench.runtime().stop_container(&id, 1).await.or_else(|error| match error.is_not_found() {
        true => Ok(()),
        false => Err(error.into()),
    })
}

async fn unknown(bench: Arc<Bench>) -> Result {
    let id = ContainerId::from("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    bench.runtime().remove_container(&id).await?;
    if let Err(error) = bench.runtime().stop_container(&id, 1).await {
        same("the code of stopping", error.code(), Some(Code::NotFound))?;
    }
    let error = refused("its status", bench.runtime().container_status(&id, false).await)?;
    same("the code of its status", error.code(), Some(Code::NotFound))?;
    let error = refused("its start", bench.runtime().start_container(&id).await)?;
    same("the code of its start", error.code(), Some(Code::NotFound))
}

async fn filters(bench: Arc<Bench>) -> Result {
    let (one, two) = (bench.pod().await?, bench.pod().await?);
    let mark = format!("m{}", bench.number());
    let labelled = |pod: &Pod, name: &str, colour: &str| {
        let mut config = pod.container(name, &["sleep", "1000"]);
        config.labels = BTreeMap::from([("mark".to_owned(), mark.clone()), ("colour".to_owned(), colour.to_owned())]);
        config
    };
    let created = one.create(labelled(&one, "a", "red")).await?;
    let running = one.start(labelled(&one, "b", "blue")).await?;
    let other = two.start(labelled(&two, "a", "red")).await?;
    bench.runtime().stop_container(&other, 0).await?;

    let state = |state: ContainerState| Some(cri::ContainerStateValue { state: state.into() });
    let marked = BTreeMap::from([("mark".to_owned(), mark.clone())]);
    let all = || cri::ContainerFilter { label_selector: marked.clone(), ..Default::default() };
    let red = BTreeMap::from([("mark".to_owned(), mark.clone()), ("colour".to_owned(), "red".to_owned())]);
    let of_one = cri::ContainerFilter { pod_sandbox_id: one.id.to_string(), ..Default::default() };
    let cases: [(&str, cri::ContainerFilter, Vec<&ContainerId>); 9] = [
        ("by id", cri::ContainerFilter { id: running.to_string(), ..Default::default() }, vec![&running]),
        ("by a label", all(), vec![&created, &running, &other]),
        ("by two labels", cri::ContainerFilter { label_selector: red, ..Default::default() }, vec![&created, &other]),
        ("by sandbox", of_one.clone(), vec![&created, &running]),
        ("created", cri::ContainerFilter { state: state(ContainerState::ContainerCreated), ..all() }, vec![&created]),
        ("running", cri::ContainerFilter { state: state(ContainerState::ContainerRunning), ..all() }, vec![&running]),
        ("exited", cri::ContainerFilter { state: state(ContainerState::ContainerExited), ..all() }, vec![&other]),
        ("by sandbox and another's id", cri::ContainerFilter { id: other.to_string(), ..of_one }, vec![]),
        ("by an id that is none", cri::ContainerFilter { id: "none".to_owned(), ..Default::default() }, vec![]),
    ];
    for (what, filter, wanted) in cases {
        let mut wanted: Vec<&str> = wanted.into_iter().map(ContainerId::as_str).collect();
        wanted.sort_unstable();
        same(what, one.listed(filter).await?, wanted)?;
    }
    let everything = bench.runtime().list_containers(None).await?;
    ensure([created, running, other].iter().all(|id| everything.iter().any(|row| row.id == id.as_str())), || {
        "without a filter not all are listed".to_owned()
    })
}

async fn needs_a_sandbox(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let config = pod.container("a", &["true"]);
    let unknown = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into();
    let answer = bench.runtime().create_container(&unknown, config, pod.config.clone()).await;
    refused("a container in no sandbox", answer).map(drop)
}

async fn needs_a_ready_sandbox(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let created = pod.create(pod.container("a", &["true"])).await?;
    bench.runtime().stop_pod_sandbox(&pod.id).await?;
    refused("a start in a stopped sandbox", bench.runtime().start_container(&created).await).map(drop)
}

async fn needs_an_image(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let image = Some(cri::ImageSpec { image: "localhost/no/such:image".to_owned(), ..Default::default() });
    let config = cri::ContainerConfig { image, ..pod.container("a", &["true"]) };
    refused("a container of no image", bench.runtime().create_container(&pod.id, config, pod.config.clone()).await)?;
    pod.create(pod.container("a", &["true"])).await.map(drop)
}

async fn details(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let verbose = bench.runtime().container_status(&id, true).await?;
    ensure(!verbose.info.is_empty(), || "there is no more".to_owned())?;
    let brief = bench.runtime().container_status(&id, false).await?;
    ensure(brief.info.is_empty(), || "nobody asked".to_owned())
}

async fn image_id(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let spec = cri::ImageSpec { image: bench.settings.image.clone(), ..Default::default() };
    let image = super::checks::some("the image", bench.runtime().image_status(spec, false).await?.image)?;
    let status = pod.status(&id).await?;
    same("the image's id", status.image_id.as_str(), image.id.as_str())?;
    let known = [&image.id].into_iter().chain(&image.repo_digests).any(|name| *name == status.image_ref);
    ensure(known, || format!("the reference {} is none of {image:?}", status.image_ref))
}
