use rubelet_host::cgroup::usage::{DeviceIo, Pressure, Pressures, Throttling, Usage};
use rubelet_host::proc::Traffic;

use super::*;

fn told(page: &Page) -> String {
    let mut bytes = Vec::new();
    page.tell(&mut Text::new(&mut bytes)).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn row(container: &str, detail: Detail) -> Row {
    Row {
        labels: Text::rendered(&LABELS, &[container, "/kubepods/podx/c", "img:1", "c0ffee", "ns", "web"]),
        at_millis: 1234,
        detail: Some(Box::new(detail)),
        files: Some(Files { all: 7, sockets: 2, max: Some(-1) }),
        interfaces: Vec::new(),
        layer_bytes: Some(4096),
        is_root: false,
    }
}

const OWN: &str = r#"container="main",id="/kubepods/podx/c",image="img:1",name="c0ffee",namespace="ns",pod="web""#;

#[test]
fn a_container_in_cadvisor_s_words() {
    let detail = Detail {
        usage: Usage {
            cpu_nanos: Some(1_500_000_000),
            memory_bytes: Some(8192),
            page_faults: Some(3),
            processes: Some(2),
            throttling: Some(Throttling { periods: 4, throttled_periods: 1, throttled_nanos: 500_000_000 }),
            ..Usage::default()
        },
        all_page_faults: Some(5),
        cpu_quota_us: Some(50_000),
        io: vec![DeviceIo { major: 8, minor: 1, read_bytes: 10, reads: 1, ..DeviceIo::default() }],
        pressures: Pressures { cpu: Some(Pressure::default()), ..Pressures::default() },
        pids: vec![1, 2],
        ..Detail::default()
    };
    let page = Page {
        rows: vec![row("main", detail)],
        disks: Vec::new(),
        names: [((8, 1), "/dev/sda1".to_owned())].into(),
        now_secs: 99,
    };
    let text = told(&page);
    for line in [
        format!("container_last_seen{{{OWN}}} 99"),
        format!("container_cpu_usage_seconds_total{{cpu=\"total\",{OWN}}} 1.5 1234"),
        format!("container_cpu_cfs_throttled_seconds_total{{{OWN}}} 0.5 1234"),
        format!("container_spec_memory_limit_bytes{{{OWN}}} 0"),
        format!("container_memory_swap{{{OWN}}} 0 1234"),
        format!("container_memory_failures_total{{failure_type=\"pgfault\",scope=\"container\",{OWN}}} 3 1234"),
        format!("container_memory_failures_total{{failure_type=\"pgfault\",scope=\"hierarchy\",{OWN}}} 5 1234"),
        format!("container_fs_usage_bytes{{device=\"\",{OWN}}} 4096 1234"),
        format!("container_fs_reads_total{{device=\"/dev/sda1\",{OWN}}} 1 1234"),
        format!(
            "container_blkio_device_usage_total{{device=\"/dev/sda1\",major=\"8\",minor=\"1\",operation=\"Read\",{OWN}}} 10 1234"
        ),
        format!("container_pressure_cpu_waiting_seconds_total{{{OWN}}} 0 1234"),
        format!("container_processes{{{OWN}}} 2 1234"),
        format!("container_ulimits_soft{{ulimit=\"max_open_files\",{OWN}}} -1 1234"),
        "container_scrape_error 0".to_owned(),
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
    }
    assert!(!text.contains("container_memory_rss"), "what the kernel does not tell is not told");
}

#[test]
fn without_a_quota_there_is_no_throttling_and_without_cgroups_an_error() {
    let usage = Usage { throttling: Some(Throttling::default()), ..Usage::default() };
    let mut page = Page {
        rows: vec![row("main", Detail { usage, ..Detail::default() })],
        disks: Vec::new(),
        names: BTreeMap::new(),
        now_secs: 0,
    };
    assert!(!told(&page).contains("cfs"));
    let traffic = Traffic { bytes: 5, ..Traffic::default() };
    page.rows[0].detail = None;
    page.rows[0].interfaces = vec![Interface { name: "eth0".to_owned(), received: traffic, sent: traffic }];
    let received = format!("container_network_receive_bytes_total{{interface=\"eth0\",{OWN}}} 5 1234\n");
    assert!(told(&page).contains(&received));
    page.rows.clear();
    assert!(told(&page).contains("container_scrape_error 1\n"));
}

#[test]
fn every_family_is_told_once() {
    let names: Vec<&str> = FAMILIES.iter().copied().flatten().map(|family| family.name).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
