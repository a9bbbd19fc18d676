//! CRI messages as the JSON of the recordings: original field names, defaults left out, 64-bit numbers as text, enums by name.

use rubelet_proto::cri;
use serde_json::{Map, Value, json};

/// A message under construction.
#[derive(Default)]
struct Message(Map<String, Value>);

impl Message {
    fn text(self, key: &str, value: &str) -> Self {
        self.put_unless(value.is_empty(), key, json!(value))
    }

    fn flag(self, key: &str, value: bool) -> Self {
        self.put_unless(!value, key, json!(value))
    }

    fn small(self, key: &str, value: impl Into<i64>) -> Self {
        let value = value.into();
        self.put_unless(value == 0, key, json!(value))
    }

    fn long(self, key: &str, value: i64) -> Self {
        self.put_unless(value == 0, key, json!(value.to_string()))
    }

    fn named(self, key: &str, number: i32, name: &str) -> Self {
        self.put_unless(number == 0, key, json!(name))
    }

    fn list(self, key: &str, items: Vec<Value>) -> Self {
        self.put_unless(items.is_empty(), key, Value::Array(items))
    }

    fn texts(self, key: &str, items: &[String]) -> Self {
        self.list(key, items.iter().map(|i| json!(i)).collect())
    }

    fn map(self, key: &str, items: &std::collections::BTreeMap<String, String>) -> Self {
        self.put_unless(items.is_empty(), key, json!(items))
    }

    fn message<T>(self, key: &str, value: Option<&T>, show: impl Fn(&T) -> Value) -> Self {
        match value {
            Some(value) => self.put_unless(false, key, show(value)),
            None => self,
        }
    }

