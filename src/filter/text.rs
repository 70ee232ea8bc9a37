//! Searching for words.
//!
//! A text is cut into words as Unicode says (UAX 29); a token is a word in lower case and without diacritics, so that
//! `café` is found as `CAFE`. There is no stemming, there are no stop words, and no language is asked for.
//!
//! How well a document fits is not computed here.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Value;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};
use unicode_segmentation::UnicodeSegmentation;

use super::fault::{fault, join, kind, too_large, unknown};
use crate::Result;
use crate::limits::SEARCH_BYTES_MAX;
use crate::value::{Json, Kind, Leaf, Path, Row};

/// The tokens of a text, in order.
pub fn tokens(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    // A mark on nothing is a word as well, of which nothing is left.
    text.unicode_words().map(fold).filter(|token| token.chars().any(char::is_alphanumeric))
}

/// A word in lower case, without diacritics.
fn fold(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return match word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(word.to_ascii_lowercase()),
            false => Cow::Borrowed(word),
        };
    }
    // Once more, because a capital may have a lower case with a mark of its own.
    let bare = |text: &str| text.nfd().filter(|c| !is_combining_mark(*c)).collect::<String>();
    Cow::Owned(bare(&bare(word).to_lowercase()))
}

/// What `$text` looks for.
#[derive(Debug, Clone)]
pub struct TextSearch {
    words: String,
    terms: Vec<String>,
    phrases: Vec<Vec<String>>,
    negated: Vec<Vec<String>>,
    /// The fields to look at; all of the document when empty.
    pub(super) fields: Vec<Path>,
}

impl TextSearch {
    /// Reads words, `"phrases"` and `-negated` ones.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) when it is too long or has no word to look for.
    pub fn new(words: &str) -> Result<Self> {
        Self::read(words, "$search")
    }

    /// Reads what stands under `$text`.
    pub(super) fn parse(value: &Value, at: &str) -> Result<Self> {
        let usage = "$text takes {\"$search\": \"words \\\"a phrase\\\" -without\"}";
        let Value::Object(fields) = value else { return Err(fault(at, format!("{usage}, not {}", kind(value)))) };
        if let Some(other) = fields.keys().find(|key| *key != "$search") {
            return Err(fault(&join(at, other), unknown_option(other)));
        }
        match fields.get("$search") {
            Some(Value::String(words)) => Self::read(words, &join(at, "$search")),
            Some(other) => Err(fault(&join(at, "$search"), format!("{usage}, not {}", kind(other)))),
            None => Err(fault(at, usage)),
        }
    }

    fn read(words: &str, at: &str) -> Result<Self> {
        if words.len() > SEARCH_BYTES_MAX {
            let message = format!("the search has {} bytes, the limit is {SEARCH_BYTES_MAX}", words.len());
            return Err(too_large(at, message));
        }
        let mut search = Self { words: words.into(), terms: vec![], phrases: vec![], negated: vec![], fields: vec![] };
        let mut rest = words;
        while let Some(part) = next_part(&mut rest) {
            let found: Vec<String> = tokens(part.text).map(Cow::into_owned).collect();
            match (part.negated, part.quoted) {
                _ if found.is_empty() => {}
                (true, _) => search.negated.push(found),
                (false, true) => {
                    search.terms.extend(found.iter().cloned());
                    search.phrases.push(found);
                }
                (false, false) => search.terms.extend(found),
            }
        }
        search.terms.sort_unstable();
        search.terms.dedup();
        if search.terms.is_empty() {
            return Err(fault(at, "there is no word to look for; -negated ones only take documents away"));
        }
        Ok(search)
    }

    /// As it was written.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The fields to look at; all of the document when there are none.
    #[must_use]
    pub fn fields(&self) -> &[Path] {
        &self.fields
    }

    /// The tokens that are looked for, those of phrases too, sorted: any of them must be there.
    #[must_use]
    pub fn terms(&self) -> &[String] {
        &self.terms
    }

