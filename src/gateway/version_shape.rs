//! Shapes of histories, differences and conflicts on the wire, and how a client names a version.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::rfc3339::Rfc3339;
use super::shape::invalid_cursor;
use crate::base::{ChangeHash, Timestamp};
use crate::limits::VERSION_HEADS_MAX;
use crate::peer::{self, At, ChangeKind, Differences, HistoryEntry, HistoryPage, Rival, Side};
use crate::{Error, Invalid, InvalidKind};

/// Reads which version is meant: hashes of changes with commas between them, or a time.
///
/// # Errors
/// [`Error::Invalid`] when it is neither, with the name of the field.
pub(super) fn parse_at(field: &str, text: &str) -> crate::Result<At> {
    // A time has a colon, and a hash has none.
    if text.contains(':') {
        return Timestamp::from_rfc3339(text).map(At::Time).ok_or_else(|| invalid_at(field, text));
    }
    parse_heads(field, text.split(','))
}

fn parse_heads<'a>(field: &str, heads: impl Iterator<Item = &'a str>) -> crate::Result<At> {
    let parse = |head: &str| head.trim().parse::<ChangeHash>().map_err(|_| invalid_at(field, head));
    let heads: Vec<ChangeHash> = heads.take(VERSION_HEADS_MAX + 1).map(parse).collect::<crate::Result<_>>()?;
    match heads.len() {
        0 => Err(invalid_at(field, "")),
        1..=VERSION_HEADS_MAX => Ok(At::Heads(heads)),
        _ => Err(syntax(field, format!("{field} names more than {VERSION_HEADS_MAX} heads"))),
    }
}

fn invalid_at(field: &str, text: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    let message = format!(
        "{field} is {shown:?}; it names a version by the hashes of its heads (64 hexadecimal digits each, with commas \
         between them), or by a time such as 2026-11-25T10:00:00Z (in a URL, a + is written %2B)"
    );
    syntax(field, message)
}

fn syntax(field: &str, message: String) -> Error {
    Error::Invalid(Invalid { message, field: Some(field.into()), position: None, kind: InvalidKind::Syntax })
}

/// Which version is meant, in a body: as in a query, or the list of heads that a document shows.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = VersionName)]
#[serde(untagged)]
pub(super) enum AtBody {
    /// As in a query.
    Text(String),
    /// Heads.
    List(Vec<String>),
}

impl AtBody {
    /// Reads it.
    ///
    /// # Errors
    /// As [`parse_at`].
    pub(super) fn parse(&self, field: &str) -> crate::Result<At> {
        match self {
            Self::Text(text) => parse_at(field, text),
            Self::List(heads) => parse_heads(field, heads.iter().map(String::as_str)),
        }
    }
}

/// Reads a cursor of a history.
///
/// # Errors
/// For a text that is none.
pub(super) fn parse_cursor(text: &str) -> crate::Result<ChangeHash> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| invalid_cursor())?;
    bytes.try_into().map(ChangeHash).map_err(|_| invalid_cursor())
}

fn texts(hashes: &[ChangeHash]) -> Vec<String> {
    hashes.iter().map(ChangeHash::to_string).collect()
}

/// A place that changed. A value that is not there is left out; of a long one there is the length.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlaceChanged)]
struct Change<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_bytes: Option<usize>,
}

fn changes(differences: &Differences) -> Vec<Change<'_>> {
    differences.list.iter().map(Change::new).collect()
}

impl<'a> Change<'a> {
    fn new(at: &'a peer::Difference) -> Self {
        let peer::Difference { path, before, after } = at;
        let ((before, before_bytes), (after, after_bytes)) = (shown(before), shown(after));
        Self { path, before, before_bytes, after, after_bytes }
    }
}

/// A value, or its length.
fn shown(side: &Side) -> (Option<&Value>, Option<usize>) {
    match side {
        Side::Nothing => (None, None),
        Side::Value(value) => (Some(value), None),
        Side::Long(bytes) => (None, Some(*bytes)),
    }
}

/// A page of a history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History<'a> {
    history: Vec<Entry<'a>>,
    next_cursor: Option<String>,
}

/// A change of a document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
struct Entry<'a> {
    change: String,
    author: String,
    time: Rfc3339,
    kind: &'static str,
    merge: bool,
    dependencies: Vec<String>,
    changes: Vec<Change<'a>>,
    truncated: bool,
}

impl<'a> History<'a> {
    pub(super) fn new(page: &'a HistoryPage) -> Self {
        let next_cursor = page.next.map(|change| BASE64URL_NOPAD.encode(change.as_bytes()));
        Self { history: page.entries.iter().map(Entry::new).collect(), next_cursor }
    }
}

