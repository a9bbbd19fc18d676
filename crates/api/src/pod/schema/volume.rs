//! Volumes and their sources.

use super::container::*;
use super::object::*;
use crate::schema::Kind::{Bool, Int32, Int64, List, Map, Object, Pointer, Quantity, Text};
use crate::schema::Shape;

pub(crate) static AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE: Shape = Shape {
    name: "AWSElasticBlockStoreVolumeSource",
    fields: &[("fsType", Text), ("partition", Int32), ("readOnly", Bool), ("volumeID", Text)],
};

pub(crate) static AZURE_DISK_VOLUME_SOURCE: Shape = Shape {
    name: "AzureDiskVolumeSource",
    fields: &[
        ("cachingMode", Pointer(&Text)),
        ("diskName", Text),
        ("diskURI", Text),
        ("fsType", Pointer(&Text)),
        ("kind", Pointer(&Text)),
        ("readOnly", Pointer(&Bool)),
    ],
};

pub(crate) static AZURE_FILE_VOLUME_SOURCE: Shape =
    Shape { name: "AzureFileVolumeSource", fields: &[("readOnly", Bool), ("secretName", Text), ("shareName", Text)] };

pub(crate) static CSI_VOLUME_SOURCE: Shape = Shape {
    name: "CSIVolumeSource",
    fields: &[
        ("driver", Text),
        ("fsType", Pointer(&Text)),
        ("nodePublishSecretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("readOnly", Pointer(&Bool)),
        ("volumeAttributes", Map(&Text)),
    ],
};

pub(crate) static CEPH_FS_VOLUME_SOURCE: Shape = Shape {
    name: "CephFSVolumeSource",
    fields: &[
        ("monitors", List(&Text)),
        ("path", Text),
        ("readOnly", Bool),
        ("secretFile", Text),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("user", Text),
    ],
};

pub(crate) static CINDER_VOLUME_SOURCE: Shape = Shape {
    name: "CinderVolumeSource",
    fields: &[("fsType", Text), ("readOnly", Bool), ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)), ("volumeID", Text)],
};

pub(crate) static CLUSTER_TRUST_BUNDLE_PROJECTION: Shape = Shape {
    name: "ClusterTrustBundleProjection",
    fields: &[
        ("labelSelector", Object(&LABEL_SELECTOR)),
        ("name", Pointer(&Text)),
        ("optional", Pointer(&Bool)),
        ("path", Text),
        ("signerName", Pointer(&Text)),
    ],
};

pub(crate) static CONFIG_MAP_PROJECTION: Shape = Shape {
    name: "ConfigMapProjection",
    fields: &[("items", List(&Object(&KEY_TO_PATH))), ("name", Text), ("optional", Pointer(&Bool))],
};

pub(crate) static CONFIG_MAP_VOLUME_SOURCE: Shape = Shape {
    name: "ConfigMapVolumeSource",
    fields: &[
        ("defaultMode", Pointer(&Int32)),
        ("items", List(&Object(&KEY_TO_PATH))),
        ("name", Text),
        ("optional", Pointer(&Bool)),
    ],
};

pub(crate) static DOWNWARD_API_PROJECTION: Shape =
    Shape { name: "DownwardAPIProjection", fields: &[("items", List(&Object(&DOWNWARD_API_VOLUME_FILE)))] };

pub(crate) static DOWNWARD_API_VOLUME_FILE: Shape = Shape {
    name: "DownwardAPIVolumeFile",
    fields: &[
        ("fieldRef", Object(&OBJECT_FIELD_SELECTOR)),
        ("mode", Pointer(&Int32)),
        ("path", Text),
        ("resourceFieldRef", Object(&RESOURCE_FIELD_SELECTOR)),
    ],
};

pub(crate) static DOWNWARD_API_VOLUME_SOURCE: Shape = Shape {
    name: "DownwardAPIVolumeSource",
    fields: &[("defaultMode", Pointer(&Int32)), ("items", List(&Object(&DOWNWARD_API_VOLUME_FILE)))],
};

