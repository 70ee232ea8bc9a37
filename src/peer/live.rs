//! Live queries of a peer: each change of a document is read once, and brought to the queries that it may be for.
//!
//! A query is asked when the document is in its result, when the document has the value that its filter requires, and
//! when its filter requires none. So a thousand queries for one person each cost a change what the two of them cost that
//! it is for. Changes come from the collection's feed, which cannot lag, in its order; a reader that takes nothing for
//! long is cut off (`waiting`), and starts again.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::query::TimeLimit;
use super::waiting::{LiveChange, Reader, Taking, Waiting};
use super::{Collection, Document, Feed};
use crate::base::CollectionName;
use crate::limits::{FEED_DOCUMENTS_MAX, LIVE_QUERIES_MAX};
use crate::memory::Memory;
use crate::query::{Find, Live, Texts, required};
use crate::store::FeedCursor;
use crate::value::{Direction, Json, Kind, Leaf, Path, Row, encode};
use crate::{Error, Result};

/// The live queries of a peer, by collections.
#[derive(Debug)]
pub(super) struct Hub {
    groups: Mutex<HashMap<CollectionName, Arc<Group>>>,
    /// The number that the next query gets.
    next: AtomicU64,
    queries: AtomicUsize,
    bytes: AtomicUsize,
    bytes_max: usize,
    waiting: Arc<Waiting>,
}

/// Those of one collection.
#[derive(Debug, Default)]
struct Group {
    state: Mutex<State>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Queries that are on their way in.
    coming: usize,
    queries: HashMap<u64, Standing>,
    /// Queries whose filters require a value, by path and value.
    by_value: HashMap<Path, HashMap<Vec<u8>, BTreeSet<u64>>>,
    /// Queries whose filters require none.
    others: BTreeSet<u64>,
    /// In whose result a document is.
    members: HashMap<String, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Standing {
    live: Live,
    required: Option<(Path, Vec<u8>)>,
    reader: Arc<Reader>,
}

/// A result, and what becomes of it.
#[derive(Debug)]
pub struct LiveQuery {
    /// The documents now.
    pub documents: Vec<Bytes>,
    /// The feed's cursor behind everything that they hold.
    pub cursor: FeedCursor,
    changes: Taking,
    /// Held so that it goes when this does.
    _place: Place,
}

/// A query's place among the others, which it leaves when this is dropped.
#[derive(Debug)]
struct Place {
    collection: Collection,
    group: Arc<Group>,
    number: u64,
}

impl LiveQuery {
    /// Waits for the next change. `None` when there are no more: the reader was too slow, the result has become too
    /// large, or the peer shuts down. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<LiveChange> {
        self.changes.next().await
    }

    /// Becomes `true` when the reader is cut off because too much waits for it.
    pub(crate) fn cut(&self) -> watch::Receiver<bool> {
        self.changes.cut()
    }
}

impl Collection {
    /// Runs a query that stays: its result, and every change of it from then on.
    ///
    /// # Errors
    /// As [`Live::open`], and [`Error::Unavailable`] when there are as many live queries as there may be.
    pub async fn live(&self, find: Find, limit: TimeLimit) -> Result<LiveQuery> {
        let hub = self.peer().shared.live.clone();
        if hub.queries.load(Ordering::Relaxed) >= LIVE_QUERIES_MAX || hub.bytes.load(Ordering::Relaxed) >= hub.bytes_max
        {
            return Err(Error::Unavailable(
                "this peer keeps as many live queries as it may: close some, ask again and again instead, or give it a \
                 larger storage.cache_size_bytes"
                    .into(),
            ));
        }
        // From here on changes are heard of: what the walk sees of them it sees a second time, which changes nothing.
        let since = self.now();
        let (name, memory) = (self.name().clone(), self.memory());
        let mut live = self.query(move |reader| Live::open(find, reader, &name, &limit.budget(memory))).await?;
        let place = Place {
            collection: self.clone(),
            group: hub.group(self),
            number: hub.next.fetch_add(1, Ordering::Relaxed),
        };
        let (reader, changes) = hub.waiting.reader(place.number);
        let mut state = place.group.state.lock();
        state.coming -= 1;
        // What the others have heard of since the walk began; what is brought to them later comes to this one as well.
        let cursor = catch_up(self, &mut live, since)?;
        hub.queries.fetch_add(1, Ordering::Relaxed);
        hub.bytes.fetch_add(live.bytes(), Ordering::Relaxed);
        let documents = live.result().cloned().collect();
        state.add(place.number, Standing { required: required(live.filter()), live, reader });
        drop(state);
        Ok(LiveQuery { documents, cursor, changes, _place: place })
    }
}

