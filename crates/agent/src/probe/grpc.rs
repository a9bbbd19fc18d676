//! gRPC health checking, version 1: one plaintext call of `grpc.health.v1.Health/Check`.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rubelet_core::pod::fact::ProbeAnswer;
use rubelet_proto::health::health_check_response::ServingStatus;
use rubelet_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::time::{Instant, timeout_at};

use super::{GRPC_AGENT, dial};

/// The answer is a few bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// A gRPC status that is not OK.
struct Status {
    code: u32,
    message: String,
}

/// Asks for `service` (the empty name is the whole server); only SERVING is success.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> ProbeAnswer {
    let address = dial::host_port(host, port);
    let deadline = Instant::now() + timeout;
    let shown = go_duration(timeout);
    let stream = match timeout_at(deadline, dial::tcp(host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(text)) => {
            return ProbeAnswer::Failure(format!(
                "error: failed to connect service at {address:?}: connection error: desc = \"transport: Error while \
                 dialing: {text}\""
            ));
        }
        Err(_) => {
            return ProbeAnswer::Failure(format!(
                "timeout: failed to connect service {address:?} within {shown}: context deadline exceeded"
            ));
        }
    };
    match timeout_at(deadline, call(stream, &address, service)).await {
        Err(_) => ProbeAnswer::Failure(format!("timeout: health rpc did not complete within {shown}")),
        Ok(Ok(ServingStatus::Serving)) => ProbeAnswer::Success,
        Ok(Ok(other)) => ProbeAnswer::Failure(format!("service unhealthy (responded with {:?})", other.as_str_name())),
        Ok(Err(Status { code: 12, message })) => ProbeAnswer::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Err(Status { code: 4, .. })) => {
            ProbeAnswer::Failure(format!("timeout: health rpc did not complete within {shown}"))
        }
        Ok(Err(Status { code, message })) => ProbeAnswer::Failure(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(code)
        )),
    }
}

/// Ends the connection's task with the call.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn call(stream: tokio::net::TcpStream, address: &str, service: &str) -> Result<ServingStatus, Status> {
    let unavailable = |text: String| Status { code: 14, message: text };
    let broken = |e: hyper::Error| unavailable(format!("connection error: desc = {:?}", rubelet_host::chain(&e)));
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let _connection = Connection(rubelet_host::task::spawn(async move {
        let _ = connection.await;
    }));
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", GRPC_AGENT)
        .body(Full::new(framed.freeze()))
        .map_err(|e| Status { code: 13, message: e.to_string() })?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    let is_grpc = head.headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc || head.status != http::StatusCode::OK {
        let status = head.status.as_u16();
        let code = match status {
            404 => 12,
            401 => 16,
            403 => 7,
            429 | 502..=504 => 14,
            _ => 2,
        };
        let text = head.status.canonical_reason().unwrap_or_default();
        return Err(Status {
            code,
            message: format!("unexpected HTTP status code received from server: {status} ({text})"),
        });
    }
    status_in(&head.headers)?;
    let collected = Limited::new(body, ANSWER_MAX).collect().await;
    let collected = collected.map_err(|e| unavailable(format!("error reading from server: {e}")))?;
    match collected.trailers() {
        Some(trailers) => status_in(trailers)?,
        None if !head.headers.contains_key("grpc-status") => {
            return Err(Status { code: 13, message: "server closed the stream without sending trailers".to_owned() });
        }
        None => {}
    }
    decode(&collected.to_bytes())
}

/// One message, uncompressed.
fn decode(bytes: &Bytes) -> Result<ServingStatus, Status> {
    let malformed = |text: &str| Status { code: 13, message: text.to_owned() };
    let (&[compressed, a, b, c, d], rest) = bytes.split_first_chunk::<5>().ok_or_else(|| malformed("EOF"))?;
    if compressed != 0 {
        return Err(malformed("grpc: compressed answer to a request that did not ask for it"));
    }
    let message = rest.get(..u32::from_be_bytes([a, b, c, d]) as usize).ok_or_else(|| malformed("unexpected EOF"))?;
    let answer = HealthCheckResponse::decode(message)
        .map_err(|e| malformed(&format!("grpc: failed to unmarshal the received message: {e}")))?;
    Ok(ServingStatus::try_from(answer.status).unwrap_or(ServingStatus::Unknown))
}

fn status_in(headers: &HeaderMap) -> Result<(), Status> {
    let Some(value) = headers.get("grpc-status") else { return Ok(()) };
    let code = value.to_str().ok().and_then(|v| v.parse().ok()).unwrap_or(2);
    if code == 0 {
        return Ok(());
    }
    let message = headers.get("grpc-message").map(|m| percent_decoded(m.as_bytes())).unwrap_or_default();
    Err(Status { code, message })
}

fn percent_decoded(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Names of gRPC's status codes as Go prints them.
fn code_name(code: u32) -> String {
    let names = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    names.get(code as usize).map_or_else(|| format!("Code({code})"), |n| (*n).to_owned())
}

/// `1s`, `1m30s`, `1.5s`: as Go writes a duration of a second or more.
fn go_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (hours, minutes) = (secs / 3600, secs / 60 % 60);
    let rest = duration.as_secs_f64() - (secs - secs % 60) as f64;
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_codes_as_go_prints_them() {
        for (millis, want) in [(1000, "1s"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_millis(millis)), want);
        }
        assert_eq!((code_name(5).as_str(), code_name(99).as_str()), ("NotFound", "Code(99)"));
        assert_eq!(percent_decoded(b"a%20b%zz%C3%BC"), "a b%zz\u{fc}");
    }
}