pub(crate) static EMPTY_DIR_VOLUME_SOURCE: Shape =
    Shape { name: "EmptyDirVolumeSource", fields: &[("medium", Text), ("sizeLimit", Quantity)] };

pub(crate) static EPHEMERAL_VOLUME_SOURCE: Shape = Shape {
    name: "EphemeralVolumeSource",
    fields: &[("volumeClaimTemplate", Object(&PERSISTENT_VOLUME_CLAIM_TEMPLATE))],
};

pub(crate) static FC_VOLUME_SOURCE: Shape = Shape {
    name: "FCVolumeSource",
    fields: &[
        ("fsType", Text),
        ("lun", Pointer(&Int32)),
        ("readOnly", Bool),
        ("targetWWNs", List(&Text)),
        ("wwids", List(&Text)),
    ],
};

pub(crate) static FLEX_VOLUME_SOURCE: Shape = Shape {
    name: "FlexVolumeSource",
    fields: &[
        ("driver", Text),
        ("fsType", Text),
        ("options", Map(&Text)),
        ("readOnly", Bool),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
    ],
};

pub(crate) static FLOCKER_VOLUME_SOURCE: Shape =
    Shape { name: "FlockerVolumeSource", fields: &[("datasetName", Text), ("datasetUUID", Text)] };

pub(crate) static GCE_PERSISTENT_DISK_VOLUME_SOURCE: Shape = Shape {
    name: "GCEPersistentDiskVolumeSource",
    fields: &[("fsType", Text), ("partition", Int32), ("pdName", Text), ("readOnly", Bool)],
};

pub(crate) static GIT_REPO_VOLUME_SOURCE: Shape =
    Shape { name: "GitRepoVolumeSource", fields: &[("directory", Text), ("repository", Text), ("revision", Text)] };

pub(crate) static GLUSTERFS_VOLUME_SOURCE: Shape =
    Shape { name: "GlusterfsVolumeSource", fields: &[("endpoints", Text), ("path", Text), ("readOnly", Bool)] };

pub(crate) static HOST_PATH_VOLUME_SOURCE: Shape =
    Shape { name: "HostPathVolumeSource", fields: &[("path", Text), ("type", Pointer(&Text))] };

pub(crate) static ISCSI_VOLUME_SOURCE: Shape = Shape {
    name: "ISCSIVolumeSource",
    fields: &[
        ("chapAuthDiscovery", Bool),
        ("chapAuthSession", Bool),
        ("fsType", Text),
        ("initiatorName", Pointer(&Text)),
        ("iqn", Text),
        ("iscsiInterface", Text),
        ("lun", Int32),
        ("portals", List(&Text)),
        ("readOnly", Bool),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("targetPortal", Text),
    ],
};

pub(crate) static IMAGE_VOLUME_SOURCE: Shape =
    Shape { name: "ImageVolumeSource", fields: &[("pullPolicy", Text), ("reference", Text)] };

pub(crate) static KEY_TO_PATH: Shape =
    Shape { name: "KeyToPath", fields: &[("key", Text), ("mode", Pointer(&Int32)), ("path", Text)] };

pub(crate) static LOCAL_OBJECT_REFERENCE: Shape = Shape { name: "LocalObjectReference", fields: &[("name", Text)] };

pub(crate) static NFS_VOLUME_SOURCE: Shape =
    Shape { name: "NFSVolumeSource", fields: &[("path", Text), ("readOnly", Bool), ("server", Text)] };

pub(crate) static PERSISTENT_VOLUME_CLAIM_SPEC: Shape = Shape {
    name: "PersistentVolumeClaimSpec",
    fields: &[
        ("accessModes", List(&Text)),
        ("dataSource", Object(&TYPED_LOCAL_OBJECT_REFERENCE)),
        ("dataSourceRef", Object(&TYPED_OBJECT_REFERENCE)),
        ("resources", Object(&VOLUME_RESOURCE_REQUIREMENTS)),
        ("selector", Object(&LABEL_SELECTOR)),
        ("storageClassName", Pointer(&Text)),
        ("volumeAttributesClassName", Pointer(&Text)),
        ("volumeMode", Pointer(&Text)),
        ("volumeName", Text),
    ],
};

