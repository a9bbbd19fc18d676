use std::path::Path;

use prost::Message;
use serde_json::{Value, json};

use super::*;

fn words(line: &str) -> Result<Options, OptionsError> {
    Options::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn the_command_line_says_what_the_driver_can() {
    let usual = words("--registry /r/plugins_registry --data /d").unwrap();
    assert_eq!(usual.socket, Path::new("/r/plugins/csi.test.rubelet.io/csi.sock"));
    assert_eq!(usual.capabilities, [1, 2, 3, 5].into());
    let other =
        "--registry /r --data /d --name n --without stage,stats --with mount-group --topology a=b --volumes-max 3";
    let other = words(other).unwrap();
    assert_eq!((other.capabilities, other.volumes_max), ([3, 5, 6].into(), 3));
    for (line, why) in [
        ("--data /d", "--registry and --data are needed"),
        ("--registry", "--registry needs a value"),
        ("--with magic", "unknown capability magic"),
        ("--topology a", "--topology: no KEY=VAL"),
        ("--color", "unknown option --color"),
    ] {
        assert_eq!(words(line).unwrap_err(), OptionsError(why.to_owned()));
    }
}

#[test]
fn calls_are_noted_and_fail_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(&dir.path().join("root/plugins_registry"), &dir.path().join("data"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let data = options.data.clone();
    let _driver = CsiDriver::start(options.clone()).unwrap();
    let driver = Driver { calls: Calls::open(&data, "csi-driver").unwrap(), options };
    let request = rubelet_proto::csi::NodeExpandVolumeRequest {
        volume_id: "v".into(),
        capacity_range: Some(rubelet_proto::csi::CapacityRange { required_bytes: 5 << 30, limit_bytes: 0 }),
        ..Default::default()
    };
    let body = request.encode_to_vec();
    driver.answer("/csi.v1.Node/NodeExpandVolume", &body).unwrap();
    fs::write(data.join("fail/NodeExpandVolume"), "11 too large").unwrap();
    let refusal = driver.answer("/csi.v1.Node/NodeExpandVolume", &body).unwrap_err();
    assert_eq!(refusal, Refusal { code: 11, message: "too large".into() });
    let calls = fs::read_to_string(data.join("calls.jsonl")).unwrap();
    let calls: Vec<Value> = calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(calls[0]["request"]["required_bytes"], json!(5_i64 << 30));
    assert_eq!((&calls[0]["refused"], &calls[1]["refused"]["message"]), (&Value::Null, &json!("too large")));
    assert_eq!(fs::read_to_string(data.join("sizes/v")).unwrap(), (5_i64 << 30).to_string());
}
