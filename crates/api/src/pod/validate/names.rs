//! The grammars of names. Every function gives the reasons why a text is not such a name, in upstream's words; none
//! when it is.

/// Longest DNS label, bytes.
const LABEL: usize = 63;
/// Longest DNS subdomain, bytes.
const SUBDOMAIN: usize = 253;
/// Longest port name, bytes.
const PORT_NAME: usize = 15;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
     regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
     regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SEARCH_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')";
const QUALIFIED_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
     regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
     '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  \
     or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ENV_RULE: &str = "a valid environment variable name must consist only of printable ASCII characters \
     other than '='";
const HEADER_RULE: &str = "a valid HTTP header must consist of alphanumeric characters or '-' \
     (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const CONFIG_KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
     (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} characters"))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Characters allowed inside, alphanumeric ones at both ends.
fn framed(text: &str, edge: fn(u8) -> bool, inside: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| edge(*b))
        && bytes.last().is_some_and(|b| edge(*b))
        && bytes.iter().all(|b| edge(*b) || inside.contains(b))
}

/// A DNS label such as a container's name.
pub(super) fn label(text: &str) -> Vec<String> {
    let form = (!framed(text, lower, b"-")).then(|| LABEL_RULE.to_owned());
    too_long(text, LABEL).into_iter().chain(form).collect()
}

/// A DNS subdomain such as a pod's name.
pub(super) fn subdomain(text: &str) -> Vec<String> {
    let form = (!text.split('.').all(|part| framed(part, lower, b"-"))).then(|| SUBDOMAIN_RULE.to_owned());
    too_long(text, SUBDOMAIN).into_iter().chain(form).collect()
}

/// A DNS search domain: a subdomain that may also have `_`, a dot at its end, or be a dot alone.
pub(super) fn search_domain(text: &str) -> Vec<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() && text == "." {
        return Vec::new();
    }
    let first = |b: u8| lower(b) || b == b'_';
    let form = (!name.split('.').all(|part| framed(part, first, b"-"))).then(|| SEARCH_RULE.to_owned());
    too_long(name, SUBDOMAIN).into_iter().chain(form).collect()
}

/// `[prefix/]name` such as a label's key.
pub fn qualified(text: &str) -> Vec<String> {
    let mut parts = text.split('/');
    let (prefix, name) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => (None, name),
        (Some(prefix), Some(name), None) => (Some(prefix), name),
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_RULE} with an optional DNS subdomain prefix and '/' \
                 (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut reasons = Vec::new();
    match prefix {
        Some("") => reasons.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => reasons.extend(subdomain(prefix).into_iter().map(|why| format!("prefix part {why}"))),
        None => {}
    }
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    }
    reasons.extend(too_long(name, LABEL).map(|why| format!("name part {why}")));
    if !framed(name, |b| b.is_ascii_alphanumeric(), b"-_.") {
        reasons.push(format!("name part {QUALIFIED_RULE}"));
    }
    reasons
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let fits = text.is_empty() || framed(text, |b| b.is_ascii_alphanumeric(), b"-_.");
    let form = (!fits).then(|| LABEL_VALUE_RULE.to_owned());
    too_long(text, LABEL).into_iter().chain(form).collect()
}

/// The name of an environment variable.
pub(super) fn environment(text: &str) -> Vec<String> {
    let fits = !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    if fits { Vec::new() } else { vec![ENV_RULE.to_owned()] }
}

/// The name of an HTTP header.
pub(super) fn header(text: &str) -> Vec<String> {
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Vec::new() } else { vec![HEADER_RULE.to_owned()] }
}

/// A key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let mut reasons: Vec<String> = too_long(text, SUBDOMAIN).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        reasons.push(CONFIG_KEY_RULE.to_owned());
    }
    match text {
        "." => reasons.push("must not be '.'".to_owned()),
        ".." => reasons.push("must not be '..'".to_owned()),
        other if other.starts_with("..") => reasons.push("must not start with '..'".to_owned()),
        _ => {}
    }
    reasons
}

/// A port's name, as services know it.
pub(super) fn port(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if text.len() > PORT_NAME {
        reasons.push(format!("must be no more than {PORT_NAME} characters"));
    }
    if !text.bytes().all(|b| lower(b) || b == b'-') {
        reasons.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        reasons.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        reasons.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        reasons.push("must not begin or end with a hyphen".to_owned());
    }
    reasons
}

/// A port's number.
pub(super) fn port_number(number: i32) -> Option<&'static str> {
    (!(1..=65535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// An IPv4 or IPv6 address.
pub(super) fn ip(text: &str) -> Option<&'static str> {
    text.parse::<std::net::IpAddr>().is_err().then_some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}
