use super::*;

fn read(text: &str) -> Result<Settings, String> {
    Settings::of_kubeconfig(text.as_bytes(), Path::new("/etc/kubernetes/kubelet.conf")).map_err(|e| e.to_string())
}

/// A kubeconfig with these lines in its cluster and user.
fn with(cluster: &str, user: &str) -> Result<Settings, String> {
    let indent = |lines: &str| lines.lines().map(|line| format!("    {line}\n")).collect::<String>();
    read(&format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: https://10.0.0.1:6443\n{}users:\n- name: u\n  user:\n    {{}}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n",
        indent(cluster)
    )
    .replace("    {}\n", &if user.is_empty() { "    {}\n".to_owned() } else { indent(user) }))
}

#[test]
fn files_are_relative_to_the_kubeconfig_and_data_outrank_them() {
    let settings = with(
        "certificate-authority: pki/ca.crt\ntls-server-name: kubernetes",
        "client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem\nclient-key: x.key\nclient-key-data: a2V5",
    )
    .unwrap();
    assert_eq!(settings.server, "https://10.0.0.1:6443");
    assert_eq!(settings.tls.authorities, Some(Pem::File("/etc/kubernetes/pki/ca.crt".into())));
    assert_eq!(settings.tls.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(
        settings.identity.certificate,
        Some((Pem::File("/var/lib/kubelet/pki/kubelet-client-current.pem".into()), Pem::Text(b"key".to_vec())))
    );
}

#[test]
fn a_token_file_outranks_a_token() {
    assert_eq!(with("", "token: abc").unwrap().identity.token, Some(Token::Fixed("abc".to_owned())));
    let both = with("", "token: abc\ntokenFile: t").unwrap();
    assert_eq!(both.identity.token, Some(Token::File("/etc/kubernetes/t".into())));
}

#[test]
fn what_is_not_built_is_refused() {
    let refused = |cluster, user| with(cluster, user).unwrap_err();
    let start = "kubeconfig /etc/kubernetes/kubelet.conf: ";
    assert_eq!(refused("proxy-url: http://p:1", ""), format!("{start}proxy-url is not supported"));
    assert_eq!(refused("", "as: root"), format!("{start}as is not supported"));
    assert_eq!(refused("", "client-key: k"), format!("{start}client-certificate: is missing beside the other half"));
    assert_eq!(
        refused("insecure-skip-tls-verify: true\ncertificate-authority: x", ""),
        format!("{start}insecure-skip-tls-verify: an authority is given as well")
    );
    assert!(
        refused("certificate-authority-data: '%'", "")
            .starts_with(&format!("{start}certificate-authority-data: not base64"))
    );
}

#[test]
fn a_plugin_is_read_with_its_environment() {
    let user = "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: ./login\n  args: [a, b]\n  env:\n  - {name: A, value: 5}\n  interactiveMode: Never\n  provideClusterInfo: true";
    let plugin = with("", user).unwrap().identity.plugin.unwrap();
    assert_eq!(plugin.command, Path::new("/etc/kubernetes/./login"));
    assert_eq!(plugin.arguments, ["a", "b"]);
    assert_eq!(plugin.environment, [("A".to_owned(), "5".to_owned())]);
    assert_eq!(plugin.cluster.unwrap().server, "https://10.0.0.1:6443");
    assert!(with("", &user.replace("Never", "Always")).unwrap_err().ends_with("Always: there is nobody to talk to"));
    assert!(with("", &user.replace("/v1\n", "/v1alpha1\n")).unwrap_err().contains("exec.apiVersion"));
}

#[test]
fn an_incomplete_one_says_what_is_missing() {
    let start = "kubeconfig /etc/kubernetes/kubelet.conf: ";
    assert_eq!(read("kind: Config").unwrap_err(), format!("{start}it has no current-context"));
    assert_eq!(read("current-context: x").unwrap_err(), format!("{start}context \"x\" does not exist"));
    assert!(read("clusters: 5").unwrap_err().starts_with("read kubeconfig /etc/kubernetes/kubelet.conf: "));
}
