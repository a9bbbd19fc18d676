//! Where a redirect leads.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri};

/// The answers that say "there" with a `Location`. 304 and 300 do not.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// `location` as seen from `base`, which must be absolute. `None` when it is no URL that HTTP can follow.
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme()?.clone(), base.authority()?.clone());
    if let Some(rest) = location.strip_prefix("//") {
        return absolute(&format!("{scheme}://{rest}"));
    }
    if has_scheme(location) {
        return absolute(location);
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (location, None),
    };
    let merged = match path {
        "" => base.path().to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => {
            let dir = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{dir}/{path}")
        }
    };
    let query = query.or_else(|| base.query().filter(|_| location.is_empty()));
    let text = without_dots(&merged) + &query.map(|q| format!("?{q}")).unwrap_or_default();
    build(scheme, authority, text.parse().ok()?)
}

fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

fn absolute(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if is_http { build(uri.scheme()?.clone(), uri.authority()?.clone(), path) } else { None }
}

fn build(scheme: Scheme, authority: Authority, path: PathAndQuery) -> Option<Uri> {
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

/// Takes `.` and `..` out of an absolute path; never above the root.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    for (nth, part) in parts.iter().enumerate() {
        let is_last = nth + 1 == parts.len();
        match *part {
            ".." => {
                kept.pop();
                if is_last {
                    kept.push("");
                }
            }
            "." if is_last => kept.push(""),
            "." => {}
            _ => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "http://h:8080/a/b?q=1".parse().unwrap();
        for (location, want) in [
            ("/x", Some("http://h:8080/x")),
            ("x", Some("http://h:8080/a/x")),
            ("../x/./y", Some("http://h:8080/x/y")),
            ("../../../x", Some("http://h:8080/x")),
            ("./", Some("http://h:8080/a/")),
            ("..", Some("http://h:8080/")),
            ("?z=2", Some("http://h:8080/a/b?z=2")),
            ("", Some("http://h:8080/a/b?q=1")),
            ("/x#part", Some("http://h:8080/x")),
            ("//other/x", Some("http://other/x")),
            ("https://other", Some("https://other/")),
            ("x:y/../z", None),
            ("ftp://other/x", None),
            ("http://", None),
        ] {
            assert_eq!(join(&base, location).map(|u| u.to_string()).as_deref(), want, "{location:?}");
        }
    }

    #[test]
    fn only_some_answers_lead_on() {
        let on: Vec<u16> = (300..400).filter(|s| is_redirect(StatusCode::from_u16(*s).unwrap())).collect();
        assert_eq!(on, [301, 302, 303, 307, 308]);
    }
}