impl<'a> Entry<'a> {
    fn new(entry: &'a HistoryEntry) -> Self {
        Self {
            change: entry.change.to_string(),
            author: entry.author.to_string(),
            time: Rfc3339(entry.time),
            kind: match entry.kind {
                ChangeKind::Create => "create",
                ChangeKind::Edit => "edit",
                ChangeKind::Delete => "delete",
            },
            merge: entry.is_merge(),
            dependencies: texts(&entry.deps),
            changes: changes(&entry.differences),
            truncated: entry.differences.is_cut,
        }
    }
}

/// What differs between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diff<'a> {
    from: Vec<String>,
    to: Vec<String>,
    changes: Vec<Change<'a>>,
    truncated: bool,
}

impl<'a> Diff<'a> {
    pub(super) fn new(diff: &'a peer::Diff) -> Self {
        let peer::Diff { from, to, differences } = diff;
        Self { from: texts(from), to: texts(to), changes: changes(differences), truncated: differences.is_cut }
    }
}

/// An operation of a JSON Patch (RFC 6902).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PatchOperation)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation<'a> {
    Add { path: &'a str, value: &'a Value },
    Replace { path: &'a str, value: &'a Value },
    Remove { path: &'a str },
}

/// Differences as a JSON Patch; they hold every value as it is.
pub(super) fn patch(differences: &Differences) -> Vec<Operation<'_>> {
    differences.list.iter().map(Operation::new).collect()
}

impl<'a> Operation<'a> {
    fn new(at: &'a peer::Difference) -> Self {
        let peer::Difference { path, before, after } = at;
        match (before, after) {
            (Side::Nothing, Side::Value(value)) => Self::Add { path, value },
            (_, Side::Value(value)) => Self::Replace { path, value },
            (_, Side::Nothing | Side::Long(_)) => Self::Remove { path },
        }
    }
}

/// The places with several values.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Conflicts<'a> {
    conflicts: Vec<Conflict<'a>>,
    truncated: bool,
}

/// A place with several values.
#[derive(Debug, Serialize, ToSchema)]
struct Conflict<'a> {
    path: &'a str,
    values: Vec<Written<'a>>,
}

/// One of several values.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConflictingValue)]
struct Written<'a> {
    value: &'a Value,
    author: String,
    time: Rfc3339,
    change: String,
    winner: bool,
}

impl<'a> Conflicts<'a> {
    pub(super) fn new(conflicts: &'a peer::Conflicts) -> Self {
        Self { conflicts: conflicts.list.iter().map(Conflict::new).collect(), truncated: conflicts.is_cut }
    }
}

impl<'a> Conflict<'a> {
    fn new(at: &'a peer::Conflict) -> Self {
        // The one that is shown comes first.
        Self { path: &at.path, values: at.values.iter().rev().map(Written::new).collect() }
    }
}

impl<'a> Written<'a> {
    fn new(rival: &'a Rival) -> Self {
        let Rival { value, author, time, change, is_winner } = rival;
        let (author, change) = (author.to_string(), change.to_string());
        Self { value, author, time: Rfc3339(*time), change, winner: *is_winner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_heads_or_by_a_time() {
        let (a, b) = (ChangeHash([0xab; 32]), ChangeHash([1; 32]));
        assert_eq!(parse_at("at", &a.to_string()), Ok(At::Heads(vec![a])));
        assert_eq!(parse_at("at", &format!("{a},{b}")), Ok(At::Heads(vec![a, b])));
        assert_eq!(parse_at("at", "1970-01-01T00:00:01Z"), Ok(At::Time(Timestamp(1_000))));
        assert_eq!(AtBody::List(vec![a.to_string()]).parse("at"), Ok(At::Heads(vec![a])));
        let many = vec![a.to_string(); VERSION_HEADS_MAX + 1].join(",");
        for bad in ["", "x", "2026", "2026-11-25T10:00:00", "ab", ",", &format!("{a},"), &many] {
            let Err(Error::Invalid(invalid)) = parse_at("from", bad) else { panic!("{bad} is no version") };
            assert_eq!((invalid.field.as_deref(), invalid.kind), (Some("from"), InvalidKind::Syntax), "{bad}");
        }
        assert!(AtBody::List(Vec::new()).parse("at").is_err());
    }

    #[test]
    fn cursors_lead_back_to_changes() {
        let change = ChangeHash([7; 32]);
        assert_eq!(parse_cursor(&BASE64URL_NOPAD.encode(change.as_bytes())), Ok(change));
        for bad in ["", "!", "YQ"] {
            assert!(parse_cursor(bad).is_err(), "{bad}");
        }
    }
}
