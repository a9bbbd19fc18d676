//! PEM texts, as far as they are written anew.

/// What stands between the marks of each certificate, without comments, headers and line ends.
pub fn certificates(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut bodies = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let body = &rest[begin + BEGIN.len()..];
        let Some(end) = body.find(END) else { break };
        bodies.push(body[..end].lines().filter(|line| !line.contains(':')).flat_map(str::split_whitespace).collect());
        rest = &body[end + END.len()..];
    }
    bodies
}

/// One block, in lines of 64. `base64`: what it holds.
pub fn block(label: &str, base64: &str) -> String {
    let mut out = format!("-----BEGIN {label}-----");
    let mut left = base64;
    while !left.is_empty() {
        let (line, more) = left.split_at_checked(64).unwrap_or((left, ""));
        out.push('\n');
        out.push_str(line);
        left = more;
    }
    out.push_str("\n-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_between_other_things() {
        let text = "a word\n-----BEGIN CERTIFICATE-----\nProc-Type: 4\n\nQUFB\r\nQkJC\n-----END CERTIFICATE-----\nmore\n\
                    -----BEGIN CERTIFICATE-----\nQ0M=\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nunfinished";
        assert_eq!(certificates(text), ["QUFBQkJC", "Q0M="]);
    }

    #[test]
    fn blocks_have_lines_of_64() {
        let wanted = format!("-----BEGIN X-----\n{}\nAAAAAA\n-----END X-----\n", "A".repeat(64));
        assert_eq!(block("X", &"A".repeat(70)), wanted);
    }
}
