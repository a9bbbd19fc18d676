//! Which images a pattern of a credential provider plugin means: kubelet 1.36's rules, part by part of the host's name.

/// A pattern or image: host's parts, port, path with its slash.
fn parts(text: &str) -> (Vec<&str>, &str, &str) {
    let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => (name, port),
        Some(_) | None => (host, ""),
    };
    (name.split('.').collect(), port, path)
}

/// What makes a pattern unusable.
pub(super) fn problem(pattern: &str) -> Option<String> {
    let host = pattern.split('/').next().unwrap_or_default();
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    if !port.bytes().all(|c| c.is_ascii_digit()) {
        return Some(format!(
            "parse {:?}: invalid port {:?} after host",
            format!("https://{pattern}"),
            format!(":{port}")
        ));
    }
    if pattern.bytes().any(|c| c < b' ' || c == 0x7f) {
        return Some(format!("parse {:?}: net/url: invalid control character in URL", format!("https://{pattern}")));
    }
    let is_odd = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '^' | '`' | '{' | '}' | '|' | '\\');
    let odd = host.chars().find(|c| is_odd(*c))?;
    Some(format!("parse {:?}: invalid character {:?} in host name", format!("https://{pattern}"), odd.to_string()))
}

/// Whether the pattern covers the image: as many parts of the host's name, each fitting; the same port; the path begins so.
pub(super) fn matches(pattern: &str, image: &str) -> bool {
    let ((wanted, wanted_port, wanted_path), (given, port, path)) = (parts(pattern), parts(image));
    wanted_port == port
        && wanted.len() == given.len()
        && path.starts_with(wanted_path)
        && wanted.iter().zip(given).all(|(wanted, given)| fits(wanted.as_bytes(), given.as_bytes()))
}

/// `*` any number of letters, `?` one, `[a-z]` and `[^a]` classes. A class that is not closed fits nothing.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| fits(rest, &text[at..])),
        Some((b'?', rest)) => !text.is_empty() && fits(rest, &text[1..]),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|&c| c == b']') else { return false };
            let Some((&letter, others)) = text.split_first() else { return false };
            let (is_not, class) = match rest[..end].split_first() {
                Some((b'^', class)) => (true, class),
                _ => (false, &rest[..end]),
            };
            is_in(class, letter) != is_not && fits(&rest[end + 1..], others)
        }
        Some((letter, rest)) => text.split_first().is_some_and(|(first, others)| first == letter && fits(rest, others)),
    }
}

fn is_in(class: &[u8], letter: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&letter) || is_in(rest, letter),
        [one, rest @ ..] => *one == letter || is_in(rest, letter),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_upstream_says() {
        for (pattern, image, is_meant) in [
            ("*.docker.io", "blah.docker.io", true),
            ("*.docker.io", "blah.docker.io/path", true),
            ("*.docker.io/path", "blah.docker.io/path/more", true),
            ("*.docker.io", "docker.io", false),
            ("*.docker.io", "a.b.docker.io", false),
            ("*.*.docker.io", "a.b.docker.io", true),
            ("app*.k8s.io", "app1.k8s.io", true),
            ("*.dkr.ecr.us-*.amazonaws.com", "1.dkr.ecr.us-west-2.amazonaws.com/x", true),
            ("r.test:5000", "r.test:5000/a", true),
            ("r.test:5000", "r.test/a", false),
            ("r.test", "r.test:5000/a", false),
            ("r[0-9].test", "r7.test/a", true),
            ("r[^0-9].test", "r7.test/a", false),
            ("r?.test", "r.test/a", false),
            ("r[.test", "r[.test", false),
            ("r.test/a", "r.test/b", false),
        ] {
            assert_eq!(matches(pattern, image), is_meant, "{pattern} {image}");
        }
        assert!(problem("r.test:5000/a").is_none() && problem("*.r.test").is_none());
        assert!(problem("r.test:x/a").is_some() && problem("a b").is_some() && problem("a\u{1}").is_some());
    }
}
