//! Who has what on its disk: writes that wait for other peers, the question where a document is, and whether it is
//! safe to leave.
//!
//! A neighbour that is asked for a version it does not have yet remembers the question, within bounds, and answers
//! when the change arrives. Answers leave, as everything does, after the flush: a receipt is true when it is sent.
//! Leaving is judged by comparisons: a peer with which every collection was found equal has all that is here.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{DocumentKey, PeerId, Timestamp};
use crate::identity::Signed;
use crate::limits::{INQUIRIES_MAX, RECEIPT_ACTORS_MAX, RECEIPT_VERSIONS_MAX, RECEIPTS_OWED_MAX, WRITE_CONCERN_MS_MAX};
use crate::store::{Record, Vector};
use crate::sync::receipt::{Ask, Receipt, Told, Version};
use crate::sync::{Comparison, Message};
use crate::{Error, Result};

use super::Node;
use super::effect::{CommandId, DropReason, Effect, Reply, Write, WriteConcern};
use super::neighbour::Neighbour;
use super::report::{HolderReport, LeaveReport, WhyReport};

/// Milliseconds for which the question where a document is waits for answers.
const WHY_MS: u64 = 1_000;

/// Something that waits for what neighbours say.
#[derive(Debug)]
struct Inquiry {
    version: Version,
    purpose: Purpose,
    deadline: Timestamp,
    /// Neighbours that were asked.
    asked: BTreeSet<PeerId>,
    /// Neighbours that answered at once and do not have it.
    without: BTreeSet<PeerId>,
    receipts: BTreeMap<PeerId, Signed<Receipt>>,
}

#[derive(Debug)]
enum Purpose {
    /// A write waits for so many receipts.
    Write { write: Write, record: Record, peers: usize },
    /// Somebody wants to know.
    Why(Box<WhyReport>),
}

/// Somebody who wants to leave.
#[derive(Debug)]
struct Leave {
    peers: usize,
    deadline: Timestamp,
}

/// Receipts that are waited for here, and that others wait for.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    inquiries: BTreeMap<CommandId, Inquiry>,
    leaves: BTreeMap<CommandId, Leave>,
    /// What others asked for and is not here yet, with until when they wait.
    owed: BTreeMap<DocumentKey, Vec<(PeerId, Vector, Timestamp)>>,
    /// Of each peer that waits, the actors in what it waits for.
    owed_actors: BTreeMap<PeerId, usize>,
    /// Documents that others wait for and that changed in this call.
    changed: BTreeSet<DocumentKey>,
}

impl Receipts {
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let inquiries = self.inquiries.values().map(|inquiry| inquiry.deadline);
        inquiries.chain(self.leaves.values().map(|leave| leave.deadline)).min()
    }

    /// Takes note that a document changed.
    pub(super) fn note_change(&mut self, document: &DocumentKey) {
        if self.owed.contains_key(document) {
            self.changed.insert(document.clone());
        }
    }

    /// Remembers what a peer waits for, unless that is too much. One peer takes no room of others.
    fn owe(&mut self, now: Timestamp, document: DocumentKey, peer: PeerId, vector: Vector) {
        let owed = self.owed_actors.entry(peer).or_default();
        let actors = *owed + actors(&vector);
        if actors <= RECEIPTS_OWED_MAX {
            *owed = actors;
            self.owed.entry(document).or_default().push((peer, vector, now.plus_ms(WRITE_CONCERN_MS_MAX)));
        }
    }

    /// Forgets what nobody waits for any more, when a peer wants to wait for more than it may.
    fn make_room(&mut self, now: Timestamp, peer: &PeerId, versions: &[Version]) {
        let more: usize = versions.iter().map(|(_, vector)| actors(vector)).sum();
        if self.owed_actors.get(peer).is_some_and(|owed| owed + more > RECEIPTS_OWED_MAX) {
            self.owed.values_mut().for_each(|owed| owed.retain(|(_, _, until)| *until > now));
            self.recount();
        }
    }

    /// Nobody waits at the other end any more.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.owed.values_mut().for_each(|owed| owed.retain(|(of, _, _)| of != peer));
        self.recount();
        // Whoever comes back is asked again.
        for inquiry in self.inquiries.values_mut() {
            inquiry.asked.remove(peer);
        }
    }

    /// The mesh is another one: who waits here is answered with what is known, and nothing is owed any more.
    pub(super) fn close(&mut self, now: Timestamp) {
        self.inquiries.values_mut().for_each(|inquiry| inquiry.deadline = now);
        self.leaves.values_mut().for_each(|leave| leave.deadline = now);
        self.owed.clear();
        self.recount();
        self.changed.clear();
    }

    #[cfg(test)]
    pub(super) fn owed_for_test(&self) -> usize {
        self.owed.values().map(Vec::len).sum()
    }

    fn recount(&mut self) {
        self.owed.retain(|_, owed| !owed.is_empty());
        self.owed_actors.clear();
        for (peer, vector, _) in self.owed.values().flatten() {
            *self.owed_actors.entry(*peer).or_default() += actors(vector);
        }
    }

    fn has_room(&self) -> Result<()> {
        if self.inquiries.len() + self.leaves.len() < INQUIRIES_MAX {
            return Ok(());
        }
        Err(Error::Unavailable("too many calls wait for other peers; try again in a second".into()))
    }
}

