//! Containers of all three sorts, their probes, hooks, environment and security.

use crate::schema::Kind::{Bool, Int32, Int64, IntOrString, List, Map, Object, Pointer, Quantity, Text};
use crate::schema::Shape;

pub(crate) static APP_ARMOR_PROFILE: Shape =
    Shape { name: "AppArmorProfile", fields: &[("localhostProfile", Pointer(&Text)), ("type", Text)] };

pub(crate) static CAPABILITIES: Shape =
    Shape { name: "Capabilities", fields: &[("add", List(&Text)), ("drop", List(&Text))] };

pub(crate) static CONFIG_MAP_ENV_SOURCE: Shape =
    Shape { name: "ConfigMapEnvSource", fields: &[("name", Text), ("optional", Pointer(&Bool))] };

pub(crate) static CONFIG_MAP_KEY_SELECTOR: Shape =
    Shape { name: "ConfigMapKeySelector", fields: &[("key", Text), ("name", Text), ("optional", Pointer(&Bool))] };

pub(crate) static CONTAINER: Shape = Shape {
    name: "Container",
    fields: &[
        ("args", List(&Text)),
        ("command", List(&Text)),
        ("env", List(&Object(&ENV_VAR))),
        ("envFrom", List(&Object(&ENV_FROM_SOURCE))),
        ("image", Text),
        ("imagePullPolicy", Text),
        ("lifecycle", Object(&LIFECYCLE)),
        ("livenessProbe", Object(&PROBE)),
        ("name", Text),
        ("ports", List(&Object(&CONTAINER_PORT))),
        ("readinessProbe", Object(&PROBE)),
        ("resizePolicy", List(&Object(&CONTAINER_RESIZE_POLICY))),
        ("resources", Object(&RESOURCE_REQUIREMENTS)),
        ("restartPolicy", Pointer(&Text)),
        ("restartPolicyRules", List(&Object(&CONTAINER_RESTART_RULE))),
        ("securityContext", Object(&SECURITY_CONTEXT)),
        ("startupProbe", Object(&PROBE)),
        ("stdin", Bool),
        ("stdinOnce", Bool),
        ("terminationMessagePath", Text),
        ("terminationMessagePolicy", Text),
        ("tty", Bool),
        ("volumeDevices", List(&Object(&VOLUME_DEVICE))),
        ("volumeMounts", List(&Object(&VOLUME_MOUNT))),
        ("workingDir", Text),
    ],
};

pub(crate) static CONTAINER_PORT: Shape = Shape {
    name: "ContainerPort",
    fields: &[("containerPort", Int32), ("hostIP", Text), ("hostPort", Int32), ("name", Text), ("protocol", Text)],
};

pub(crate) static CONTAINER_RESIZE_POLICY: Shape =
    Shape { name: "ContainerResizePolicy", fields: &[("resourceName", Text), ("restartPolicy", Text)] };

pub(crate) static CONTAINER_RESTART_RULE: Shape = Shape {
    name: "ContainerRestartRule",
    fields: &[("action", Text), ("exitCodes", Object(&CONTAINER_RESTART_RULE_ON_EXIT_CODES))],
};

pub(crate) static CONTAINER_RESTART_RULE_ON_EXIT_CODES: Shape =
    Shape { name: "ContainerRestartRuleOnExitCodes", fields: &[("operator", Text), ("values", List(&Int32))] };

pub(crate) static ENV_FROM_SOURCE: Shape = Shape {
    name: "EnvFromSource",
    fields: &[
        ("configMapRef", Object(&CONFIG_MAP_ENV_SOURCE)),
        ("prefix", Text),
        ("secretRef", Object(&SECRET_ENV_SOURCE)),
    ],
};

pub(crate) static ENV_VAR: Shape =
    Shape { name: "EnvVar", fields: &[("name", Text), ("value", Text), ("valueFrom", Object(&ENV_VAR_SOURCE))] };