/// Brings everything up to now to a query, from a cursor on.
fn catch_up(collection: &Collection, live: &mut Live, since: FeedCursor) -> Result<FeedCursor> {
    let mut cursor = since;
    loop {
        let page = collection.changes(Some(cursor), "", FEED_DOCUMENTS_MAX)?;
        for (document, _) in &page.documents {
            with_row(document, |row| live.apply(document.id(), row, &mut Texts::default()))?;
        }
        cursor = page.next;
        if page.complete {
            return Ok(cursor);
        }
    }
}

impl Hub {
    /// None yet, in the shares of a peer's memory.
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            groups: Mutex::default(),
            next: AtomicU64::default(),
            queries: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
            bytes_max: memory.live_bytes(),
            waiting: Arc::new(Waiting::new(memory.live_waiting_bytes())),
        }
    }

    /// The queries of a collection, which one more is coming to, with a task that brings changes to them.
    fn group(self: &Arc<Self>, collection: &Collection) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let group = groups.entry(collection.name().clone()).or_default().clone();
        group.state.lock().coming += 1;
        let mut task = group.task.lock();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(bring(self.clone(), group.clone(), collection.watch())));
        }
        drop(task);
        group
    }

    fn gone(&self, standing: &Standing) {
        self.queries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(standing.live.bytes(), Ordering::Relaxed);
    }
}

/// Brings changes to the queries of a collection, until the peer shuts down.
async fn bring(hub: Arc<Hub>, group: Arc<Group>, mut feed: Feed) {
    while let Ok(changes) = feed.next().await {
        let mut state = group.state.lock();
        for (document, cursor) in &changes.documents {
            state.changed(&hub, document, *cursor);
        }
    }
    // Whoever waits for changes is told that there are none any more.
    let queries = std::mem::take(&mut group.state.lock().queries);
    queries.values().for_each(|standing| {
        standing.reader.end();
        hub.gone(standing);
    });
}

impl State {
    fn add(&mut self, number: u64, standing: Standing) {
        match &standing.required {
            Some((path, key)) => {
                self.by_value.entry(path.clone()).or_default().entry(key.clone()).or_default().insert(number);
            }
            None => _ = self.others.insert(number),
        }
        for id in standing.live.ids() {
            self.members.entry(id.to_owned()).or_default().insert(number);
        }
        self.queries.insert(number, standing);
    }

