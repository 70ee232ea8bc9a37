//! The peer as one deterministic state machine.
//!
//! [`Node::handle`] is the whole of it: a time and some inputs go in, effects come out. There is no clock,
//! no socket, no thread and no global randomness inside, and nothing iterates in an order that is not
//! fixed, so that two runs from one seed are equal byte for byte. The driver around it (`peer`) owns the
//! threads and the swarm; a simulator can own virtual time and simulated links instead.
//!
//! **Commit first, then announce.** `handle` flushes the store after the last input and before it returns,
//! so no effect can leave before what it rests on is durable, and all inputs of one call share one flush.
//! When the flush fails, every answer becomes an error and nothing is sent.
//!
//! - `write` what programs ask for: put, delete
//! - `inbound` changes from other peers
//! - `fork` changes of an actor that used a sequence number twice
//! - `membership` greeting, inviting, joining
//! - `turn` turning to another mesh: one that was joined, or founded here
//! - `index` declaring and filling indexes
//! - `expiry` deleting what has expired, and keeping what others deleted as expired and has not
//! - `clock` what is known of the time
//! - `session` comparing with neighbours and sending what they lack
//! - `spreading` what gossip is bringing to everybody just now
//! - `address` whom to dial, and when
//! - `receipt` who has what on its disk
//! - `complaint` what the log says of others
//! - `note` what happens with others, as lines of the log; `restless` peers whose links start anew again and again
//! - `report` what status calls show

mod address;
mod clock;
mod complaint;
mod effect;
mod expiry;
mod fork;
mod inbound;
mod index;
mod membership;
mod neighbour;
mod note;
mod receipt;
mod report;
mod restless;
mod session;
mod source;
mod spreading;
#[cfg(test)]
mod tests;
mod turn;
mod write;

pub use clock::{Agreement, ClockReport};
pub use effect::{
    Absent, Command, CommandId, Condition, DropReason, Effect, Effects, Event, Farewell, GossipId, Input, Link,
    LocalDocuments, MeshContext, Reply, Verdict, Write, WriteConcern,
};
pub use report::{
    CollectionReport, DiskReport, HolderReport, LeaveReport, LetterReport, MemberReport, NeighbourReport, PeerReport,
    StandingReport, SummaryReport, SyncReport, WhyReport,
};
pub use restless::{RestlessReport, TwiceReport};

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use self::address::AddressBook;
use self::clock::Clock;
use self::complaint::Complaints;
use self::expiry::Expiry;
use self::membership::Joining;
use self::neighbour::Neighbour;
use self::note::{LinkNotes, Notes};
use self::receipt::Receipts;
use self::restless::{Restless, Twice};
use self::source::Turns;
use self::spreading::Spreading;
use self::turn::{Carry, CarryCursor};
use crate::access::{Genesis, MemberRecord, Members};
use crate::base::{DocumentKey, Incarnation, MeshId, PeerId, Timestamp};
use crate::identity::{Keypair, Verified};
use crate::kv::Kv;
use crate::store::{Audit, FeedCursor, Loss, Reader, Store};
use crate::sync::gossip::{Pace, Secret};
use crate::sync::{Introduced, Ledger, Message};
use crate::{Error, Result};

/// What a node needs to know at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its identity.
    pub keypair: Keypair,
    /// Where all of its randomness comes from: fresh random bytes, or a simulation's seed.
    pub seed: [u8; 32],
    /// The name of the mesh that it founds when its store is new, and when it leaves the one that it shares.
    pub mesh_name: String,
    /// Whether what is flushed outlasts a power cut.
    pub synced: bool,
    /// What of the writes before may be missing: flushes were not waited for, or the journal is damaged.
    pub loss: Loss,
    /// Whether the storage was made just now, so that a mesh may be founded in it.
    pub fresh: bool,
    /// Multiaddrs to dial at the start and whenever nobody is connected there.
    pub seeds: Vec<String>,
}

/// Counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Changes written here.
    pub written: u64,
    /// Changes from others that were applied.
    pub applied: u64,
    /// Changes from others that were known already.
    pub known: Known,
    /// Changes from others that were dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Peers that were dropped, by reason.
    pub parted: BTreeMap<&'static str, u64>,
}