pub(crate) static ENV_VAR_SOURCE: Shape = Shape {
    name: "EnvVarSource",
    fields: &[
        ("configMapKeyRef", Object(&CONFIG_MAP_KEY_SELECTOR)),
        ("fieldRef", Object(&OBJECT_FIELD_SELECTOR)),
        ("fileKeyRef", Object(&FILE_KEY_SELECTOR)),
        ("resourceFieldRef", Object(&RESOURCE_FIELD_SELECTOR)),
        ("secretKeyRef", Object(&SECRET_KEY_SELECTOR)),
    ],
};

pub(crate) static EPHEMERAL_CONTAINER: Shape = Shape {
    name: "EphemeralContainer",
    fields: &[
        ("args", List(&Text)),
        ("command", List(&Text)),
        ("env", List(&Object(&ENV_VAR))),
        ("envFrom", List(&Object(&ENV_FROM_SOURCE))),
        ("image", Text),
        ("imagePullPolicy", Text),
        ("lifecycle", Object(&LIFECYCLE)),
        ("livenessProbe", Object(&PROBE)),
        ("name", Text),
        ("ports", List(&Object(&CONTAINER_PORT))),
        ("readinessProbe", Object(&PROBE)),
        ("resizePolicy", List(&Object(&CONTAINER_RESIZE_POLICY))),
        ("resources", Object(&RESOURCE_REQUIREMENTS)),
        ("restartPolicy", Pointer(&Text)),
        ("restartPolicyRules", List(&Object(&CONTAINER_RESTART_RULE))),
        ("securityContext", Object(&SECURITY_CONTEXT)),
        ("startupProbe", Object(&PROBE)),
        ("stdin", Bool),
        ("stdinOnce", Bool),
        ("targetContainerName", Text),
        ("terminationMessagePath", Text),
        ("terminationMessagePolicy", Text),
        ("tty", Bool),
        ("volumeDevices", List(&Object(&VOLUME_DEVICE))),
        ("volumeMounts", List(&Object(&VOLUME_MOUNT))),
        ("workingDir", Text),
    ],
};

pub(crate) static EXEC_ACTION: Shape = Shape { name: "ExecAction", fields: &[("command", List(&Text))] };

pub(crate) static FILE_KEY_SELECTOR: Shape = Shape {
    name: "FileKeySelector",
    fields: &[("key", Text), ("optional", Pointer(&Bool)), ("path", Text), ("volumeName", Text)],
};

pub(crate) static GRPC_ACTION: Shape =
    Shape { name: "GRPCAction", fields: &[("port", Int32), ("service", Pointer(&Text))] };

pub(crate) static HTTP_GET_ACTION: Shape = Shape {
    name: "HTTPGetAction",
    fields: &[
        ("host", Text),
        ("httpHeaders", List(&Object(&HTTP_HEADER))),
        ("path", Text),
        ("port", IntOrString),
        ("scheme", Text),
    ],
};

pub(crate) static HTTP_HEADER: Shape = Shape { name: "HTTPHeader", fields: &[("name", Text), ("value", Text)] };

pub(crate) static LIFECYCLE: Shape = Shape {
    name: "Lifecycle",
    fields: &[
        ("postStart", Object(&LIFECYCLE_HANDLER)),
        ("preStop", Object(&LIFECYCLE_HANDLER)),
        ("stopSignal", Pointer(&Text)),
    ],
};

pub(crate) static LIFECYCLE_HANDLER: Shape = Shape {
    name: "LifecycleHandler",
    fields: &[
        ("exec", Object(&EXEC_ACTION)),
        ("httpGet", Object(&HTTP_GET_ACTION)),
        ("sleep", Object(&SLEEP_ACTION)),
        ("tcpSocket", Object(&TCP_SOCKET_ACTION)),
    ],
};

pub(crate) static OBJECT_FIELD_SELECTOR: Shape =
    Shape { name: "ObjectFieldSelector", fields: &[("apiVersion", Text), ("fieldPath", Text)] };

