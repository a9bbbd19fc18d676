use super::*;

fn nobody(_: &str) -> Option<(PodUid, String)> {
    None
}

pub(in crate::resources::cpus) fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

pub(in crate::resources::cpus) fn state(shared: &str, held: &[(&str, &str, &str)]) -> State {
    let mut all = Assignments::new();
    for (pod, container, cpus) in held {
        all.entry(PodUid::new(pod)).or_default().insert((*container).to_owned(), set(cpus));
    }
    State { shared: set(shared), held: all }
}

#[test]
fn the_text_is_upstreams() {
    // Replicas of what upstream's code writes.
    for (policy, state, text) in [
        ("none", state("", &[]), r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#),
        ("static", state("", &[]), r#"{"policyName":"static","defaultCpuSet":"","checksum":3083571066}"#),
        ("static", state("0-3,8", &[]), r#"{"policyName":"static","defaultCpuSet":"0-3,8","checksum":2391417808}"#),
        (
            "static",
            state("0-3,8", &[("uid-2", "b", "4")]),
            r#"{"policyName":"static","defaultCpuSet":"0-3,8","entries":{"uid-2":{"b":"4"}},"checksum":2645149877}"#,
        ),
        (
            "static",
            state("0-3,8", &[("uid-2", "b", "4"), ("uid-2", "a", "5-6"), ("0f0f", "main", "10-12,14")]),
            r#"{"policyName":"static","defaultCpuSet":"0-3,8","entries":{"0f0f":{"main":"10-12,14"},"uid-2":{"a":"5-6","b":"4"}},"checksum":396860769}"#,
        ),
    ] {
        assert_eq!(state.text(policy), text);
        assert_eq!(State::parse(text, policy, &nobody), Ok(state));
    }
}

#[test]
fn upstreams_earlier_texts_are_read() {
    let who_is = |id: &str| {
        let name = id.strip_prefix("containerID")?;
        Some((PodUid::new("pod"), format!("container{name}")))
    };
    let both = state("1-3", &[("pod", "container1", "4-6"), ("pod", "container2", "1-3")]);
    for (text, wanted) in [
        (r#"{"policyName":"none","defaultCPUSet":"4-6","entries":{},"checksum":354655845}"#, state("4-6", &[])),
        (
            r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container2":"1-3","container1":"4-6"}},"checksum":3610638499}"#,
            both.clone(),
        ),
        (r#"{"policyName":"none","defaultCPUSet":"1-3","checksum":1694838852}"#, state("1-3", &[])),
        (
            r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"containerID1":"4-6","containerID2":"1-3"},"checksum":3680390589}"#,
            both,
        ),
        (r#"{"policyName":"none","defaultCpuSet":"1-3"}"#, state("1-3", &[])),
    ] {
        assert_eq!(State::parse(text, "none", &who_is), Ok(wanted), "{text}");
    }
}

#[test]
fn other_text_is_refused() {
    for (text, why) in [
        (r#"{"policyName":"none","defaultCPUSet":"4-6","entries":{},"checksum":1337}"#, "checkpoint is corrupted"),
        (
            r#"{"policyName":"other","defaultCPUSet":"1-3","entries":{},"checksum":1394507217}"#,
            r#"configured policy "none" differs from state checkpoint policy "other""#,
        ),
        (
            r#"{"policyName":"none","defaultCPUSet":"1.3","entries":{},"checksum":3021697696}"#,
            r#"could not parse default cpu set "1.3": strconv.Atoi: parsing "1.3": invalid syntax"#,
        ),
        (
            r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"asd"}},"checksum":962272150}"#,
            r#"could not parse cpuset "asd" for container "container2" in pod "pod": strconv.Atoi: parsing "asd": invalid syntax"#,
        ),
        (
            r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"containerID1":"4-6","containerID2":"1-3"},"checksum":3680390589}"#,
            "failed to migrate checkpoint from v1 to v2: containerID 'containerID1' not found in initial containers list",
        ),
        // Of the gate `PodLevelResourceManagers`.
        (
            r#"{"policyName":"none","defaultCPUSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"1-3"}},"podEntries":{"pod":{"cpuSet":"4-6"}},"checksum":2649431787}"#,
            "checkpoint is corrupted",
        ),
    ] {
        assert_eq!(State::parse(text, "none", &nobody), Err(why.to_owned()), "{text}");
    }
    assert!(State::parse("{", "none", &nobody).is_err());
    assert_eq!(
        could_not_restore("checkpoint is corrupted", "/var/lib/kubelet/cpu_manager_state"),
        "could not restore state from checkpoint: checkpoint is corrupted, please drain this node and delete the CPU manager \
         checkpoint file \"/var/lib/kubelet/cpu_manager_state\" before restarting Kubelet"
    );
}
