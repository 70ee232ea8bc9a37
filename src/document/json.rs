//! Reading JSON (RFC 8259) from clients.
//!
//! A parser of our own rather than `serde_json`'s, because a database must not change what it is given:
//! duplicate keys are refused instead of dropped, integers that fit neither 64-bit type are refused instead
//! of rounded, decimals are read to the nearest double, and each fault has its line and column. Nesting and size
//! are bounded before anything is built.

use serde::Deserialize;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX};

/// The fields of a JSON object, sorted by key.
pub type Object = Map<String, Value>;

/// Characters of the input that an error message repeats at most.
const SHOWN_CHARS_MAX: usize = 40;

/// Reads one JSON value.
///
/// # Errors
/// [`Error::Invalid`]: `TooLarge` above [`DOCUMENT_BYTES_MAX`]; `Syntax` for text that is not UTF-8 or not JSON,
/// for duplicate keys and for nesting beyond [`DOCUMENT_DEPTH_MAX`]; `Meaning` for numbers that no 64-bit type holds.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let message = format!("the JSON text has {} bytes, the limit is {DOCUMENT_BYTES_MAX}", bytes.len());
        return Err(Error::Invalid(Invalid { message, field: None, position: None, kind: InvalidKind::TooLarge }));
    }
    let text = str::from_utf8(bytes).map_err(|error| {
        let valid = str::from_utf8(&bytes[..error.valid_up_to()]).expect("checked up to here");
        Fault::syntax(valid.len(), "the text is not valid UTF-8 here").into_error(valid)
    })?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.document().map_err(|fault| fault.into_error(text))
}

/// Reads a JSON value that must be an object. The meaning of `_id` is left to the caller.
///
/// # Errors
/// As [`parse`], and `Meaning` for another kind of value.
pub fn parse_document(bytes: &[u8]) -> Result<Object, Error> {
    let found = match parse(bytes)? {
        Value::Object(fields) => return Ok(fields),
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
    };
    Err(Error::invalid(format!("a document is a JSON object, this is {found}")))
}