/// Changes from others that were known already, by the way on which they came once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Over gossip.
    pub gossip: u64,
    /// Over a link on which both sides had been found equal before.
    pub comparing: u64,
    /// Over a link on which they had not, since it is new.
    pub reconnecting: u64,
}

impl Known {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.gossip + self.comparing + self.reconnecting
    }
}

/// The peer.
#[derive(Debug)]
pub struct Node {
    keypair: Keypair,
    /// The name of the mesh that it founds when it leaves another.
    synced: bool,
    mesh_name: String,
    store: Store,
    members: Members,
    secret: Secret,
    clock: Clock,
    rng: StdRng,
    ledger: Ledger,
    receipts: Receipts,
    neighbours: BTreeMap<PeerId, Neighbour>,
    restless: Restless,
    notes: Notes,
    link_notes: LinkNotes,
    /// A member's word that this very peer runs in two places at once.
    twice: Option<Twice>,
    turns: Turns,
    addresses: AddressBook,
    joining: Option<Joining>,
    carry: Option<Carry>,
    /// When there is more to do for indexes.
    index_at: Option<Timestamp>,
    expiry: Expiry,
    /// Changes of this call that go out over gossip, with their sequence numbers.
    fresh: Vec<(u64, crate::document::Unchecked)>,
    pace: Pace,
    spreading: Spreading,
    counters: Counters,
    complaints: Complaints,
    /// Whether something was lost since nobody was found to have the same.
    healing: bool,
    /// The last failure of the storage that was logged: one that goes on is logged once.
    logged: Option<String>,
    effects: Vec<Effect>,
}

impl Node {
    /// Opens the node on its storage. A new store founds a mesh of one peer.
    ///
    /// # Errors
    /// When the storage cannot be read or written, or belongs to another identity.
    pub fn open(config: Config, kv: Arc<dyn Kv>, now: Timestamp) -> Result<Self> {
        let node = Self::assemble(config, kv, now)?;
        if !node.has_own_record()? {
            return Err(Error::Denied(format!(
                "peer {} is not a member of the mesh in this data directory: its identity.key or its membership record \
                 was lost; restore them from a backup, or start with an empty directory and join the mesh again",
                node.peer_id()
            )));
        }
        Ok(node)
    }

