//! The file of an import: opened, unpacked, and counted while it is read.
//!
//! Whether it is packed is told by its first bytes, which no text begins with. Not here: what is in it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::cli::failure::{Failure, Kind, Outcome};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// What some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// A file that is being read.
pub(super) struct Source {
    /// What is in it, unpacked.
    pub(super) reader: Box<dyn Read + Send>,
    /// Bytes of the file, packed as it is; `None` for standard input.
    pub(super) size_bytes: Option<u64>,
    /// How many of them were read.
    pub(super) read_bytes: Arc<AtomicU64>,
    /// For messages.
    pub(super) name: String,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be opened or its first bytes cannot be read.
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let unreadable = |error: io::Error| unreadable(&name, &error);
        let (raw, size_bytes): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            (Box::new(file), Some(size))
        };
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: raw, count: read_bytes.clone() };
        let reader = unpacked(counted).map_err(unreadable)?;
        Ok(Self { reader, size_bytes, read_bytes, name })
    }

    /// The next piece; empty at the end.
    ///
    /// # Errors
    /// When it cannot be read on.
    pub(super) fn piece(&mut self) -> Outcome<Bytes> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.read(&mut piece)?;
        piece.truncate(read);
        Ok(piece.into())
    }

    /// Reads into a buffer; 0 at the end.
    ///
    /// # Errors
    /// When it cannot be read on.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.name, &error)),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Outcome<Self> {
        let reader = unpacked(Cursor::new(bytes.to_vec())).map_err(|error| unreadable("test", &error))?;
        Ok(Self { reader, size_bytes: None, read_bytes: Arc::default(), name: "test".into() })
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let message = if error.kind() == io::ErrorKind::UnexpectedEof {
        format!("{name} is cut: it ends before what was packed into it")
    } else {
        format!("{name} cannot be read: {error}")
    };
    Failure::new(Kind::Failed, message)
}

fn unpacked(raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let (first, raw) = peek(raw, ZSTD.len())?;
    let reader: Box<dyn Read + Send> = if first.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(raw))
    } else if first == ZSTD {
        Box::new(zstd::stream::read::Decoder::new(raw)?)
    } else {
        Box::new(raw)
    };
    let (first, mut reader) = peek(reader, BYTE_ORDER_MARK.len())?;
    if first == BYTE_ORDER_MARK {
        reader.read_exact(&mut [0; BYTE_ORDER_MARK.len()])?;
    }
    Ok(Box::new(reader))
}

/// The first bytes, and a reader that gives them once more.
fn peek<R: Read>(mut reader: R, count: usize) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut first = Vec::new();
    reader.by_ref().take(count as u64).read_to_end(&mut first)?;
    Ok((first.clone(), Cursor::new(first).chain(reader)))
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(bytes: &[u8]) -> Outcome<String> {
        let mut source = Source::of(bytes)?;
        let mut text = Vec::new();
        loop {
            let piece = source.piece()?;
            if piece.is_empty() {
                return Ok(String::from_utf8(text).unwrap());
            }
            text.extend_from_slice(&piece);
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_by_its_first_bytes() {
        let gzip = |text: &str| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(text.as_bytes()).unwrap();
            writer.finish().unwrap()
        };
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 3).unwrap();
        assert_eq!(text(b"\xef\xbb\xbf{}").unwrap(), "{}");
        assert_eq!(text(b"").unwrap(), "");
        assert_eq!(text(&[gzip("ab"), gzip("cd")].concat()).unwrap(), "abcd");
        assert_eq!(text(&[zstd("\u{feff}ab"), zstd("cd")].concat()).unwrap(), "abcd");
        for whole in [gzip(&"x".repeat(9_999)), zstd(&"x".repeat(9_999))] {
            let failure = text(&whole[..whole.len() - 3]).unwrap_err();
            assert!(failure.message.contains("cut"), "{failure:?}");
        }
    }
}
