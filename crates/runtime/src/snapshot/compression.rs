//! Layers and archives as they come: gzip, zstd or plain, told apart by their first bytes.
//!
//! zstd is read by `ruzstd`: no C code looks at what a stranger packed. It is slower than C's; images in zstd are few.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Bytes of history that a zstd frame may ask us to keep. (zstd's own default limit for decoders.)
const ZSTD_WINDOW_MAX: u64 = 128 << 20;
const BUFFER_BYTES: usize = 128 << 10;

/// The content of a stream, whatever it is packed with.
pub(crate) fn unpacked<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let mut start = [0; 4];
    let count = peek(&mut source, &mut start)?;
    Ok(match &start[..count] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Zstd::new(source)),
        _ => Box::new(source),
    })
}

/// The first bytes of a buffered stream, which stay in it.
fn peek<R: Read>(source: &mut BufReader<R>, start: &mut [u8; 4]) -> io::Result<usize> {
    let seen = source.fill_buf()?;
    if seen.len() >= start.len() || seen.is_empty() {
        let count = seen.len().min(start.len());
        start[..count].copy_from_slice(&seen[..count]);
        return Ok(count);
    }
    // The first read was a short one. Files and connections do that only near their end; a stream of less than four bytes
    // is not packed.
    let count = seen.len();
    start[..count].copy_from_slice(seen);
    Ok(count)
}

/// All frames of a zstd stream, one after the other; skippable ones are skipped.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    is_inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        Self { source, decoder, is_inside: false }
    }

    /// Reads the head of the next frame; `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(broken(&e)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside {
                if !self.begin()? {
                    return Ok(0);
                }
                self.is_inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| broken(&e))?;
            }
            let count = self.decoder.read(buf)?;
            if count > 0 {
                return Ok(count);
            }
            self.is_inside = false;
        }
    }
}

fn broken(e: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {e}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        unpacked(packed)?.read_to_end(&mut out)?;
        Ok(out)
    }

    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn told_apart_by_the_first_bytes() {
        let content = b"some content ".repeat(100_000);
        assert_eq!(read(&content).unwrap(), content);
        assert_eq!(read(&gzip(&content)).unwrap(), content);
        assert_eq!(read(&zstd(&content)).unwrap(), content);
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"abc").unwrap(), b"abc");
    }

    #[test]
    fn several_members_and_skippable_frames_are_one_stream() {
        assert_eq!(read(&[gzip(b"ab"), gzip(b"cd")].concat()).unwrap(), b"abcd");
        let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0".as_slice(), b"xyz"].concat();
        let packed = [skippable.clone(), zstd(b"ab"), skippable, zstd(b"cd")].concat();
        assert_eq!(read(&packed).unwrap(), b"abcd");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        for packed in [gzip(&b"abcdef".repeat(1000)), zstd(&b"abcdef".repeat(1000))] {
            assert!(read(&packed[..packed.len() - 9]).is_err());
        }
        assert!(read(b"\x50\x2a\x4d\x18\xff\0\0\0xyz").is_err(), "a skippable frame that is longer than the stream");
    }
}
