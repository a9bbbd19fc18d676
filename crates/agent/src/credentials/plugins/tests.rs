use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder with a plugin that counts its calls in `calls`, notes its input, and prints this.
struct Room {
    dir: tempfile::TempDir,
}

const CONFIG: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: plug
  matchImages: ["*.r.test", "r.test:5000/team"]
  defaultCacheDuration: 1h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [get, "a b"]
  env: [{name: PLUGIN, value: one}, {name: PLUGIN, value: two}]
"#;

impl Room {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("plug");
        let head = format!("#!/bin/sh\ncd {}\necho >>calls\n", dir.path().display());
        fs::write(&program, format!("{head}{script}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn answering(cache: &str, auth: &str) -> Self {
        let text = format!(
            r#"{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",{cache},"auth":{auth}}}"#
        );
        Self::new(&format!("cat >input; echo \"$PLUGIN $1 $2\" >told; cat <<'X'\n{text}\nX\n"))
    }

    fn open(&self, config: &str) -> Result<Plugins, PluginConfigError> {
        let path = self.dir.path().join("config.yaml");
        fs::write(&path, config).unwrap();
        Plugins::open(Some(&path), Some(self.dir.path()), &Arc::default())
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.dir.path().join("calls")).map_or(0, |text| text.lines().count())
    }
}

fn users(plugins: &Plugins, image: &str) -> Vec<String> {
    let (found, problems) = plugins.for_image(image);
    assert!(problems.is_empty(), "{problems:?}");
    found.into_iter().map(|auth| format!("{}:{}", auth.username, auth.password)).collect()
}

