//! The canonical binary codec of everything that is signed, stored or sent.
//!
//! One value has exactly one encoding: integers are LEB128 without padding, byte strings carry their
//! length, lists carry their count, and a decoder refuses what an encoder would not have written. That
//! makes encodings comparable, hashable and signable. Versions are explicit: a record that may change
//! starts with a version byte which its own decoder checks.
//!
//! A decoder never allocates more than the bytes it was given justify: every list is read under a
//! caller's bound, and a byte string is borrowed from the input.

use std::str;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside a value.
    #[error("input ended early")]
    Truncated,
    /// Bytes were left after the last value.
    #[error("{0} bytes left over after the last value")]
    Trailing(usize),
    /// An integer used more bytes than it needs, or does not fit its type.
    #[error("integer is not canonical or too large")]
    Integer,
    /// A list or string is longer than its limit.
    #[error("{what}: {length} is over the limit of {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// The length that the input claims.
        length: u64,
        /// The most that is accepted.
        limit: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not valid UTF-8")]
    Utf8,
    /// A version or tag that this build does not know.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What kind of tag.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A value that breaks a rule of its type.
    #[error("{0}")]
    Rule(String),
}

/// Appends canonical encodings to a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.buffer.push(value);
        self
    }

    /// Appends an unsigned integer in LEB128 (1-10 bytes).
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.buffer.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
        self
    }

    /// Appends bytes as they are; the reader must know their length.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// Appends a length and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64);
        self.fixed(bytes)
    }

    /// Appends a length and the UTF-8 bytes.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Appends a count and each element.
    pub fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.varint(items.len() as u64);
        for item in items {
            each(self, item);
        }
        self
    }

    /// Appends another value's encoding.
    pub fn value<T: Encode + ?Sized>(&mut self, value: &T) -> &mut Self {
        value.encode(self);
        self
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The finished encoding.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.buffer
    }
}

/// Reads canonical encodings from a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end of the input.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.fixed::<1>()?[0])
    }

    /// Takes a LEB128 integer.
    ///
    /// # Errors
    /// [`DecodeError::Integer`] when it is padded or does not fit 64 bits, [`DecodeError::Truncated`] at the end.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Integer);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let padded = byte == 0 && shift > 0;
                return if padded { Err(DecodeError::Integer) } else { Ok(value) };
            }
        }
        Err(DecodeError::Integer)
    }

    /// Takes an integer that must fit `T`.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`DecodeError::Integer`] when it does not fit.
    pub fn int<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.varint()?).map_err(|_| DecodeError::Integer)
    }

    /// Takes exactly `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when fewer are left.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes a length-prefixed byte string of at most `limit` bytes, borrowed from the input.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] over the limit, [`DecodeError::Truncated`] when the input is shorter than it claims.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.length(what, limit)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes length-prefixed UTF-8 of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and [`DecodeError::Utf8`].
    pub fn string(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes(what, limit)?).map_err(|_| DecodeError::Utf8)
    }

    /// Takes a counted list of at most `limit` elements.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] over the limit, and whatever `each` returns.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.length(what, limit)?;
        // Every element takes at least one byte, so a claimed count cannot allocate beyond the input.
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| each(self)).collect()
    }

    /// Takes a value by its own decoder.
    ///
    /// # Errors
    /// Whatever that decoder returns.
    pub fn value<T: Decode>(&mut self) -> Result<T, DecodeError> {
        T::decode(self)
    }

    /// Checks a version byte.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] when it is not `expected`.
    pub fn version(&mut self, what: &'static str, expected: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            found if found == expected => Ok(()),
            found => Err(DecodeError::Unknown { what, value: u64::from(found) }),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    fn length(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) if length <= limit => Ok(length),
            Ok(_) | Err(_) => Err(DecodeError::TooLong { what, length, limit }),
        }
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, writer: &mut Writer) {
        writer.fixed(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.fixed()
    }
}

/// One byte says whether there is a value.
impl<T: Encode> Encode for Option<T> {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(writer);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(None),
            1 => T::decode(reader).map(Some),
            value => Err(DecodeError::Unknown { what: "option", value: u64::from(value) }),
        }
    }
}

/// A type with one canonical encoding.
pub trait Encode {
    /// Appends the encoding.
    fn encode(&self, writer: &mut Writer);

    /// The encoding as a fresh buffer.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.finish()
    }
}

/// A type that can be read back from its canonical encoding.
pub trait Decode: Sized {
    /// Reads one value, leaving what follows.
    ///
    /// # Errors
    /// A [`DecodeError`] when the bytes are not an encoding of this type.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads one value that must fill `bytes`.
    ///
    /// # Errors
    /// As [`Decode::decode`], and [`DecodeError::Trailing`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_have_one_encoding(value: u64, garbage: Vec<u8>) {
            let mut writer = Writer::new();
            writer.varint(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert!(reader.finish().is_ok());

            let mut reader = Reader::new(&garbage);
            if let Ok(value) = reader.varint() {
                let used = garbage.len() - reader.remaining();
                let mut writer = Writer::new();
                writer.varint(value);
                prop_assert_eq!(&writer.finish(), &garbage[..used]);
            }
        }

        #[test]
        fn strings_round_trip(text: String) {
            let mut writer = Writer::new();
            writer.string(&text);
            let bytes = writer.finish();
            prop_assert_eq!(Reader::new(&bytes).string("text", bytes.len()).unwrap(), text);
        }
    }

    #[test]
    fn claims_beyond_the_input_or_the_limit_are_refused() {
        let mut writer = Writer::new();
        writer.varint(1 << 40);
        let bytes = writer.finish();
        assert!(matches!(Reader::new(&bytes).bytes("b", 10), Err(DecodeError::TooLong { .. })));
        assert_eq!(Reader::new(&bytes).list("l", usize::MAX, |r| r.u8()), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(DecodeError::Integer));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(DecodeError::Integer));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Truncated));
    }
}
