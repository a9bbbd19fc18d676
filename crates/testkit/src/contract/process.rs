//! What the process of a container is started with.

use std::sync::Arc;

use rubelet_proto::cri;

use super::checks::same;
use super::pod::{resources, words};
use super::{Bench, Result, suite};

suite! {
    "a container has the variables that it is given" [Processes] => variables;
    "a container is started in its directory" [Processes] => directory;
    "arguments follow the command" [Processes] => arguments;
    "a container has its score for the kernel's killer" [Processes] => oom_score;
    "a container has a terminal when asked" [Processes] => terminal;
    "the image's entrypoint and command are started" [Registry] => image_command;
    "arguments replace the image's command" [Registry] => image_arguments;
    "a command replaces the image's entrypoint and command" [Registry] => image_replaced;
    "variables and directory of the image are there unless replaced" [Registry] => image_settings;
}

async fn variables(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let pair = |key: &str, value: &str| cri::KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec() };
    let said = pod
        .said("echo \"$A|$B|${PATH:+path}|$EMPTY|${EMPTY+set}\"", |config| {
            config.envs = vec![pair("A", "first"), pair("B", "a b=c"), pair("EMPTY", "")];
        })
        .await?;
    same("the variables", said.as_str(), "first|a b=c|path||set")
}

async fn directory(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same(
        "the directory",
        pod.said("pwd", |config| "/var/log".clone_into(&mut config.working_dir)).await?.as_str(),
        "/var/log",
    )?;
    let made = pod.said("pwd", |config| "/made/for/it".clone_into(&mut config.working_dir)).await?;
    same("one that was not there", made.as_str(), "/made/for/it")?;
    same("without one", pod.said("pwd", |_| {}).await?.as_str(), "/")
}

async fn arguments(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod.said("unused", |config| {
        config.command = words(&["sh", "-c", "echo $0 $1"]);
        config.args = words(&["one", "two"]);
    });
    same("what was started", said.await?.as_str(), "one two")
}

async fn oom_score(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod.said("cat /proc/self/oom_score_adj", |config| resources(config).oom_score_adj = 989).await?;
    same("the score", said.as_str(), "989")
}

async fn terminal(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let script = "test -t 0 && test -t 1 && echo yes || echo no";
    same("with", pod.said(script, |config| config.tty = true).await?.as_str(), "yes")?;
    same("without", pod.said(script, |_| {}).await?.as_str(), "no")
}

/// What a container of the image `entry` says.
async fn entry(bench: &Arc<Bench>, change: impl FnOnce(&mut cri::ContainerConfig)) -> Result<String> {
    let image = cri::ImageSpec { image: bench.in_registry("contract/entry:1"), ..Default::default() };
    bench.runtime().pull_image(image.clone(), None, None).await?;
    let pod = bench.pod().await?;
    let said = pod.said("unused", |config| {
        config.image = Some(image);
        config.command.clear();
        change(config);
    });
    said.await
}

async fn image_command(bench: Arc<Bench>) -> Result {
    same("what was said", entry(&bench, |_| {}).await?.as_str(), "of the image")
}

async fn image_arguments(bench: Arc<Bench>) -> Result {
    let said = entry(&bench, |config| config.args = words(&["of", "the", "pod"])).await?;
    same("what was said", said.as_str(), "of the pod")
}

async fn image_replaced(bench: Arc<Bench>) -> Result {
    let said = entry(&bench, |config| config.command = words(&["sh", "-c", "echo $# $0"])).await?;
    same("what was said", said.as_str(), "0 sh")
}

async fn image_settings(bench: Arc<Bench>) -> Result {
    let said = entry(&bench, |config| {
        config.command = words(&["sh", "-c", "echo $NAME $KEPT; pwd"]);
        config.envs = vec![cri::KeyValue { key: "NAME".to_owned(), value: b"pod".to_vec() }];
    });
    same("what was said", said.await?.as_str(), "pod kept\n/var/log")
}
