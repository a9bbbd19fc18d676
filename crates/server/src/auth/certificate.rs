//! Whom a certificate names, and for how long. Only that is read here; whether the certificate is any good is for others to say.

use std::str;

/// DER's tags of the parts that are walked through.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTF8: u8 = 0x0c;
const NUMERIC: u8 = 0x12;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const WIDE: u8 = 0x1e;
const SHORT_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;

/// From the first of March of the year 0.
const DAYS_TO_1970: i64 = 719_468;

/// 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// 1.3.6.1.4.1.57683.2: Kubernetes' own.
const UID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

/// The names in a certificate's subject that mean something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The last one, if there are more; empty: none.
    pub(crate) common: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) uids: Vec<String>,
}

/// The names of the certificate's subject; `None` if it cannot be read.
pub(crate) fn names(certificate: &[u8]) -> Option<Names> {
    let (_, mut subject) = validity_and_subject(certificate)?;
    let mut names = Names::default();
    while !subject.is_empty() {
        let (mut relative, rest) = expect(subject, SET)?;
        subject = rest;
        while !relative.is_empty() {
            let (attribute, rest) = expect(relative, SEQUENCE)?;
            relative = rest;
            let (kind, value) = expect(attribute, OBJECT)?;
            let (tag, value, _) = part(value)?;
            match kind {
                COMMON_NAME => names.common = text(tag, value)?,
                ORGANIZATION => names.organizations.push(text(tag, value)?),
                UID => names.uids.push(text(tag, value)?),
                _ => {}
            }
        }
    }
    Some(names)
}

/// From when until when a certificate is valid, both included, in seconds since 1970; `None` if it cannot be read.
pub(crate) fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (validity, _) = validity_and_subject(certificate)?;
    let (tag, from, rest) = part(validity)?;
    let from = time(tag, from)?;
    let (tag, until, _) = part(rest)?;
    Some((from, time(tag, until)?))
}

fn validity_and_subject(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut signed, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(signed, VERSION) {
        signed = rest;
    }
    let (_, signed) = expect(signed, INTEGER)?;
    // Algorithm and issuer.
    let (_, signed) = expect(signed, SEQUENCE)?;
    let (_, signed) = expect(signed, SEQUENCE)?;
    let (validity, signed) = expect(signed, SEQUENCE)?;
    let (subject, _) = expect(signed, SEQUENCE)?;
    Some((validity, subject))
}

/// Seconds since 1970 of `YYMMDDhhmmssZ` (from 1950 to 2049) or `YYYYMMDDhhmmssZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pairs: Vec<i64> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'))).collect();
    let (year, rest) = match (tag, pairs.as_slice()) {
        (SHORT_TIME, [year, rest @ ..]) => (if *year < 50 { 2000 + year } else { 1900 + year }, rest),
        (LONG_TIME, [century, year, rest @ ..]) => (century * 100 + year, rest),
        _ => return None,
    };
    let &[month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = rest else { return None };
    // Days before a month, counted from March, as leap days come last then.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (month * 153 + 2) / 5 + day - 1 - DAYS_TO_1970;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// A string of the kinds that names are made of.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8 => str::from_utf8(value).ok().map(str::to_owned),
        NUMERIC | PRINTABLE | IA5 => value.is_ascii().then(|| String::from_utf8_lossy(value).into_owned()),
        // Latin 1, whatever the standard says: as Go takes it.
        TELETEX => Some(value.iter().map(|byte| char::from(*byte)).collect()),
        WIDE if value.len().is_multiple_of(2) => {
            let units = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// The content of the part at the start, which must have this tag, and what follows.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    part(bytes).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag and content of the part at the start, and what follows.
fn part(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..0x80 => (usize::from(first), bytes),
        // As many bytes of length follow; a certificate of 4 GiB and more is none.
        0x81..=0x84 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), bytes)
        }
        0x80 | 0x85.. => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn certificate(subject: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::new(["n".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        // Long enough for lengths of three bytes.
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![7; 70_000]));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uid() -> DnType {
        DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2])
    }

    #[test]
    fn names_are_read_in_every_kind_of_string() {
        let der = certificate(&[
            (DnType::CommonName, DnValue::Utf8String("system:nödes".into())),
            (DnType::OrganizationName, DnValue::PrintableString("masters".try_into().unwrap())),
            (DnType::CountryName, DnValue::Utf8String("x".into())),
            (uid(), DnValue::BmpString("ü-1".try_into().unwrap())),
        ]);
        let wanted =
            Names { common: "system:nödes".into(), organizations: vec!["masters".into()], uids: vec!["ü-1".into()] };
        assert_eq!(names(&der), Some(wanted));
        assert_eq!(names(&certificate(&[])), Some(Names::default()));
    }

    #[test]
    fn times_are_read_in_both_forms() {
        for (tag, text, wanted) in [
            (SHORT_TIME, "700101000000Z", Some(0)),
            (SHORT_TIME, "491231235959Z", Some(2_524_607_999)),
            (SHORT_TIME, "500101000000Z", Some(-631_152_000)),
            (LONG_TIME, "20000229120000Z", Some(951_825_600)),
            (LONG_TIME, "20500101000000Z", Some(2_524_608_000)),
            (LONG_TIME, "99991231235959Z", Some(253_402_300_799)),
            (LONG_TIME, "20001301000000Z", None),
            (LONG_TIME, "2000010100000Z", None),
            (SHORT_TIME, "7001010000Z", None),
            (SHORT_TIME, "700101000000", None),
            (SHORT_TIME, "70010100000xZ", None),
            (UTF8, "700101000000Z", None),
        ] {
            assert_eq!(time(tag, text.as_bytes()), wanted, "{text}");
        }
        let mut params = CertificateParams::new([]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 2, 3);
        params.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(validity(made.der()), Some((981_158_400, 2_558_995_200)));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = certificate(&[(DnType::CommonName, DnValue::Utf8String("ada".into()))]);
        for end in 0..400 {
            let _ = names(&der[..end]);
        }
        let whole = names(&der);
        let mut changed = 0;
        for at in 0..400 {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut der = der.clone();
                der[at] = value;
                changed += usize::from(names(&der) != whole);
            }
        }
        assert!(changed > 100, "{changed}");
    }
}
