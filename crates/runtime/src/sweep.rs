//! Taking back what there is of a sandbox or container, whatever that is: after a failure, after a crash, and when it is removed.
//!
//! Each step may find nothing to do. The record goes last, so that what is left when a step fails is tried again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rubelet_host::mount::{self, Unmount};
use rubelet_shim::{Shim, Standing};

use crate::embedded::Engine;
use crate::places;
use crate::verbs::{Doing, Refusal};

/// How long a process may take to end after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A sandbox; its containers are gone.
pub(crate) fn sandbox(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    stop_sandbox(engine, id)?;
    engine.reached("sweep.sandbox-stopped");
    remove_dir(&engine.places.sandbox(id))?;
    engine.reached("sweep.sandbox-directory");
    engine.sandbox_records.remove(id).doing("remove the sandbox's record")?;
    engine.reached("sweep.sandbox-unrecorded");
    Ok(())
}

/// Ends a sandbox's pause process and gives back its network, mounts and cgroup; its directory stays.
pub(crate) fn stop_sandbox(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let dir = engine.places.sandbox(id);
    engine.network.detach(id).doing(format!("failed to destroy network for sandbox {id:?}"))?;
    engine.reached("sweep.detached");
    end_process(&dir)?;
    engine.reached("sweep.ended");
    engine.network.remove_namespace(id).doing(format!("failed to remove network namespace of sandbox {id:?}"))?;
    engine.reached("sweep.namespace");
    unmount_below(&dir)?;
    engine.reached("sweep.unmounted");
    remove_cgroup(engine, &dir)
}

/// Between a container's id and the number of an image that is a volume of it.
const VIEW: &str = ".image";

/// The name of the view of an image that is a container's volume.
pub(crate) fn view_name(id: &str, number: usize) -> String {
    format!("{id}{VIEW}{number}")
}

/// The container whose file system, or view of an image, has this name.
pub(crate) fn owner_of(claim: &str) -> &str {
    claim.split(VIEW).next().unwrap_or(claim)
}

/// A container with its file system.
pub(crate) fn container(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let dir = engine.places.container(id);
    end_process(&dir)?;
    engine.reached("sweep.container-ended");
    unmount_below(&dir)?;
    engine.reached("sweep.container-unmounted");
    remove_cgroup(engine, &dir)?;
    engine.reached("sweep.container-cgroup");
    let views = format!("{id}{VIEW}");
    for name in engine.images.claimed().iter().filter(|name| *name == id || name.starts_with(&views)) {
        engine.images.release_now(name)?;
    }
    engine.reached("sweep.container-released");
    remove_dir(&engine.places.volumes(id))?;
    remove_dir(&dir)?;
    engine.reached("sweep.container-directory");
    engine.container_records.remove(id).doing("remove the container's record")?;
    engine.reached("sweep.container-unrecorded");
    Ok(())
}

/// Kills what runs in a bundle, and waits for its end.
pub(crate) fn end_process(bundle: &Path) -> Result<(), Refusal> {
    if !bundle.join(rubelet_shim::setup::SETUP_FILE).exists() {
        return Ok(());
    }
    let said = || format!("end the processes of {}", bundle.display());
    match Shim::attach(bundle).doing(said())? {
        Standing::Kept(shim) => {
            let watch = match shim.watch_exit() {
                Err(rubelet_shim::ShimError::Gone { .. }) => return Ok(()),
                watch => watch.doing(said())?,
            };
            shim.kill(rustix::process::Signal::KILL.as_raw(), true).doing(said())?;
            wait_for(&watch).doing(said())?;
            match watch.wait() {
                Ok(_) | Err(rubelet_shim::ShimError::Gone { .. }) => Ok(()),
                Err(error) => Err(Refusal::doing(said())(&error)),
            }
        }
        Standing::Lost(birth) => Shim::end_lost(bundle, &birth).map(drop).doing(said()),
        Standing::Ended(_) | Standing::Unborn => Ok(()),
    }
}

fn wait_for(watch: &rubelet_shim::ExitWatch) -> std::io::Result<()> {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = watch.as_fd();
    let limit = Timespec::try_from(KILL_PATIENCE).map_err(std::io::Error::other)?;
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit))? {
        0 => Err(std::io::Error::other("it does not end after SIGKILL")),
        _ => Ok(()),
    }
}

/// Unmounts everything at and below a directory, the latest first.
fn unmount_below(dir: &Path) -> Result<(), Refusal> {
    if !dir.exists() {
        return Ok(());
    }
    let mut mounts = mount::at_or_below(dir).doing("look at the mounts")?;
    mounts.reverse();
    for one in mounts {
        mount::unmount(&one.target, Unmount::Lazy).doing(format!("unmount {}", one.target.display()))?;
    }
    Ok(())
}

/// Removes the cgroup of a bundle with whatever is left in it.
pub(crate) fn remove_cgroup(engine: &Engine, bundle: &Path) -> Result<(), Refusal> {
    match places::noted_cgroup(bundle) {
        Some(cgroup) => engine.cgroups.remove(&cgroup).doing(format!("remove the cgroup {cgroup}")),
        None => Ok(()),
    }
}

fn remove_dir(dir: &Path) -> Result<(), Refusal> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Refusal::doing(format!("remove {}", dir.display()))(&e))
        }
        _ => Ok(()),
    }
}
