//! D-Bus messages as bytes, little-endian out, both byte orders in.

use super::BusError;

/// An argument of a call. `Properties` is `a(sv)`; the auxiliary units of `StartTransientUnit` are always none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Str(String),
    #[cfg(test)]
    U32(u32),
    I32(i32),
    U64(u64),
    Bool(bool),
    StrArray(Vec<String>),
    U32Array(Vec<u32>),
    Properties(Vec<Property>),
    /// An empty `a(sa(sv))`.
    NoAuxiliaryUnits,
}

/// Name and value of a unit's property.
pub(crate) type Property = (&'static str, Value);

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Str(_) => "s",
            #[cfg(test)]
            Self::U32(_) => "u",
            Self::I32(_) => "i",
            Self::U64(_) => "t",
            Self::Bool(_) => "b",
            Self::StrArray(_) => "as",
            Self::U32Array(_) => "au",
            Self::Properties(_) => "a(sv)",
            Self::NoAuxiliaryUnits => "a(sa(sv))",
        }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Str(text) => out.text(text),
            #[cfg(test)]
            Self::U32(v) => out.u32(*v),
            Self::I32(v) => out.u32(v.cast_unsigned()),
            Self::U64(v) => {
                out.align(8);
                out.0.extend(v.to_le_bytes());
            }
            Self::Bool(v) => out.u32(u32::from(*v)),
            Self::StrArray(items) => out.array(4, |out| items.iter().for_each(|i| out.text(i))),
            Self::U32Array(items) => out.array(4, |out| items.iter().for_each(|i| out.u32(*i))),
            Self::Properties(items) => out.array(8, |out| {
                for (name, value) in items {
                    out.align(8);
                    out.text(name);
                    out.variant(value);
                }
            }),
            Self::NoAuxiliaryUnits => out.array(8, |_| ()),
        }
    }
}

/// Bytes under construction; alignment counts from their start.
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, v: u32) {
        self.align(4);
        self.0.extend(v.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        value.encode(self);
    }

    /// The length counts from the first element, after its padding.
    fn array(&mut self, element_align: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(element_align);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A method call.
pub(super) struct Call<'a> {
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) body: &'a [Value],
}

impl Call<'_> {
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer(Vec::new());
        self.body.iter().for_each(|v| v.encode(&mut body));
        let signature: String = self.body.iter().map(Value::signature).collect();

        let mut out = Writer(vec![b'l', 1, 0, 1]);
        out.u32(body.0.len() as u32);
        out.u32(serial);
        out.array(8, |out| {
            let mut field = |code: u8, kind: &str, text: &str| {
                out.align(8);
                out.0.push(code);
                out.signature(kind);
                if kind == "g" { out.signature(text) } else { out.text(text) }
            };
            field(1, "o", self.path);
            field(2, "s", self.interface);
            field(3, "s", self.member);
            if let Some(destination) = self.destination {
                field(6, "s", destination);
            }
            if !signature.is_empty() {
                field(8, "g", &signature);
            }
        });
        out.align(8);
        out.0.extend(body.0);
        out.0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// A message that came in, as far as it is understood here.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(super) kind: Kind,
    pub(super) reply_serial: Option<u32>,
    pub(super) error_name: Option<String>,
    pub(super) member: Option<String>,
    signature: String,
    body: Vec<u8>,
    is_big_endian: bool,
}

/// Number of bytes that follow the first 16 of a message.
pub(super) fn length_after_head(head: &[u8; 16], max: usize) -> Result<usize, BusError> {
    let is_big_endian = byte_order(head[0])?;
    let number = |at: usize| {
        let b = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        (if is_big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }) as usize
    };
    let length = number(12).checked_next_multiple_of(8).and_then(|f| f.checked_add(number(4)));
    length.filter(|&l| l <= max).ok_or(BusError::Malformed("message too long"))
}

fn byte_order(mark: u8) -> Result<bool, BusError> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(BusError::Malformed("byte order mark")),
    }
}

