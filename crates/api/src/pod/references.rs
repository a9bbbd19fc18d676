//! What a static pod may not refer to: objects that only an API server has.
//!
//! kubelet 1.36: with the gate `PreventStaticPodAPIReferences` (on) any of these refuses the pod; without it only
//! cluster trust bundles and resource claims do.

use crate::problem::{Path, Problem, Problems};
use crate::v1;

/// Every reference that is not allowed, as `static pods may not reference RESOURCE`.
pub fn references(pod: &v1::Pod, prevent: bool) -> Vec<Problem> {
    let mut found = Found { problems: Problems::default(), prevent };
    let empty = v1::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let path = Path::root().field("spec");
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        found.refuse(&path.field("serviceAccountName"), "serviceaccounts");
    }
    if spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()) {
        found.refuse(&path.field("imagePullSecrets"), "secrets");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        found.refuse_always(&path.field("resourceClaims"), "resourceclaims");
    }
    for (field, containers) in
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)]
    {
        for (nth, container) in containers.iter().enumerate() {
            found.environment(container, &path.field(field).index(nth));
        }
    }
    for (nth, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.field("volumes").index(nth);
        found.volume(volume, &path);
        found.volume_secrets(volume, &path);
    }
    found.problems.into_vec()
}

struct Found {
    problems: Problems,
    prevent: bool,
}

impl Found {
    fn refuse(&mut self, path: &Path, resource: &str) {
        if self.prevent {
            self.refuse_always(path, resource);
        }
    }

    fn refuse_always(&mut self, path: &Path, resource: &str) {
        self.problems.add(path, format!("static pods may not reference {resource}"));
    }

    fn environment(&mut self, container: &v1::Container, path: &Path) {
        for (nth, variable) in container.env.iter().flatten().enumerate() {
            let Some(source) = &variable.value_from else { continue };
            let path = path.field("env").index(nth).field("valueFrom");
            if source.secret_key_ref.is_some() {
                self.refuse(&path.field("secretKeyRef"), "secrets");
            }
            if source.config_map_key_ref.is_some() {
                self.refuse(&path.field("configMapKeyRef"), "configmaps");
            }
        }
        for (nth, source) in container.env_from.iter().flatten().enumerate() {
            let path = path.field("envFrom").index(nth);
            if source.secret_ref.is_some() {
                self.refuse(&path.field("secretRef"), "secrets");
            }
            if source.config_map_ref.is_some() {
                self.refuse(&path.field("configMapRef"), "configmaps");
            }
        }
    }

    fn volume(&mut self, volume: &v1::Volume, path: &Path) {
        let whole = [
            ("configMap", volume.config_map.is_some(), "configmaps"),
            ("secret", volume.secret.is_some(), "secrets"),
            ("csi", volume.csi.is_some(), "csidrivers"),
            ("glusterfs", volume.glusterfs.is_some(), "endpoints"),
            ("persistentVolumeClaim", volume.persistent_volume_claim.is_some(), "persistentvolumeclaims"),
            ("ephemeral", volume.ephemeral.is_some(), "persistentvolumeclaims"),
            ("azureFile", volume.azure_file.is_some(), "secrets"),
        ];
        for (field, _, resource) in whole.iter().filter(|(_, given, _)| *given) {
            self.refuse(&path.field(field), resource);
        }
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for (nth, source) in sources.enumerate() {
            let path = path.at("projected.sources").index(nth);
            let projected = [
                ("configMap", source.config_map.is_some(), "configmaps"),
                ("secret", source.secret.is_some(), "secrets"),
                ("serviceAccountToken", source.service_account_token.is_some(), "serviceaccounts"),
                ("podCertificate", source.pod_certificate.is_some(), "podcertificates"),
            ];
            for (field, _, resource) in projected.iter().filter(|(_, given, _)| *given) {
                self.refuse(&path.field(field), resource);
            }
            if source.cluster_trust_bundle.is_some() {
                self.refuse_always(&path.field("clusterTrustBundle"), "clustertrustbundles");
            }
        }
    }

    /// Secrets with which volumes on other machines are opened.
    fn volume_secrets(&mut self, volume: &v1::Volume, path: &Path) {
        let secrets = [
            ("cephfs", volume.cephfs.as_ref().is_some_and(|source| source.secret_ref.is_some())),
            ("cinder", volume.cinder.as_ref().is_some_and(|source| source.secret_ref.is_some())),
            ("flexVolume", volume.flex_volume.as_ref().is_some_and(|source| source.secret_ref.is_some())),
            ("iscsi", volume.iscsi.as_ref().is_some_and(|source| source.secret_ref.is_some())),
            ("rbd", volume.rbd.as_ref().is_some_and(|source| source.secret_ref.is_some())),
            ("scaleIO", volume.scale_io.is_some()),
            ("storageos", volume.storageos.as_ref().is_some_and(|source| source.secret_ref.is_some())),
        ];
        for (field, _) in secrets.iter().filter(|(_, given)| *given) {
            self.refuse(&path.field(field).field("secretRef"), "secrets");
        }
    }
}
