//! A query that stays: its result, and what of it changes with each document that changes.
//!
//! All matching documents are held by their places in the order; the first of them, up to the limit, are the *window*
//! that the client sees. A document that changes is taken out and put in again, and what that does to the window is said
//! in at most three events. Whoever applies them in turn has what the query would give now:
//!
//! - `leave` take what is at this place out
//! - `enter` put the document in at this place
//! - `change` the document at this place holds something else, or the number of its conflicts is another
//! - `move` take it out at one place, put it in at the other; it may hold something else too
//!
//! Not here: where changes come from, and which queries a change is for (`peer/live`).

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::find::Find;
use super::{Budget, each, fault, whole};
use crate::Result;
use crate::base::CollectionName;
use crate::filter::{Condition, Filter, Test};
use crate::limits::{LIVE_DOCUMENTS_MAX, LIVE_QUERY_BYTES_MAX};
use crate::store::Reader;
use crate::value::{Direction, Kind, Path, Row, encode};

/// What became of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEvent {
    /// A document is in it now, at this place.
    Enter {
        /// Counted from 0.
        at: usize,
        /// Its id.
        id: String,
        /// What is shown of it.
        document: Bytes,
        /// Its places with several values.
        conflicts: u64,
    },
    /// A document is in it no more.
    Leave {
        /// Where it was.
        at: usize,
        /// Its id.
        id: String,
    },
    /// A document holds something else, at the same place.
    Change {
        /// Where it is.
        at: usize,
        /// Its id.
        id: String,
        /// What is shown of it.
        document: Bytes,
        /// Its places with several values.
        conflicts: u64,
    },
    /// A document has another place.
    Move {
        /// Where it was.
        from: usize,
        /// Where it is, once it was taken out.
        to: usize,
        /// Its id.
        id: String,
        /// What is shown of it.
        document: Bytes,
        /// Its places with several values.
        conflicts: u64,
    },
}

impl LiveEvent {
    /// What happened, in a word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enter { .. } => "enter",
            Self::Leave { .. } => "leave",
            Self::Change { .. } => "change",
            Self::Move { .. } => "move",
        }
    }

    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Enter { id, .. } | Self::Leave { id, .. } | Self::Change { id, .. } | Self::Move { id, .. } => id,
        }
    }

    /// What is shown of the document; `None` when it left.
    #[must_use]
    pub fn document(&self) -> Option<&Bytes> {
        match self {
            Self::Enter { document, .. } | Self::Change { document, .. } | Self::Move { document, .. } => {
                Some(document)
            }
            Self::Leave { .. } => None,
        }
    }

    /// Where it happened, to which document, and its conflicts, as JSON: the fields of an object beside the document's text.
    #[must_use]
    pub fn places(&self) -> Value {
        match self {
            Self::Enter { at, id, conflicts, .. } | Self::Change { at, id, conflicts, .. } => {
                json!({ "at": at, "id": id, "conflict_count": conflicts })
            }
            Self::Leave { at, id } => json!({ "at": at, "id": id }),
            Self::Move { from, to, id, conflicts, .. } => {
                json!({ "from": from, "to": to, "id": id, "conflict_count": conflicts })
            }
        }
    }
}

/// The texts of one document, which queries that show the same of it share.
#[derive(Debug, Default)]
pub struct Texts {
    whole: Option<Bytes>,
    shown: HashSet<Bytes>,
}

impl Texts {
    fn whole(&mut self, row: Row<'_>) -> Bytes {
        self.whole.get_or_insert_with(|| whole(row).into_owned().into()).clone()
    }

    fn shared(&mut self, shown: Vec<u8>) -> Bytes {
        if let Some(shared) = self.shown.get(shown.as_slice()) {
            return shared.clone();
        }
        let shown = Bytes::from(shown);
        self.shown.insert(shown.clone());
        shown
    }
}

/// The result of a query, kept up to date.
#[derive(Debug)]
pub struct Live {
    find: Find,
    /// Matching documents by their keys in the order, with what is shown of those in the window.
    members: BTreeMap<Vec<u8>, Member>,
    keys: HashMap<String, Vec<u8>>,
    /// The keys of the window, in order.
    window: Vec<Vec<u8>>,
    /// What all of it takes, about.
    bytes: usize,
}

#[derive(Debug)]
struct Member {
    id: String,
    shown: Bytes,
    conflicts: u64,
}

impl Member {
    fn bytes(&self, key: &[u8]) -> usize {
        2 * (key.len() + self.id.len()) + self.shown.len() + size_of::<Self>()
    }
}