#[test]
fn a_plugin_is_asked_for_what_it_is_for_and_its_answer_remembered() {
    let auth = r#"{"a.r.test":{"username":"u","password":"p"},"*.r.test/team":{"username":"t","password":"q"},"other.test":{"username":"x"}}"#;
    let room = Room::answering(r#""cacheKeyType":"Registry""#, auth);
    let plugins = room.open(CONFIG).unwrap();
    assert!(users(&plugins, "docker.io/library/nginx").is_empty());
    assert_eq!(room.calls(), 0);
    assert_eq!(users(&plugins, "a.r.test/app"), ["u:p"]);
    let input: serde_json::Value = serde_json::from_slice(&fs::read(room.dir.path().join("input")).unwrap()).unwrap();
    assert_eq!(input["kind"], "CredentialProviderRequest");
    assert_eq!(input["apiVersion"], "credentialprovider.kubelet.k8s.io/v1");
    assert_eq!(input["image"], "a.r.test/app");
    assert_eq!(fs::read_to_string(room.dir.path().join("told")).unwrap(), "two get a b\n");
    assert_eq!(users(&plugins, "a.r.test/team/x"), ["u:p", "t:q"]);
    assert_eq!(room.calls(), 1);
    assert!(users(&plugins, "b.r.test/app").is_empty());
    assert_eq!(room.calls(), 2);
}

#[test]
fn how_long_and_for_what_an_answer_holds_is_the_plugins_word() {
    for (cache, images, calls) in [
        (r#""cacheKeyType":"Image""#, ["a.r.test/x", "a.r.test/y", "a.r.test/x"], 2),
        (r#""cacheKeyType":"Global""#, ["a.r.test/x", "b.r.test/y", "r.test:5000/team/z"], 1),
        (r#""cacheKeyType":"Global","cacheDuration":"0s""#, ["a.r.test/x", "a.r.test/x", "a.r.test/x"], 3),
    ] {
        let room = Room::answering(cache, "{}");
        let plugins = room.open(CONFIG).unwrap();
        images.iter().for_each(|image| drop(plugins.for_image(image)));
        assert_eq!(room.calls(), calls, "{cache}");
    }
    let room = Room::answering(r#""cacheKeyType":"Image""#, "{}");
    let plugins = room.open(&CONFIG.replace("1h", "0s")).unwrap();
    (0..2).for_each(|_| drop(plugins.for_image("a.r.test/x")));
    assert_eq!(room.calls(), 2);
}

#[test]
fn what_a_plugin_does_wrong_is_told_without_what_it_printed() {
    let said = |script: &str| {
        let room = Room::new(script);
        let plugins = room.open(CONFIG).unwrap();
        let (found, problems) = plugins.for_image("a.r.test/x");
        assert!(found.is_empty());
        problems.join("")
    };
    assert!(said("echo no login >&2; exit 3").contains("exit status: 3: no login"));
    assert!(said("echo secret").contains("error reading GVK from response"));
    let text = said(r#"echo '{"kind":"CredentialProviderResponse","apiVersion":"v9","auth":"secret"}'"#);
    assert!(text.contains("did not match expected apiVersion") && text.ends_with("actual apiVersion:v9"), "{text}");
    let response = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"K","auth":A}"#;
    let text = said(&format!("echo '{}'", response.replace('A', "\"secret\"")));
    assert!(text.ends_with("error decoding credential provider plugin response from stdout"), "{text}");
    let text = said(&format!("echo '{}'", response.replace('A', "{}")));
    assert!(text.ends_with("did not return a valid cacheKeyType: K"), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_in_upstreams_words() {
    let room = Room::new("");
    let said = |from: &str, to: &str| {
        assert!(CONFIG.contains(from));
        rubelet_host::chain(&room.open(&CONFIG.replace(from, to)).unwrap_err())
    };
    let invalid = |what: &str| format!("failed to validate credential provider config: {what}");
    assert_eq!(
        said("name: plug", "name: a/b c"),
        invalid(
            "[providers.name: Invalid value: \"a/b c\": provider name cannot contain '/', providers.name: Invalid value: \"a/b c\": provider name cannot contain spaces]"
        )
    );
    assert_eq!(
        said("name: plug", "name: .."),
        invalid("providers.name: Invalid value: \"..\": provider name cannot be '..'")
    );
    assert_eq!(
        said("  apiVersion: credentialprovider.kubelet.k8s.io/v1", "  apiVersion: v2"),
        invalid(
            "providers.apiVersion: Unsupported value: \"v2\": supported values: \"credentialprovider.kubelet.k8s.io/v1\", \"credentialprovider.kubelet.k8s.io/v1alpha1\", \"credentialprovider.kubelet.k8s.io/v1beta1\""
        )
    );
    assert_eq!(
        said("[\"*.r.test\", \"r.test:5000/team\"]", "[]"),
        invalid("providers.matchImages: Required value: at least 1 item in matchImages is required")
    );
    assert_eq!(said("  defaultCacheDuration: 1h\n", ""), invalid("providers.defaultCacheDuration: Required value"));
    assert_eq!(
        said("1h", "-1s"),
        invalid("providers.defaultCacheDuration: Invalid value: -1s: must be greater than or equal to 0")
    );
    assert!(said("  args:", "  tokenAttributes: {}\n  args:").contains("providers.tokenAttributes: Forbidden"));
    assert!(said("kind: CredentialProviderConfig", "kind: Pod").contains("no kind \"Pod\" is registered"));
    assert!(said("name: plug", "name: none").ends_with("/none did not exist"));
    let missing = |config: Option<&Path>, dir: Option<&Path>| {
        Plugins::open(config, dir, &Arc::default()).unwrap_err().to_string()
    };
    assert_eq!(
        missing(Some(Path::new("/x")), Some(Path::new("/no/such"))),
        "plugin binary directory /no/such did not exist"
    );
    assert_eq!(missing(None, Some(room.dir.path())), "credential provider config path is empty");
    assert!(Plugins::open(None, None, &Arc::default()).unwrap().is_empty());
}

#[test]
fn a_directory_of_files_is_one_configuration() {
    let room = Room::new("");
    let dir = room.dir.path().join("conf.d");
    fs::create_dir(&dir).unwrap();
    let open = || Plugins::open(Some(&dir), Some(room.dir.path()), &Arc::default());
    assert!(matches!(open(), Err(PluginConfigError::Empty(_))));
    fs::write(dir.join("b.yml"), CONFIG).unwrap();
    fs::write(dir.join("ignored.txt"), "{").unwrap();
    assert_eq!(open().unwrap().all.len(), 1);
    fs::write(dir.join("a.json"), CONFIG).unwrap();
    assert!(matches!(open(), Err(PluginConfigError::Duplicate(name)) if name == "plug"));
}
