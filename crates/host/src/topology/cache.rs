//! Caches that cores share.

use std::fs;
use std::path::Path;

use super::FILE_MAX;
use crate::proc::read_bounded;

/// With whom a core shares its cache beyond level 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shared {
    /// Some cores of its node: the kernel's number of the cache.
    Some { number: usize },
    /// All, or there is none.
    All,
    /// The kernel does not tell all that it should of each cache, as in arm64 guests. kubelet 1.36: then nothing counts.
    Untold,
}

/// Of a processor.
pub(super) fn shared(root: &Path, cpu: usize, threads_of_node: usize) -> Shared {
    match caches(&root.join(format!("cpu/cpu{cpu}/cache"))) {
        None => Shared::Untold,
        Some(caches) => caches
            .iter()
            .find(|cache| cache.level > 2 && cache.threads != threads_of_node)
            .map_or(Shared::All, |cache| Shared::Some { number: cache.number }),
    }
}

struct Cache {
    number: usize,
    level: u32,
    /// How many processors share it.
    threads: usize,
}

fn caches(dir: &Path) -> Option<Vec<Cache>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).ok()? {
        let name = entry.ok()?.file_name().into_string().ok()?;
        names.extend(name.starts_with("index").then_some(name));
    }
    names.sort_unstable();
    names.iter().map(|name| cache(&dir.join(name))).collect()
}

fn cache(dir: &Path) -> Option<Cache> {
    let text = |name: &str| Some(read_bounded(&dir.join(name), FILE_MAX).ok()?.trim().to_owned());
    // kubelet 1.36: asks for both.
    text("size")?.strip_suffix('K')?.parse::<u64>().ok()?;
    text("type")?;
    let mask = text("shared_cpu_map")?;
    let words: Option<Vec<u64>> = mask.split(',').map(|word| u64::from_str_radix(word, 16).ok()).collect();
    Some(Cache {
        number: text("id")?.parse().ok()?,
        level: text("level")?.parse().ok()?,
        threads: words?.iter().map(|word| word.count_ones() as usize).sum(),
    })
}
