//! The documents of an image: index, manifest, configuration. OCI's and Docker's (schema 2), which differ in media types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Bytes of a manifest or index at most; registries take no larger ones.
pub(crate) const MANIFEST_MAX: u64 = 4 << 20;
/// Bytes of a configuration at most.
pub(crate) const CONFIG_MAX: u64 = 8 << 20;
/// Layers of one image at most: overlayfs stacks no more.
pub(crate) const LAYERS_MAX: usize = 500;
/// An index in an index, and so on.
pub(crate) const INDEX_DEPTH_MAX: usize = 4;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];

/// Why a document is not understood.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("parse {what} {digest}")]
    Parse { what: &'static str, digest: Digest, source: serde_json::Error },
    #[error(
        "media type {media_type:?} is no longer supported, please rebuild the image as {DOCKER_MANIFEST:?} or {OCI_MANIFEST:?}"
    )]
    Schema1 { media_type: String },
    #[error("{digest} is neither a manifest nor an index")]
    Neither { digest: Digest },
    #[error("no match for platform in manifest: not found")]
    NoPlatform,
    #[error("the image has {count} layers, {max} at most", max = LAYERS_MAX)]
    TooManyLayers { count: usize },
    #[error("the manifest has {layers} layers and the configuration {diff_ids}")]
    LayersDiffer { layers: usize, diff_ids: usize },
    #[error("indexes are nested more than {max} times", max = INDEX_DEPTH_MAX)]
    TooDeep,
    #[error("{what} {digest} has {size} bytes, {max} at most")]
    TooLarge { what: &'static str, digest: Digest, size: u64, max: u64 },
}

/// Content that a document points to.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an image runs on, in Go's words: `linux`, `amd64`, `v8`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// That of the machine we were built for.
    pub fn of_this_machine() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
            other => (other, ""),
        };
        Self { os: std::env::consts::OS.into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// How well an image of platform `other` runs here; `None`: not at all. The smallest is the best.
    fn rank(&self, other: &Self) -> Option<u32> {
        // An image that does not say what it is for is taken for ours.
        let is_os = other.os.is_empty() || self.os == other.os;
        let is_architecture = other.architecture.is_empty() || self.architecture == other.architecture;
        if !is_os || !is_architecture {
            return None;
        }
        let level = |variant: &str| match (self.architecture.as_str(), variant) {
            ("arm64", "") => Some(8),
            ("arm", "") => Some(7),
            ("amd64", "") => Some(1),
            (_, variant) => variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()),
        };
        match (level(&self.variant), level(&other.variant)) {
            (Some(ours), Some(theirs)) => ours.checked_sub(theirs),
            (_, _) => (self.variant == other.variant).then_some(0),
        }
    }
}

/// What a manifest's bytes turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// An image for one platform.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    schema_version: u32,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Understands the bytes of a manifest or index. `media_type`: what the one who pointed here says it is.
    pub(crate) fn parse(bytes: &[u8], digest: Digest, media_type: &str) -> Result<Self, DocumentError> {
        let any: Any = serde_json::from_slice(bytes).map_err(|source| DocumentError::Parse {
            what: "manifest",
            digest,
            source,
        })?;
        let said = if any.media_type.is_empty() { media_type } else { any.media_type.as_str() };
        if any.schema_version == 1 || DOCKER_SCHEMA1.contains(&said) {
            let media_type = if said.is_empty() { DOCKER_SCHEMA1[0] } else { said };
            return Err(DocumentError::Schema1 { media_type: media_type.to_owned() });
        }
        match (any.config, any.manifests) {
            // What is both could be read as either: two programs would see two images.
            (Some(_), Some(_)) | (None, None) => Err(DocumentError::Neither { digest }),
            (None, Some(manifests)) => Ok(Self::Index(manifests)),
            (Some(config), None) => {
                if any.layers.len() > LAYERS_MAX {
                    return Err(DocumentError::TooManyLayers { count: any.layers.len() });
                }
                Ok(Self::Manifest(Manifest {
                    schema_version: 2,
                    media_type: said.to_owned(),
                    config,
                    layers: any.layers,
                }))
            }
        }
    }
}

/// The manifest of an index that runs best here.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], here: &Platform) -> Result<&'a Descriptor, DocumentError> {
    let unnamed = Platform::default();
    manifests
        .iter()
        .filter(|m| [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX, ""].contains(&m.media_type.as_str()))
        .filter_map(|m| Some((here.rank(m.platform.as_ref().unwrap_or(&unnamed))?, m)))
        // Of equal ones the first.
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, m)| m)
        .ok_or(DocumentError::NoPlatform)
}

/// An image's configuration: what a container of it runs, and what its layers are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default)]
    pub config: Process,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

/// What a container of the image runs unless it is told otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// `USER`, `UID`, `USER:GROUP`…; empty: root.
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

/// Go writes `null` for what is empty.
fn or_default<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

impl Config {
    pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Parse { what: "configuration", digest, source })
    }

    /// Checks that this configuration goes with a manifest of `layers` layers, on a machine of platform `here`.
    pub(crate) fn check(&self, layers: usize, here: &Platform) -> Result<(), DocumentError> {
        let diff_ids = self.rootfs.diff_ids.len();
        if layers != diff_ids {
            return Err(DocumentError::LayersDiffer { layers, diff_ids });
        }
        here.rank(&self.platform).map(|_| ()).ok_or(DocumentError::NoPlatform)
    }
}

