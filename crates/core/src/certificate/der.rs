//! Walking through a certificate in DER.

use super::{Certificate, alternatives};
use crate::now::Wall;

const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const TIME: u8 = 0x18;
/// 2.5.4.3, 2.5.4.10 and 2.5.29.17.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const ALTERNATIVES: &[u8] = &[0x55, 0x1d, 0x11];

/// A tag and what belongs to it.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// The parts one after the other; `None` where the bytes make no sense, and then nothing more.
pub(super) fn parts(bytes: &[u8]) -> impl Iterator<Item = Option<Part<'_>>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let cut = cut(bytes);
        rest = cut.map(|(_, after)| after);
        Some(cut.map(|(part, _)| part))
    })
}

fn cut(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((Part { tag, body }, after))
}

pub(super) fn certificate(der: &[u8]) -> Option<Certificate> {
    let outer = parts(der).next()??;
    let signed = parts(outer.body).next()??;
    let mut fields = parts(signed.body).skip_while(|part| part.is_some_and(|part| part.tag == VERSION));
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields.next()??;
    }
    let (validity, subject, _key) = (fields.next()??, fields.next()??, fields.next()??);
    let mut times = parts(validity.body);
    let mut found = Certificate {
        not_before: time(times.next()??)?,
        not_after: time(times.next()??)?,
        common_name: String::new(),
        organizations: Vec::new(),
        names: Vec::new(),
        addresses: Vec::new(),
    };
    for relative in parts(subject.body) {
        for attribute in parts(relative?.body) {
            let mut pair = parts(attribute?.body);
            let (kind, value) = (pair.next()??, pair.next()??);
            let text = || String::from_utf8_lossy(value.body).into_owned();
            match kind.body {
                COMMON_NAME => found.common_name = text(),
                ORGANIZATION => found.organizations.push(text()),
                _ => {}
            }
        }
    }
    for field in fields {
        let field = field?;
        if field.tag == EXTENSIONS {
            extensions(field.body, &mut found)?;
        }
    }
    Some(found)
}

fn extensions(body: &[u8], found: &mut Certificate) -> Option<()> {
    let all = parts(body).next()??;
    for extension in parts(all.body) {
        let mut fields = parts(extension?.body).filter(|part| part.is_none_or(|part| part.tag != BOOLEAN));
        let (kind, value) = (fields.next()??, fields.next()??);
        if kind.body == ALTERNATIVES {
            (found.names, found.addresses) = alternatives(value.body)?;
        }
    }
    Some(())
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(part: Part<'_>) -> Option<Wall> {
    let text = std::str::from_utf8(part.body).ok()?.strip_suffix('Z')?;
    let digits = match part.tag {
        UTC_TIME if text.len() == 12 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let at = |range: std::ops::Range<usize>| digits.get(range);
    let (date, clock) = ((at(0..4)?, at(4..6)?, at(6..8)?), (at(8..10)?, at(10..12)?, at(12..14)?));
    format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, clock.0, clock.1, clock.2).parse().ok()
}
