//! With header blocks as Go's HPACK encoder writes them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// `:authority: %2Fvar%2Flib%2Fkubelet%2Fpod-resources%2Fkubelet.sock` among what goes with it.
const ENCODED: &str = "8386459363b857d679369507b6c21519cc8496c633990941a654587b8ec545868346a8b0f5b632d054aa2c359e45ac2a0f6d842a15161eb6c65a0a95d072755f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c540027465864d833505b11f";
/// The same with `-2Fvar-2Flib-…`.
const ENCODED_MENDED: &str = "8386459363b857d679369507b6c21519cc8496c633990941a658587b8ec585868346b0b0f5b632d054ac2c359e45ac2a0f6d842a16161eb6c65a0a95d072755f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c540027465864d833505b11f";
/// `:authority: /var/lib/kubelet/device-plugins/kubelet.sock`.
const PLAIN: &str = "8386459363b857d679369507b6c21519cc8496c633990941a063b8ec628346c75b632d054b1217b98855aba2d98d5218eb6c65a0a95d07275f5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c540027465864d833505b11f";
/// The same with `-var-lib-…`.
const PLAIN_MENDED: &str = "8386459363b857d679369507b6c21519cc8496c633990941a05bb8ec5a8346b75b632d054ad217b98855aba2d98d5216eb6c65a0a95d07275f5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602bba25c540027465864d833505b11f";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn a_path_becomes_an_authority_of_the_same_length() {
    for (block, wanted) in [(ENCODED, ENCODED_MENDED), (PLAIN, PLAIN_MENDED), (ENCODED_MENDED, ENCODED_MENDED)] {
        let mut block = bytes(block);
        assert_eq!(mend_block(&mut block), Some(()));
        assert_eq!(block, bytes(wanted));
    }
    // Not in Huffman's code; other fields keep what they have.
    let mut block = b"\x04\x04/a%b\x41\x04%2Fa".to_vec();
    assert_eq!(mend_block(&mut block), Some(()));
    assert_eq!(block, b"\x04\x04/a%b\x41\x04-2Fa");
}

#[test]
fn what_is_cut_off_or_padded_is_no_trouble() {
    let whole = bytes(ENCODED);
    for end in 0..whole.len() {
        let _ = mend_block(&mut whole[..end].to_vec());
        mend_frame(&mut frame(HEADERS, PADDED | PRIORITY, 1, &whole[..end]));
    }
    let padded =
        |block: &str| frame(HEADERS, PADDED | PRIORITY, 1, &[&[2, 0, 0, 0, 0, 9], &bytes(block)[..], &[0, 0]].concat());
    let mut mended = padded(ENCODED);
    mend_frame(&mut mended);
    assert_eq!(mended, padded(ENCODED_MENDED));
}

#[tokio::test]
async fn a_client_of_go_is_answered_however_its_bytes_come() {
    for piece in [1, 7, 1 << 12] {
        let (mut client, server) = tokio::io::duplex(1 << 12);
        let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let serving = tokio::spawn(http.serve_connection(TokioIo::new(AnyAuthority::new(server)), service));
        let said = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(HEADERS, 0x5, 1, &bytes(ENCODED)),
        ];
        for part in said.concat().chunks(piece) {
            client.write_all(part).await.unwrap();
        }
        let answer = async {
            loop {
                let mut head = [0; HEAD];
                client.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                client.read_exact(&mut payload).await.unwrap();
                if head[8] == 1 {
                    return head[3];
                }
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), answer).await, Ok(HEADERS), "in pieces of {piece}");
        serving.abort();
    }
}
