//! A document's snapshot and log, as writer and readers read them, and opening a document beside the writer.
//!
//! A reader holds no lock, so the writer may store a new record, and a new snapshot, between any two of its reads.
//! It takes the record first, and then the changes up to that record's vector, which never leave the log. What does
//! not fit together then is damage only when the record is still the same; else it is read again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Reader;
use super::key::{self, Space, Tag};
use super::reader::damaged;
use super::record::{Actor, LoggedRun, Record, Snapshot, unseal};
use crate::base::DocumentKey;
use crate::document::{Applied, Authors, Change, Document};
use crate::kv::Kv;
use crate::{Error, Result};

/// How often a reader starts again because the writer was faster. It loses only when a snapshot is written in the
/// moment between two reads, so once is rare.
const ATTEMPTS_MAX: usize = 8;

/// A document with its history, opened for reading.
#[derive(Debug)]
pub struct Opened {
    /// The record at which it was read.
    pub record: Record,
    /// The document.
    pub document: Document,
    /// Who wrote under each of its actors.
    pub authors: Authors,
}

/// An entry of the log as it was found.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    /// The sequence number of its last change.
    pub(super) last: u64,
    pub(super) entry: LoggedRun,
}

impl Logged {
    /// The sequence number of its first change.
    pub(super) fn first(&self) -> u64 {
        (self.last + 1).saturating_sub(self.entry.run.payloads().len() as u64)
    }
}

/// Where the data of a mesh is.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) kv: &'a dyn Kv,
    pub(super) space: Space,
}

impl Source<'_> {
    /// The entry of the log that holds a change.
    pub(super) fn logged(self, document: &DocumentKey, number: u64, actor: u32, sequence: u64) -> Result<Logged> {
        let wrong =
            |why: &dyn std::fmt::Display| damaged(document, &format!("change {sequence} of actor {actor}: {why}"));
        let at = key::log(self.space, number, actor, sequence);
        // An entry has the key of its last change, and most have no other.
        let mut found = self.kv.get(&at)?.map(|sealed| (sequence, sealed));
        if found.is_none() {
            let end = key::log(self.space, number, actor, u64::MAX);
            self.kv.scan(&at, &end, &mut |key, sealed| {
                found = key::log_sequence(key).map(|last| (last, Bytes::copy_from_slice(sealed)));
                ControlFlow::Break(())
            })?;
        }
        let Some((last, sealed)) = found else { return Err(wrong(&"it is not in the log")) };
        let entry: LoggedRun = unseal(&sealed).map_err(|error| wrong(&error))?;
        let logged = Logged { last, entry };
        if logged.first() <= sequence { Ok(logged) } else { Err(wrong(&"it is not in the log")) }
    }

    /// The document in the snapshot, and the changes of the log that are to be applied to it.
    pub(super) fn read(self, document: &DocumentKey, record: &Record) -> Result<(Document, Vec<Change>)> {
        let snapshot = self.snapshot(document, record)?;
        let covered = snapshot.iter().flat_map(|(snapshot, _)| snapshot.vector.iter().copied()).collect();
        let changes = self.beyond(document, record, &covered)?;
        Ok((snapshot.map_or_else(Document::new, |(_, opened)| opened), changes))
    }

    /// The changes of the log beyond a vector.
    pub(super) fn beyond(
        self,
        document: &DocumentKey,
        record: &Record,
        covered: &BTreeMap<u32, u64>,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for &(actor, last) in &record.vector {
            let mut next = covered.get(&actor).map_or(0, |sequence| *sequence) + 1;
            while next <= last {
                let logged = self.logged(document, record.number, actor, next)?;
                // The writer may have joined changes that came after the record to those before it.
                for (payload, sequence) in logged.entry.run.payloads().iter().zip(logged.first()..=last) {
                    if sequence >= next {
                        changes.push(parse(document, payload.clone())?);
                    }
                }
                next = logged.last + 1;
            }
        }
        Ok(changes)
    }

    /// The snapshot and the document in it. A damaged snapshot is no loss: the log has everything.
    fn snapshot(self, document: &DocumentKey, record: &Record) -> Result<Option<(Snapshot, Document)>> {
        let Some(sealed) = self.kv.get(&key::numbered(self.space, Tag::Snapshot, record.number))? else {
            return Ok(None);
        };
        let opened = unseal::<Snapshot>(&sealed).map_err(|error| error.to_string()).and_then(|snapshot| {
            match Document::load(&snapshot.bytes) {
                Ok(document) => Ok((snapshot, document)),
                Err(error) => Err(error.to_string()),
            }
        });
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => {
                tracing::warn!(%document, error, "a snapshot is damaged on the disk; using the log instead");
                Ok(None)
            }
        }
    }

    /// Who writes under the actors of a document.
    fn authors(self, document: &DocumentKey, record: &Record) -> Result<Authors> {
        let mut authors = Authors::new();
        for &(number, _) in &record.vector {
            let sealed = self.kv.get(&key::actor(self.space, number))?;
            match sealed.as_deref().map(unseal::<Actor>) {
                Some(Ok(actor)) => _ = authors.insert(actor.actor, actor.author),
                Some(Err(error)) => return Err(damaged(document, &format!("actor {number}: {error}"))),
                None => return Err(damaged(document, &format!("actor {number} is not in the table"))),
            }
        }
        Ok(authors)
    }

    fn open(self, document: &DocumentKey, record: &Record) -> Result<(Document, Authors)> {
        let (mut opened, changes) = self.read(document, record)?;
        let applied = opened.apply_stored(changes).map_err(|error| damaged(document, &error))?;
        let opened = complete(document, opened, &applied)?;
        if opened.heads() != record.heads {
            return Err(damaged(document, &"its heads are not those that its log gives"));
        }
        Ok((opened, self.authors(document, record)?))
    }
}