/// Refuses what a document says is larger than `max` bytes.
pub(crate) fn bounded(what: &'static str, of: &Descriptor, max: u64) -> Result<(), DocumentError> {
    if of.size > max {
        return Err(DocumentError::TooLarge { what, digest: of.digest, size: of.size, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, variant: &str) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    fn chosen(here: &Platform, offered: &[(&str, &str)]) -> Option<usize> {
        let digest = Digest::of(b"");
        let manifests: Vec<Descriptor> = offered
            .iter()
            .enumerate()
            .map(|(at, (architecture, variant))| Descriptor {
                media_type: OCI_MANIFEST.into(),
                digest,
                size: at as u64,
                platform: Some(platform(architecture, variant)),
                annotations: BTreeMap::new(),
            })
            .collect();
        choose(&manifests, here).ok().map(|m| usize::try_from(m.size).unwrap())
    }

    #[test]
    fn the_best_platform_wins() {
        let offered = [("arm", "v6"), ("arm", "v7"), ("arm64", "v8"), ("amd64", "v3"), ("amd64", ""), ("arm", "v8")];
        assert_eq!(chosen(&platform("amd64", ""), &offered), Some(4));
        assert_eq!(chosen(&platform("arm64", "v8"), &offered), Some(2));
        assert_eq!(chosen(&platform("arm", "v7"), &offered), Some(1));
        assert_eq!(chosen(&platform("arm", "v6"), &offered), Some(0));
        assert_eq!(chosen(&platform("s390x", ""), &offered), None);
        // Attestations of buildkit are for no platform.
        assert_eq!(chosen(&platform("amd64", ""), &[("unknown", ""), ("amd64", "")]), Some(1));
    }

    fn parse(json: &str) -> Result<Document, DocumentError> {
        Document::parse(json.as_bytes(), Digest::of(json.as_bytes()), "")
    }

    #[test]
    fn manifests_and_indexes() {
        let digest = Digest::of(b"");
        let manifest = format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{digest}","size":1}}}}"#);
        assert!(
            matches!(parse(&manifest), Ok(Document::Manifest(m)) if m.layers.is_empty() && m.config.digest == digest)
        );
        assert!(matches!(parse(r#"{"manifests":[]}"#), Ok(Document::Index(list)) if list.is_empty()));
        assert!(matches!(parse("{}"), Err(DocumentError::Neither { .. })));
        let both = manifest.replace("\"config\"", "\"manifests\":[],\"config\"");
        assert!(matches!(parse(&both), Err(DocumentError::Neither { .. })));
        assert!(matches!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#), Err(DocumentError::Schema1 { .. })));
        let layer = format!(r#"{{"digest":"{digest}","size":1}}"#);
        let many = manifest.replace("}}", &format!("}},\"layers\":[{}]}}", vec![layer; 501].join(",")));
        assert!(matches!(parse(&many), Err(DocumentError::TooManyLayers { count: 501 })));
    }

    #[test]
    fn a_configuration_with_gos_nulls() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"1:2","Env":null,"Cmd":["sh"],"Volumes":null},"rootfs":{"diff_ids":null},"history":[]}"#;
        let config = Config::parse(text.as_bytes(), Digest::of(b"")).unwrap();
        assert_eq!((config.config.user.as_str(), config.config.cmd.as_slice()), ("1:2", ["sh".to_owned()].as_slice()));
        assert!(config.check(0, &platform("amd64", "")).is_ok());
        assert!(matches!(config.check(1, &platform("amd64", "")), Err(DocumentError::LayersDiffer { .. })));
        assert!(matches!(config.check(0, &platform("arm64", "")), Err(DocumentError::NoPlatform)));
    }

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/documents");

    /// What registries send, well-formed.
    fn seeds() -> Vec<Vec<u8>> {
        let mut paths: Vec<_> = std::fs::read_dir(CORPUS).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn the_seeds_are_understood() {
        let understood = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            Document::parse(bytes, digest, "").is_ok() || Config::parse(bytes, digest).is_ok()
        };
        assert_eq!(seeds().iter().filter(|seed| understood(seed)).count(), 5);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

        /// Whatever became of a document's bytes: an answer or an error.
        #[test]
        fn damaged_documents_are_read_or_refused(
            seed in 0..5usize,
            changes in proptest::collection::vec((0..800usize, proptest::num::u8::ANY, 0..3u8), 0..12),
            cut in 0..900usize,
            kind in 0..4usize,
        ) {
            let mut bytes = seeds().swap_remove(seed);
            for (at, byte, how) in changes {
                match how {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.insert(at.min(bytes.len()), byte),
                }
            }
            bytes.truncate(cut.max(1));
            let digest = Digest::of(&bytes);
            let here = Platform::of_this_machine();
            let said = ["", OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST][kind];
            match Document::parse(&bytes, digest, said) {
                Ok(Document::Index(manifests)) => drop(choose(&manifests, &here).map(|one| one.size)),
                Ok(Document::Manifest(manifest)) => {
                    for one in &manifest.layers {
                        let _ = bounded("layer", one, MANIFEST_MAX);
                    }
                }
                Err(_) => {}
            }
            if let Ok(config) = Config::parse(&bytes, digest) {
                let _ = config.check(2, &here);
            }
        }
    }
}