    fn remove(&mut self, number: u64) -> Option<Standing> {
        let standing = self.queries.remove(&number)?;
        if let Some((path, key)) = &standing.required
            && let Some(values) = self.by_value.get_mut(path)
        {
            if let Some(numbers) = values.get_mut(key) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    values.remove(key);
                }
            }
            if values.is_empty() {
                self.by_value.remove(path);
            }
        }
        self.others.remove(&number);
        for id in standing.live.ids() {
            self.forget(id, number);
        }
        Some(standing)
    }

    fn forget(&mut self, id: &str, number: u64) {
        if let Some(numbers) = self.members.get_mut(id) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.members.remove(id);
            }
        }
    }

    /// Brings a change to the queries that it may be for.
    fn changed(&mut self, hub: &Hub, document: &Document, cursor: FeedCursor) {
        let id = document.id();
        let mut asked = self.others.clone();
        asked.extend(self.members.get(id).into_iter().flatten());
        with_row(document, |row| {
            if let Some(row) = row {
                for (path, values) in &self.by_value {
                    each_key(path, row, &mut |key| asked.extend(values.get(key).into_iter().flatten()));
                }
            }
        });
        let (mut telling, mut texts) = (hub.waiting.telling(), Texts::default());
        for number in asked {
            let Some(standing) = self.queries.get_mut(&number) else { continue };
            let before = (standing.live.bytes(), standing.live.holds(id));
            let applied = with_row(document, |row| standing.live.apply(id, row, &mut texts));
            let after = (standing.live.bytes(), standing.live.holds(id));
            hub.bytes.fetch_add(after.0, Ordering::Relaxed);
            hub.bytes.fetch_sub(before.0, Ordering::Relaxed);
            let told = match applied {
                Ok(events) if events.is_empty() => true,
                Ok(events) => telling.tell(&standing.reader, events, cursor),
                Err(error) => {
                    tracing::debug!(%error, "a live query ends");
                    false
                }
            };
            match (before.1, after.1) {
                (false, true) => _ = self.members.entry(id.to_owned()).or_default().insert(number),
                (true, false) => self.forget(id, number),
                (false, false) | (true, true) => {}
            }
            if !told && let Some(standing) = self.remove(number) {
                standing.reader.end();
                hub.gone(&standing);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let hub = &self.collection.peer().shared.live;
        let removed = self.group.state.lock().remove(self.number);
        if let Some(standing) = removed {
            hub.gone(&standing);
        }
        let mut groups = hub.groups.lock();
        let state = self.group.state.lock();
        let is_idle = state.queries.is_empty() && state.coming == 0;
        if is_idle && groups.get(self.collection.name()).is_some_and(|group| Arc::ptr_eq(group, &self.group)) {
            groups.remove(self.collection.name());
            // It would keep the peer alive.
            if let Some(task) = self.group.task.lock().take() {
                task.abort();
            }
        }
    }
}

/// Calls `each` with a document as queries see it; with nothing when it is deleted.
fn with_row<T>(document: &Document, each: impl FnOnce(Option<Row<'_>>) -> T) -> T {
    if document.is_deleted() {
        return each(None);
    }
    let id = serde_json::to_vec(document.id()).expect("a string is JSON");
    each(Some(Row {
        id: Some(Json::new(&id)),
        body: Json::new(document.json()),
        conflicts: document.conflict_count().unwrap_or(0),
    }))
}

/// Calls `each` with the keys of the values that a path finds, as [`required`] makes them.
fn each_key(path: &Path, row: Row<'_>, each: &mut dyn FnMut(&[u8])) {
    let mut key = Vec::new();
    let mut add = |value: Json<'_>| {
        key.clear();
        encode(value, Direction::Ascending, &mut key);
        each(&key);
    };
    let _: ControlFlow<()> = path.visit_row(row, Leaf::Whole, &mut |value| {
        if let Some(value) = value {
            match value.kind() {
                Kind::Array => value.items().for_each(&mut add),
                Kind::Null | Kind::Number | Kind::String | Kind::Object | Kind::Bool => add(value),
            }
        }
        ControlFlow::Continue(())
    });
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::limits::LIVE_CHANGES_WAITING_MAX;
    use crate::{Peer, PeerConfig};

    /// A client that applies what it hears.
    struct Client {
        query: LiveQuery,
        documents: Vec<Bytes>,
    }

    impl Client {
        async fn new(collection: &Collection, query: Value) -> Self {
            let query = collection.live(Find::parse(&query).unwrap(), TimeLimit::default()).await.unwrap();
            Self { documents: query.documents.clone(), query }
        }

        /// Hears of changes until its result is what the query gives.
        async fn follow(&mut self, collection: &Collection, query: &Value) {
            loop {
                let found = collection.find(Find::parse(query).unwrap(), TimeLimit::default()).await.unwrap();
                if found.documents == self.documents {
                    return;
                }
                let change = self.query.next().await.expect("the query goes on");
                crate::query::tests::apply(&mut self.documents, change.events);
            }
        }
    }

    #[tokio::test]
    async fn each_query_hears_of_what_it_is_about_and_of_nothing_else() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        notes.put("a", json!({"by": "ada", "n": 1})).await.unwrap();
        let of = |name: &str| json!({"filter": {"by": name}, "sort": "n", "limit": 2});
        let mut ada = Client::new(&notes, of("ada")).await;
        let mut bob = Client::new(&notes, of("bob")).await;
        let mut all = Client::new(&notes, json!({"sort": "-n", "limit": 3})).await;
        for n in 0..20 {
            notes.put(&format!("{}", n % 5), json!({"by": "ada", "n": (n * 7) % 11})).await.unwrap();
        }
        notes.put("a", json!({"by": ["ada", "bob"], "n": 0})).await.unwrap();
        notes.delete("3").await.unwrap();
        ada.follow(&notes, &of("ada")).await;
        bob.follow(&notes, &of("bob")).await;
        all.follow(&notes, &json!({"sort": "-n", "limit": 3})).await;
        assert!(bob.query.next().now_or_never().is_none(), "nothing else came");
        let hub = peer.shared.live.clone();
        assert_eq!(hub.queries.load(Ordering::Relaxed), 3);
        drop((ada, bob, all));
        assert_eq!((hub.queries.load(Ordering::Relaxed), hub.bytes.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(hub.waiting.bytes(), 0);
        assert!(hub.groups.lock().is_empty());
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut_off_and_the_others_go_on() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        let mut slow = Client::new(&notes, json!({})).await;
        let mut quick = Client::new(&notes, json!({"filter": {"_id": "x"}})).await;
        for n in 0..2 * LIVE_CHANGES_WAITING_MAX {
            notes.put("x", json!({ "n": n })).await.unwrap();
            if n % 50 == 0 {
                quick.follow(&notes, &json!({"filter": {"_id": "x"}})).await;
            }
        }
        quick.follow(&notes, &json!({"filter": {"_id": "x"}})).await;
        let mut heard = 0;
        while slow.query.next().await.is_some() {
            heard += 1;
        }
        assert!(heard <= LIVE_CHANGES_WAITING_MAX);
        peer.shutdown().await;
        assert!(quick.query.next().await.is_none());
    }
}
