//! Volumes that an image declares: directories of the container's own, with what the image has at their places.

use std::path::{Path, PathBuf};

use rubelet_proto::cri;

use super::mounts::{clean, is_taken};
use super::{SpecError, Surroundings};
use crate::image::document::Config;

mod copy;

/// Volumes of one image at most.
const VOLUMES_MAX: usize = 256;

/// A directory to mount.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) source: PathBuf,
    /// Where in the container.
    pub(super) place: PathBuf,
}

/// Makes them; where CRI mounts something there is none.
pub(super) fn declared(
    config: &cri::ContainerConfig,
    around: &Surroundings<'_>,
    image: &Config,
    rootfs: &Path,
) -> Result<Vec<Volume>, SpecError> {
    if image.config.volumes.len() > VOLUMES_MAX {
        return Err(SpecError::new(format!("the image declares more than {VOLUMES_MAX} volumes")));
    }
    let mut volumes: Vec<Volume> = Vec::new();
    for place in image.config.volumes.keys().map(|path| clean(path)) {
        if place == Path::new("/") || is_taken(config, &place) || volumes.iter().any(|v| v.place == place) {
            continue;
        }
        let source = around.volumes.join(volumes.len().to_string());
        make(&source, rootfs, &place)?;
        volumes.push(Volume { source, place });
    }
    Ok(volumes)
}

fn make(dir: &Path, rootfs: &Path, place: &Path) -> Result<(), SpecError> {
    let what = format!("make the image's volume {:?}", place.display().to_string());
    rubelet_host::paths::ensure_dir(dir, 0o755)
        .map_err(|e| SpecError::new(format!("{what}: {}", rubelet_host::chain(&e))))?;
    let Some(from) = copy::open_dir_in(rootfs, place).map_err(|e| SpecError::io(what.clone())(e.into()))? else {
        return Ok(());
    };
    copy::into_dir(&from, dir).map_err(SpecError::io(what))
}
