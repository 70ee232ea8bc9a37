//! Regular expressions of clients: linear in time, bounded in size.

use serde_json::Value;

use super::fault::{fault, kind, too_large};
use crate::Result;
use crate::limits::{REGEX_BYTES_MAX, REGEX_COMPILED_BYTES_MAX};

/// A regular expression with its options.
#[derive(Debug, Clone)]
pub struct Regex {
    pattern: String,
    options: String,
    compiled: ::regex::Regex,
}

impl Regex {
    /// Reads what stands beside `$regex` and `$options`.
    pub(super) fn parse(pattern: &Value, options: Option<&Value>, at: &str) -> Result<Self> {
        let Value::String(pattern) = pattern else {
            return Err(fault(at, format!("$regex takes a string, not {}", kind(pattern))));
        };
        if pattern.len() > REGEX_BYTES_MAX {
            let message = format!("the expression has {} bytes, the limit is {REGEX_BYTES_MAX}", pattern.len());
            return Err(too_large(at, message));
        }
        let options = match options {
            None => "",
            Some(Value::String(options)) => options,
            Some(other) => return Err(fault(at, format!("$options takes a string, not {}", kind(other)))),
        };
        if options.chars().any(|option| !"imsx".contains(option)) {
            return Err(fault(at, "the $options are i, m, s and x"));
        }
        let compiled = ::regex::RegexBuilder::new(pattern)
            .case_insensitive(options.contains('i'))
            .multi_line(options.contains('m'))
            .dot_matches_new_line(options.contains('s'))
            .ignore_whitespace(options.contains('x'))
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| {
                if let ::regex::Error::CompiledTooBig(_) = error {
                    return too_large(at, "the expression needs too much memory; repeat less, or a smaller class");
                }
                fault(at, reason(&error))
            })?;
        let options = "imsx".chars().filter(|option| options.contains(*option)).collect();
        Ok(Self { pattern: pattern.clone(), options, compiled })
    }

    /// The pattern.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The options, of `imsx`, in this order.
    #[must_use]
    pub fn options(&self) -> &str {
        &self.options
    }

    /// The text that every match starts with, when the pattern says so by `^` and plain characters: what an index of
    /// strings can look for. Empty when it does not.
    #[must_use]
    pub fn prefix(&self) -> &str {
        // An alternative may be without it, and an option may give characters another meaning.
        if !self.options.is_empty() || self.pattern.contains('|') {
            return "";
        }
        let Some(rest) = self.pattern.strip_prefix('^') else { return "" };
        let end = rest.find(|c| "\\.+*?()[]{}^$#&-~".contains(c)).unwrap_or(rest.len());
        // A quantifier is about the last character.
        match rest[end..].chars().next() {
            Some('*' | '?' | '{') => rest[..end].char_indices().next_back().map_or("", |(last, _)| &rest[..last]),
            Some(_) | None => &rest[..end],
        }
    }

    /// Whether it finds something in a text.
    #[must_use]
    pub fn finds(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

/// What is wrong, in one line; the library shows the expression with marks under it, over several.
fn reason(error: &::regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    let last = last.trim_start_matches("error: ");
    let hint = if last.contains("look-around") || last.contains("backreferences") {
        "; $regex has neither, so that no expression can take long"
    } else {
        ""
    };
    format!("the expression cannot be read: {last}{hint}")
}
