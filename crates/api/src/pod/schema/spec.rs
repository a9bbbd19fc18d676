//! The pod's own fields: scheduling, DNS, pod security.

use super::container::*;
use super::object::*;
use super::volume::*;
use crate::schema::Kind::{Bool, Int32, Int64, List, Map, Object, Pointer, Quantity, Text};
use crate::schema::Shape;

pub(crate) static AFFINITY: Shape = Shape {
    name: "Affinity",
    fields: &[
        ("nodeAffinity", Object(&NODE_AFFINITY)),
        ("podAffinity", Object(&POD_AFFINITY)),
        ("podAntiAffinity", Object(&POD_ANTI_AFFINITY)),
    ],
};

pub(crate) static HOST_ALIAS: Shape = Shape { name: "HostAlias", fields: &[("hostnames", List(&Text)), ("ip", Text)] };

pub(crate) static NODE_AFFINITY: Shape = Shape {
    name: "NodeAffinity",
    fields: &[
        ("preferredDuringSchedulingIgnoredDuringExecution", List(&Object(&PREFERRED_SCHEDULING_TERM))),
        ("requiredDuringSchedulingIgnoredDuringExecution", Object(&NODE_SELECTOR)),
    ],
};

pub(crate) static NODE_SELECTOR: Shape =
    Shape { name: "NodeSelector", fields: &[("nodeSelectorTerms", List(&Object(&NODE_SELECTOR_TERM)))] };

pub(crate) static NODE_SELECTOR_REQUIREMENT: Shape =
    Shape { name: "NodeSelectorRequirement", fields: &[("key", Text), ("operator", Text), ("values", List(&Text))] };

pub(crate) static NODE_SELECTOR_TERM: Shape = Shape {
    name: "NodeSelectorTerm",
    fields: &[
        ("matchExpressions", List(&Object(&NODE_SELECTOR_REQUIREMENT))),
        ("matchFields", List(&Object(&NODE_SELECTOR_REQUIREMENT))),
    ],
};

pub(crate) static POD_AFFINITY: Shape = Shape {
    name: "PodAffinity",
    fields: &[
        ("preferredDuringSchedulingIgnoredDuringExecution", List(&Object(&WEIGHTED_POD_AFFINITY_TERM))),
        ("requiredDuringSchedulingIgnoredDuringExecution", List(&Object(&POD_AFFINITY_TERM))),
    ],
};

pub(crate) static POD_AFFINITY_TERM: Shape = Shape {
    name: "PodAffinityTerm",
    fields: &[
        ("labelSelector", Object(&LABEL_SELECTOR)),
        ("matchLabelKeys", List(&Text)),
        ("mismatchLabelKeys", List(&Text)),
        ("namespaceSelector", Object(&LABEL_SELECTOR)),
        ("namespaces", List(&Text)),
        ("topologyKey", Text),
    ],
};

pub(crate) static POD_ANTI_AFFINITY: Shape = Shape {
    name: "PodAntiAffinity",
    fields: &[
        ("preferredDuringSchedulingIgnoredDuringExecution", List(&Object(&WEIGHTED_POD_AFFINITY_TERM))),
        ("requiredDuringSchedulingIgnoredDuringExecution", List(&Object(&POD_AFFINITY_TERM))),
    ],
};

pub(crate) static POD_DNS_CONFIG: Shape = Shape {
    name: "PodDNSConfig",
    fields: &[
        ("nameservers", List(&Text)),
        ("options", List(&Object(&POD_DNS_CONFIG_OPTION))),
        ("searches", List(&Text)),
    ],
};

pub(crate) static POD_DNS_CONFIG_OPTION: Shape =
    Shape { name: "PodDNSConfigOption", fields: &[("name", Text), ("value", Pointer(&Text))] };

pub(crate) static POD_OS: Shape = Shape { name: "PodOS", fields: &[("name", Text)] };

pub(crate) static POD_READINESS_GATE: Shape = Shape { name: "PodReadinessGate", fields: &[("conditionType", Text)] };

pub(crate) static POD_RESOURCE_CLAIM: Shape = Shape {
    name: "PodResourceClaim",
    fields: &[("name", Text), ("resourceClaimName", Pointer(&Text)), ("resourceClaimTemplateName", Pointer(&Text))],
};

pub(crate) static POD_SCHEDULING_GATE: Shape = Shape { name: "PodSchedulingGate", fields: &[("name", Text)] };

pub(crate) static POD_SCHEDULING_GROUP: Shape =
    Shape { name: "PodSchedulingGroup", fields: &[("podGroupName", Pointer(&Text))] };

