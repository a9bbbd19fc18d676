//! A registry with one image, in a thread of the agent's own process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use crate::archive::{digest, parts};

/// Serves the image as long as the process lives, and says its name. Every process gives it the same digest.
pub(crate) fn serve() -> String {
    let (layer, config) = parts();
    // Not the archive's image, which the store would have already.
    let config =
        String::from_utf8(config).unwrap().replace(r#""Cmd""#, r#""Labels":{"from":"a registry"},"Cmd""#).into_bytes();
    let described = |kind: &str, content: &[u8]| {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(content), "size": content.len(),
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": described("config.v1+json", &config), "layers": [described("layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::from([("1".to_owned(), manifest.clone())]);
    contents.extend([manifest, config, layer].map(|content| (digest(&content), content)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who asks may give up.
            let _ = answer(stream.unwrap(), &contents);
        }
    });
    format!("{address}/test/pulled:1")
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn answer(mut stream: TcpStream, contents: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = first.split([' ', '?']);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let content = path.rsplit('/').next().and_then(|name| contents.get(name));
    let (status, body) = content.map_or(("404 Not Found", &[][..]), |content| ("200 OK", content.as_slice()));
    let kind = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        digest(body),
        body.len()
    )?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}
