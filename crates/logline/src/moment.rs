//! Times of log lines: RFC 3339 with up to nine digits of a second. Pure and fast, for each line has one.

/// A point in time, as a log line has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970.
    pub secs: i64,
    pub nanos: u32,
}

/// A second that was read before, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Second {
    text: [u8; 19],
    secs: i64,
}

impl Default for Second {
    fn default() -> Self {
        Self { text: *b"1970-01-01T00:00:00", secs: 0 }
    }
}

/// A moment and how it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    pub moment: Moment,
    /// Date and time of day up to the second: 19 bytes.
    date: [u8; 19],
    /// `+02:00`; nothing for `Z`.
    zone: Option<[u8; 6]>,
}

impl Written {
    /// Reads a time as Go's `2006-01-02T15:04:05.999999999Z07:00` does; `None`: it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (date, rest) = text.split_first_chunk::<19>()?;
        let moment_secs = seconds(date)?;
        let (nanos, rest) = fraction(rest)?;
        let (zone, offset) = zone(rest)?;
        Some(Self { moment: Moment { secs: moment_secs - offset, nanos }, date: *date, zone })
    }

    /// What [`Self::parse`] says of a time at the beginning of `text` that is written as most are, with nine digits and `Z`, and what
    /// follows it. `None`: it is written otherwise, or is none.
    pub(crate) fn parse_usual<'a>(text: &'a [u8], second: &mut Second) -> Option<(Self, &'a [u8])> {
        let (date, rest) = text.split_first_chunk::<19>()?;
        let ([b'.', digits @ .., last, b'Z'], rest) = rest.split_first_chunk::<11>()? else { return None };
        let last = u32::from(last.wrapping_sub(b'0'));
        if last > 9 {
            return None;
        }
        let nanos = eight(*digits)? * 10 + last;
        if *date != second.text {
            *second = Second { text: *date, secs: seconds(date)? };
        }
        Some((Self { moment: Moment { secs: second.secs, nanos }, date: *date, zone: None }, rest))
    }

    /// With nine digits always, and a space: what stands before a line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.date);
        out.push(b'.');
        let mut digits = [b'0'; 9];
        let mut left = self.moment.nanos;
        for digit in digits.iter_mut().rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        out.extend_from_slice(&digits);
        match &self.zone {
            Some(zone) => out.extend_from_slice(zone),
            None => out.push(b'Z'),
        }
        out.push(b' ');
    }
}

/// `2006-01-02T15:04:05`, as if it were UTC.
fn seconds(text: &[u8; 19]) -> Option<i64> {
    let signs = [text[4], text[7], text[10], text[13], text[16]];
    if signs != *b"--T::" {
        return None;
    }
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > month_days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01, counted from March so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// Eight digits at once, in a word: neighbours are joined to numbers of two digits, of four, and of eight.
fn eight(digits: [u8; 8]) -> Option<u32> {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let word = u64::from_le_bytes(digits);
    // Six more than a digit is below 0x40; so a byte that has 3 above both times is one.
    let is_digits = word & HIGH == 0x3030_3030_3030_3030
        && word.wrapping_add(0x0606_0606_0606_0606) & HIGH == 0x3030_3030_3030_3030;
    let twos = (word & !HIGH).wrapping_mul(10 * 256 + 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = twos.wrapping_mul(100 * 0x1_0000 + 1) >> 16 & 0x0000_ffff_0000_ffff;
    let all = fours.wrapping_mul(10_000 * 0x1_0000_0000 + 1) >> 32;
    is_digits.then_some(all as u32)
}

/// `.123`: nanoseconds; digits after the ninth do not count.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some((b'.' | b',', digits)) = text.split_first() else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let kept = digits[..count].iter().map(|digit| u32::from(digit - b'0')).chain(std::iter::repeat(0)).take(9);
    Some((kept.fold(0, |nanos, digit| nanos * 10 + digit), &digits[count..]))
}

/// `Z` or `+02:00`: how it is written, and how many seconds it is ahead.
fn zone(text: &[u8]) -> Option<(Option<[u8; 6]>, i64)> {
    match text {
        b"Z" => Some((None, 0)),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
            if hours > 24 || minutes > 59 {
                return None;
            }
            let ahead = hours * 3600 + minutes * 60;
            let ahead = if *sign == b'-' { -ahead } else { ahead };
            // Go writes no offset as Z.
            Some(((ahead != 0).then(|| text.try_into().ok()).flatten(), ahead))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(i64, u32, String)> {
        let written = Written::parse(text.as_bytes())?;
        let mut out = Vec::new();
        written.write_to(&mut out);
        Some((written.moment.secs, written.moment.nanos, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn times_are_read_and_written_at_full_width() {
        for (text, secs, nanos, written) in [
            ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00.000000000Z "),
            ("2016-10-06T00:17:09.669794202Z", 1_475_713_029, 669_794_202, "2016-10-06T00:17:09.669794202Z "),
            ("2016-10-06T02:17:09.6+02:00", 1_475_713_029, 600_000_000, "2016-10-06T02:17:09.600000000+02:00 "),
            ("2024-02-29T23:59:59.1234567891+00:00", 1_709_251_199, 123_456_789, "2024-02-29T23:59:59.123456789Z "),
            ("2000-01-01T00:00:00-05:30", 946_704_600, 0, "2000-01-01T00:00:00.000000000-05:30 "),
        ] {
            assert_eq!(shown(text), Some((secs, nanos, written.to_owned())), "{text}");
        }
    }

    #[test]
    fn usual_times_are_read_as_others_are() {
        let mut second = Second::default();
        for text in [
            "1970-01-01T00:00:00.000000000Z stdout",
            "2016-10-06T00:17:09.669794202Z stdout",
            "2016-10-06T00:17:09.669794203Z",
            "2016-10-06T00:17:10.999999999Z ",
        ] {
            let (time, rest) = text.split_at(30);
            let read = Written::parse_usual(text.as_bytes(), &mut second);
            assert_eq!(read, Written::parse(time.as_bytes()).map(|at| (at, rest.as_bytes())), "{text}");
        }
        for text in [
            "2016-10-06T00:17:09.66979420Z stdout",
            "2016-10-06T00:17:09.66979420xZ",
            "2016-10-06T00:17:09.6697942:2Z",
            "2016-10-06T00:17:09./69794202Z",
            "2016-10-06T00:17:09.669794202+02:00",
            "2016-13-06T00:17:09.669794202Z stdout",
            "2016-10-06T00:17:09.669794202",
        ] {
            assert_eq!(Written::parse_usual(text.as_bytes(), &mut second), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "x",
            "2016-10-06",
            "2016-10-06T00:17:09",
            "2016-10-06T00:17:09.Z",
            "2016-13-06T00:17:09Z",
            "2015-02-29T00:00:00Z",
            "2016-10-06T24:00:00Z",
            "2016-10-06 00:17:09Z",
            "2016-10-06T00:17:60Z",
            "2016-10-06T00:17:09+0200",
            "2016-10-06T00:17:09ZZ",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
