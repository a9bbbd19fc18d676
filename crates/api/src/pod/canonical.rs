//! One text for equal manifests, and a stable 128-bit fingerprint of it.

use serde_json::Value;

/// A fingerprint of 128 bits, FNV-1a: stable over versions and machines, not a protection against intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    /// The digest of no bytes.
    pub fn empty() -> Self {
        Self(Self::OFFSET)
    }

    /// The digest of everything so far and of `bytes` after it.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(Self::PRIME)))
    }
}

impl std::fmt::Display for Digest {
    /// 32 lower-case hex digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// JSON without white space and with the keys of every object in byte order.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (nth, key) in keys.into_iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(&fields[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (nth, item) in items.iter().enumerate() {
                if nth > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_1a_128_matches_the_published_vectors() {
        assert_eq!(Digest::empty().and(b"").to_string(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(Digest::empty().and(b"a").to_string(), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(Digest::empty().and(b"foobar").to_string(), "343e1662793c64bf6f0d3597ba446f18");
        assert_eq!(Digest::empty().and(b"foo").and(b"bar"), Digest::empty().and(b"foobar"));
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let one: Value =
            serde_json::from_str(r#"{"b": {"y": [1, {"q": null, "p": "x\ny"}], "x": true}, "a": 1.5}"#).unwrap();
        assert_eq!(canonical_json(&one), r#"{"a":1.5,"b":{"x":true,"y":[1,{"p":"x\ny","q":null}]}}"#);
    }
}