pub(crate) static PROBE: Shape = Shape {
    name: "Probe",
    fields: &[
        ("exec", Object(&EXEC_ACTION)),
        ("failureThreshold", Int32),
        ("grpc", Object(&GRPC_ACTION)),
        ("httpGet", Object(&HTTP_GET_ACTION)),
        ("initialDelaySeconds", Int32),
        ("periodSeconds", Int32),
        ("successThreshold", Int32),
        ("tcpSocket", Object(&TCP_SOCKET_ACTION)),
        ("terminationGracePeriodSeconds", Pointer(&Int64)),
        ("timeoutSeconds", Int32),
    ],
};

pub(crate) static RESOURCE_CLAIM: Shape = Shape { name: "ResourceClaim", fields: &[("name", Text), ("request", Text)] };

pub(crate) static RESOURCE_FIELD_SELECTOR: Shape = Shape {
    name: "ResourceFieldSelector",
    fields: &[("containerName", Text), ("divisor", Quantity), ("resource", Text)],
};

pub(crate) static RESOURCE_REQUIREMENTS: Shape = Shape {
    name: "ResourceRequirements",
    fields: &[("claims", List(&Object(&RESOURCE_CLAIM))), ("limits", Map(&Quantity)), ("requests", Map(&Quantity))],
};

pub(crate) static SE_LINUX_OPTIONS: Shape =
    Shape { name: "SELinuxOptions", fields: &[("level", Text), ("role", Text), ("type", Text), ("user", Text)] };

pub(crate) static SECCOMP_PROFILE: Shape =
    Shape { name: "SeccompProfile", fields: &[("localhostProfile", Pointer(&Text)), ("type", Text)] };

pub(crate) static SECRET_ENV_SOURCE: Shape =
    Shape { name: "SecretEnvSource", fields: &[("name", Text), ("optional", Pointer(&Bool))] };

pub(crate) static SECRET_KEY_SELECTOR: Shape =
    Shape { name: "SecretKeySelector", fields: &[("key", Text), ("name", Text), ("optional", Pointer(&Bool))] };

pub(crate) static SECURITY_CONTEXT: Shape = Shape {
    name: "SecurityContext",
    fields: &[
        ("allowPrivilegeEscalation", Pointer(&Bool)),
        ("appArmorProfile", Object(&APP_ARMOR_PROFILE)),
        ("capabilities", Object(&CAPABILITIES)),
        ("privileged", Pointer(&Bool)),
        ("procMount", Pointer(&Text)),
        ("readOnlyRootFilesystem", Pointer(&Bool)),
        ("runAsGroup", Pointer(&Int64)),
        ("runAsNonRoot", Pointer(&Bool)),
        ("runAsUser", Pointer(&Int64)),
        ("seLinuxOptions", Object(&SE_LINUX_OPTIONS)),
        ("seccompProfile", Object(&SECCOMP_PROFILE)),
        ("windowsOptions", Object(&WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    ],
};

pub(crate) static SLEEP_ACTION: Shape = Shape { name: "SleepAction", fields: &[("seconds", Int64)] };

pub(crate) static TCP_SOCKET_ACTION: Shape =
    Shape { name: "TCPSocketAction", fields: &[("host", Text), ("port", IntOrString)] };

pub(crate) static VOLUME_DEVICE: Shape =
    Shape { name: "VolumeDevice", fields: &[("devicePath", Text), ("name", Text)] };

pub(crate) static VOLUME_MOUNT: Shape = Shape {
    name: "VolumeMount",
    fields: &[
        ("mountPath", Text),
        ("mountPropagation", Pointer(&Text)),
        ("name", Text),
        ("readOnly", Bool),
        ("recursiveReadOnly", Pointer(&Text)),
        ("subPath", Text),
        ("subPathExpr", Text),
    ],
};

pub(crate) static WINDOWS_SECURITY_CONTEXT_OPTIONS: Shape = Shape {
    name: "WindowsSecurityContextOptions",
    fields: &[
        ("gmsaCredentialSpec", Pointer(&Text)),
        ("gmsaCredentialSpecName", Pointer(&Text)),
        ("hostProcess", Pointer(&Bool)),
        ("runAsUserName", Pointer(&Text)),
    ],
};
