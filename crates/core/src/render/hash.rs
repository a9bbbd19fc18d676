//! The hash that tells whether a container's definition changed.

use super::json;

/// What the annotation `io.kubernetes.container.hash` says, in hexadecimal: only image and name count.
///
/// kubelet 1.36: 32-bit FNV-1a over the text `([]uint8)[123 34 … 125]` that shows the bytes of `{"image":…,"name":…}`. It never
/// changed between versions, so containers outlive an exchange of the agent.
pub fn container_hash(image: &str, name: &str) -> u32 {
    let definition = json::text(&serde_json::json!({ "image": image, "name": name }));
    let mut shown = String::from("([]uint8)[");
    for (i, byte) in definition.bytes().enumerate() {
        if i > 0 {
            shown.push(' ');
        }
        shown.push_str(&byte.to_string());
    }
    shown.push(']');
    fnv_1a_32(shown.as_bytes())
}

/// 32-bit FNV-1a.
pub fn fnv_1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{container_hash, fnv_1a_32};

    #[test]
    fn fnv_matches_its_published_vectors() {
        assert_eq!((fnv_1a_32(b""), fnv_1a_32(b"a"), fnv_1a_32(b"foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
    }

    #[test]
    fn the_hash_is_the_one_that_running_containers_carry() {
        assert_eq!(container_hash("nginx", "nginx"), 0xa564_281e);
        assert_eq!(container_hash("busybox", "log-truncator"), 0xec11_8bd7);
    }
}
