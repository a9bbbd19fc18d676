//! Rust messages from the `.proto` files, without protoc and without a build script.

use std::fs;
use std::path::{Path, PathBuf};

/// One `.proto` file, its package and the Rust module that it becomes.
struct Source {
    proto: &'static str,
    package: &'static str,
    module: &'static str,
}

const SOURCES: &[Source] = &[
    Source { proto: "cri.proto", package: "runtime.v1", module: "cri.rs" },
    Source { proto: "csi.proto", package: "csi.v1", module: "csi.rs" },
    Source { proto: "deviceplugin.proto", package: "v1beta1", module: "deviceplugin.rs" },
    Source { proto: "dra.proto", package: "k8s.io.kubelet.pkg.apis.dra.v1", module: "dra.rs" },
    Source { proto: "dra_health.proto", package: "v1alpha1", module: "dra_health.rs" },
    Source { proto: "health.proto", package: "grpc.health.v1", module: "health.rs" },
    Source { proto: "otlp.proto", package: "opentelemetry.proto.trace.v1", module: "otlp.rs" },
    Source { proto: "podresources.proto", package: "v1", module: "podresources.rs" },
    Source { proto: "registration.proto", package: "pluginregistration", module: "registration.rs" },
];

/// Messages that hold secrets: their `Debug` is written by hand in the crate, so that no secret gets into a log.
const SECRET_MESSAGES: &[&str] = &[
    ".csi.v1.NodeExpandVolumeRequest",
    ".csi.v1.NodePublishVolumeRequest",
    ".csi.v1.NodeStageVolumeRequest",
    ".runtime.v1.AuthConfig",
];

/// Messages that are compared with what a runtime reports as JSON, and all that they are made of.
const SERIALIZED_MESSAGES: &[&str] = &[
    "CDIDevice",
    "Capability",
    "ContainerConfig",
    "ContainerMetadata",
    "DNSConfig",
    "Device",
    "HugepageLimit",
    "IDMapping",
    "ImageSpec",
    "Int64Value",
    "KeyValue",
    "LinuxContainerConfig",
    "LinuxContainerResources",
    "LinuxContainerSecurityContext",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "Mount",
    "NamespaceOption",
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "PortMapping",
    "SELinuxOption",
    "SecurityProfile",
    "SupplementalGroupsPolicy",
    "UserNamespace",
    "WindowsContainerConfig",
    "WindowsContainerResources",
    "WindowsContainerSecurityContext",
    "WindowsCpuGroupAffinity",
    "WindowsNamespaceOption",
    "WindowsPodSandboxConfig",
    "WindowsSandboxSecurityContext",
];

/// What can go wrong while regenerating.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtoError {
    #[error("compile {proto}: {source}")]
    Compile { proto: &'static str, source: Box<protox::Error> },
    #[error("generate Rust for {proto}: {source}")]
    Generate { proto: &'static str, source: std::io::Error },
    #[error("generate Rust for {proto}: no package {package}")]
    Package { proto: &'static str, package: &'static str },
    #[error("write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// The folder of the crate that holds the messages.
pub(crate) fn crate_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/proto")
}

/// Writes every generated file below `crate_dir`.
pub(crate) fn write(crate_dir: &Path) -> Result<(), ProtoError> {
    for source in SOURCES {
        let path = crate_dir.join("src").join(source.module);
        let text = generate(crate_dir, source)?;
        fs::write(&path, text).map_err(|error| ProtoError::Write { path, source: error })?;
    }
    Ok(())
}

fn generate(crate_dir: &Path, source: &Source) -> Result<String, ProtoError> {
    let files = protox::compile([source.proto], [crate_dir.join("protos")])
        .map_err(|error| ProtoError::Compile { proto: source.proto, source: Box::new(error) })?;
    let mut config = prost_build::Config::new();
    config.disable_comments(["."]).btree_map(["."]).skip_debug(SECRET_MESSAGES);
    for message in SERIALIZED_MESSAGES {
        config.message_attribute(format!(".runtime.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    let requests = files
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let modules =
        config.generate(requests).map_err(|error| ProtoError::Generate { proto: source.proto, source: error })?;
    modules
        .into_iter()
        .find(|(module, _)| *module == prost_build::Module::from_protobuf_package_name(source.package))
        .map(|(_, text)| text)
        .ok_or(ProtoError::Package { proto: source.proto, package: source.package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_in_messages_are_what_the_protos_say() {
        for source in SOURCES {
            let path = crate_dir().join("src").join(source.module);
            let checked_in = fs::read_to_string(&path).unwrap();
            let fresh = generate(&crate_dir(), source).unwrap();
            assert!(checked_in == fresh, "{} is stale: run `cargo run -p xtask -- proto`", path.display());
        }
    }
}
