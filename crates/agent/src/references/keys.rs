//! Keys of pods, and requests for certificates that say nothing but the key (PKCS#10, DER).
//!
//! ring signs and makes most keys; it makes none of RSA and knows no P-521.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use getrandom::SysRng;
use p521::elliptic_curve::Generate as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{self as sign, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use rsa::rand_core::UnwrapErr;
use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
use rubelet_core::pem;

/// A key and the request that it signed.
pub(super) struct Key {
    /// PKCS#8 in PEM.
    pub(super) pem: String,
    /// PKCS#10 in DER.
    pub(super) request: Vec<u8>,
}

/// DER's tags.
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0x00];
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const ZERO: &[u8] = &[INTEGER, 1, 0];
const ONE: &[u8] = &[INTEGER, 1, 1];

/// Names of algorithms and curves, in DER.
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSA_SHA256: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const EC: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 0x04, 0, 34];
const P521: &[u8] = &[6, 5, 0x2b, 0x81, 0x04, 0, 35];
const ECDSA_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_SHA512: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 112];

/// Makes a key of that type. Takes up to seconds for RSA.
pub(super) fn make(key_type: &str) -> Result<Key, String> {
    match key_type {
        "RSA3072" => rsa_key(3072),
        "RSA4096" => rsa_key(4096),
        "ECDSAP256" => ec_key(&sign::ECDSA_P256_SHA256_ASN1_SIGNING, P256, ECDSA_SHA256),
        "ECDSAP384" => ec_key(&sign::ECDSA_P384_SHA384_ASN1_SIGNING, P384, ECDSA_SHA384),
        "ECDSAP521" => p521_key(),
        "ED25519" => ed25519_key(),
        // kubelet 1.36: the words.
        other => Err(format!("while generating keypair: unknown key type {other:?}")),
    }
}

fn rsa_key(bits: usize) -> Result<Key, String> {
    let failed = |why: &dyn std::fmt::Display| format!("while generating RSA {bits} key: {why}");
    let key = rsa::PrivateKey::new(&mut UnwrapErr(SysRng), bits).map_err(|e| failed(&e))?;
    let (Some(dp), Some(dq), Some(q_inverse), [p, q]) = (key.dp(), key.dq(), key.crt_coefficient(), key.primes())
    else {
        return Err(failed(&"it has not two primes"));
    };
    let n = number(&key.n_bytes());
    let e = number(&key.e_bytes());
    let secret = [key.d(), p, q, dp, dq, &q_inverse].map(|part| number(&part.to_be_bytes_trimmed_vartime()));
    let parts: Vec<&[u8]> = [ZERO, &n, &e].into_iter().chain(secret.iter().map(Vec::as_slice)).collect();
    let private = wrap(SEQUENCE, &parts);
    let algorithm = wrap(SEQUENCE, &[RSA, NULL]);
    let pair = RsaKeyPair::from_der(&private).map_err(|e| failed(&e))?;
    let public = wrap(SEQUENCE, &[&n, &e]);
    key_of(&algorithm, &private, &public, &wrap(SEQUENCE, &[RSA_SHA256, NULL]), |message| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&sign::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|e| failed(&e))?;
        Ok(signature)
    })
}

fn ec_key(algorithm: &'static EcdsaSigningAlgorithm, curve: &[u8], signed_with: &[u8]) -> Result<Key, String> {
    let failed = |why: &dyn std::fmt::Display| format!("while generating ECDSA key: {why}");
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|e| failed(&e))?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).map_err(|e| failed(&e))?;
    let request =
        request(&wrap(SEQUENCE, &[EC, curve]), pair.public_key().as_ref(), &wrap(SEQUENCE, &[signed_with]), |m| {
            Ok(pair.sign(&random, m).map_err(|e| failed(&e))?.as_ref().to_vec())
        })?;
    Ok(Key { pem: pem::block("PRIVATE KEY", &STANDARD.encode(document.as_ref())), request })
}

fn p521_key() -> Result<Key, String> {
    use p521::ecdsa::signature::Signer as _;
    use p521::ecdsa::{Signature, SigningKey};
    let failed = |why: &dyn std::fmt::Display| format!("while generating ECDSA P521 key: {why}");
    let key = SigningKey::try_generate_from_rng(&mut SysRng).map_err(|e| failed(&e))?;
    let public = key.verifying_key().to_sec1_point(false);
    let private = wrap(
        SEQUENCE,
        &[ONE, &wrap(OCTETS, &[&key.to_bytes()]), &wrap(CONTEXT_1, &[&wrap(BITS, &[&[0], public.as_bytes()])])],
    );
    let algorithm = wrap(SEQUENCE, &[EC, P521]);
    key_of(&algorithm, &private, public.as_bytes(), &wrap(SEQUENCE, &[ECDSA_SHA512]), |message| {
        let signature: Signature = key.try_sign(message).map_err(|e| failed(&e))?;
        let (r, s) = signature.split_bytes();
        Ok(wrap(SEQUENCE, &[&number(&r), &number(&s)]))
    })
}

