use super::*;

const FULL: Site = Site::Full { has_debugging: true };

fn find_at(site: Site, path: &str) -> Result<(String, String), (u16, String)> {
    let mut request = Request::builder().uri(path).body(()).unwrap();
    match find(site, &mut request) {
        Ok(decoded) => Ok((decoded, request.uri().to_string())),
        Err(answer) => {
            let place = answer.headers().get(LOCATION).map_or(String::new(), |at| at.to_str().unwrap().to_owned());
            Err((answer.status().as_u16(), place))
        }
    }
}

#[test]
fn letters_are_made_plain_and_nothing_else() {
    let found = |path: &str, decoded: &str, plain: &str| {
        assert_eq!(find_at(FULL, path), Ok((decoded.to_owned(), plain.to_owned())));
    };
    found("/%70ods?a=%41", "/pods", "/pods?a=%41");
    found("/logs/%2e%2e%2Fpods", "/logs/../pods", "/logs/%2e%2e%2Fpods");
    found("/logs/a%20%62%2541", "/logs/a b%41", "/logs/a%20b%2541");
    found("/logs/%ff", "/logs/\u{fffd}", "/logs/%ff");
}

#[test]
fn the_unclean_go_elsewhere() {
    let sent = |path: &str, to: &str| assert_eq!(find_at(FULL, path), Err((307, to.to_owned())), "{path}");
    sent("//pods?x=1", "/pods?x=1");
    sent("/x/../pods", "/pods");
    sent("/../../pods/", "/pods/");
    sent("/logs", "/logs/");
    sent("/stats?a", "/stats/?a");
    sent("/logs/../etc", "/etc");
    sent("//", "/");
    sent("//evil.example/logs/..", "/evil.example");
}

#[test]
fn what_is_not_there_is_not_there() {
    for path in ["/", "/nosuch", "/podsx", "/metrics/", "/stats%2fsummary", "/pods%2f..%2fexec/a", "/%2e%2e/pods"] {
        assert_eq!(find_at(FULL, path), Err((404, String::new())), "{path}");
    }
    assert_eq!(find_at(Site::ReadOnly, "/configz"), Err((404, String::new())));
    assert_eq!(find_at(Site::ReadOnly, "/run"), Err((307, "/run/".to_owned())));
    assert_eq!(find_at(FULL, "*"), Err((400, String::new())));
}

#[test]
fn no_path_makes_it_panic() {
    const PARTS: [&str; 10] = ["/", "pods", "%", "%2", "%2f", "%2e", "%70", "..", "logs", "%ff"];
    let mut number = 0_usize;
    while number < 100_000 {
        let (mut path, mut rest) = (String::from("/"), number);
        while rest > 0 {
            path.push_str(PARTS[rest % PARTS.len()]);
            rest /= PARTS.len();
        }
        if let Ok(uri) = path.parse::<http::Uri>() {
            let mut request = Request::builder().uri(uri).body(()).unwrap();
            for site in [FULL, Site::ReadOnly, Site::Full { has_debugging: false }, Site::Health] {
                if let Ok(decoded) = find(site, &mut request) {
                    assert!(decoded.starts_with('/'), "{path}");
                }
            }
        }
        number += 7;
    }
}