impl Message {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BusError> {
        let is_big_endian = byte_order(*bytes.first().ok_or(BusError::Malformed("empty"))?)?;
        let mut reader = Reader { bytes, at: 4, is_big_endian };
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => return Err(BusError::Malformed("message type")),
        };
        let body_length = reader.u32()? as usize;
        reader.u32()?;
        let end = reader.u32()? as usize + reader.at;
        let (mut reply_serial, mut error_name, mut member) = (None, None, None);
        let mut signature = String::new();
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            match reader.signature()?.as_str() {
                "u" => {
                    let v = reader.u32()?;
                    reply_serial = if code == 5 { Some(v) } else { reply_serial };
                }
                "g" => {
                    let v = reader.signature()?;
                    signature = if code == 8 { v } else { signature };
                }
                "s" | "o" => {
                    let v = reader.text()?;
                    match code {
                        3 => member = Some(v),
                        4 => error_name = Some(v),
                        _ => {}
                    }
                }
                _ => return Err(BusError::Malformed("header field type")),
            }
        }
        reader.align(8)?;
        let body = reader.take(body_length)?.to_vec();
        Ok(Self { kind, reply_serial, error_name, member, signature, body, is_big_endian })
    }

    /// The first argument, when it is a string or an object path.
    pub(crate) fn first_text(&self) -> Result<String, BusError> {
        if !self.signature.starts_with(['s', 'o']) {
            return Err(BusError::Malformed("first argument is no text"));
        }
        Reader { bytes: &self.body, at: 0, is_big_endian: self.is_big_endian }.text()
    }

    /// The only argument, when it is a truth value.
    pub(crate) fn truth(&self) -> Result<bool, BusError> {
        if self.signature != "b" {
            return Err(BusError::Malformed("argument is no truth value"));
        }
        Ok(Reader { bytes: &self.body, at: 0, is_big_endian: self.is_big_endian }.u32()? != 0)
    }

    /// The number in the only argument, when that is a property of type `t`.
    pub(crate) fn property_u64(&self) -> Result<u64, BusError> {
        let mut reader = Reader { bytes: &self.body, at: 0, is_big_endian: self.is_big_endian };
        if self.signature != "v" || reader.signature()? != "t" {
            return Err(BusError::Malformed("property is no 64 bit number"));
        }
        reader.align(8)?;
        let b: [u8; 8] = reader.take(8)?.try_into().map_err(|_| BusError::Malformed("cut short"))?;
        Ok(if self.is_big_endian { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) })
    }

    /// The string arguments of a body of exactly this signature, which may hold `u`, `s` and `o`.
    pub(crate) fn body_texts(&self, signature: &str) -> Result<Vec<String>, BusError> {
        if self.signature != signature {
            return Err(BusError::Malformed("unexpected signature"));
        }
        let mut reader = Reader { bytes: &self.body, at: 0, is_big_endian: self.is_big_endian };
        let mut texts = Vec::new();
        for kind in signature.chars() {
            match kind {
                'u' => drop(reader.u32()?),
                's' | 'o' => texts.push(reader.text()?),
                _ => return Err(BusError::Malformed("argument type")),
            }
        }
        Ok(texts)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big_endian: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.checked_add(n).ok_or(BusError::Malformed("length"))?;
        let part = self.bytes.get(self.at..end).ok_or(BusError::Malformed("cut short"))?;
        self.at = end;
        Ok(part)
    }

    fn align(&mut self, to: usize) -> Result<(), BusError> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, BusError> {
        self.align(4)?;
        let b: [u8; 4] = self.take(4)?.try_into().map_err(|_| BusError::Malformed("cut short"))?;
        Ok(if self.is_big_endian { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
    }

    fn text(&mut self) -> Result<String, BusError> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| BusError::Malformed("text is not UTF-8"))
    }

    fn signature(&mut self) -> Result<String, BusError> {
        let length = self.byte()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| BusError::Malformed("signature is not UTF-8"))
    }
}
