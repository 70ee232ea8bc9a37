//! JSON texts out of one file: the elements of an array, or objects one after the other, never the whole in memory.
//!
//! Elements are cut out by their brackets and quotes alone; whether one is JSON is judged by the peer, so that a bad
//! one fails alone. An element that is too long is passed over without being held. What makes it unclear where
//! elements end, a cut file above all, ends the import with a failure.

use std::collections::VecDeque;

use bytes::Bytes;

use super::source::Source;
use super::{Record, Records};
use crate::cli::failure::{Failure, Kind, Outcome};
use crate::limits::DOCUMENT_BYTES_MAX;

/// Reads elements of a file.
pub(super) struct Elements {
    source: Source,
    cutter: Cutter,
    found: VecDeque<Record>,
    ended: bool,
    /// Why there is no more, for when all that stands before is handed over.
    failed: Option<String>,
}

impl Elements {
    pub(super) fn new(source: Source) -> Self {
        Self { source, cutter: Cutter::default(), found: VecDeque::new(), ended: false, failed: None }
    }
}

impl Records for Elements {
    fn next(&mut self) -> Outcome<Option<Record>> {
        loop {
            if let Some(record) = self.found.pop_front() {
                return Ok(Some(record));
            }
            if let Some(why) = &self.failed {
                return Err(self.fail(why));
            }
            if self.ended {
                return self.cutter.check_end().map(|()| None).map_err(|why| self.fail(&why));
            }
            let piece = self.source.piece()?;
            self.ended = piece.is_empty();
            for &byte in &piece {
                match self.cutter.next(byte) {
                    Ok(record) => self.found.extend(record),
                    Err(why) => {
                        self.failed = Some(why);
                        break;
                    }
                }
            }
            if self.ended {
                self.found.extend(self.cutter.finish());
            }
        }
    }
}

impl Elements {
    fn fail(&self, why: &str) -> Failure {
        Failure::new(Kind::Failed, format!("{}: {why}; the documents before that were sent", self.source.name))
    }
}

/// Where in the file a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Nothing was read.
    #[default]
    Start,
    /// After the opening bracket.
    First,
    /// After a comma.
    Next,
    /// In a string, outside of objects and arrays or inside.
    String,
    /// After a backslash in a string.
    Escape,
    /// In an object or an array.
    Nested,
    /// In a number or a word.
    Word,
    /// After an element.
    After,
    /// After the array.
    End,
}

/// Cuts bytes into elements.
#[derive(Debug, Default)]
struct Cutter {
    place: Place,
    /// Whether elements stand in an array, not one after the other.
    in_array: bool,
    depth: usize,
    number: u64,
    element: Vec<u8>,
    /// What is wrong with the element.
    fault: Option<&'static str>,
}