impl Reader {
    /// Opens a document with its whole history, in time and memory that grow with it; `None` when it never existed.
    /// It is read as it is at one moment, whatever the writer does meanwhile.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged, [`Error::Io`] when the disk cannot be read, and
    /// [`Error::Unavailable`] when it changes too fast to be read.
    pub fn open_document(&self, document: &DocumentKey) -> Result<Option<Opened>> {
        let source = Source { kv: &*self.kv, space: self.space() };
        let Some(mut record) = self.record(document)? else { return Ok(None) };
        for _ in 0..ATTEMPTS_MAX {
            let error = match source.open(document, &record) {
                Ok((opened, authors)) => return Ok(Some(Opened { record, document: opened, authors })),
                Err(error) => error,
            };
            let now = self.record(document)?;
            match now.filter(|now| matches!(error, Error::Corrupt(_)) && *now != record) {
                Some(now) => record = now,
                None => return Err(error),
            }
        }
        Err(Error::Unavailable(format!("document {document} changes faster than its history can be read; try again")))
    }
}

/// The document when everything that its log holds was applied.
pub(super) fn complete(document: &DocumentKey, opened: Document, applied: &Applied) -> Result<Document> {
    match applied.refused.first() {
        None => Ok(opened),
        Some((hash, refusal)) => Err(damaged(document, &format!("change {hash}: {refusal}"))),
    }
}