    /// Opens the storage of another peer, of which it is a copy, under an identity of its own. As that is no member of
    /// the mesh, it founds one of its own, into which the documents are carried. It is durable when this returns; the
    /// documents follow, also after another start.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub fn open_as_another(config: Config, kv: Arc<dyn Kv>, now: Timestamp) -> Result<Self> {
        let mut node = Self::assemble(config, kv, now)?;
        if !node.has_own_record()? {
            node.start_over(now)?;
        }
        Ok(node)
    }

    /// Whether this peer ever was a member. One that fell is as it was, and may join again.
    fn has_own_record(&self) -> Result<bool> {
        let own = self.peer_id();
        Ok(self.store.members()?.iter().any(|record| record.peer() == own))
    }

    fn assemble(config: Config, kv: Arc<dyn Kv>, now: Timestamp) -> Result<Self> {
        let mut rng = StdRng::from_seed(config.seed);
        let mut incarnation = [0; 8];
        rng.fill_bytes(&mut incarnation);
        let mut store = Store::open(kv, Incarnation(incarnation), config.loss)?;
        let mut clock = Clock::start(now, store.latest()?);
        if store.members()?.is_empty() {
            if !config.fresh {
                return Err(Error::Corrupt(
                    "the data directory was in use before and holds no mesh any more; restore it from a backup, or \
                     start with an empty directory and join the mesh again"
                        .into(),
                ));
            }
            found_mesh(&mut store, &config, &mut clock, &mut rng, now)?;
        }
        let members = load_members(store.members()?)?;
        let secret = store.fact("secret")?.ok_or_else(|| {
            Error::Corrupt("the mesh's secret is missing from the store; join the mesh again with a new ticket".into())
        })?;
        let mut node = Self {
            carry: store.fact::<Option<CarryCursor>>("carry")?.flatten().map(|cursor| Carry::resume(&store, cursor)),
            addresses: AddressBook::new(config.seeds, store.addresses()?, now),
            keypair: config.keypair,
            mesh_name: config.mesh_name,
            synced: config.synced,
            store,
            members,
            secret: Secret::new(secret),
            clock,
            rng,
            ledger: Ledger::default(),
            receipts: Receipts::default(),
            neighbours: BTreeMap::new(),
            restless: Restless::default(),
            notes: Notes::default(),
            link_notes: LinkNotes::default(),
            twice: None,
            turns: Turns::default(),
            joining: None,
            index_at: Some(now),
            expiry: Expiry::start(now),
            fresh: Vec::new(),
            pace: Pace::default(),
            spreading: Spreading::default(),
            counters: Counters::default(),
            complaints: Complaints::default(),
            healing: config.loss == Loss::Records,
            logged: None,
            effects: Vec::new(),
        };
        node.healing |= !node.store.damaged().is_empty() || node.store.rebuilding().is_some();
        node.store.flush()?;
        node.effects.push(Effect::Context(node.context()));
        Ok(node)
    }

    /// A handle for reading beside the node.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// This peer.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.keypair.peer_id()
    }

    /// The cursor behind the last change in the feed.
    #[must_use]
    pub fn feed_end(&self) -> FeedCursor {
        self.store.reader().feed_cursor(self.position())
    }

    /// The position of the last change in the feed.
    fn position(&self) -> u64 {
        self.store.next_position() - 1
    }

    /// The mesh that this peer is in.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.members.mesh()
    }

    /// What happened since the start, in numbers.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Keeps at most so many documents open in memory, from now on.
    pub fn keep_open(&mut self, documents: usize) {
        self.store.keep_open(documents);
    }

    /// What the driver must know of the mesh.
    #[must_use]
    pub fn context(&self) -> MeshContext {
        MeshContext { mesh: self.mesh(), name: self.members.genesis().name.clone(), secret: self.secret.clone() }
    }

    /// Checks everything that is stored against itself, see [`Store::audit`]. Takes the time of reading and checking
    /// every change: for tests and simulations.
    ///
    /// # Errors
    /// As [`Store::audit`].
    pub fn audit(&mut self) -> Result<Audit> {
        let mesh = self.mesh();
        self.store.audit(mesh)
    }

    /// Takes inputs in order, makes their outcome durable, and says what is to be done.
    pub fn handle(&mut self, now: Timestamp, inputs: impl IntoIterator<Item = Input>) -> Effects {
        self.tend_table(now);
        for input in inputs {
            self.take(now, input);
        }
        self.tend(now);
        let effects = std::mem::take(&mut self.effects);
        match self.store.flush() {
            Ok(()) => Effects(effects),
            Err(error) => Effects(effects.into_iter().filter_map(|effect| effect.unless_durable(&error)).collect()),
        }
    }

    fn take(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Command(id, command) => self.command(now, id, command),
            Input::Connected(peer, link) => self.connected(now, peer, link),
            Input::Disconnected(peer) => self.disconnected(now, peer),
            Input::Unanswered(peer, silence_ms) => {
                self.answers(peer, Some(Timestamp(now.0.saturating_sub(silence_ms))))
            }
            Input::Answered(peer) => self.answers(peer, None),
            Input::DialFailed(address, why) => self.dial_failed(now, &address, &why),
            Input::Discovered(peer, addresses) => self.discovered(now, peer, addresses),
            Input::Received(peer, message) => {
                let introduced = crate::sync::introduce(*message, crate::sync::verify_member);
                self.received(now, peer, introduced);
            }
            Input::Introduced(peer, introduced) => self.received(now, peer, *introduced),
            Input::Changes { from, number, changes } => self.changes(now, from, number, changes),
            Input::Published { from, id, changes } => self.published(now, from, id, changes),
            Input::PublishFailed => self.compare_soon(now),
            Input::NetworkChanged => self.addresses.retry(now),
            Input::ClockSet { ahead_ms } => self.clock_set(now, ahead_ms),
            Input::Wake => {}
        }
    }

    fn command(&mut self, now: Timestamp, id: CommandId, command: Command) {
        if let Some(reply) = self.execute(now, id, command) {
            self.effects.push(Effect::Reply(id, reply));
        }
    }

    /// Does a command; `None` when its reply comes later.
    fn execute(&mut self, now: Timestamp, id: CommandId, command: Command) -> Option<Result<Reply>> {
        Some(match command {
            Command::Put { document, body, condition } => {
                self.check_new(&document).and_then(|()| self.put(now, document, &body, &condition))
            }
            Command::Patch { document, patch, condition, absent } => {
                self.check_new(&document).and_then(|()| self.patch(now, document, &patch, &condition, absent))
            }
            Command::Delete { document, condition } => self.delete(now, document, &condition),
            Command::Confirm { document, write, concern } => return self.confirm(now, id, document, *write, concern),
            Command::CreateCollection(name) => {
                self.store.check_room(&name).and_then(|()| self.create_collection(&name))
            }
            Command::PutIndex(collection, name, definition) => self.put_index(now, &collection, name, definition),
            Command::DropIndex(collection, name) => self.drop_index(now, &collection, &name),
            Command::Invite { terms, addresses } => self.invite(now, terms, addresses),
            Command::Join { ticket, local } => {
                self.join(now, id, ticket, local);
                return None;
            }
            Command::Found { name, local, farewell } => {
                return self.found(now, id, &name, local, farewell).err().map(Err);
            }
            Command::Part { local, farewell } => {
                return self.part_from_others(now, id, local, farewell).err().map(Err);
            }
            Command::Damaged(document) => {
                // Looking at it is enough: what is damaged is marked, what was repaired meanwhile is not.
                if self.store.record(&document).is_err() {
                    self.compare_soon(now);
                }
                return None;
            }
            Command::Sync => Ok(Reply::Sync(Box::new(self.sync_report()))),
            Command::Why(document) => return self.ask_why(now, id, document).err().map(Err),
            Command::Leave(concern) => return self.ask_to_leave(now, id, concern).err().map(Err),
            Command::Members => Ok(Reply::Members(self.member_report())),
            Command::Status => Ok(Reply::Status(Box::new(self.peer_report(now)))),
        })
    }

    /// Does a write whose reply waits for other peers.
    fn confirm(
        &mut self,
        now: Timestamp,
        id: CommandId,
        document: DocumentKey,
        write: Command,
        concern: WriteConcern,
    ) -> Option<Result<Reply>> {
        if let Err(error) = self.check_concern(concern) {
            return Some(Err(error));
        }
        match self.execute(now, id, write) {
            Some(Ok(Reply::Written(write, record))) => {
                self.await_receipts(now, id, document, (write, record), concern);
                None
            }
            other => other,
        }
    }

    fn received(&mut self, now: Timestamp, peer: PeerId, introduced: Introduced) {
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let admitted = neighbour.is_admitted();
        let Introduced { message, request: proven, members, bad } = introduced;
        if bad > 0 {
            tracing::warn!(from = %peer, bad, "dropped member records that are forged or contradict themselves");
            *self.counters.dropped.entry("bad_member_record").or_default() += bad;
        }
        match message {
            Message::Hello(hello) => self.hello(now, peer, &hello, members),
            Message::Redeem(request) => self.redeem(now, peer, &request, proven.as_ref(), members),
            Message::Welcome(welcome) => self.welcome(now, peer, &welcome, members),
            Message::Refused(why) => self.refused(now, peer, &why),
            // Everything below is for members only; a peer that has not greeted yet gets nothing.
            _ if !admitted => self.part(peer, DropReason::NotAMember),
            Message::Members(_) => self.learn(now, peer, members),
            Message::Roots(roots) => self.roots(now, peer, &roots),
            Message::Ranges(ranges) => self.ranges(now, peer, &ranges),
            Message::Items(items) => self.items(now, peer, &items),
            Message::Changes { number, changes } => {
                let checked = crate::sync::check(self.mesh(), changes);
                self.changes(now, peer, number, checked);
            }
            Message::Acknowledged(number) => self.acknowledged(now, peer, number),
            Message::Ask(ask) => self.asked(now, peer, ask),
            Message::Told(told) => self.told(peer, told),
            Message::RunsTwice(places) => self.runs_twice(now, peer, places),
        }
    }

    /// What is due without an input: dialing, comparing, sending, and the time of the next wake.
    fn tend(&mut self, now: Timestamp) {
        self.tend_clock(now);
        self.carry_on(now);
        self.tend_expiry(now);
        self.give_up_joining(now);
        self.publish_fresh(now);
        self.dial(now);
        self.look_for_room(now);
        self.tend_receipts(now);
        self.tend_indexes(now);
        self.compare(now);
        self.pump();
        self.tend_complaints(now);
        self.tend_link_notes(now);
        if let Some(at) = self.next_wake(now) {
            self.effects.push(Effect::WakeAt(at));
        }
    }

    /// Looks for what is missing once a damaged table was built anew, and has it brought.
    fn tend_table(&mut self, now: Timestamp) {
        match self.store.tend_table() {
            Ok(false) => {}
            Ok(true) => {
                self.healing = true;
                self.compare_by(now);
            }
            Err(error) => self.storage_failed("looking for what was lost", &error),
        }
    }

    fn dial(&mut self, now: Timestamp) {
        let connected = self.neighbours.len();
        for dial in self.addresses.due(now, connected, &mut self.rng) {
            self.effects.push(Effect::Dial(dial));
        }
    }

    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let neighbours = self.neighbours.values().filter_map(Neighbour::next_due);
        let joining = self.joining.as_ref().map(|joining| joining.deadline);
        let carry = self.carry.as_ref().map(|carry| carry.next_at.max(now));
        let dial = self.addresses.next_due(self.neighbours.len());
        let indexes = [self.index_at, self.expiry.at, self.next_telling()].into_iter().flatten().map(|at| at.max(now));
        let others = [self.receipts.next_due(), self.next_complaint(), self.next_link_note()].into_iter().flatten();
        neighbours.chain(indexes).chain(joining).chain(carry).chain(dial).chain(others).min()
    }

    fn send(&mut self, peer: PeerId, message: Message) {
        self.effects.push(Effect::Send(peer, message));
    }

    fn emit(&mut self, event: Event) {
        self.effects.push(Effect::Emit(event));
    }

    /// A storage error in the middle of something that nobody waits for.
    fn storage_failed(&mut self, doing: &'static str, error: &Error) {
        let text = format!("{doing} failed: {error}");
        // That the storage is not available was said when it became so.
        if !matches!(error, Error::Unavailable(_)) && self.logged.as_ref() != Some(&text) {
            tracing::error!("{text}");
            self.logged = Some(text);
        }
        self.emit(Event::StorageFailed(error.to_string()));
    }

    fn random_u64(&mut self) -> u64 {
        self.rng.random()
    }
}

