//! The words of a document, counted: what an index of text holds of it.
//!
//! They are read as `$text` reads them, so that the index finds what a look at every document would.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::base::{Decode, DecodeError, Encode, Reader, Writer};
use crate::filter::tokens;
use crate::value::{Json, Kind, Leaf, Path, Row};

/// What the entry of a word says of a document besides its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// How often the word occurs in it.
    pub occurrences: u32,
    /// Words in it, each counted as often as it occurs.
    pub tokens: u32,
}

impl Encode for Posting {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.occurrences.into()).varint(self.tokens.into());
    }
}

impl Decode for Posting {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let posting = Self { occurrences: reader.int()?, tokens: reader.int()? };
        if !(1..=posting.tokens).contains(&posting.occurrences) {
            return Err(DecodeError::Rule("a word occurs more often than there are words, or never".into()));
        }
        Ok(posting)
    }
}

/// The words of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// How often each occurs.
    pub occurrences: BTreeMap<String, u32>,
    /// Words, each counted as often as it occurs.
    pub tokens: u32,
}

impl Words {
    /// The words in these fields; in every string of the document when there are none. Stops before there are more
    /// than `different_max` different ones, and gives `None` then.
    #[must_use]
    pub fn of(fields: &[Path], row: Row<'_>, different_max: usize) -> Option<Self> {
        let mut words = Self::default();
        if fields.is_empty() {
            return words.read(row.body, different_max).is_continue().then_some(words);
        }
        for path in fields {
            let read = path.visit_row(row, Leaf::Whole, &mut |value| match value {
                Some(value) => words.read(value, different_max),
                None => ControlFlow::Continue(()),
            });
            if read.is_break() {
                return None;
            }
        }
        Some(words)
    }

    /// What the entry of a word says; `None` when the document does not have it.
    #[must_use]
    pub fn posting(&self, word: &str) -> Option<Posting> {
        self.occurrences.get(word).map(|occurrences| Posting { occurrences: *occurrences, tokens: self.tokens })
    }

    /// Adds those of every string in a value; breaks when there are too many.
    fn read(&mut self, value: Json<'_>, different_max: usize) -> ControlFlow<()> {
        match value.kind() {
            Kind::String => {
                for token in tokens(&value.as_str().unwrap_or_default()) {
                    self.add(&token);
                    if self.occurrences.len() > different_max {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            }
            Kind::Array => value.items().try_for_each(|item| self.read(item, different_max)),
            Kind::Object => value.fields().try_for_each(|(_, field)| self.read(field, different_max)),
            Kind::Null | Kind::Number | Kind::Bool => ControlFlow::Continue(()),
        }
    }

    fn add(&mut self, token: &str) {
        self.tokens = self.tokens.saturating_add(1);
        match self.occurrences.get_mut(token) {
            Some(occurrences) => *occurrences = occurrences.saturating_add(1),
            None => _ = self.occurrences.insert(token.to_owned(), 1),
        }
    }
}

/// The key of a word. It ends in a byte that no word holds, so that it is not the beginning of another one.
#[must_use]
pub fn text_key(word: &str) -> Vec<u8> {
    [word.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_over_all_strings_of_the_fields() {
        let body = br#"{"a":"One, two! one","b":["TWO",{"c":"caf\u00e9"}],"d":3}"#;
        let row = Row { id: None, body: Json::new(body), conflicts: 0 };
        let counted = |fields: &[&str]| -> (Vec<(String, u32)>, u32) {
            let fields: Vec<Path> = fields.iter().map(|field| field.parse().unwrap()).collect();
            let words = Words::of(&fields, row, 10).unwrap();
            (words.occurrences.into_iter().collect(), words.tokens)
        };
        let pair = |word: &str, count| (word.to_owned(), count);
        assert_eq!(counted(&[]), (vec![pair("cafe", 1), pair("one", 2), pair("two", 2)], 5));
        assert_eq!(counted(&["a"]), (vec![pair("one", 2), pair("two", 1)], 3));
        assert_eq!(counted(&["b.c", "x"]), (vec![pair("cafe", 1)], 1));
        assert_eq!(counted(&["d"]), (vec![], 0));
        assert!(Words::of(&[], row, 3).is_some() && Words::of(&[], row, 2).is_none());
    }

    #[test]
    fn impossible_postings_are_refused() {
        let posting = Posting { occurrences: 3, tokens: 700 };
        assert_eq!(Posting::from_bytes(&posting.to_bytes()), Ok(posting));
        for (occurrences, tokens) in [(0, 5), (6, 5)] {
            assert!(Posting::from_bytes(&Posting { occurrences, tokens }.to_bytes()).is_err());
        }
        assert!(Posting::from_bytes(&[1]).is_err());
    }
}