/// Reads JSON that a peer made, of at most `depth_max` levels. Such text needs no second judgement, but
/// `serde_json` by itself stops before the deepest document.
///
/// # Errors
/// For text that is not JSON or is nested deeper.
pub fn parse_made(bytes: &[u8], depth_max: usize) -> Result<Value, serde_json::Error> {
    if depth(bytes) > depth_max {
        return Err(serde::de::Error::custom(format!("nested deeper than {depth_max} levels")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Levels of nesting at most: brackets outside of strings that were opened and not closed.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct Fault {
    at: usize,
    kind: InvalidKind,
    message: String,
}

impl Fault {
    fn syntax(at: usize, message: impl Into<String>) -> Self {
        Self { at, kind: InvalidKind::Syntax, message: message.into() }
    }

    fn into_error(self, text: &str) -> Error {
        let before = &text[..self.at];
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count() + 1;
        let message = format!("{} (line {line}, column {column})", self.message);
        Error::Invalid(Invalid { message, field: None, position: Some((line, column)), kind: self.kind })
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Always on a character boundary when a fault is made.
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Value, Fault> {
        let value = self.value()?;
        self.space();
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.unexpected("the end of the text")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.text[self.at..].chars().next() {
            Some(found) => format!("{found:?}"),
            None => "the end of the text".to_owned(),
        };
        Fault::syntax(self.at, format!("expected {wanted}, found {found}"))
    }

    fn value(&mut self) -> Result<Value, Fault> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) | None => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.unexpected("a value"))
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Fault>) -> Result<Value, Fault> {
        if self.depth == DOCUMENT_DEPTH_MAX {
            return Err(Fault::syntax(self.at, format!("nested deeper than {DOCUMENT_DEPTH_MAX} levels")));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let mut fields = Map::new();
        self.space();
        if self.skip(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let key = self.string()?;
            if fields.contains_key(&key) {
                return Err(Fault::syntax(start, format!("duplicate key {:?}", shown(&key))));
            }
            self.space();
            if !self.skip(b':') {
                return Err(self.unexpected("':'"));
            }
            let value = self.value()?;
            fields.insert(key, value);
            self.space();
            if self.skip(b'}') {
                return Ok(Value::Object(fields));
            }
            if !self.skip(b',') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
    }

    fn array(&mut self) -> Result<Value, Fault> {
        let mut items = Vec::new();
        self.space();
        if self.skip(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            if self.skip(b']') {
                return Ok(Value::Array(items));
            }
            if !self.skip(b',') {
                return Err(self.unexpected("',' or ']'"));
            }
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain = rest.iter().take_while(|&&byte| byte != b'"' && byte != b'\\' && byte >= 0x20).count();
            string.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return Err(Fault::syntax(self.at, "control characters in strings must be escaped")),
                None => return Err(self.unexpected("'\"'")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let start = self.at;
        self.at += 1;
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            Some(_) | None => return Err(Fault::syntax(start, "unknown escape")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char, Fault> {
        let first = self.code_unit(start)?;
        let code = match first {
            0xd800..=0xdbff if self.peek() == Some(b'\\') => {
                self.at += 1;
                let second = self.code_unit(start)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(Fault::syntax(start, "half of a surrogate pair"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| Fault::syntax(start, "half of a surrogate pair"))
    }

    /// Reads `uXXXX`.
    fn code_unit(&mut self, start: usize) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 5).and_then(|unit| unit.strip_prefix(b"u"));
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.ok_or_else(|| Fault::syntax(start, "expected \\u and four hexadecimal digits"))?;
        self.at += 5;
        Ok(digits.iter().fold(0, |code, &digit| code << 4 | char::from(digit).to_digit(16).unwrap_or_default()))
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        self.skip(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) | None => return Err(self.unexpected("a digit")),
        }
        let mut integer = true;
        if self.skip(b'.') {
            integer = false;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let literal = &self.text[start..self.at];
        let number = if integer && literal != "-0" { exact_integer(literal) } else { finite(literal) };
        number.map(Value::Number).ok_or_else(|| Fault {
            at: start,
            kind: InvalidKind::Meaning,
            message: format!(
                "the number {} fits no 64-bit type and is not rounded: send it as a string",
                shown(literal)
            ),
        })
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.unexpected("a digit"));
        }
        self.at += count;
        Ok(())
    }
}

fn exact_integer(literal: &str) -> Option<Number> {
    literal.parse::<i64>().map(Number::from).or_else(|_| literal.parse::<u64>().map(Number::from)).ok()
}

/// The nearest double; none for what is too large for one, and for what is so small that nothing would be left of it.
fn finite(literal: &str) -> Option<Number> {
    let number = literal.parse::<f64>().ok()?;
    let digits = literal.split(['e', 'E']).next().unwrap_or_default();
    let is_lost = number == 0.0 && digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    Number::from_f64(number).filter(|_| !is_lost)
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fault(text: impl AsRef<[u8]>) -> (InvalidKind, Option<(usize, usize)>, String) {
        match parse(text.as_ref()) {
            Err(Error::Invalid(invalid)) => (invalid.kind, invalid.position, invalid.message),
            other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(text.as_ref())),
        }
    }

    #[test]
    fn what_json_allows_is_read() {
        let text = br#" {"a": [1, -2.5e3, true, false, null, "x\u00e9\n\ud83d\ude00\/"], "": {}, "b":[] } "#;
        let expected = json!({"a": [1, -2500.0, true, false, null, "xé\n😀/"], "": {}, "b": []});
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn faults_carry_line_and_column() {
        let syntax = |text: &str, position| {
            let (kind, found, message) = fault(text);
            assert_eq!((kind, found), (InvalidKind::Syntax, Some(position)), "{text:?}: {message}");
        };
        syntax("", (1, 1));
        syntax("{\n  \"a\": 1,\n  \"é\": 2, \"a\": 3}", (3, 11));
        syntax("{\"a\":{\"b\":1,\n\"\\u0062\":2}}", (2, 1));
        syntax("[1,]", (1, 4));
        syntax("[1 2]", (1, 4));
        syntax("{\"a\" 1}", (1, 6));
        syntax("{a:1}", (1, 2));
        syntax("01", (1, 2));
        syntax("1.", (1, 3));
        syntax("-", (1, 2));
        syntax("+1", (1, 1));
        syntax("NaN", (1, 1));
        syntax("nul", (1, 1));
        syntax("\"a\nb\"", (1, 3));
        syntax("\"\\x\"", (1, 2));
        syntax("\"\\ud800\"", (1, 2));
        syntax("\"\\ud800\\u0041\"", (1, 2));
        syntax("\"\\udc00\"", (1, 2));
        syntax("\"\\u00g0\"", (1, 2));
        syntax("\"\\u00é\"", (1, 2));
        syntax("\"abc", (1, 5));
        syntax("{} x", (1, 4));
        syntax("\u{feff}{}", (1, 1));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_where_it_starts() {
        let (kind, position, _) = fault(b"{\"a\":\n\"\xc3\xa9\xff\"}");
        assert_eq!((kind, position), (InvalidKind::Syntax, Some((2, 3))));
        let (kind, position, _) = fault(b"\"\xed\xa0\x80\"");
        assert_eq!((kind, position), (InvalidKind::Syntax, Some((1, 2))));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(nested(DOCUMENT_DEPTH_MAX).as_bytes()).is_ok());
        let (kind, position, _) = fault(nested(DOCUMENT_DEPTH_MAX + 1));
        assert_eq!((kind, position), (InvalidKind::Syntax, Some((1, DOCUMENT_DEPTH_MAX + 1))));
        assert_eq!(fault("{\"a\":".repeat(100_000)).0, InvalidKind::Syntax);
    }

    #[test]
    fn what_a_peer_made_is_read_to_its_last_level() {
        let nested = |levels: usize| "[".repeat(levels) + "\"]\\\"[\"" + &"]".repeat(levels);
        assert!(parse_made(nested(DOCUMENT_DEPTH_MAX).as_bytes(), DOCUMENT_DEPTH_MAX).is_ok());
        assert!(parse_made(nested(DOCUMENT_DEPTH_MAX + 1).as_bytes(), DOCUMENT_DEPTH_MAX).is_err());
        assert!(parse_made("[".repeat(1_000_000).as_bytes(), DOCUMENT_DEPTH_MAX).is_err());
        for bad in ["", "[", "[]]", "[] 1", "\"\\"] {
            assert!(parse_made(bad.as_bytes(), 9).is_err(), "{bad}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let text = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX - 2));
        assert!(parse(text.as_bytes()).is_ok());
        assert_eq!(fault(text + " ").0, InvalidKind::TooLarge);
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let number = |text: &str| parse(text.as_bytes()).unwrap();
        assert_eq!(number("9223372036854775807").as_i64(), Some(i64::MAX));
        assert_eq!(number("-9223372036854775808").as_i64(), Some(i64::MIN));
        assert_eq!(number("18446744073709551615").as_u64(), Some(u64::MAX));
        assert_eq!(number("1e308").as_f64(), Some(1e308));
        assert_eq!(number("0.1").as_f64().map(f64::to_bits), Some(0.1f64.to_bits()));
        assert_eq!(number("-0").as_f64().map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert!(number("1.0").is_f64());
        assert_eq!(number("5e-324").as_f64(), Some(5e-324));
        assert_eq!(number("0.000e-999").as_f64(), Some(0.0));
        for (text, position) in [
            ("18446744073709551616", (1, 1)),
            ("{\"a\":\n -9223372036854775809}", (2, 2)),
            ("[1, 1e309]", (1, 5)),
            ("[1, 1e-999]", (1, 5)),
            ("[1, -0.0010E-400]", (1, 5)),
            ("123456789012345678901234567890123456789012345678901234567890", (1, 1)),
        ] {
            let (kind, found, message) = fault(text);
            assert_eq!((kind, found), (InvalidKind::Meaning, Some(position)), "{message}");
        }
        assert!(fault("[-9223372036854775809]").2.contains("-9223372036854775809"));
    }

    #[test]
    fn a_document_is_an_object() {
        assert!(parse_document(b"{\"_id\": \"x\"}").is_ok());
        assert!(matches!(parse_document(b"[]"), Err(Error::Invalid(invalid)) if invalid.kind == InvalidKind::Meaning));
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_serde_json_reads_them_or_refused(bytes in ascii_soup()) {
            if let Ok(ours) = parse(&bytes) {
                let theirs: Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(ours, theirs);
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }

    fn ascii_soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"\\u0041\""),
            Just("1"),
            Just("-"),
            Just("0.5"),
            Just("e2"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\n")
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }
}