fn found_mesh(store: &mut Store, config: &Config, clock: &mut Clock, rng: &mut StdRng, now: Timestamp) -> Result<()> {
    let (genesis, secret) = genesis(&config.mesh_name, &config.keypair, clock, rng, now)?;
    store.put_member(&MemberRecord::Founder(genesis.into_signed().into()))?;
    store.put_fact("secret", &secret)?;
    store.flush()
}

/// The genesis and the secret of a new mesh.
fn genesis(
    name: &str,
    founder: &Keypair,
    clock: &mut Clock,
    rng: &mut StdRng,
    now: Timestamp,
) -> Result<(Verified<Genesis>, [u8; 32])> {
    let (mut nonce, mut secret) = ([0; 16], [0; 32]);
    rng.fill_bytes(&mut nonce);
    rng.fill_bytes(&mut secret);
    Ok((Genesis::found(name, founder, clock.tick(now), nonce)?, secret))
}

fn load_members(records: Vec<MemberRecord>) -> Result<Members> {
    let genesis = records.iter().find_map(|record| match record {
        MemberRecord::Founder(genesis) => Some(genesis.clone()),
        MemberRecord::Joined(_) => None,
    });
    let genesis =
        genesis.ok_or_else(|| Error::Corrupt("the mesh's genesis record is missing from the store".into()))?;
    let genesis = Arc::unwrap_or_clone(genesis)
        .verify()
        .map_err(|_| Error::Corrupt("the signature of the stored genesis record is wrong".into()))?;
    Ok(Members::restore(genesis, records)?)
}