impl Cutter {
    fn next(&mut self, byte: u8) -> Result<Option<Record>, String> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match (self.place, byte) {
            (Place::Start | Place::First | Place::Next | Place::After | Place::End, _) if is_space => Ok(None),
            (Place::Start, b'[') => {
                self.in_array = true;
                self.place = Place::First;
                Ok(None)
            }
            (Place::First, b']') => self.go(Place::End),
            (Place::Next, b']' | b',') | (Place::First, b',') => {
                Err(format!("element {} is missing before {:?}", self.number + 1, char::from(byte)))
            }
            (Place::Start | Place::First | Place::Next, _) => self.begin(byte),
            (Place::After, _) if !self.in_array => self.begin(byte),
            (Place::After, b',') => self.go(Place::Next),
            (Place::After, b']') => self.go(Place::End),
            (Place::After, _) => Err(format!("expected ',' or ']' after element {}", self.number)),
            (Place::End, _) => Err("something follows the end of the array".into()),
            (Place::Word, _) if is_space || self.in_array && matches!(byte, b',' | b']') => {
                let record = self.close();
                if !is_space {
                    self.next(byte)?;
                }
                Ok(Some(record))
            }
            (Place::Escape, _) => {
                self.push(byte);
                self.go(Place::String)
            }
            (Place::String, _) => Ok(self.in_string(byte)),
            (Place::Word | Place::Nested, _) => Ok(self.in_element(byte)),
        }
    }

    fn go(&mut self, place: Place) -> Result<Option<Record>, String> {
        self.place = place;
        Ok(None)
    }

    fn begin(&mut self, byte: u8) -> Result<Option<Record>, String> {
        self.number += 1;
        self.place = Place::Word;
        Ok(self.in_element(byte))
    }

    fn in_element(&mut self, byte: u8) -> Option<Record> {
        // Line ends between tokens: an element is sent as one line.
        self.push(if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
        match byte {
            b'"' => self.place = Place::String,
            b'{' | b'[' => {
                self.depth += 1;
                self.place = Place::Nested;
            }
            b'}' | b']' if self.place == Place::Nested => {
                self.depth -= 1;
                return (self.depth == 0).then(|| self.close());
            }
            _ => {}
        }
        None
    }

    fn in_string(&mut self, byte: u8) -> Option<Record> {
        self.push(byte);
        match byte {
            b'"' if self.depth == 0 => return Some(self.close()),
            b'"' => self.place = Place::Nested,
            b'\\' => self.place = Place::Escape,
            0..0x20 => self.fault = Some("control characters in strings must be escaped"),
            _ => {}
        }
        None
    }

    fn push(&mut self, byte: u8) {
        if self.fault.is_some() {
            return;
        }
        if self.element.len() == DOCUMENT_BYTES_MAX {
            self.fault = Some("larger than the limit of 1 MiB");
            self.element = Vec::new();
        } else {
            self.element.push(byte);
        }
    }

    fn close(&mut self) -> Record {
        self.place = Place::After;
        self.depth = 0;
        let text = Bytes::from(std::mem::take(&mut self.element));
        let text = self.fault.take().map_or(Ok(text), |fault| Err(fault.to_owned()));
        Record { number: self.number, text }
    }

    /// The last element, when it ends with the file.
    fn finish(&mut self) -> Option<Record> {
        (self.place == Place::Word && !self.in_array).then(|| self.close())
    }

    fn check_end(&self) -> Result<(), String> {
        match self.place {
            Place::Start | Place::End => Ok(()),
            Place::After if !self.in_array => Ok(()),
            Place::String | Place::Escape | Place::Nested | Place::Word => {
                Err(format!("it is cut: it ends within element {}", self.number))
            }
            Place::First | Place::Next | Place::After => Err("it is cut: its array does not end".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Result<String, String>>, Outcome) {
        let mut elements = match Source::of(bytes) {
            Ok(source) => Elements::new(source),
            Err(failure) => return (Vec::new(), Err(failure)),
        };
        let mut found = Vec::new();
        loop {
            match elements.next() {
                Ok(Some(record)) => {
                    found.push(record.text.map(|text| String::from_utf8_lossy(&text).into_owned()));
                    assert_eq!(record.number, found.len() as u64);
                }
                Ok(None) => return (found, Ok(())),
                Err(failure) => return (found, Err(failure)),
            }
        }
    }

    fn texts(text: &str) -> Vec<String> {
        let (found, ended) = read(text.as_bytes());
        assert_eq!(ended, Ok(()), "{text}");
        found.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn elements_of_arrays_and_texts_in_a_row_are_cut_out() {
        let none = [""; 0];
        for empty in ["", " \n", "[]", " [ \n] "] {
            assert_eq!(texts(empty), none, "{empty:?}");
        }
        assert_eq!(
            texts(r#"[{"a":"]}\"\\"},{"b":[1,[2]]} , 1,"x,]",null]"#),
            [r#"{"a":"]}\"\\"}"#, r#"{"b":[1,[2]]}"#, "1", r#""x,]""#, "null"]
        );
        assert_eq!(texts("{\"a\":1}\n{\"b\":2}{}\n 7"), [r#"{"a":1}"#, r#"{"b":2}"#, "{}", "7"]);
        assert_eq!(texts("[{\n\"a\":\r\n1}]"), ["{ \"a\":  1}"]);
    }

    #[test]
    fn bad_elements_fail_alone() {
        let (found, ended) = read(b"[{\"a\":\"x\ny\"},{\"b\":1],{}]");
        assert_eq!(ended, Ok(()));
        assert!(found[0].is_err());
        assert_eq!(found[1..], [Ok("{\"b\":1]".to_owned()), Ok("{}".to_owned())]);
        let long = format!("[\"{}\",1]", "x".repeat(2 * DOCUMENT_BYTES_MAX));
        let (found, ended) = read(long.as_bytes());
        assert_eq!((found.len(), ended), (2, Ok(())));
        assert!(found[0].is_err() && found[1].is_ok());
    }

    #[test]
    fn what_has_no_clear_end_is_a_failure() {
        for bad in ["[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[] 1", "[{}", "{\"a\":", "\"x", "[\"\\"] {
            assert!(read(bad.as_bytes()).1.is_err(), "{bad}");
        }
    }

    #[test]
    fn what_stands_before_the_failure_is_handed_over() {
        let many = format!("[{}", "{\"a\":1},".repeat(3_000));
        for bad in ["]", ",", "{} {}]", "{}] 1", "{\"a\":", "{}"] {
            let (found, ended) = read(format!("{many}{bad}").as_bytes());
            assert!(
                ended.is_err() && found.len() >= 3_000 && found.iter().all(Result::is_ok),
                "{bad}: {}",
                found.len()
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<i32>().prop_map(Value::from), "\\PC{0,9}".prop_map(Value::from), Just(json!(null))];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[\"\\\\a]{0,3}", inner, 0..4)
                    .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn arrays_come_back_and_cut_ones_are_noticed(values in proptest::collection::vec(value(), 0..6), pretty: bool, cut: usize) {
            let text = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
            let back: Vec<Value> = texts(&text).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(&back, &values);
            let cut = 1 + cut % (text.len() - 1).max(1);
            let (found, ended) = read(&text.as_bytes()[..cut]);
            prop_assert!(ended.is_err() && found.len() <= values.len());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
