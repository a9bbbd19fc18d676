//! Commands that run in a container.

use std::sync::Arc;
use std::time::Duration;

use rubelet_cri::Code;
use rubelet_proto::cri;
use tokio::time::Instant;

use super::checks::{ensure, refused, same, until};
use super::pod::{SOON, words};
use super::{Bench, Result, suite};

suite! {
    "a command's output and code are the answer" [Processes] => output;
    "a command has the container's variables and directory" [Processes] => surroundings;
    "a command that takes too long is ended" [Processes] => timeout;
    "much output arrives whole" [Processes] => much;
    "a command that is not there is refused" [Processes] => absent;
    "no command runs in a container that does not run" [Processes] => not_running;
    "commands run at once" [Processes] => at_once;
    "a command's children do not keep it from its end" [Processes] => children;
}

async fn output(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let run = |script: &str| bench.runtime().exec_sync(&id, words(&["sh", "-c", script]), SOON);
    let answer = run("echo out; echo err >&2; exit 3").await?;
    let wanted = cri::ExecSyncResponse { stdout: b"out\n".to_vec(), stderr: b"err\n".to_vec(), exit_code: 3 };
    same("the answer", answer, wanted)?;
    same("without output", run("true").await?, cri::ExecSyncResponse::default())?;
    let answer = bench.runtime().exec_sync(&id, words(&["echo", "no limit"]), Duration::ZERO).await?;
    same("without a limit of time", answer.stdout, b"no limit\n".to_vec())
}

async fn surroundings(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod
        .waiting_with("a", |config| {
            config.envs = vec![cri::KeyValue { key: "OWN".to_owned(), value: b"of the pod".to_vec() }];
            "/var/log".clone_into(&mut config.working_dir);
        })
        .await?;
    same("what it has", pod.sh(&id, "echo $OWN; pwd").await?.as_str(), "of the pod\n/var/log")
}

async fn timeout(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let begun = Instant::now();
    let answer = bench.runtime().exec_sync(&id, words(&["sleep", "4321"]), Duration::from_secs(1)).await;
    let error = refused("a command that takes too long", answer)?;
    same("the code", error.code(), Some(Code::DeadlineExceeded))?;
    let took = begun.elapsed();
    ensure(took < Duration::from_secs(15), || format!("it took {took:?}"))?;
    until("the command is ended", SOON, async || {
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -c '^sleep 4321'; done | grep -c 1";
        let found = pod.sh(&id, &format!("{script}; true")).await?;
        Ok((found == "0").then_some(()))
    })
    .await
}

async fn much(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2";
    let answer = bench.runtime().exec_sync(&id, words(&["sh", "-c", script]), SOON).await?;
    same("the lengths", (answer.stdout.len(), answer.stderr.len(), answer.exit_code), (3_000_000, 1_000_000, 0))
}

async fn absent(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let answer = bench.runtime().exec_sync(&id, words(&["/no/such/program"]), SOON).await;
    let error = refused("a command that is not there", answer)?;
    ensure(error.message().contains("/no/such/program"), || format!("the program is not named: {error}"))?;
    pod.sh(&id, "true").await.map(drop)
}

async fn not_running(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let created = pod.create(pod.container("a", &["true"])).await?;
    refused("a command before the start", bench.runtime().exec_sync(&created, words(&["true"]), SOON).await)?;
    let ended = pod.start(pod.container("b", &["true"])).await?;
    pod.ended(&ended).await?;
    refused("a command after the end", bench.runtime().exec_sync(&ended, words(&["true"]), SOON).await)?;
    let unknown = "none".into();
    refused("a command nowhere", bench.runtime().exec_sync(&unknown, words(&["true"]), SOON).await).map(drop)
}

async fn at_once(bench: Arc<Bench>) -> Result {
    let pod = Arc::new(bench.pod().await?);
    let id = pod.waiting("a").await?;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (pod, id) = (pod.clone(), id.clone());
        running.spawn(async move {
            let said = pod.sh(&id, &format!("sleep 0.2; echo {number}")).await?;
            same("what it said", said, number.to_string())
        });
    }
    while let Some(done) = running.join_next().await {
        done.map_err(|error| super::Failure::Said(error.to_string()))??;
    }
    Ok(())
}

async fn children(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let id = pod.waiting("a").await?;
    let begun = Instant::now();
    // What goes on has closed the command's output.
    pod.sh(&id, "sleep 60 >/dev/null 2>&1 & echo begun").await?;
    let took = begun.elapsed();
    ensure(took < Duration::from_secs(15), || format!("it took {took:?}"))
}
