//! Changes of live queries that wait for their readers, within one bound for all of them.
//!
//! Readers whose queries show the same of a document share its text, which counts once. When all that waits is more than
//! the bound, the reader that waits with the most is cut off, if that is more than its share: what waits for it is dropped
//! at once. A reader that takes what comes is never near its share. Not here: what the changes are (`live`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::limits::LIVE_CHANGES_WAITING_MAX;
use crate::query::LiveEvent;
use crate::store::FeedCursor;

/// Bytes of an event beside its text, about.
const EVENT_BYTES: usize = 256;

/// What a change did to a result, and the cursor behind it.
#[derive(Debug)]
pub struct LiveChange {
    /// What to do to the result, in turn.
    pub events: Vec<LiveEvent>,
    /// The feed's cursor behind the change.
    pub cursor: FeedCursor,
    weight: Arc<Weight>,
}

/// What waits for all readers of a peer.
#[derive(Debug)]
pub(super) struct Waiting {
    bytes_max: usize,
    bytes: AtomicUsize,
    readers: Mutex<HashMap<u64, Arc<Reader>>>,
}

/// Where changes for one reader wait.
#[derive(Debug)]
pub(super) struct Reader {
    queue: Mutex<Queue>,
    came: Notify,
    /// Bytes of what it has not finished with, shared or not.
    bytes: Arc<AtomicUsize>,
    cut: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<LiveChange>,
    ended: bool,
}

/// The end at which changes are taken. Dropping it ends the reader.
#[derive(Debug)]
pub(super) struct Taking {
    waiting: Arc<Waiting>,
    number: u64,
    reader: Arc<Reader>,
}

/// Brings one change of a document to readers.
#[derive(Debug)]
pub(super) struct Telling {
    waiting: Arc<Waiting>,
    texts: Arc<Texts>,
    /// Where the texts are that were counted.
    counted: HashSet<usize>,
}

/// The texts of one change, for as long as anybody waits for them.
#[derive(Debug)]
struct Texts {
    waiting: Arc<Waiting>,
    bytes: AtomicUsize,
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// What a change weighs while it waits for a reader.
#[derive(Debug)]
struct Weight {
    texts: Arc<Texts>,
    /// Of its own.
    events: usize,
    of_reader: Arc<AtomicUsize>,
    /// With the texts.
    bytes: usize,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.texts.waiting.bytes.fetch_sub(self.events, Ordering::Relaxed);
        self.of_reader.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl LiveChange {
    /// Bytes of this change that count among what waits until the last part of them is gone.
    pub(crate) fn hold(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _weight: Arc::clone(&self.weight) })
    }
}

struct Held {
    bytes: Bytes,
    _weight: Arc<Weight>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Waiting {
    /// For `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), readers: Mutex::default() }
    }

    /// A new reader under a number of its own.
    pub(super) fn reader(self: &Arc<Self>, number: u64) -> (Arc<Reader>, Taking) {
        let reader = Arc::new(Reader {
            queue: Mutex::default(),
            came: Notify::new(),
            bytes: Arc::default(),
            cut: watch::Sender::new(false),
        });
        self.readers.lock().insert(number, Arc::clone(&reader));
        (Arc::clone(&reader), Taking { waiting: Arc::clone(self), number, reader })
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Starts to bring a change.
    pub(super) fn telling(self: &Arc<Self>) -> Telling {
        let texts = Texts { waiting: Arc::clone(self), bytes: AtomicUsize::new(0) };
        Telling { waiting: Arc::clone(self), texts: Arc::new(texts), counted: HashSet::new() }
    }

    /// Cuts off who waits with the most, while it is more than its share of too much.
    fn relieve(&self) {
        while self.bytes() > self.bytes_max {
            let mut readers = self.readers.lock();
            let share = self.bytes_max / readers.len().max(1);
            let bytes = |reader: &Reader| reader.bytes.load(Ordering::Relaxed);
            let most = readers.iter().max_by_key(|(_, reader)| bytes(reader));
            let Some(number) = most.filter(|(_, reader)| bytes(reader) > share).map(|(number, _)| *number) else {
                return;
            };
            let Some(reader) = readers.remove(&number) else { return };
            drop(readers);
            reader.cut_off();
        }
    }
}

impl Telling {
    /// Has a reader wait with what the change does to its result; whether it still listens.
    pub(super) fn tell(&mut self, reader: &Reader, events: Vec<LiveEvent>, cursor: FeedCursor) -> bool {
        let (mut own, mut texts, mut new) = (0, 0, 0);
        for event in &events {
            own += EVENT_BYTES + event.id().len();
            let Some(document) = event.document() else { continue };
            texts += document.len();
            if self.counted.insert(document.as_ptr() as usize) {
                new += document.len();
            }
        }
        self.texts.bytes.fetch_add(new, Ordering::Relaxed);
        self.waiting.bytes.fetch_add(new + own, Ordering::Relaxed);
        reader.bytes.fetch_add(own + texts, Ordering::Relaxed);
        let (shared, of_reader) = (Arc::clone(&self.texts), Arc::clone(&reader.bytes));
        let weight = Arc::new(Weight { texts: shared, events: own, of_reader, bytes: own + texts });
        let listens = reader.push(LiveChange { events, cursor, weight });
        self.waiting.relieve();
        listens
    }
}

impl Reader {
    fn push(&self, change: LiveChange) -> bool {
        let mut queue = self.queue.lock();
        let has_room = queue.changes.len() < LIVE_CHANGES_WAITING_MAX;
        if queue.ended || !has_room {
            drop(queue);
            if !has_room {
                self.cut_off();
            }
            return false;
        }
        queue.changes.push_back(change);
        drop(queue);
        self.came.notify_one();
        true
    }