impl Live {
    /// The query as it is now.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a query with an offset, a cursor or an order of its filter's own,
    /// and when more documents match than may be kept; as [`Find::run`].
    pub fn open(find: Find, reader: &Reader, collection: &CollectionName, budget: &Budget) -> Result<Self> {
        if find.offset() > 0 || find.has_cursor() {
            return Err(fault("live", "a live query begins at the start; leave offset and cursor out"));
        }
        if find.is_ranked() {
            return Err(fault("live", "a live query needs a sort beside $near or $text, such as \"sort\": \"_id\""));
        }
        let mut live = Self { find, members: BTreeMap::new(), keys: HashMap::new(), window: Vec::new(), bytes: 0 };
        let filter = live.find.filter().clone();
        each(reader, collection, Some(&filter), budget, &mut |row| {
            if let Some(id) = row.id.and_then(super::Json::as_str) {
                live.put(&id, row, &mut Texts::default())?;
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        live.window = live.members.keys().take(live.find.limit()).cloned().collect();
        Ok(live)
    }

    /// Which documents it is about.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        self.find.filter()
    }

    /// The result, in its order.
    pub fn result(&self) -> impl Iterator<Item = &Bytes> {
        self.window.iter().filter_map(|key| Some(&self.members.get(key)?.shown))
    }

    /// Bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The ids of all that match.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Whether a document matches.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// Takes note of what a document is now; `None` when it is deleted. Its texts are shared with other queries.
    ///
    /// # Errors
    /// When too many documents match, or what is shown of one cannot be computed. The result is of no use then.
    pub fn apply(&mut self, id: &str, row: Option<Row<'_>>, texts: &mut Texts) -> Result<Vec<LiveEvent>> {
        let row = row.filter(|row| self.find.filter().matches(*row));
        let before = self.keys.remove(id).and_then(|key| Some((self.members.remove(&key)?, key)));
        if let Some((member, key)) = &before {
            self.bytes = self.bytes.saturating_sub(member.bytes(key));
        }
        let now = row.map(|row| self.put(id, row, texts)).transpose()?;
        if before.is_none() && now.is_none() {
            return Ok(Vec::new());
        }
        let was_at = before.as_ref().and_then(|(_, key)| self.window.binary_search(key).ok());
        if let Some(at) = was_at {
            self.window.remove(at);
        }
        let is_at = now.as_ref().and_then(|key| self.enter(key));
        let mut events = Vec::new();
        let shown = |live: &Self, key: &Vec<u8>| {
            live.members.get(key).map(|member| (member.shown.clone(), member.conflicts)).unwrap_or_default()
        };
        match (was_at, is_at, &now) {
            (Some(from), Some(to), Some(key)) => {
                let (document, conflicts) = shown(self, key);
                if from != to {
                    events.push(LiveEvent::Move { from, to, id: id.to_owned(), document, conflicts });
                } else if before.is_some_and(|(was, _)| was.shown != document || was.conflicts != conflicts) {
                    events.push(LiveEvent::Change { at: to, id: id.to_owned(), document, conflicts });
                }
            }
            (Some(at), _, _) => events.push(LiveEvent::Leave { at, id: id.to_owned() }),
            (None, Some(at), Some(key)) => {
                // The last one makes room first.
                if self.window.len() > self.find.limit()
                    && let Some(last) = self.window.pop()
                {
                    let id = self.members.get(&last).map(|member| member.id.clone()).unwrap_or_default();
                    events.push(LiveEvent::Leave { at: self.window.len() - 1, id });
                }
                let (document, conflicts) = shown(self, key);
                events.push(LiveEvent::Enter { at, id: id.to_owned(), document, conflicts });
            }
            (None, _, _) => {}
        }
        if self.window.len() < self.find.limit()
            && let Some((key, member)) = self.behind_window()
        {
            let (at, id, conflicts) = (self.window.len(), member.id.clone(), member.conflicts);
            let (key, document) = (key.clone(), member.shown.clone());
            self.window.push(key);
            events.push(LiveEvent::Enter { at, id, document, conflicts });
        }
        Ok(events)
    }

    /// Puts a key into the window when it belongs there; says where.
    fn enter(&mut self, key: &Vec<u8>) -> Option<usize> {
        let at = self.window.binary_search(key).unwrap_or_else(|at| at);
        let is_next = || self.behind_window().is_some_and(|(next, _)| next == key);
        let belongs = at < self.window.len() || (at < self.find.limit() && is_next());
        if belongs {
            self.window.insert(at, key.clone());
        }
        belongs.then_some(at)
    }

    /// The first document that is not in the window.
    fn behind_window(&self) -> Option<(&Vec<u8>, &Member)> {
        match self.window.last() {
            None => self.members.first_key_value(),
            Some(last) => self.members.range(last.clone()..).nth(1),
        }
    }

    fn put(&mut self, id: &str, row: Row<'_>, texts: &mut Texts) -> Result<Vec<u8>> {
        if self.members.len() >= LIVE_DOCUMENTS_MAX {
            let message = format!("more than {LIVE_DOCUMENTS_MAX} documents match, as many as a live query may keep");
            return Err(fault("filter", message));
        }
        let mut key = Vec::new();
        self.find.order().key(row, &mut key);
        let shown = if self.find.shows_whole() { texts.whole(row) } else { texts.shared(self.find.shown(row)?) };
        let member = Member { id: id.to_owned(), shown, conflicts: row.conflicts };
        self.bytes += member.bytes(&key);
        if self.bytes > LIVE_QUERY_BYTES_MAX {
            let message = format!(
                "what matches takes more than the {LIVE_QUERY_BYTES_MAX} bytes of a live query; show fewer fields"
            );
            return Err(fault("projection", message));
        }
        self.members.insert(key.clone(), member);
        self.keys.insert(id.to_owned(), key.clone());
        Ok(key)
    }
}

/// A value that a document must have to match, when the filter says so: the key of it, upwards, under its path. Which
/// live queries a change may be for is found by it.
#[must_use]
pub fn required(filter: &Filter) -> Option<(Path, Vec<u8>)> {
    filter.condition.together().iter().filter_map(Condition::field).find_map(|(path, test)| {
        let Test::Equal(operand) = test else { return None };
        // What is not there is equal to null, and an array is equal as a whole or as an item: their keys do not say.
        if operand.is_null() || operand.json().kind() == Kind::Array {
            return None;
        }
        let mut key = Vec::new();
        encode(operand.json(), Direction::Ascending, &mut key);
        Some((path.clone(), key))
    })
}
