//! Damaging bytes: bits, numbers, pieces moved, doubled, taken out, and pieces of other inputs.

/// Numbers that nobody can tell from chance (xorshift64*), the same for the same seed.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `max`; 0 when that is 0.
    fn below(&mut self, max: usize) -> usize {
        if max == 0 { 0 } else { (self.next() % max as u64) as usize }
    }

    /// A part of something of this length, mostly a short one.
    fn part(&mut self, len: usize) -> std::ops::Range<usize> {
        let begin = self.below(len + 1);
        let longest = if self.below(4) == 0 { len } else { 16 };
        begin..(begin + self.below(longest + 1)).min(len)
    }
}

/// Bytes that formats are made of, and numbers at which counters end.
const PIECES: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\0",
    b"..",
    b"../",
    b"/",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b"\n",
    b"- ",
    b"&a ",
    b"*a",
    b"null",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"\xc3\x28",
];

/// One of the corpus, damaged in a few places.
pub fn mutated(corpus: &[Vec<u8>], chance: &mut Chance, max: usize) -> Vec<u8> {
    let mut bytes = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(6) {
        mutate(&mut bytes, corpus, chance);
    }
    bytes.truncate(max);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(bytes.len());
    match chance.below(8) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
        2 if !bytes.is_empty() => bytes[at] = chance.next() as u8,
        3 => drop(bytes.drain(chance.part(bytes.len()))),
        4 => {
            let piece = bytes[chance.part(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => {
            let other = &corpus[chance.below(corpus.len())];
            let piece = other[chance.part(other.len())].to_vec();
            let place = chance.part(bytes.len());
            bytes.splice(place, piece);
        }
        6 => bytes.truncate(at),
        _ => {
            let piece = PIECES[chance.below(PIECES.len())];
            let end = if chance.below(2) == 0 { at } else { (at + piece.len()).min(bytes.len()) };
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}