    fn put_unless(mut self, is_default: bool, key: &str, value: Value) -> Self {
        if !is_default {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn message() -> Message {
    Message::default()
}

pub(crate) fn sandbox(config: &cri::PodSandboxConfig) -> Value {
    assert_eq!(config.windows, None);
    message()
        .message("metadata", config.metadata.as_ref(), |m| {
            message()
                .text("name", &m.name)
                .text("uid", &m.uid)
                .text("namespace", &m.namespace)
                .small("attempt", m.attempt)
                .done()
        })
        .text("hostname", &config.hostname)
        .text("log_directory", &config.log_directory)
        .message("dns_config", config.dns_config.as_ref(), |d| {
            message().texts("servers", &d.servers).texts("searches", &d.searches).texts("options", &d.options).done()
        })
        .list("port_mappings", config.port_mappings.iter().map(port).collect())
        .map("labels", &config.labels)
        .map("annotations", &config.annotations)
        .message("linux", config.linux.as_ref(), |l| {
            message()
                .text("cgroup_parent", &l.cgroup_parent)
                .message("security_context", l.security_context.as_ref(), sandbox_security)
                .map("sysctls", &l.sysctls)
                .message("overhead", l.overhead.as_ref(), resources)
                .message("resources", l.resources.as_ref(), resources)
                .done()
        })
        .done()
}

pub(crate) fn container(config: &cri::ContainerConfig) -> Value {
    assert_eq!((&config.windows, config.devices.len(), config.cdi_devices.len(), config.stop_signal), (&None, 0, 0, 0));
    message()
        .message("metadata", config.metadata.as_ref(), |m| {
            message().text("name", &m.name).small("attempt", m.attempt).done()
        })
        .message("image", config.image.as_ref(), |i| {
            message()
                .text("image", &i.image)
                .map("annotations", &i.annotations)
                .text("user_specified_image", &i.user_specified_image)
                .text("runtime_handler", &i.runtime_handler)
                .text("image_ref", &i.image_ref)
                .done()
        })
        .texts("command", &config.command)
        .texts("args", &config.args)
        .text("working_dir", &config.working_dir)
        .list(
            "envs",
            config.envs.iter().map(|e| json!({ "key": e.key, "value": String::from_utf8_lossy(&e.value) })).collect(),
        )
        .list("mounts", config.mounts.iter().map(mount).collect())
        .map("labels", &config.labels)
        .map("annotations", &config.annotations)
        .text("log_path", &config.log_path)
        .flag("stdin", config.stdin)
        .flag("stdin_once", config.stdin_once)
        .flag("tty", config.tty)
        .message("linux", config.linux.as_ref(), |l| {
            message()
                .message("resources", l.resources.as_ref(), resources)
                .message("security_context", l.security_context.as_ref(), container_security)
                .done()
        })
        .done()
}

fn port(port: &cri::PortMapping) -> Value {
    message()
        .named("protocol", port.protocol, port.protocol().as_str_name())
        .small("container_port", port.container_port)
        .small("host_port", port.host_port)
        .text("host_ip", &port.host_ip)
        .done()
}

fn mount(mount: &cri::Mount) -> Value {
    assert_eq!(
        (mount.uid_mappings.len(), mount.gid_mappings.len(), &mount.image, mount.image_sub_path.as_str()),
        (0, 0, &None, "")
    );
    message()
        .text("container_path", &mount.container_path)
        .text("host_path", &mount.host_path)
        .flag("readonly", mount.readonly)
        .flag("selinux_relabel", mount.selinux_relabel)
        .named("propagation", mount.propagation, mount.propagation().as_str_name())
        .flag("recursive_read_only", mount.recursive_read_only)
        .done()
}

fn resources(resources: &cri::LinuxContainerResources) -> Value {
    let huge_page = |h: &cri::HugepageLimit| {
        message()
            .text("page_size", &h.page_size)
            .long("limit", i64::try_from(h.limit).expect("a limit in bounds"))
            .done()
    };
    message()
        .long("cpu_period", resources.cpu_period)
        .long("cpu_quota", resources.cpu_quota)
        .long("cpu_shares", resources.cpu_shares)
        .long("memory_limit_in_bytes", resources.memory_limit_in_bytes)
        .long("oom_score_adj", resources.oom_score_adj)
        .text("cpuset_cpus", &resources.cpuset_cpus)
        .text("cpuset_mems", &resources.cpuset_mems)
        .list("hugepage_limits", resources.hugepage_limits.iter().map(huge_page).collect())
        .map("unified", &resources.unified)
        .long("memory_swap_limit_in_bytes", resources.memory_swap_limit_in_bytes)
        .done()
}

fn namespaces(options: &cri::NamespaceOption) -> Value {
    message()
        .named("network", options.network, options.network().as_str_name())
        .named("pid", options.pid, options.pid().as_str_name())
        .named("ipc", options.ipc, options.ipc().as_str_name())
        .text("target_id", &options.target_id)
        .message("userns_options", options.userns_options.as_ref(), |u| {
            assert_eq!((u.uids.len(), u.gids.len()), (0, 0));
            message().named("mode", u.mode, u.mode().as_str_name()).done()
        })
        .done()
}

fn profile(profile: &cri::SecurityProfile) -> Value {
    message()
        .named("profile_type", profile.profile_type, profile.profile_type().as_str_name())
        .text("localhost_ref", &profile.localhost_ref)
        .done()
}

fn number(number: &cri::Int64Value) -> Value {
    message().long("value", number.value).done()
}

fn longs(numbers: &[i64]) -> Vec<Value> {
    numbers.iter().map(|n| json!(n.to_string())).collect()
}

fn selinux(options: &cri::SeLinuxOption) -> Value {
    message()
        .text("user", &options.user)
        .text("role", &options.role)
        .text("type", &options.r#type)
        .text("level", &options.level)
        .done()
}

fn sandbox_security(context: &cri::LinuxSandboxSecurityContext) -> Value {
    message()
        .message("namespace_options", context.namespace_options.as_ref(), namespaces)
        .message("selinux_options", context.selinux_options.as_ref(), selinux)
        .message("run_as_user", context.run_as_user.as_ref(), number)
        .message("run_as_group", context.run_as_group.as_ref(), number)
        .flag("readonly_rootfs", context.readonly_rootfs)
        .list("supplemental_groups", longs(&context.supplemental_groups))
        .named(
            "supplemental_groups_policy",
            context.supplemental_groups_policy,
            context.supplemental_groups_policy().as_str_name(),
        )
        .flag("privileged", context.privileged)
        .message("seccomp", context.seccomp.as_ref(), profile)
        .message("apparmor", context.apparmor.as_ref(), profile)
        .text("seccomp_profile_path", &context.seccomp_profile_path)
        .done()
}

fn container_security(context: &cri::LinuxContainerSecurityContext) -> Value {
    message()
        .message("capabilities", context.capabilities.as_ref(), |c| {
            message()
                .texts("add_capabilities", &c.add_capabilities)
                .texts("drop_capabilities", &c.drop_capabilities)
                .texts("add_ambient_capabilities", &c.add_ambient_capabilities)
                .done()
        })
        .flag("privileged", context.privileged)
        .message("namespace_options", context.namespace_options.as_ref(), namespaces)
        .message("selinux_options", context.selinux_options.as_ref(), selinux)
        .message("run_as_user", context.run_as_user.as_ref(), number)
        .message("run_as_group", context.run_as_group.as_ref(), number)
        .text("run_as_username", &context.run_as_username)
        .flag("readonly_rootfs", context.readonly_rootfs)
        .list("supplemental_groups", longs(&context.supplemental_groups))
        .named(
            "supplemental_groups_policy",
            context.supplemental_groups_policy,
            context.supplemental_groups_policy().as_str_name(),
        )
        .flag("no_new_privs", context.no_new_privs)
        .texts("masked_paths", &context.masked_paths)
        .texts("readonly_paths", &context.readonly_paths)
        .message("seccomp", context.seccomp.as_ref(), profile)
        .message("apparmor", context.apparmor.as_ref(), profile)
        .text("apparmor_profile", &context.apparmor_profile)
        .text("seccomp_profile_path", &context.seccomp_profile_path)
        .done()
}
