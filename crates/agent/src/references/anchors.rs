//! Certificates of ClusterTrustBundles.

use std::collections::BTreeSet;

/// The certificates of these PEM texts, each once, without comments and headers.
///
/// kubelet 1.36: duplicates go and the order means nothing.
pub(super) fn normal<'a>(bundles: impl IntoIterator<Item = &'a str>) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = BTreeSet::new();
    for bundle in bundles {
        let mut rest = bundle;
        while let Some(begin) = rest.find(BEGIN) {
            let body = &rest[begin + BEGIN.len()..];
            let Some(end) = body.find(END) else { break };
            certificates.insert(body[..end].split_whitespace().collect::<String>());
            rest = &body[end + END.len()..];
        }
    }
    let mut out = String::new();
    for certificate in certificates {
        out.push_str(BEGIN);
        let mut left = certificate.as_str();
        while !left.is_empty() {
            let (line, more) = left.split_at_checked(64).unwrap_or((left, ""));
            out.push('\n');
            out.push_str(line);
            left = more;
        }
        out.push('\n');
        out.push_str(END);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn each_certificate_stands_once_in_lines_of_64() {
        let long = "A".repeat(70);
        let one = format!("comment\n-----BEGIN CERTIFICATE-----\n{long}\n-----END CERTIFICATE-----\n");
        let two = "-----BEGIN CERTIFICATE-----\nQkI=\n-----END CERTIFICATE-----";
        let wanted =
            format!("-----BEGIN CERTIFICATE-----\n{}\nAAAAAA\n-----END CERTIFICATE-----\n{two}\n", "A".repeat(64));
        assert_eq!(normal([one.as_str(), two, one.as_str()]), wanted);
        assert_eq!(normal(["-----BEGIN CERTIFICATE-----\nunfinished"]), "");
    }
}