    /// Ends it after what waits.
    pub(super) fn end(&self) {
        self.queue.lock().ended = true;
        self.came.notify_one();
    }

    /// Ends it now: nothing waits for it any more.
    fn cut_off(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.ended = true;
            std::mem::take(&mut queue.changes)
        };
        drop(dropped);
        self.cut.send_replace(true);
        self.came.notify_one();
    }
}

impl Taking {
    /// Waits for the next change; `None` when there are no more. Cancelling it loses nothing.
    pub(super) async fn next(&self) -> Option<LiveChange> {
        loop {
            {
                let mut queue = self.reader.queue.lock();
                if let Some(change) = queue.changes.pop_front() {
                    return Some(change);
                }
                if queue.ended {
                    return None;
                }
            }
            self.reader.came.notified().await;
        }
    }

    /// Becomes `true` when the reader is cut off.
    pub(super) fn cut(&self) -> watch::Receiver<bool> {
        self.reader.cut.subscribe()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.waiting.readers.lock().remove(&self.number);
        let mut queue = self.reader.queue.lock();
        queue.ended = true;
        let changes = std::mem::take(&mut queue.changes);
        drop(queue);
        drop(changes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn change(document: &Bytes) -> Vec<LiveEvent> {
        vec![LiveEvent::Change { at: 0, id: "a".into(), document: document.clone(), conflicts: 0 }]
    }

    #[test]
    fn readers_share_a_text_and_who_waits_with_more_than_its_share_is_cut_off() {
        let waiting = Arc::new(Waiting::new(1 << 20));
        let (quick, quick_end) = waiting.reader(0);
        let (slow, ends): (Vec<_>, Vec<_>) = (1..10).map(|number| waiting.reader(number)).unzip();
        let cursor: FeedCursor = "A".repeat(23).parse().unwrap();
        for n in 0..20 {
            let text = Bytes::from(vec![n; 100 << 10]);
            let mut telling = waiting.telling();
            let before = waiting.bytes();
            let told = |telling: &mut Telling, reader: &Reader| telling.tell(reader, change(&text), cursor);
            assert!(told(&mut telling, &quick));
            let listen = slow.iter().filter(|reader| told(&mut telling, reader)).count();
            if n < 9 {
                assert_eq!(listen, 9);
                assert!(waiting.bytes() - before < text.len() + 10 * 2 * EVENT_BYTES, "it counts once");
            }
            drop((telling, text));
            assert!(waiting.bytes() <= 1 << 20);
            assert!(quick_end.next().now_or_never().flatten().is_some());
        }
        assert!(ends.iter().all(|end| *end.cut().borrow()) && !*quick_end.cut().borrow());
        assert_eq!(waiting.bytes(), 0);
        drop(ends);
        assert_eq!(waiting.readers.lock().len(), 1);
    }
}