/// What a version costs to remember.
fn actors(vector: &Vector) -> usize {
    vector.len().max(1)
}

impl Node {
    /// Checks a write concern before the write is made.
    pub(super) fn check_concern(&self, concern: WriteConcern) -> Result<()> {
        concern.check()?;
        self.receipts.has_room()
    }

    /// Has the answer to a write wait until so many others have it.
    pub(super) fn await_receipts(
        &mut self,
        now: Timestamp,
        id: CommandId,
        document: DocumentKey,
        (write, record): (Write, Record),
        concern: WriteConcern,
    ) {
        let ours = self.actor();
        let mut vector = self.store.vector(&record);
        if write != Write::Unchanged {
            vector.retain(|(actor, _)| *actor == ours);
        }
        let purpose = Purpose::Write { write, record, peers: concern.peers };
        self.inquire(id, (document, vector), purpose, self.until(now, concern));
    }

    /// Until when others are waited for: not at all when there are not so many.
    fn until(&self, now: Timestamp, concern: WriteConcern) -> Timestamp {
        let others = self.members.len() - 1;
        if concern.peers > others { now } else { now.plus_ms(concern.timeout_ms) }
    }

    /// Asks every neighbour whether it has a document as it is here, and answers then.
    pub(super) fn ask_why(&mut self, now: Timestamp, id: CommandId, document: DocumentKey) -> Result<()> {
        let report = Box::new(self.why(&document)?);
        let record = self.store.record(&document).ok().flatten();
        let vector = record.map(|record| self.store.vector(&record)).unwrap_or_default();
        // Nothing here to ask for, or nobody may ask any more for now: what is known is answered.
        let wait = if vector.is_empty() || self.receipts.has_room().is_err() { 0 } else { WHY_MS };
        self.inquire(id, (document, vector), Purpose::Why(report), now.plus_ms(wait));
        Ok(())
    }

    fn inquire(&mut self, id: CommandId, mut version: Version, purpose: Purpose, deadline: Timestamp) {
        if version.1.len() > RECEIPT_ACTORS_MAX {
            version.1.clear();
        }
        let inquiry = Inquiry {
            version,
            purpose,
            deadline,
            asked: BTreeSet::new(),
            without: BTreeSet::new(),
            receipts: BTreeMap::new(),
        };
        self.receipts.inquiries.insert(id, inquiry);
    }

    /// Finds out whether so many others have everything that is here.
    pub(super) fn ask_to_leave(&mut self, now: Timestamp, id: CommandId, concern: WriteConcern) -> Result<()> {
        self.check_concern(concern)?;
        for (peer, neighbour) in &mut self.neighbours {
            if !self.ledger.in_sync(peer, self.store.version()) {
                neighbour.compare_by(now);
            }
        }
        let leave = Leave { peers: concern.peers, deadline: self.until(now, concern) };
        self.receipts.leaves.insert(id, leave);
        Ok(())
    }

    /// A neighbour asks for receipts.
    pub(super) fn asked(&mut self, now: Timestamp, peer: PeerId, ask: Ask) {
        if ask.wait {
            self.receipts.make_room(now, &peer, &ask.versions);
        }
        let mut held = Vec::new();
        for (document, vector) in ask.versions {
            if self.holds(&document, &vector) {
                held.push((document, vector));
            } else if ask.wait {
                self.receipts.owe(now, document, peer, vector);
            }
        }
        if !held.is_empty() || !ask.wait {
            self.tell(now, peer, ask.number, held);
        }
    }

    fn holds(&mut self, document: &DocumentKey, vector: &Vector) -> bool {
        match self.store.record(document) {
            Ok(record) => !self.store.lacks(record.as_ref(), vector),
            Err(_) => false,
        }
    }

    fn tell(&mut self, now: Timestamp, peer: PeerId, number: u64, versions: Vec<Version>) {
        let receipt = (!versions.is_empty()).then(|| {
            let (mesh, holder, synced) = (self.mesh(), self.peer_id(), self.synced);
            let receipt = Receipt { mesh, holder, at: self.clock.wall(now), synced, versions };
            Box::new(Signed::sign(receipt, &self.keypair))
        });
        self.send(peer, Message::Told(Told { number, receipt }));
    }

    /// What a neighbour has on its disk.
    pub(super) fn told(&mut self, peer: PeerId, told: Told) {
        if let Some(receipt) = &told.receipt {
            if receipt.body.holder != peer || receipt.body.mesh != self.mesh() || receipt.check().is_err() {
                return self.part(peer, DropReason::Misbehaved);
            }
            let versions: BTreeMap<&DocumentKey, &Vector> =
                receipt.body.versions.iter().map(|(document, vector)| (document, vector)).collect();
            for inquiry in self.receipts.inquiries.values_mut() {
                // A write waits for disks, not for memories.
                let counts = receipt.body.synced || matches!(inquiry.purpose, Purpose::Why(_));
                if counts && versions.get(&inquiry.version.0).is_some_and(|vector| **vector == inquiry.version.1) {
                    inquiry.receipts.insert(peer, (**receipt).clone());
                }
            }
        }
        if let Some(inquiry) = self.receipts.inquiries.get_mut(&told.number)
            && !inquiry.receipts.contains_key(&peer)
        {
            inquiry.without.insert(peer);
        }
    }