fn parse(document: &DocumentKey, payload: Bytes) -> Result<Change, Error> {
    Change::screen(payload).map_err(|error| damaged(document, &error))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicU8;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::access::{Ability, Genesis, Members};
    use crate::base::{ActorId, Hlc, Incarnation, Timestamp};
    use crate::document::{At, Envelope, Object, Run};
    use crate::identity::Keypair;
    use crate::kv::{self, Batch, CacheUse, MemoryKv};
    use crate::store::{Granted, Loss, Store};

    /// A store whose first answers for one key are old: the writer was faster.
    struct Racing {
        kv: Arc<MemoryKv>,
        key: Vec<u8>,
        old: Mutex<VecDeque<Bytes>>,
    }

    impl Kv for Racing {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, kv::Error> {
            let old = if key == self.key { self.old.lock().unwrap().pop_front() } else { None };
            old.map_or_else(|| self.kv.get(key), |old| Ok(Some(old)))
        }

        fn scan(&self, from: &[u8], to: &[u8], visit: &mut kv::Visit<'_>) -> Result<(), kv::Error> {
            self.kv.scan(from, to, visit)
        }

        fn apply(&self, batch: Batch) -> Result<(), kv::Error> {
            self.kv.apply(batch)
        }

        fn check(&self) -> Result<(), kv::Error> {
            self.kv.check()
        }

        fn flush(&self) -> Result<(), kv::Error> {
            self.kv.flush()
        }

        fn size_bytes(&self) -> u64 {
            self.kv.size_bytes()
        }

        fn cache(&self) -> CacheUse {
            CacheUse::default()
        }
    }

    pub(in crate::store) struct Writer {
        kv: Arc<MemoryKv>,
        pub(in crate::store) store: Store,
        keypair: Keypair,
        members: Members,
        pub(in crate::store) key: DocumentKey,
        written: u64,
        last: Option<Granted>,
    }

    impl Writer {
        pub(in crate::store) fn new() -> Self {
            let kv = Arc::new(MemoryKv::new());
            let keypair = Keypair::from_seed([1; 32]);
            let genesis = Genesis::found("test", &keypair, Hlc::from_physical(Timestamp(1)), [0; 16]).unwrap();
            let store = Store::open(kv.clone(), Incarnation([2; 8]), Loss::Nothing).unwrap();
            let key = DocumentKey::new("docs".parse().unwrap(), "a".parse().unwrap());
            Self { kv, store, keypair, members: Members::found(genesis), key, written: 0, last: None }
        }

        /// Writes the document once more, with the number of the write in it.
        fn write(&mut self) -> Record {
            self.write_body(json!({"n": self.written + 1}))
        }

        pub(in crate::store) fn write_body(&mut self, body: Value) -> Record {
            self.written += 1;
            let Value::Object(body) = body else { unreachable!() };
            let incarnation = self.store.incarnation();
            let actor = ActorId::derive(&self.keypair.peer_id(), &incarnation);
            let time = Hlc::from_physical(Timestamp(self.written * 1_000));
            let before = self.store.record(&self.key).unwrap();
            let change = match &before {
                None => Change::create(actor, time, &body).unwrap(),
                Some(record) => {
                    self.store.open_document(&self.key, record).unwrap().replace(actor, time, &body).unwrap().unwrap()
                }
            };
            let grant = self.members.check(&self.keypair.peer_id(), Ability::Write).unwrap();
            let (mesh, key) = (self.members.mesh(), self.key.clone());
            let envelope = Envelope::sign(&self.keypair, mesh, key, incarnation, grant.id(), change);
            let granted = Granted::new(&grant, envelope).unwrap();
            self.last = Some(granted.clone());
            match &before {
                None => self.store.create(&granted, serde_json::to_vec(&body).unwrap().into()).unwrap(),
                Some(record) => self.store.append(&granted, record).unwrap(),
            }
        }

        /// A reader that first sees the record as it was in `old`.
        fn behind(&self, old: impl IntoIterator<Item = Bytes>) -> Reader {
            let key = key::document(self.store.space(), &self.key);
            let racing = Racing { kv: self.kv.clone(), key, old: Mutex::new(old.into_iter().collect()) };
            Reader::new(Arc::new(racing), Arc::new(AtomicU8::new(self.store.space())), self.store.incarnation())
        }

        fn sealed(&self) -> Bytes {
            self.kv.get(&key::document(self.store.space(), &self.key)).unwrap().unwrap()
        }
    }

    fn shown(opened: &Opened) -> Object {
        opened.document.fields()
    }

    #[test]
    fn a_document_is_opened_from_its_log_and_from_its_snapshot() {
        let mut writer = Writer::new();
        assert!(writer.store.reader().open_document(&writer.key).unwrap().is_none());
        for write in 1..=150u64 {
            let record = writer.write();
            if [1, 2, 63, 64, 65, 128, 150].contains(&write) {
                let opened = writer.store.reader().open_document(&writer.key).unwrap().unwrap();
                assert_eq!((&opened.record, opened.document.heads()), (&record, record.heads.clone()));
                assert_eq!(shown(&opened)["n"], json!(write));
                let history = opened.document.history(&opened.authors, None, 100).unwrap();
                assert_eq!(history.entries.len() as u64, write.min(100));
                assert!(history.entries.iter().all(|entry| entry.author == writer.keypair.peer_id()));
                let half = At::Time(Timestamp(write / 2 * 1_000));
                let half =
                    opened.document.version(&half).unwrap().and_then(|version| opened.document.fields_at(&version));
                assert_eq!(half.map(|fields| fields["n"].clone()), (write > 1).then(|| json!(write / 2)));
            }
        }
    }

    #[test]
    fn a_writer_that_is_faster_does_no_harm() {
        let mut writer = Writer::new();
        (0..63).for_each(|_| _ = writer.write());
        let before = writer.sealed();
        // A log that is ahead of the record is no trouble: the document is read as the record has it.
        (0..5).for_each(|_| _ = writer.write());
        let opened = writer.behind([]).open_document(&writer.key).unwrap().unwrap();
        assert_eq!(shown(&opened)["n"], json!(68));
        // A snapshot that is ahead is: the record is read again.
        let opened = writer.behind([before.clone()]).open_document(&writer.key).unwrap().unwrap();
        assert_eq!((shown(&opened)["n"].clone(), opened.record.heads == opened.document.heads()), (json!(68), true));
        let between = writer.sealed();
        writer.write();
        let opened = writer.behind([between]).open_document(&writer.key).unwrap().unwrap();
        assert_eq!(shown(&opened)["n"], json!(68));
        // One that stays the same and does not fit is damage.
        let stuck = writer.behind(vec![before; 100]).open_document(&writer.key);
        assert!(matches!(stuck, Err(Error::Corrupt(_))), "{stuck:?}");
    }

    #[test]
    fn a_power_cut_before_a_collection_is_counted_again_is_made_good() {
        let mut writer = Writer::new();
        let collection = writer.key.collection.clone();
        writer.write();
        let total = writer.store.total(&collection);
        writer.store.flush().unwrap();
        writer.store.damage_for_test(&writer.key);
        // It is found damaged and healed by a peer in one call of the node, and then the power goes.
        let merge = writer.store.merge(&writer.key, &[writer.last.clone().unwrap()]).unwrap();
        assert!(merge.record.is_some());
        for _ in 0..2 {
            let store = Store::open(writer.kv.clone(), Incarnation([2; 8]), Loss::Nothing).unwrap();
            assert_eq!((store.total(&collection), store.recount_for_test(&collection)), (total, total));
        }
    }

    #[test]
    fn a_change_that_is_damaged_or_missing_is_said() {
        let mut writer = Writer::new();
        (0..3).for_each(|_| _ = writer.write());
        writer.store.damage_log_for_test(&writer.key, |entry| entry.run = Run::of(Bytes::from_static(b"garbage")));
        let opened = writer.store.reader().open_document(&writer.key);
        assert!(matches!(&opened, Err(Error::Corrupt(why)) if why.contains("docs/a")), "{opened:?}");
        let mut batch = Batch::new();
        batch.delete(key::log(writer.store.space(), writer.store.record(&writer.key).unwrap().unwrap().number, 0, 2));
        writer.kv.apply(batch).unwrap();
        let opened = writer.store.reader().open_document(&writer.key);
        assert!(matches!(&opened, Err(Error::Corrupt(why)) if why.contains("docs/a")), "{opened:?}");
    }
}
