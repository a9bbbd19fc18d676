use super::*;

fn words(line: &str) -> Result<Options, OptionsError> {
    Options::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn the_command_line_says_what_the_driver_is() {
    let usual = words("--registry /r/plugins_registry --data /d --cdi /c").unwrap();
    assert_eq!(usual.socket, Path::new("/r/plugins/dra.test.rubelet.io/dra.sock"));
    let other = words("--registry /r --data /d --cdi /c --requests a,b --version v1beta1 --no-health --hold").unwrap();
    assert_eq!((other.requests.len(), other.has_health, other.is_held), (2, false, true));
    for (line, why) in [
        ("--data /d", "--registry, --data and --cdi are needed"),
        ("--registry /r --data /d --cdi /c --version v2", "unknown version v2"),
        ("--cdi", "--cdi needs a value"),
        ("--color", "unknown option --color"),
    ] {
        assert_eq!(words(line).unwrap_err(), OptionsError(why.to_owned()));
    }
}

#[test]
fn each_claim_has_its_devices_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = Options {
        requests: vec!["a".to_owned(), "b".to_owned()],
        ..Options::new(&at("registry"), &at("data"), &at("cdi"))
    };
    for folder in ["data/prepared", "data/health", "cdi"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    let driver = Driver { calls: Calls::open(&options.data, "dra-driver").unwrap(), options };
    let claim = |uid: &str| Claim { namespace: "ns".to_owned(), uid: uid.to_owned(), name: format!("claim-{uid}") };
    let prepare = |uid: &str| {
        let body = NodePrepareResourcesRequest { claims: vec![claim(uid)] }.encode_to_vec();
        let answer = driver.answer("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources", &body).unwrap();
        let mut answer = NodePrepareResourcesResponse::decode(&*answer).unwrap();
        let devices = answer.claims.remove(uid).unwrap().devices;
        devices.into_iter().map(|d| (d.device_name, d.request_names.join(","))).collect::<Vec<_>>()
    };
    let pair = |one: &str, two: &str| vec![(one.to_owned(), "a".to_owned()), (two.to_owned(), "b".to_owned())];
    assert_eq!(prepare("1"), pair("dev-0", "dev-1"));
    assert_eq!(prepare("2"), pair("dev-2", "dev-3"));
    assert_eq!(prepare("1"), pair("dev-0", "dev-1"), "the same again");
    let cdi = fs::read_to_string(at("cdi/dra.test.rubelet.io-1.json")).unwrap();
    let cdi: Value = serde_json::from_str(&cdi).unwrap();
    assert_eq!(cdi["devices"][1]["containerEdits"]["env"], json!(["DRA_B=dev-1 of claim-1"]));
    let body = NodeUnprepareResourcesRequest { claims: vec![claim("1")] }.encode_to_vec();
    driver.answer("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources", &body).unwrap();
    assert!(!at("cdi/dra.test.rubelet.io-1.json").exists());
    assert_eq!(prepare("3"), pair("dev-0", "dev-1"));
    fs::write(at("data/fail/NodePrepareResources"), "14 away").unwrap();
    let refusal = driver.answer("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources", &body).unwrap_err();
    assert_eq!(refusal, Refusal { code: 14, message: "away".to_owned() });
    assert_eq!(driver.health().devices[0].health(), HealthStatus::Healthy);
    fs::write(at("data/health/dev-0"), "hot\n").unwrap();
    let ill = driver.health().devices.remove(0);
    assert_eq!((ill.health(), ill.message.as_str()), (HealthStatus::Unhealthy, "hot"));
}