pub(crate) static POD_SECURITY_CONTEXT: Shape = Shape {
    name: "PodSecurityContext",
    fields: &[
        ("appArmorProfile", Object(&APP_ARMOR_PROFILE)),
        ("fsGroup", Pointer(&Int64)),
        ("fsGroupChangePolicy", Pointer(&Text)),
        ("runAsGroup", Pointer(&Int64)),
        ("runAsNonRoot", Pointer(&Bool)),
        ("runAsUser", Pointer(&Int64)),
        ("seLinuxChangePolicy", Pointer(&Text)),
        ("seLinuxOptions", Object(&SE_LINUX_OPTIONS)),
        ("seccompProfile", Object(&SECCOMP_PROFILE)),
        ("supplementalGroups", List(&Int64)),
        ("supplementalGroupsPolicy", Pointer(&Text)),
        ("sysctls", List(&Object(&SYSCTL))),
        ("windowsOptions", Object(&WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    ],
};

pub(crate) static POD_SPEC: Shape = Shape {
    name: "PodSpec",
    fields: &[
        ("activeDeadlineSeconds", Pointer(&Int64)),
        ("affinity", Object(&AFFINITY)),
        ("automountServiceAccountToken", Pointer(&Bool)),
        ("containers", List(&Object(&CONTAINER))),
        ("dnsConfig", Object(&POD_DNS_CONFIG)),
        ("dnsPolicy", Text),
        ("enableServiceLinks", Pointer(&Bool)),
        ("ephemeralContainers", List(&Object(&EPHEMERAL_CONTAINER))),
        ("hostAliases", List(&Object(&HOST_ALIAS))),
        ("hostIPC", Bool),
        ("hostNetwork", Bool),
        ("hostPID", Bool),
        ("hostUsers", Pointer(&Bool)),
        ("hostname", Text),
        ("hostnameOverride", Pointer(&Text)),
        ("imagePullSecrets", List(&Object(&LOCAL_OBJECT_REFERENCE))),
        ("initContainers", List(&Object(&CONTAINER))),
        ("nodeName", Text),
        ("nodeSelector", Map(&Text)),
        ("os", Object(&POD_OS)),
        ("overhead", Pointer(&Map(&Quantity))),
        ("preemptionPolicy", Pointer(&Text)),
        ("priority", Pointer(&Int32)),
        ("priorityClassName", Text),
        ("readinessGates", List(&Object(&POD_READINESS_GATE))),
        ("resourceClaims", List(&Object(&POD_RESOURCE_CLAIM))),
        ("resources", Object(&RESOURCE_REQUIREMENTS)),
        ("restartPolicy", Text),
        ("runtimeClassName", Pointer(&Text)),
        ("schedulerName", Text),
        ("schedulingGates", List(&Object(&POD_SCHEDULING_GATE))),
        ("schedulingGroup", Object(&POD_SCHEDULING_GROUP)),
        ("securityContext", Object(&POD_SECURITY_CONTEXT)),
        ("serviceAccount", Text),
        ("serviceAccountName", Text),
        ("setHostnameAsFQDN", Pointer(&Bool)),
        ("shareProcessNamespace", Pointer(&Bool)),
        ("subdomain", Text),
        ("terminationGracePeriodSeconds", Pointer(&Int64)),
        ("tolerations", List(&Object(&TOLERATION))),
        ("topologySpreadConstraints", List(&Object(&TOPOLOGY_SPREAD_CONSTRAINT))),
        ("volumes", List(&Object(&VOLUME))),
    ],
};

pub(crate) static PREFERRED_SCHEDULING_TERM: Shape = Shape {
    name: "PreferredSchedulingTerm",
    fields: &[("preference", Object(&NODE_SELECTOR_TERM)), ("weight", Int32)],
};

pub(crate) static SYSCTL: Shape = Shape { name: "Sysctl", fields: &[("name", Text), ("value", Text)] };

pub(crate) static TOLERATION: Shape = Shape {
    name: "Toleration",
    fields: &[
        ("effect", Text),
        ("key", Text),
        ("operator", Text),
        ("tolerationSeconds", Pointer(&Int64)),
        ("value", Text),
    ],
};

pub(crate) static TOPOLOGY_SPREAD_CONSTRAINT: Shape = Shape {
    name: "TopologySpreadConstraint",
    fields: &[
        ("labelSelector", Object(&LABEL_SELECTOR)),
        ("matchLabelKeys", List(&Text)),
        ("maxSkew", Int32),
        ("minDomains", Pointer(&Int32)),
        ("nodeAffinityPolicy", Pointer(&Text)),
        ("nodeTaintsPolicy", Pointer(&Text)),
        ("topologyKey", Text),
        ("whenUnsatisfiable", Text),
    ],
};

pub(crate) static WEIGHTED_POD_AFFINITY_TERM: Shape = Shape {
    name: "WeightedPodAffinityTerm",
    fields: &[("podAffinityTerm", Object(&POD_AFFINITY_TERM)), ("weight", Int32)],
};
