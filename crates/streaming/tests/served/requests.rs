use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn requests_are_checked() {
    let server = server().await;
    let base = exec_request(&["true"]);
    let cases = [
        (ExecRequest { container_id: String::new(), ..base.clone() }, "missing required container_id"),
        (ExecRequest { tty: true, ..base.clone() }, "tty and stderr cannot both be true"),
        (ExecRequest { stdout: false, stderr: false, ..base.clone() }, "one of stdin, stdout, or stderr must be set"),
    ];
    for (request, text) in cases {
        assert_eq!(server.exec(&request).unwrap_err().to_string(), text);
    }
    let attach = AttachRequest { container_id: "c".to_owned(), ..AttachRequest::default() };
    assert_eq!(server.attach(&attach).unwrap_err().to_string(), "one of stdin, stdout, and stderr must be set");
    let forward = PortForwardRequest::default();
    assert_eq!(server.port_forward(&forward).unwrap_err().to_string(), "missing required pod_sandbox_id");
    let forward = PortForwardRequest { pod_sandbox_id: "s".to_owned(), port: vec![0] };
    assert_eq!(server.port_forward(&forward).unwrap_err().to_string(), "port must be in 1..65535");
}

/// What the server answers to the head of a request.
async fn answer(server: &Server, head: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    connection.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_url_is_good_for_one_request_of_its_kind() {
    let server = server().await;
    let url = server.exec(&exec_request(&["true"])).unwrap();
    let path = url.strip_prefix(&format!("http://{}", server.address())).unwrap().to_owned();
    let token = path.strip_prefix("/exec/").unwrap();
    for head in [
        "GET / HTTP/1.1".to_owned(),
        "GET /exec/unknown HTTP/1.1".to_owned(),
        format!("GET /run/{token} HTTP/1.1"),
        format!("GET {path}/more HTTP/1.1"),
    ] {
        let text = answer(&server, &head).await;
        assert!(text.starts_with("HTTP/1.1 404") && text.ends_with("404 page not found\n"), "{head}: {text}");
    }
    assert!(answer(&server, &format!("PUT {path} HTTP/1.1")).await.starts_with("HTTP/1.1 405"));
    let text = answer(&server, &format!("GET {path} HTTP/1.1")).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("X-Stream-Protocol-Version does not exist"), "{text}");
    assert!(answer(&server, &format!("GET {path} HTTP/1.1")).await.starts_with("HTTP/1.1 404"));
    let url = server.exec(&exec_request(&["true"])).unwrap();
    let path = url.strip_prefix(&format!("http://{}/exec/", server.address())).unwrap().to_owned();
    assert!(answer(&server, &format!("GET /attach/{path} HTTP/1.1")).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn protocols_that_are_not_spoken_are_refused() {
    let server = server().await;
    let path = |url: String| url.strip_prefix(&format!("http://{}", server.address())).unwrap().to_owned();
    let spdy = path(server.exec(&exec_request(&["true"])).unwrap());
    let head = format!("POST {spdy} HTTP/1.1\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9.channel.k8s.io");
    let text = answer(&server, &head).await;
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    assert!(text.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{text}");
    assert!(text.contains("unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts ["));
    let websocket = path(server.exec(&exec_request(&["true"])).unwrap());
    let head = format!(
        "GET {websocket} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v9.channel.k8s.io"
    );
    let text = answer(&server, &head).await;
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
}
