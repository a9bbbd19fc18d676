//! Removing what nobody needs, and saying how much room the rest takes.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rubelet_proto::cri;

use super::{ImageError, Images, Store};
use crate::digest::Digest;
use crate::snapshot::usage::{self, Usage};

/// A download that broke off is kept for so long, to be resumed.
pub(super) const INGEST_AGE: Duration = Duration::from_secs(3600);

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Unpacked layers.
    pub layers: u64,
    /// Manifests, configurations, packed layers, and downloads that broke off.
    pub blobs: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Images {
    /// Removes layers and content that no image, no container and no pull under way needs.
    pub async fn collect(&self) -> Result<Collected, ImageError> {
        self.blocking(|store| store.collect_unused(INGEST_AGE)).await
    }

    /// What pulls that broke off have left is of use to the next try, and goes when there was none for an hour: after the start, and
    /// after the end of each pull.
    pub(crate) fn tidy_later(&self) {
        let (store, ended) = (Arc::downgrade(&self.store), self.store.ended.clone());
        rubelet_host::task::spawn(async move {
            loop {
                tokio::time::sleep(INGEST_AGE).await;
                let Some(store) = store.upgrade() else { return };
                match (Images { store }).collect().await {
                    Ok(Collected { layers: 0, blobs: 0, .. }) => {}
                    Ok(Collected { layers, blobs, bytes }) => {
                        tracing::info!(layers, blobs, bytes, "removed what pulls that broke off have left");
                    }
                    Err(error) => tracing::warn!("{}", rubelet_host::chain(&error)),
                }
                ended.notified().await;
            }
        });
    }

    /// When an image was pulled, or a container of it prepared, last. For those who choose what to remove. Looks at a file.
    pub fn last_used(&self, image: &str) -> Option<SystemTime> {
        let id = self.store.state().find(image)?.id;
        self.store.records.last_used(id)
    }

    /// Room that images and containers take, in CRI's form. As with containerd both are one file system.
    pub async fn fs_info(&self) -> Result<cri::ImageFsInfoResponse, ImageError> {
        let used = self.blocking(|store| Ok(store.room())).await?;
        let filesystem = cri::FilesystemUsage {
            timestamp: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: self.store.root.to_string_lossy().into_owned() }),
            used_bytes: Some(cri::UInt64Value { value: used.bytes }),
            inodes_used: Some(cri::UInt64Value { value: used.inodes }),
        };
        Ok(cri::ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            container_filesystems: vec![filesystem],
        })
    }
}

impl Store {
    /// Everything happens under the lock under which pulls say what they count on; only files go after it.
    /// `age`: what has arrived of a blob is kept for so long.
    pub(super) fn collect_unused(self: &Arc<Self>, age: Duration) -> Result<Collected, ImageError> {
        let _changing = self.change();
        let mut collected = Collected::default();
        let mut gone = Vec::new();
        let mut state = self.state();
        let leased: HashSet<Digest> = state.leases.values().flatten().copied().collect();
        let blobs: HashSet<Digest> = state.images.values().flat_map(super::Record::blobs).collect();
        let images = state.images.values().flat_map(|i| &i.chains);
        let layers: HashSet<Digest> = state.claims.values().flat_map(|c| &c.chains).chain(images).copied().collect();
        for digest in self.blobs.list()? {
            if !blobs.contains(&digest) && !leased.contains(&digest) {
                collected.bytes += self.blobs.remove(digest)?;
                collected.blobs += 1;
                self.reached("collect.blob");
            }
        }
        let now = SystemTime::now();
        for digest in self.blobs.list_ingests()? {
            let changed = fs::metadata(self.blobs.ingest_path(digest)).and_then(|stat| stat.modified());
            let is_old = changed.is_ok_and(|t| now.duration_since(t).unwrap_or_default() >= age);
            if is_old && !leased.contains(&digest) {
                collected.bytes += self.blobs.remove_ingest(digest)?;
                collected.blobs += 1;
            }
        }
        let unused: Vec<Digest> =
            state.layers.keys().filter(|c| !layers.contains(c) && !leased.contains(c)).copied().collect();
        for chain in unused {
            gone.push(self.layers.remove(chain)?);
            self.reached("collect.layer");
            if let Some(layer) = state.layers.remove(&chain) {
                collected.layers += 1;
                collected.bytes += layer.bytes;
            }
        }
        drop(state);
        // Files of layers may be many: they go in the background.
        drop(gone);
        Ok(collected)
    }

    fn room(&self) -> Usage {
        let mut used = Usage::default();
        let (layers, images, claims): (Vec<_>, Vec<_>, Vec<_>) = {
            let state = self.state();
            (
                state.layers.values().cloned().collect(),
                state.images.values().flat_map(super::Record::blobs).collect(),
                state.claims.values().map(|c| self.stacks.of(c, &self.layers)).collect(),
            )
        };
        for layer in layers {
            used += Usage { bytes: layer.bytes, inodes: layer.entries };
        }
        for digest in images {
            let bytes = fs::metadata(self.blobs.path(digest)).map_or(0, |stat| stat.len());
            used += Usage { bytes, inodes: 1 };
        }
        // Containers come and go meanwhile.
        for (dir, _) in claims.iter().filter_map(|rootfs| rootfs.upper.as_ref()) {
            used += usage::of_tree(dir).unwrap_or_default();
        }
        used
    }
}