    /// Sends receipts that others wait for, asks those who were not asked yet, and answers what is done or due.
    pub(super) fn tend_receipts(&mut self, now: Timestamp) {
        self.pay(now);
        self.ask_neighbours();
        self.answer_inquiries(now);
        self.answer_leaves(now);
    }

    fn pay(&mut self, now: Timestamp) {
        let mut due: BTreeMap<PeerId, Vec<Version>> = BTreeMap::new();
        for document in std::mem::take(&mut self.receipts.changed) {
            let Some(owed) = self.receipts.owed.remove(&document) else { continue };
            let mut left = Vec::new();
            for (peer, vector, until) in owed {
                if self.holds(&document, &vector) {
                    due.entry(peer).or_default().push((document.clone(), vector));
                } else {
                    left.push((peer, vector, until));
                }
            }
            self.receipts.owed.insert(document, left);
            self.receipts.recount();
        }
        for (peer, versions) in due {
            for part in versions.chunks(RECEIPT_VERSIONS_MAX) {
                self.tell(now, peer, 0, part.to_vec());
            }
        }
    }

    fn ask_neighbours(&mut self) {
        if self.receipts.inquiries.is_empty() {
            return;
        }
        let admitted = self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_admitted());
        for peer in admitted.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            let mut waiting = Vec::new();
            for (id, inquiry) in &mut self.receipts.inquiries {
                if inquiry.version.1.is_empty() || !inquiry.asked.insert(peer) {
                    continue;
                }
                match inquiry.purpose {
                    Purpose::Write { .. } => waiting.push(inquiry.version.clone()),
                    Purpose::Why(_) => {
                        let ask = Ask { number: *id, wait: false, versions: vec![inquiry.version.clone()] };
                        self.effects.push(Effect::Send(peer, Message::Ask(ask)));
                    }
                }
            }
            for part in waiting.chunks(RECEIPT_VERSIONS_MAX) {
                self.send(peer, Message::Ask(Ask { number: 0, wait: true, versions: part.to_vec() }));
            }
        }
    }

    fn answer_inquiries(&mut self, now: Timestamp) {
        let done = |inquiry: &Inquiry| match &inquiry.purpose {
            Purpose::Write { peers, .. } => inquiry.receipts.len() >= *peers,
            Purpose::Why(_) => inquiry.receipts.len() + inquiry.without.len() >= inquiry.asked.len(),
        };
        let over = self.receipts.inquiries.extract_if(.., |_, inquiry| done(inquiry) || inquiry.deadline <= now);
        for (id, inquiry) in over.collect::<Vec<_>>() {
            let reply = match inquiry.purpose {
                Purpose::Write { write, record, peers } => {
                    let complete = inquiry.receipts.len() >= peers;
                    let receipts = inquiry.receipts.into_values().collect();
                    Reply::Confirmed { write, record, receipts, complete }
                }
                Purpose::Why(mut report) => {
                    report.holders = holders(&inquiry.asked, &inquiry.without, &inquiry.receipts);
                    Reply::Why(report)
                }
            };
            self.effects.push(Effect::Reply(id, Ok(reply)));
        }
    }

    fn answer_leaves(&mut self, now: Timestamp) {
        if self.receipts.leaves.is_empty() {
            return;
        }
        let report = self.leave_report();
        let have = report.iter().filter(|peer| peer.has_all).count();
        let over = self.receipts.leaves.extract_if(.., |_, leave| have >= leave.peers || leave.deadline <= now);
        for (id, leave) in over.collect::<Vec<_>>() {
            let reply = Reply::Leave { safe: have >= leave.peers, peers: report.clone() };
            self.effects.push(Effect::Reply(id, Ok(reply)));
        }
    }

    fn leave_report(&self) -> Vec<LeaveReport> {
        // What is damaged is not compared, though it may be shown; and what comes from a left mesh is not here yet.
        let compares_all = self.is_whole() && self.carry.is_none();
        let of = |(peer, comparison): (&PeerId, &Comparison)| LeaveReport {
            peer: *peer,
            connected: self.neighbours.get(peer).is_some_and(Neighbour::is_admitted),
            no_answer_since: self.no_answer_since(peer),
            has_all: compares_all && self.ledger.in_sync(peer, self.store.version()),
            compared_at: comparison.at().map(|at| self.clock.shows(at)),
        };
        self.ledger.iter().map(of).collect()
    }
}

fn holders(
    asked: &BTreeSet<PeerId>,
    without: &BTreeSet<PeerId>,
    receipts: &BTreeMap<PeerId, Signed<Receipt>>,
) -> Vec<HolderReport> {
    let of = |peer: &PeerId| HolderReport {
        peer: *peer,
        holds: match (receipts.contains_key(peer), without.contains(peer)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
    };
    asked.iter().map(of).collect()
}
