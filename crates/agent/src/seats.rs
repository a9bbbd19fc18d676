//! Cgroups of this program and of what else runs on the machine, where the configuration names them.

use std::time::Duration;

use rubelet_host::cgroup::{Driver, Tree, Values};
use rubelet_host::{chain, proc};

use crate::life::Life;

/// kubelet 1.36: how often it is seen to that all sit where they should.
const AGAIN: Duration = Duration::from_secs(60);

/// Who is to sit where, by names below the hierarchies' mounts; empty: where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seats {
    /// `kubeletCgroups`: this program.
    pub kubelet: String,
    /// `systemCgroups`: every process that is in no cgroup, but for the first.
    pub system: String,
}

impl Seats {
    /// Puts all where they should be, now and again every minute: processes come.
    ///
    /// # Errors
    /// In upstream's words: what can be no seat.
    pub(crate) fn take(self, life: &Life) -> Result<(), String> {
        if self == Self::default() {
            return Ok(());
        }
        if self.system == "/" {
            return Err("system container cannot be root (\"/\")".to_owned());
        }
        let tree = Tree::detect(Driver::Cgroupfs, "/").map_err(|e| chain(&e))?;
        self.seat(&tree, "/");
        let tree = std::sync::Arc::new(tree);
        life.spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let (seats, tree) = (self.clone(), tree.clone());
                if let Err(err) = tokio::task::spawn_blocking(move || seats.seat(&tree, "/")).await {
                    tracing::error!(%err, "seeing to the cgroups of the system broke, trying again in a minute");
                }
            }
        });
        Ok(())
    }

    /// What sits in `top` goes where it should.
    fn seat(&self, tree: &Tree, top: &str) {
        let me = std::process::id();
        if !self.kubelet.is_empty() {
            tell("kubeletCgroups", put(tree, &self.kubelet, [me]));
        }
        if !self.system.is_empty() {
            let is_other = |pid: &u32| *pid != 1 && *pid != me && !proc::is_of_kernel(*pid);
            let others = tree.own_pids(top).map_err(|e| chain(&e));
            tell("systemCgroups", others.and_then(|all| put(tree, &self.system, all.into_iter().filter(is_other))));
        }
    }
}

fn put(tree: &Tree, cgroup: &str, pids: impl IntoIterator<Item = u32>) -> Result<(), String> {
    let name = cgroup.trim_start_matches('/');
    tree.ensure(name, &Values::default()).map_err(|e| chain(&e))?;
    let failed = |pid| tree.join(name, pid).err().filter(|_| proc::is_there(pid)).map(|e| chain(&e));
    let failures: Vec<String> = pids.into_iter().filter_map(failed).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join(", ")) }
}

fn tell(whose: &str, outcome: Result<(), String>) {
    if let Err(err) = outcome {
        tracing::error!(whose, err, "Failed to ensure state, trying again in a minute");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sits_in_no_cgroup_goes_to_the_systems() {
        let top = format!("rubelet-seats-{}", std::process::id());
        let Ok(tree) = Tree::detect(Driver::Cgroupfs, "/") else { return eprintln!("not run: no cgroups") };
        if tree.ensure(&top, &Values::default()).is_err() {
            return eprintln!("not run: no writable cgroup hierarchy");
        }
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        tree.join(&top, child.id()).unwrap();
        let seats = Seats { kubelet: String::new(), system: format!("/{top}/system/of") };
        seats.seat(&tree, &top);
        assert_eq!(tree.own_pids(&top).unwrap(), [].into());
        assert_eq!(tree.own_pids(format!("{top}/system/of")).unwrap(), [child.id()].into());
        child.kill().unwrap();
        child.wait().unwrap();
        tree.remove(&top).unwrap();
    }

    #[tokio::test]
    async fn the_root_is_no_seat_for_the_system() {
        let (life, _end) = Life::new();
        let seats = Seats { kubelet: String::new(), system: "/".to_owned() };
        assert_eq!(seats.take(&life).unwrap_err(), "system container cannot be root (\"/\")");
        assert_eq!(Seats::default().take(&life), Ok(()));
    }
}
