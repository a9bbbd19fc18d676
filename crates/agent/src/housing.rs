//! Cgroups of their own for this program (`kubeletCgroups`) and for everything that is in none (`systemCgroups`).

use std::time::Duration;

use rubelet_host::cgroup::{CgroupError, Driver, Tree};
use rubelet_host::chain;

use crate::life::Life;

/// kubelet 1.36: how often processes are moved.
const AGAIN: Duration = Duration::from_secs(60);
/// kubelet 1.36: how many times in a row it is looked for processes that began meanwhile.
const ROUNDS: usize = 11;

/// Names of cgroups, from the very top; empty: nobody is moved.
#[derive(Clone, Debug, Default)]
pub struct Housing {
    /// `kubeletCgroups`.
    pub own: String,
    /// `systemCgroups`.
    pub others: String,
}

/// Moves processes now and every minute.
///
/// # Errors
/// What cannot be done at all.
pub(crate) fn begin(housing: Housing, life: &Life) -> Result<(), String> {
    if housing.others == "/" {
        return Err("failed to start ContainerManager: system container cannot be root (\"/\")".to_owned());
    }
    if housing.own.is_empty() && housing.others.is_empty() {
        return Ok(());
    }
    let tree = Tree::detect(Driver::Cgroupfs, "/").map_err(|e| chain(&e))?;
    life.spawn(async move {
        loop {
            let (tree, housing) = (tree.clone(), housing.clone());
            let moved = rubelet_host::task::blocking(move || move_all(&tree, &housing)).await;
            if let Err(err) = moved.unwrap_or_else(|e| Err(e.to_string())) {
                tracing::warn!(err, "Processes are not all in their cgroups; trying again in a minute");
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    Ok(())
}

/// The others first: this program may be among them.
fn move_all(tree: &Tree, housing: &Housing) -> Result<(), String> {
    let others = if housing.others.is_empty() { Ok(()) } else { move_others(tree, &housing.others) };
    if !housing.own.is_empty() {
        let moved = tree.move_into(&housing.own, std::process::id());
        moved.map_err(|e| format!("move this program to cgroup {}: {}", housing.own, chain(&e)))?;
    }
    others
}

fn move_others(tree: &Tree, cgroup: &str) -> Result<(), String> {
    let mut last: Result<(), CgroupError> = Ok(());
    for _ in 0..ROUNDS {
        let homeless = tree.homeless().map_err(|e| chain(&e))?;
        if homeless.is_empty() {
            return Ok(());
        }
        last = Ok(());
        for pid in homeless {
            if let Err(e) = tree.move_into(cgroup, pid) {
                last = Err(e);
            }
        }
    }
    last.map_err(|e| format!("move what is in no cgroup to {cgroup}: {}", chain(&e)))
}