pub(crate) static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Shape = Shape {
    name: "PersistentVolumeClaimTemplate",
    fields: &[("metadata", Object(&OBJECT_META)), ("spec", Object(&PERSISTENT_VOLUME_CLAIM_SPEC))],
};

pub(crate) static PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE: Shape =
    Shape { name: "PersistentVolumeClaimVolumeSource", fields: &[("claimName", Text), ("readOnly", Bool)] };

pub(crate) static PHOTON_PERSISTENT_DISK_VOLUME_SOURCE: Shape =
    Shape { name: "PhotonPersistentDiskVolumeSource", fields: &[("fsType", Text), ("pdID", Text)] };

pub(crate) static POD_CERTIFICATE_PROJECTION: Shape = Shape {
    name: "PodCertificateProjection",
    fields: &[
        ("certificateChainPath", Text),
        ("credentialBundlePath", Text),
        ("keyPath", Text),
        ("keyType", Text),
        ("maxExpirationSeconds", Pointer(&Int32)),
        ("signerName", Text),
        ("userAnnotations", Map(&Text)),
    ],
};

pub(crate) static PORTWORX_VOLUME_SOURCE: Shape =
    Shape { name: "PortworxVolumeSource", fields: &[("fsType", Text), ("readOnly", Bool), ("volumeID", Text)] };

pub(crate) static PROJECTED_VOLUME_SOURCE: Shape = Shape {
    name: "ProjectedVolumeSource",
    fields: &[("defaultMode", Pointer(&Int32)), ("sources", List(&Object(&VOLUME_PROJECTION)))],
};

pub(crate) static QUOBYTE_VOLUME_SOURCE: Shape = Shape {
    name: "QuobyteVolumeSource",
    fields: &[
        ("group", Text),
        ("readOnly", Bool),
        ("registry", Text),
        ("tenant", Text),
        ("user", Text),
        ("volume", Text),
    ],
};

pub(crate) static RBD_VOLUME_SOURCE: Shape = Shape {
    name: "RBDVolumeSource",
    fields: &[
        ("fsType", Text),
        ("image", Text),
        ("keyring", Text),
        ("monitors", List(&Text)),
        ("pool", Text),
        ("readOnly", Bool),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("user", Text),
    ],
};

pub(crate) static SCALE_IO_VOLUME_SOURCE: Shape = Shape {
    name: "ScaleIOVolumeSource",
    fields: &[
        ("fsType", Text),
        ("gateway", Text),
        ("protectionDomain", Text),
        ("readOnly", Bool),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("sslEnabled", Bool),
        ("storageMode", Text),
        ("storagePool", Text),
        ("system", Text),
        ("volumeName", Text),
    ],
};

pub(crate) static SECRET_PROJECTION: Shape = Shape {
    name: "SecretProjection",
    fields: &[("items", List(&Object(&KEY_TO_PATH))), ("name", Text), ("optional", Pointer(&Bool))],
};

pub(crate) static SECRET_VOLUME_SOURCE: Shape = Shape {
    name: "SecretVolumeSource",
    fields: &[
        ("defaultMode", Pointer(&Int32)),
        ("items", List(&Object(&KEY_TO_PATH))),
        ("optional", Pointer(&Bool)),
        ("secretName", Text),
    ],
};

pub(crate) static SERVICE_ACCOUNT_TOKEN_PROJECTION: Shape = Shape {
    name: "ServiceAccountTokenProjection",
    fields: &[("audience", Text), ("expirationSeconds", Pointer(&Int64)), ("path", Text)],
};

pub(crate) static STORAGE_OS_VOLUME_SOURCE: Shape = Shape {
    name: "StorageOSVolumeSource",
    fields: &[
        ("fsType", Text),
        ("readOnly", Bool),
        ("secretRef", Object(&LOCAL_OBJECT_REFERENCE)),
        ("volumeName", Text),
        ("volumeNamespace", Text),
    ],
};

