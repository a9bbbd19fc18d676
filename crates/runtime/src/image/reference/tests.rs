use super::*;

fn full(text: &str) -> String {
    Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
}

fn refused(text: &str) -> String {
    Reference::parse(text).unwrap_err().to_string()
}

#[test]
fn short_names_are_dockers() {
    for (text, expected) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("registry.k8s.io/e2e-test-images/busybox:1.37.0-1", "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"),
        ("a.b/x__y-z--w.v_u", "a.b/x__y-z--w.v_u:latest"),
        ("Host/x", "Host/x:latest"),
    ] {
        assert_eq!(full(text), expected);
    }
}

proptest::proptest! {
    /// Names that are understood are understood the same way again, and no text is too much.
    #[test]
    fn full_names_stay_what_they_are(text in "\\PC{0,20}|[a-zA-Z0-9./:@_-]{0,40}") {
        if let Ok(reference) = Reference::parse(&text) {
            assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }
    }

    #[test]
    fn any_header_may_come(text in "\\PC{0,40}|[a-z=\", \\\\B]{0,60}") {
        let _ = super::super::auth::Challenge::parse(&text);
    }
}

#[test]
fn a_digest_outranks_the_tag() {
    let digest = Digest::of(b"x");
    assert_eq!(full(&format!("nginx@{digest}")), format!("docker.io/library/nginx@{digest}"));
    assert_eq!(full(&format!("nginx:1@{digest}")), format!("docker.io/library/nginx@{digest}"));
}

#[test]
fn refusals_have_containerds_words() {
    // Recorded: a pod with the image `UPPER/Case:::`.
    assert_eq!(refused("UPPER/Case:::"), "invalid reference format: repository name (Case) must be lowercase");
    assert_eq!(refused("Nginx"), "invalid reference format: repository name (library/Nginx) must be lowercase");
    assert_eq!(refused("a.b/Case"), "invalid reference format: repository name (Case) must be lowercase");
    let id = "a".repeat(64);
    assert_eq!(refused(&id), format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"));
    for text in ["", ":x", "x:", "x:-", "x@", "x@sha256:12", "a//b", "a/", "-a", "a..b", "a.b:x/y", "x y", "a/_b", "/a"]
    {
        assert_eq!(refused(text), "invalid reference format", "{text:?}");
    }
    assert_eq!(refused(&format!("x@sha256:{}", "0".repeat(40))), "invalid checksum digest length");
    assert_eq!(refused(&format!("x@md5:{}", "0".repeat(32))), "unsupported digest algorithm");
    assert_eq!(
        refused(&"a/".repeat(130).replace("a/a/", "ab/")[..].trim_end_matches('/').repeat(3)),
        "repository name must not be more than 255 characters"
    );
    assert_eq!(refused(&format!("x:{}", "t".repeat(129))), "invalid reference format");
}
