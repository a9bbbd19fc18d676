//! An image to run: busybox under its usual names.

use std::fs;

/// Its name.
pub(crate) const IMAGE: &str = "test/busybox:1";

/// A layer with busybox alone, and the configuration of an image that has only it.
pub(crate) fn parts() -> (Vec<u8>, Vec<u8>) {
    let busybox = fs::read("/usr/bin/busybox").unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |header: &mut tar::Header, name: &str, content: &[u8]| {
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        layer.append_data(header, name, content).unwrap();
    };
    add(&mut tar::Header::new_gnu(), "bin/busybox", &busybox);
    for applet in ["sh", "sleep", "echo", "cat", "nc", "stty"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_link_name("busybox").unwrap();
        add(&mut header, &format!("bin/{applet}"), &[]);
    }
    let layer = layer.into_inner().unwrap();
    let platform = rubelet_runtime::image::document::Platform::of_this_machine();
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    (layer, config.to_string().into_bytes())
}

/// `sha256:…`
pub(crate) fn digest(content: &[u8]) -> String {
    use sha2::Digest as _;
    let digits: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// `docker save` of that image.
pub(crate) fn archive() -> Vec<u8> {
    let (layer, config) = parts();
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": [IMAGE], "Layers": ["l.tar"]}]);
    let mut all = tar::Builder::new(Vec::new());
    for (name, content) in [("l.tar", layer), ("c.json", config), ("manifest.json", manifest.to_string().into_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        all.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    all.into_inner().unwrap()
}