    /// Tokens that must follow each other in one string, for each phrase.
    #[must_use]
    pub fn phrases(&self) -> &[Vec<String>] {
        &self.phrases
    }

    /// What must not be there: words, and tokens that follow each other.
    #[must_use]
    pub fn negated(&self) -> &[Vec<String>] {
        &self.negated
    }

    /// Whether any of the words, all phrases and none of the negated are in these fields, or, when there are none, in
    /// any string of the document. A phrase is within one string.
    #[must_use]
    pub fn matches(&self, row: Row<'_>, fields: &[Path]) -> bool {
        let mut found = Found { search: self, term: false, phrases: vec![false; self.phrases.len()], negated: false };
        if fields.is_empty() {
            found.look(row.body);
        }
        for path in fields {
            let _: ControlFlow<()> = path.visit_row(row, Leaf::Whole, &mut |value| {
                value.into_iter().for_each(|value| found.look(value));
                if found.negated { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        found.term && !found.negated && found.phrases.iter().all(|found| *found)
    }
}

/// What of a search was found so far.
struct Found<'a> {
    search: &'a TextSearch,
    term: bool,
    phrases: Vec<bool>,
    negated: bool,
}

impl Found<'_> {
    /// Looks at every string in a value.
    fn look(&mut self, value: Json<'_>) {
        match value.kind() {
            _ if self.negated => {}
            Kind::String => self.read(&value.as_str().unwrap_or_default()),
            Kind::Array => value.items().for_each(|item| self.look(item)),
            Kind::Object => value.fields().for_each(|(_, field)| self.look(field)),
            Kind::Null | Kind::Number | Kind::Bool => {}
        }
    }

    fn read(&mut self, text: &str) {
        let search = self.search;
        if search.phrases.is_empty() && search.negated.is_empty() {
            self.term = self.term || tokens(text).any(|token| search.has_term(&token));
            return;
        }
        let tokens: Vec<Cow<'_, str>> = tokens(text).collect();
        self.term = self.term || tokens.iter().any(|token| search.has_term(token));
        for (phrase, found) in search.phrases.iter().zip(&mut self.phrases) {
            *found = *found || follow(&tokens, phrase);
        }
        self.negated = search.negated.iter().any(|phrase| follow(&tokens, phrase));
    }
}

impl TextSearch {
    fn has_term(&self, token: &str) -> bool {
        self.terms.binary_search_by(|term| term.as_str().cmp(token)).is_ok()
    }
}

/// Whether the tokens of a phrase follow each other among those of a text.
fn follow(tokens: &[Cow<'_, str>], phrase: &[String]) -> bool {
    tokens.windows(phrase.len()).any(|window| window.iter().zip(phrase).all(|(token, word)| token == word))
}

/// A word or a phrase as it was written.
struct Part<'a> {
    text: &'a str,
    quoted: bool,
    negated: bool,
}

/// Takes the next part off a search. A quote that is not closed reaches to the end.
fn next_part<'a>(rest: &mut &'a str) -> Option<Part<'a>> {
    let start = rest.trim_start();
    let after = start.strip_prefix('-');
    let (negated, start) = (after.is_some(), after.unwrap_or(start));
    if start.is_empty() {
        return None;
    }
    let (text, quoted);
    (text, *rest, quoted) = match start.strip_prefix('"') {
        Some(inside) => {
            let (phrase, rest) = inside.split_once('"').unwrap_or((inside, ""));
            (phrase, rest, true)
        }
        None => {
            let end = start.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(start.len());
            (&start[..end], &start[end..], false)
        }
    };
    Some(Part { text, quoted, negated })
}

fn unknown_option(name: &str) -> String {
    match name {
        "$language" | "$caseSensitive" | "$diacriticSensitive" => {
            format!("there is no {name}: words are compared without case and diacritics, and not stemmed")
        }
        other => unknown(other, &["$search"]),
    }
}
