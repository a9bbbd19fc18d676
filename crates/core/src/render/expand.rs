//! `$(VAR)` in commands, arguments, variables and sub-paths.

/// Replaces `$(NAME)` by what `lookup` says; unknown names stay as they are, `$$` is a single `$` that begins no reference.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// All names that `expand` would look up.
pub fn references(text: &str) -> Vec<String> {
    let names = std::cell::RefCell::new(Vec::new());
    expand(text, |name| {
        names.borrow_mut().push(name.to_owned());
        None
    });
    names.into_inner()
}

#[cfg(test)]
mod tests {
    use super::{expand, references};

    #[test]
    fn references_are_replaced_and_escapes_are_not() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "SELF" => Some("$(A)".to_owned()),
            _ => None,
        };
        for (text, wanted) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)z", "x1y1z"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)|", "|"),
            ("$(SELF)", "$(A)"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$b", "a$b"),
            ("$A", "$A"),
            ("$)", "$)"),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("ü$(A)ß", "ü1ß"),
        ] {
            assert_eq!(expand(text, lookup), wanted, "{text}");
        }
        assert_eq!(references("$(A) $$(B) $(C"), ["A"]);
    }
}