pub(crate) static TYPED_LOCAL_OBJECT_REFERENCE: Shape = Shape {
    name: "TypedLocalObjectReference",
    fields: &[("apiGroup", Pointer(&Text)), ("kind", Text), ("name", Text)],
};

pub(crate) static TYPED_OBJECT_REFERENCE: Shape = Shape {
    name: "TypedObjectReference",
    fields: &[("apiGroup", Pointer(&Text)), ("kind", Text), ("name", Text), ("namespace", Pointer(&Text))],
};

pub(crate) static VOLUME: Shape = Shape {
    name: "Volume",
    fields: &[
        ("awsElasticBlockStore", Object(&AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE)),
        ("azureDisk", Object(&AZURE_DISK_VOLUME_SOURCE)),
        ("azureFile", Object(&AZURE_FILE_VOLUME_SOURCE)),
        ("cephfs", Object(&CEPH_FS_VOLUME_SOURCE)),
        ("cinder", Object(&CINDER_VOLUME_SOURCE)),
        ("configMap", Object(&CONFIG_MAP_VOLUME_SOURCE)),
        ("csi", Object(&CSI_VOLUME_SOURCE)),
        ("downwardAPI", Object(&DOWNWARD_API_VOLUME_SOURCE)),
        ("emptyDir", Object(&EMPTY_DIR_VOLUME_SOURCE)),
        ("ephemeral", Object(&EPHEMERAL_VOLUME_SOURCE)),
        ("fc", Object(&FC_VOLUME_SOURCE)),
        ("flexVolume", Object(&FLEX_VOLUME_SOURCE)),
        ("flocker", Object(&FLOCKER_VOLUME_SOURCE)),
        ("gcePersistentDisk", Object(&GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
        ("gitRepo", Object(&GIT_REPO_VOLUME_SOURCE)),
        ("glusterfs", Object(&GLUSTERFS_VOLUME_SOURCE)),
        ("hostPath", Object(&HOST_PATH_VOLUME_SOURCE)),
        ("image", Object(&IMAGE_VOLUME_SOURCE)),
        ("iscsi", Object(&ISCSI_VOLUME_SOURCE)),
        ("name", Text),
        ("nfs", Object(&NFS_VOLUME_SOURCE)),
        ("persistentVolumeClaim", Object(&PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE)),
        ("photonPersistentDisk", Object(&PHOTON_PERSISTENT_DISK_VOLUME_SOURCE)),
        ("portworxVolume", Object(&PORTWORX_VOLUME_SOURCE)),
        ("projected", Object(&PROJECTED_VOLUME_SOURCE)),
        ("quobyte", Object(&QUOBYTE_VOLUME_SOURCE)),
        ("rbd", Object(&RBD_VOLUME_SOURCE)),
        ("scaleIO", Object(&SCALE_IO_VOLUME_SOURCE)),
        ("secret", Object(&SECRET_VOLUME_SOURCE)),
        ("storageos", Object(&STORAGE_OS_VOLUME_SOURCE)),
        ("vsphereVolume", Object(&VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)),
    ],
};

pub(crate) static VOLUME_PROJECTION: Shape = Shape {
    name: "VolumeProjection",
    fields: &[
        ("clusterTrustBundle", Object(&CLUSTER_TRUST_BUNDLE_PROJECTION)),
        ("configMap", Object(&CONFIG_MAP_PROJECTION)),
        ("downwardAPI", Object(&DOWNWARD_API_PROJECTION)),
        ("podCertificate", Object(&POD_CERTIFICATE_PROJECTION)),
        ("secret", Object(&SECRET_PROJECTION)),
        ("serviceAccountToken", Object(&SERVICE_ACCOUNT_TOKEN_PROJECTION)),
    ],
};

pub(crate) static VOLUME_RESOURCE_REQUIREMENTS: Shape =
    Shape { name: "VolumeResourceRequirements", fields: &[("limits", Map(&Quantity)), ("requests", Map(&Quantity))] };

pub(crate) static VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE: Shape = Shape {
    name: "VsphereVirtualDiskVolumeSource",
    fields: &[("fsType", Text), ("storagePolicyID", Text), ("storagePolicyName", Text), ("volumePath", Text)],
};