fn ed25519_key() -> Result<Key, String> {
    let failed = |why: &dyn std::fmt::Display| format!("while generating Ed25519 key: {why}");
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|e| failed(&e))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| failed(&e))?;
    // Without the public key, which ring would write: not everybody reads that.
    let algorithm = wrap(SEQUENCE, &[ED25519]);
    let private = wrap(OCTETS, &[&seed]);
    key_of(&algorithm, &private, pair.public_key().as_ref(), &algorithm, |message| {
        Ok(pair.sign(message).as_ref().to_vec())
    })
}

/// A key of its parts in DER.
fn key_of(
    algorithm: &[u8],
    private: &[u8],
    public: &[u8],
    signed_with: &[u8],
    signs: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Key, String> {
    let pkcs8 = wrap(SEQUENCE, &[ZERO, algorithm, &wrap(OCTETS, &[private])]);
    let request = request(algorithm, public, signed_with, signs)?;
    Ok(Key { pem: pem::block("PRIVATE KEY", &STANDARD.encode(&pkcs8)), request })
}

/// Version 0, nobody's name, the key, no attributes; and the signature.
fn request(
    algorithm: &[u8],
    public: &[u8],
    signed_with: &[u8],
    signs: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let public = wrap(SEQUENCE, &[algorithm, &wrap(BITS, &[&[0], public])]);
    let body = wrap(SEQUENCE, &[ZERO, &wrap(SEQUENCE, &[]), &public, &wrap(CONTEXT_0, &[])]);
    let signature = signs(&body)?;
    Ok(wrap(SEQUENCE, &[&body, signed_with, &wrap(BITS, &[&[0], &signature])]))
}

/// A positive number from its bytes.
fn number(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|&b| b != 0).unwrap_or(bytes.len());
    let digits = &bytes[first..];
    // The first bit is the sign.
    let sign: &[u8] = if digits.first().is_none_or(|&b| b >= 0x80) { &[0] } else { &[] };
    wrap(INTEGER, &[sign, digits])
}

/// Parts under one tag.
fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let bytes = length.to_be_bytes();
    let used = &bytes[bytes.iter().position(|&b| b != 0).unwrap_or(bytes.len() - 1)..];
    if length >= 0x80 {
        // At most eight bytes.
        out.push(0x80 | u8::try_from(used.len()).unwrap_or_default());
    }
    out.extend_from_slice(used);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// What openssl says of it.
    fn openssl(args: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        child.stdin.take().expect("a pipe").write_all(input).expect("openssl reads");
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8(both).expect("a text")
    }

    #[test]
    fn keys_of_every_type_sign_requests_that_say_nothing_else() {
        for (key_type, kind) in [
            ("RSA3072", "(3072 bit"),
            ("RSA4096", "(4096 bit"),
            ("ECDSAP256", "prime256v1"),
            ("ECDSAP384", "secp384r1"),
            ("ECDSAP521", "secp521r1"),
            ("ED25519", "ED25519"),
        ] {
            // Small numbers have leading zeroes.
            for _ in 0..if key_type.starts_with("RSA") { 1 } else { 20 } {
                let key = make(key_type).expect(key_type);
                let shown = openssl(&["req", "-inform", "DER", "-noout", "-verify", "-text"], &key.request);
                assert!(shown.contains("verify OK") && shown.contains(kind), "{key_type}: {shown}");
                assert!(shown.contains("Version: 1 (0x0)") && shown.contains("Subject: \n"), "{key_type}: {shown}");
                let public = openssl(&["req", "-inform", "DER", "-noout", "-pubkey"], &key.request);
                assert_eq!(openssl(&["pkey", "-pubout"], key.pem.as_bytes()), public, "{key_type}");
                openssl(&["pkey", "-noout", "-check"], key.pem.as_bytes());
                assert!(key.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{key_type}");
            }
        }
        assert_eq!(make("RSA512").err().as_deref(), Some("while generating keypair: unknown key type \"RSA512\""));
    }
}
