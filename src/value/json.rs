//! A JSON value as a slice of the text that holds it.
//!
//! The text is one that `serde_json` wrote: valid, without spaces. On any other text nothing here panics or reads
//! beyond the slice, and the answers mean nothing.

use std::borrow::Cow;

/// A JSON value in place.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a> {
    text: &'a [u8],
}

/// What kind of value it is, in the order in which MongoDB compares kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `null`.
    Null,
    /// A number; integers and fractions are one kind.
    Number,
    /// A string.
    String,
    /// An object.
    Object,
    /// An array.
    Array,
    /// `true` or `false`.
    Bool,
}

/// A number as it was written.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// An integer.
    Signed(i64),
    /// An integer above the signed ones.
    Unsigned(u64),
    /// A number written with a fraction or an exponent. Finite.
    Float(f64),
}

impl<'a> Json<'a> {
    /// `null`.
    pub const NULL: Json<'static> = Json { text: b"null" };

    /// The value that `text` holds and nothing else.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text }
    }

    /// Its text.
    #[must_use]
    pub fn text(self) -> &'a [u8] {
        self.text
    }

    /// Its kind.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.text.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The truth value; `None` for another kind.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.text.first() {
            Some(b't') => Some(true),
            Some(b'f') => Some(false),
            _ => None,
        }
    }

    /// The number; `None` for another kind.
    #[must_use]
    pub fn as_number(self) -> Option<Number> {
        if !matches!(self.text.first(), Some(b'-' | b'0'..=b'9')) {
            return None;
        }
        let text = str::from_utf8(self.text).ok()?;
        if self.text.iter().all(|byte| !matches!(byte, b'.' | b'e' | b'E')) {
            if let Ok(number) = text.parse() {
                return Some(Number::Signed(number));
            }
            if let Ok(number) = text.parse() {
                return Some(Number::Unsigned(number));
            }
        }
        text.parse().ok().map(Number::Float)
    }

    /// The number to the nearest double; `None` for another kind.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        Some(match self.as_number()? {
            Number::Signed(number) => number as f64,
            Number::Unsigned(number) => number as f64,
            Number::Float(number) => number,
        })
    }

    /// The string; `None` for another kind.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        Some(unescape(inner))
    }

    /// The bytes of the string when it was written without escapes.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        let inner = self.text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        memchr::memchr(b'\\', inner).is_none().then_some(inner)
    }

    /// The fields of an object, in the order of keys; none of another kind.
    #[must_use]
    pub fn fields(self) -> Fields<'a> {
        Fields { inside: Inside::new(self.text, b'{') }
    }

    /// The items of an array; none of another kind.
    #[must_use]
    pub fn items(self) -> Items<'a> {
        Items { inside: Inside::new(self.text, b'[') }
    }

    /// The value under a key of an object.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Json<'a>> {
        let mut inside = Inside::new(self.text, b'{');
        loop {
            let name = inside.key()?;
            // Keys are sorted, but those with escapes sort by what they mean.
            let order = match memchr::memchr(b'\\', name) {
                None => name.cmp(key.as_bytes()),
                Some(_) => unescape(name).as_bytes().cmp(key.as_bytes()),
            };
            match order {
                std::cmp::Ordering::Less => inside.skip()?,
                std::cmp::Ordering::Equal => return inside.value(),
                std::cmp::Ordering::Greater => return None,
            }
        }
    }
}

fn unescape(inner: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(b'\\', inner).is_none() {
        return String::from_utf8_lossy(inner);
    }
    let quoted = [b"\"", inner, b"\""].concat();
    Cow::Owned(serde_json::from_slice(&quoted).unwrap_or_default())
}

/// The fields of an object.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    inside: Inside<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.inside.key()?;
        Some((unescape(key), self.inside.value()?))
    }
}

/// The items of an array.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    inside: Inside<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.inside.value()
    }
}

/// What is between the brackets of an object or an array, from where reading has come to.
#[derive(Debug, Clone)]
struct Inside<'a> {
    rest: &'a [u8],
}

impl<'a> Inside<'a> {
    fn new(text: &'a [u8], bracket: u8) -> Self {
        let rest = match text.split_first() {
            Some((first, rest)) if *first == bracket => rest,
            _ => &[],
        };
        Self { rest }
    }

    /// Moves behind a key and its colon; the key without its quotes.
    fn key(&mut self) -> Option<&'a [u8]> {
        let length = string_length(self.rest)?;
        let key = self.rest.get(1..length - 1)?;
        self.rest = self.rest.get(length + 1..)?;
        Some(key)
    }

    /// Moves behind a value and its comma.
    fn value(&mut self) -> Option<Json<'a>> {
        if matches!(self.rest.first(), None | Some(b']' | b'}')) {
            return None;
        }
        let length = length(self.rest)?;
        let text = self.rest.get(..length)?;
        self.rest = self.rest.get(length..)?;
        if let Some((b',', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
        Some(Json { text })
    }

    fn skip(&mut self) -> Option<()> {
        self.value().map(|_| ())
    }
}

/// Bytes of the string that a text starts with, its quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Bytes of the value that a text starts with.
fn length(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_length(text),
        b'{' | b'[' => {
            let (mut at, mut depth) = (0, 0usize);
            loop {
                match *text.get(at)? {
                    b'"' => {
                        at += string_length(&text[at..])?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => Some(text.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(text.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::key::tests::value;
    use super::*;

    /// Reads everything through the slice.
    fn read(json: Json<'_>) -> Value {
        match json.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => json.as_bool().unwrap().into(),
            Kind::Number => match json.as_number().unwrap() {
                Number::Signed(number) => number.into(),
                Number::Unsigned(number) => number.into(),
                Number::Float(number) => number.into(),
            },
            Kind::String => json.as_str().unwrap().into_owned().into(),
            Kind::Array => json.items().map(read).collect(),
            Kind::Object => json.fields().map(|(key, value)| (key.into_owned(), read(value))).collect(),
        }
    }

    fn probe(json: Json<'_>) {
        _ = (json.kind(), json.as_bool(), json.as_f64(), json.as_str(), json.get("a"));
        json.items().take(50).for_each(probe);
        json.fields().take(50).for_each(|(_, value)| probe(value));
    }

    proptest! {
        #[test]
        fn what_is_read_in_place_is_what_a_parser_reads(value in value()) {
            let text = serde_json::to_vec(&value).unwrap();
            let json = Json::new(&text);
            prop_assert_eq!(read(json), value.clone());
            if let Value::Object(fields) = &value {
                for (key, value) in fields {
                    prop_assert_eq!(&read(json.get(key).unwrap()), value);
                }
                prop_assert!(json.get("absent").is_none());
            }
        }

        #[test]
        fn garbage_is_survived(text in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\a1-.e".to_vec()), 0..40)) {
            probe(Json::new(&text));
        }
    }

    #[test]
    fn a_number_keeps_what_was_written() {
        assert!(matches!(Json::new(b"18446744073709551615").as_number(), Some(Number::Unsigned(u64::MAX))));
        assert!(matches!(Json::new(b"-0.0").as_number(), Some(Number::Float(zero)) if zero.is_sign_negative()));
        assert!(Json::new(br#""1""#).as_number().is_none());
        assert_eq!(read(Json::new(br#"{"a\"b":1,"c":[[],{}]}"#)), json!({"a\"b": 1, "c": [[], {}]}));
    }
}
