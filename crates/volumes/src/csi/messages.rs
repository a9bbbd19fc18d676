//! The messages of CSI v1 and of plugin registration v1 that a node needs. Numbers are the protocol's.

use std::collections::BTreeMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Capability {
    #[prost(message, optional, tag = "2")]
    pub(crate) mount: Option<MountCapability>,
    #[prost(message, optional, tag = "3")]
    pub(crate) access_mode: Option<AccessMode>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MountCapability {
    #[prost(string, tag = "1")]
    pub(crate) fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) mount_flags: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) volume_mount_group: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AccessMode {
    #[prost(int32, tag = "1")]
    pub(crate) mode: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stage {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) publish_context: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_target_path: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) volume_capability: Option<Capability>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) secrets: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) volume_context: BTreeMap<String, String>,
}

/// `NodeUnstageVolume` and `NodeUnpublishVolume` alike: a volume and a path.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Undo {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Publish {
    #[prost(string, tag = "1")]
    pub(crate) volume_id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) publish_context: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) staging_target_path: String,
    #[prost(string, tag = "4")]
    pub(crate) target_path: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) volume_capability: Option<Capability>,
    #[prost(bool, tag = "6")]
    pub(crate) readonly: bool,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) secrets: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "8")]
    pub(crate) volume_context: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Capabilities {
    #[prost(message, repeated, tag = "1")]
    pub(crate) capabilities: Vec<ServiceCapability>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ServiceCapability {
    #[prost(message, optional, tag = "1")]
    pub(crate) rpc: Option<RpcCapability>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcCapability {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
}

impl Capabilities {
    pub(crate) const STAGE_UNSTAGE: i32 = 1;
    pub(crate) const SINGLE_NODE_MULTI_WRITER: i32 = 5;
    pub(crate) const VOLUME_MOUNT_GROUP: i32 = 6;

    pub(crate) fn has(&self, kind: i32) -> bool {
        self.capabilities.iter().any(|c| c.rpc.as_ref().is_some_and(|r| r.kind == kind))
    }
}

/// What a driver says of its node.
#[derive(Clone, PartialEq, Message)]
pub struct NodeFacts {
    /// The driver's name for the node.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// 0: no limit is known.
    #[prost(int64, tag = "2")]
    pub volumes_max: i64,
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

impl NodeFacts {
    /// Where the node is, by the driver's labels.
    pub fn segments(&self) -> BTreeMap<String, String> {
        self.topology.as_ref().map(|t| t.segments.clone()).unwrap_or_default()
    }
}

/// Where a node is.
#[derive(Clone, PartialEq, Message)]
pub struct Topology {
    /// By the driver's labels.
    #[prost(btree_map = "string, string", tag = "1")]
    pub segments: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PluginFacts {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub(crate) plugin_registered: bool,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
}
