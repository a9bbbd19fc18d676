//! Capabilities: the usual set of a container, and what is added to and dropped from it.

use rubelet_proto::cri::LinuxContainerSecurityContext;
use rubelet_shim::spec::Capabilities;

use super::HostFacts;

/// What a container has unless it says otherwise (containerd's and Docker's set).
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The five sets. `ALL` is all that this process has; names that the kernel does not know are without effect, as with containerd.
///
/// containerd 2: first `ALL` is added, then dropped, then single ones are added, then dropped; a name to add has no `CAP_` before it.
pub(super) fn sets(security: &LinuxContainerSecurityContext, host: &HostFacts) -> Capabilities {
    let known = rubelet_shim::capability_names();
    let all =
        || known.iter().enumerate().filter(|(number, _)| host.capabilities & (1 << number) != 0).map(|(_, name)| *name);
    let asked = security.capabilities.clone().unwrap_or_default();
    let upper = |list: &[String]| list.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>();
    let (add, ambient) = (upper(&asked.add_capabilities), upper(&asked.add_ambient_capabilities));
    // Who writes a prefix where none belongs wants the capability gone.
    let drop: Vec<String> = upper(&asked.drop_capabilities)
        .iter()
        .map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned())
        .collect();
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    if security.privileged {
        return of(all().collect(), &[]);
    }
    let mut given: Vec<&str> = match (has(&add, "ALL"), has(&drop, "ALL")) {
        (_, true) => Vec::new(),
        (true, false) => all().collect(),
        (false, false) => USUAL.to_vec(),
    };
    let wanted = known.iter().copied().filter(|name| has(&add, name) || has(&ambient, name));
    for name in wanted {
        if !given.contains(&name) {
            given.push(name);
        }
    }
    given.retain(|name| !has(&drop, name));
    let ambient: Vec<&str> = given.iter().copied().filter(|name| has(&ambient, name)).collect();
    of(given, &ambient)
}

/// An ambient capability is inheritable too, or the kernel does not take it.
fn of(given: Vec<&str>, ambient: &[&str]) -> Capabilities {
    let names = |list: &[&str]| list.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>();
    let given = names(&given);
    Capabilities {
        bounding: given.clone(),
        effective: given.clone(),
        permitted: given,
        inheritable: names(ambient),
        ambient: names(ambient),
    }
}

#[cfg(test)]
mod tests {
    use rubelet_proto::cri::Capability;

    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| (*s).to_owned()).collect()
    }

    fn asked(add: &[&str], drop: &[&str], ambient: &[&str], privileged: bool) -> Capabilities {
        let capabilities = Capability {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            add_ambient_capabilities: strings(ambient),
        };
        let security =
            LinuxContainerSecurityContext { capabilities: Some(capabilities), privileged, ..Default::default() };
        // All but SYS_RESOURCE.
        let host = HostFacts { capabilities: ((1 << 41) - 1) & !(1 << 24), ..HostFacts::look(false) };
        sets(&security, &host)
    }

    fn given(add: &[&str], drop: &[&str]) -> Vec<String> {
        asked(add, drop, &[], false).bounding
    }

    #[test]
    fn the_usual_and_what_is_asked() {
        assert_eq!(given(&[], &[]).len(), 14);
        assert_eq!(given(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(given(&["net_raw"], &["all"]), ["CAP_NET_RAW"]);
        assert!(given(&["SYS_TIME"], &["CHOWN"]).iter().all(|name| name != "CAP_CHOWN"));
        assert_eq!(given(&["ALL"], &[]).len(), 40);
        assert_eq!(given(&["ALL"], &["SYS_ADMIN"]).len(), 39);
        assert_eq!(given(&["ALL", "KILL"], &["ALL"]), ["CAP_KILL"]);
        assert_eq!(given(&["KILL"], &["KILL", "ALL"]), [""; 0]);
    }

    #[test]
    fn names_that_are_none() {
        assert_eq!(given(&["NOSUCH", "CAP_SYS_ADMIN"], &["NOSUCH"]).len(), 14);
        assert_eq!(given(&[], &["CAP_CHOWN"]).len(), 13);
    }

    #[test]
    fn the_privileged_have_what_we_have() {
        assert_eq!(asked(&[], &["ALL"], &[], true).effective.len(), 40);
    }

    #[test]
    fn ambient_ones_are_in_all_sets() {
        let sets = asked(&[], &["ALL"], &["NET_RAW"], false);
        for set in [&sets.bounding, &sets.effective, &sets.permitted, &sets.inheritable, &sets.ambient] {
            assert_eq!(*set, ["CAP_NET_RAW"]);
        }
        assert!(asked(&["ALL"], &[], &[], false).inheritable.is_empty());
        assert!(asked(&[], &["NET_RAW"], &["NET_RAW"], false).ambient.is_empty());
    }
}
