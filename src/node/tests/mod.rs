//! Nodes that talk to each other in one thread and in virtual time. Each test reads as a transcript.

mod clock;
mod collections;
mod conflict;
mod deletes;
mod fork;
mod full;
mod index;
mod log;
mod members;
mod once;
mod power;
mod receipt;
mod rot;
mod runs;
mod standing;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::{Role, Terms, Ticket};
use crate::base::{CollectionName, DocumentKey, Encode};
use crate::document::{Object, Run};
use crate::kv::{Kv, MemoryKv};
use crate::store::{Loss, Reason};
use crate::sync::{Names, Step as RootsStep};

/// Milliseconds that a message takes.
const LATENCY_MS: u64 = 5;

struct Peer {
    node: Node,
    kv: Arc<MemoryKv>,
    /// By how much the time that its node is told is ahead, in milliseconds.
    ahead_ms: i64,
    wake: Option<Timestamp>,
    events: Vec<Event>,
}

/// Some nodes and the links between them.
struct World {
    now: Timestamp,
    peers: Vec<Peer>,
    links: BTreeSet<(usize, usize)>,
    /// Pairs that cannot reach each other.
    cut: BTreeSet<(usize, usize)>,
    /// Bytes that a line carries in a millisecond, in each direction.
    rate: u64,
    /// When a line, by sender, receiver and whether it is gossip, has carried what was given to it: streams do not wait
    /// for each other.
    free: BTreeMap<(usize, usize, bool), Timestamp>,
    /// Inputs under way, in the order of their arrival.
    queue: VecDeque<(Timestamp, usize, Input)>,
    replies: BTreeMap<(usize, CommandId), Result<Reply>>,
    next_id: CommandId,
    gossip: bool,
    sent_bytes: u64,
    sent: BTreeMap<&'static str, u64>,
    /// What was said, a line a message, once somebody listens.
    transcript: Option<String>,
}

fn object(value: Value) -> Object {
    let Value::Object(object) = value else { panic!("not an object") };
    object
}

fn key(text: &str) -> DocumentKey {
    let (collection, id) = text.split_once('/').unwrap();
    DocumentKey::new(collection.parse().unwrap(), id.parse().unwrap())
}

impl World {
    fn new(count: u8) -> Self {
        let mut world = Self {
            now: Timestamp(1_700_000_000_000),
            peers: Vec::new(),
            links: BTreeSet::new(),
            cut: BTreeSet::new(),
            rate: u64::MAX,
            free: BTreeMap::new(),
            queue: VecDeque::new(),
            replies: BTreeMap::new(),
            next_id: 0,
            gossip: true,
            sent_bytes: 0,
            sent: BTreeMap::new(),
            transcript: None,
        };
        for number in 0..count {
            world.add(number);
        }
        world
    }

    /// A mesh in which peer 0 has let everybody else in as a writer, with nobody connected any more.
    fn mesh(count: u8) -> Self {
        let mut world = Self::new(count);
        for peer in 1..usize::from(count) {
            world.join(peer, 0, Role::Writer);
        }
        world.disconnect_all();
        world
    }

    fn add(&mut self, number: u8) {
        let kv = Arc::new(MemoryKv::new());
        let node = open(number, kv.clone(), self.now);
        self.peers.push(Peer { node, kv, ahead_ms: 0, wake: Some(self.now), events: Vec::new() });
    }

    fn restart(&mut self, at: usize) {
        let cut = self.cut.clone();
        for other in 0..self.peers.len() {
            self.disconnect(at, other);
        }
        self.cut = cut;
        let kv = self.peers[at].kv.clone();
        self.peers[at].node = open(at as u8, kv, self.clock_of(at));
        self.peers[at].wake = Some(self.now);
    }

    fn id(&self, at: usize) -> PeerId {
        self.peers[at].node.peer_id()
    }

    fn at(&self, id: &PeerId) -> usize {
        self.peers.iter().position(|peer| peer.node.peer_id() == *id).unwrap()
    }

    /// The time that a node is told.
    fn clock_of(&self, at: usize) -> Timestamp {
        Timestamp(self.now.0.saturating_add_signed(self.peers[at].ahead_ms))
    }

    fn feed(&mut self, at: usize, inputs: Vec<Input>) {
        let told = self.clock_of(at);
        let effects = self.peers[at].node.handle(told, inputs);
        self.peers[at].wake = None;
        for effect in effects.0 {
            self.carry_out(at, effect);
        }
    }

    fn later(&mut self, to: usize, input: Input) {
        self.arrives(self.now.plus_ms(LATENCY_MS), to, input);
    }

    fn arrives(&mut self, at: Timestamp, to: usize, input: Input) {
        let place = self.queue.partition_point(|(other, ..)| *other <= at);
        self.queue.insert(place, (at, to, input));
    }

    /// Gives bytes to a line, after what it has to carry already.
    fn over_the_line(&mut self, from: usize, to: usize, bytes: usize, input: Input) {
        let stream = (from, to, matches!(input, Input::Published { .. }));
        let starts = self.free.get(&stream).copied().unwrap_or_default().max(self.now);
        let free = starts.plus_ms(bytes as u64 / self.rate);
        self.free.insert(stream, free);
        self.arrives(free.plus_ms(LATENCY_MS), to, input);
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Send(peer, message) => {
                let to = self.at(&peer);
                if self.links.contains(&(at, to)) {
                    let bytes = message.to_bytes();
                    self.sent_bytes += bytes.len() as u64;
                    *self.sent.entry(message.name()).or_default() += 1;
                    let line = format!("{at} -> {to}  {}\n", describe(&message));
                    self.say(&line);
                    // Through the wire form, as between real peers.
                    let message = crate::sync::message::decode(&bytes).unwrap();
                    let input = Input::Received(self.id(at), Box::new(message));
                    self.over_the_line(at, to, bytes.len(), input);
                }
            }
            Effect::Publish(topic, changes) if self.gossip => {
                let secret = self.peers[at].node.context().secret;
                let sealed = secret.seal(topic, [7; 24], &changes);
                for to in self.neighbours(at) {
                    let context = self.peers[to].node.context();
                    if let Ok(changes) = context.secret.open(topic, &sealed) {
                        let changes = crate::sync::check(context.mesh, changes);
                        let input = Input::Published { from: self.id(at), id: 1, changes };
                        self.over_the_line(at, to, sealed.len(), input);
                    }
                }
            }
            Effect::Dial(address) => {
                let known = (0..self.peers.len()).find(|to| super::membership::is_of(&address, &self.id(*to)));
                match known {
                    Some(to) if !self.cut.contains(&(at, to)) => self.link(at, to),
                    Some(_) | None => self.later(at, Input::DialFailed(address, "nobody there".into())),
                }
            }
            Effect::Drop(peer, _) => {
                let to = self.at(&peer);
                // What was sent before still arrives.
                self.links.remove(&(at, to));
                self.links.remove(&(to, at));
                self.later(to, Input::Disconnected(self.id(at)));
            }
            Effect::WakeAt(wake) => {
                let ahead_ms = self.peers[at].ahead_ms;
                self.peers[at].wake = Some(Timestamp(wake.0.saturating_add_signed(-ahead_ms)));
            }
            Effect::Emit(event) => self.peers[at].events.push(event),
            Effect::Reply(id, reply) => _ = self.replies.insert((at, id), reply),
            Effect::Publish(..) | Effect::Verdict(..) | Effect::Context(_) => {}
        }
    }

    fn say(&mut self, line: &str) {
        if let Some(transcript) = &mut self.transcript {
            transcript.push_str(line);
        }
    }

    /// Writes a heading into the transcript, does something, and lets the talk about it come to its end.
    fn scene(&mut self, heading: &str, act: impl FnOnce(&mut Self)) {
        self.say(&format!("\n# {heading}\n"));
        act(self);
        self.run(5_000);
    }

    fn neighbours(&self, at: usize) -> Vec<usize> {
        self.links.iter().filter(|(from, _)| *from == at).map(|(_, to)| *to).collect()
    }

    /// Lets two peers reach each other, and links them.
    fn connect(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
        self.link(a, b);
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b || !self.links.insert((a, b)) {
            return;
        }
        self.links.insert((b, a));
        for (at, other, dialed) in [(a, b, true), (b, a, false)] {
            let link = Link { address: format!("/memory/{other}"), dialed, direct: true };
            self.later(at, Input::Connected(self.id(other), link));
        }
    }

    /// Ends the link of two peers, and lets neither reach the other.
    fn disconnect(&mut self, a: usize, b: usize) {
        self.cut.extend([(a, b), (b, a)]);
        if self.links.remove(&(a, b)) && self.links.remove(&(b, a)) {
            let (one, other) = (self.id(a), self.id(b));
            let lost = |to: usize, input: &Input| match input {
                Input::Received(from, _) | Input::Published { from, .. } | Input::Connected(from, _) => {
                    (to == a && *from == other) || (to == b && *from == one)
                }
                Input::Command(..)
                | Input::Introduced(..)
                | Input::Disconnected(_)
                | Input::Unanswered(..)
                | Input::Answered(_)
                | Input::DialFailed(..)
                | Input::Discovered(..)
                | Input::Changes { .. }
                | Input::PublishFailed
                | Input::NetworkChanged
                | Input::ClockSet { .. }
                | Input::Wake => false,
            };
            self.queue.retain(|(_, to, input)| !lost(*to, input));
            self.later(a, Input::Disconnected(other));
            self.later(b, Input::Disconnected(one));
        }
    }

    fn disconnect_all(&mut self) {
        for a in 0..self.peers.len() {
            for b in 0..a {
                self.disconnect(a, b);
            }
        }
        self.run(1_000);
    }

    /// Lets virtual time pass.
    fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let arrival = self.queue.front().map(|(at, ..)| *at);
            let wake = self.peers.iter().filter_map(|peer| peer.wake).min();
            let next = arrival.into_iter().chain(wake).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, to, input) = self.queue.pop_front().unwrap();
                self.feed(to, vec![input]);
            } else {
                let at = self.peers.iter().position(|peer| peer.wake == Some(next)).unwrap();
                self.feed(at, vec![Input::Wake]);
            }
        }
        self.now = end;
    }

    fn command(&mut self, at: usize, command: Command) -> CommandId {
        self.next_id += 1;
        self.feed(at, vec![Input::Command(self.next_id, command)]);
        self.next_id
    }

    fn ask(&mut self, at: usize, command: Command) -> Result<Reply> {
        let id = self.command(at, command);
        self.replies.remove(&(at, id)).expect("the command was answered at once")
    }

    fn put(&mut self, at: usize, document: &str, body: Value) -> Result<Reply> {
        let (document, condition) = (key(document), Condition::Any);
        self.ask(at, Command::Put { document, body: object(body), condition })
    }

    fn delete(&mut self, at: usize, document: &str) -> Result<Reply> {
        self.ask(at, Command::Delete { document: key(document), condition: Condition::Any })
    }

    fn get(&self, at: usize, document: &str) -> Option<Value> {
        let record = self.peers[at].node.reader().record(&key(document)).unwrap()?;
        (!record.deleted).then(|| serde_json::from_slice(&record.view).unwrap())
    }

    fn ticket(&mut self, at: usize, role: Role, uses: u32, expires_ms: u64) -> Result<Ticket> {
        let terms = Terms { role, expires: self.now.plus_ms(expires_ms), uses };
        let addresses = vec![format!("/memory/{at}/p2p/{}", self.id(at))];
        let Reply::Ticket(ticket) = self.ask(at, Command::Invite { terms, addresses })? else { panic!("no ticket") };
        Ok(*ticket)
    }

    fn redeem(&mut self, at: usize, ticket: Ticket, local: LocalDocuments) -> Result<Reply> {
        let id = self.command(at, Command::Join { ticket: Box::new(ticket), local });
        self.run(25_000);
        self.replies.remove(&(at, id)).expect("a join is answered in 25 s")
    }

    fn join(&mut self, at: usize, by: usize, role: Role) {
        let ticket = self.ticket(by, role, 1, 60_000).unwrap();
        self.redeem(at, ticket, LocalDocuments::Carry).unwrap();
    }

    /// What a peer shows of every document, with its heads.
    fn state(&self, at: usize) -> BTreeMap<String, (bool, Vec<crate::base::ChangeHash>, String)> {
        let mut state = BTreeMap::new();
        let store = &self.peers[at].node.store;
        for (name, _) in store.totals() {
            for (id, record) in store.items(name, b"", None, usize::MAX).unwrap().0 {
                let view = String::from_utf8(record.view.to_vec()).unwrap();
                state.insert(format!("{name}/{id}"), (record.deleted, record.heads, view));
            }
        }
        state
    }

    fn sync_report(&mut self, at: usize) -> SyncReport {
        let Reply::Sync(report) = self.ask(at, Command::Sync).unwrap() else { panic!("no report") };
        *report
    }
}

/// A message as a line of a transcript: what it says, without what is random.
fn describe(message: &Message) -> String {
    let end = |to: &Option<Vec<u8>>| to.as_ref().map_or("..".into(), |to| format!("..{}", String::from_utf8_lossy(to)));
    let vector = |vector: &crate::store::Vector| {
        let sequences: Vec<String> = vector.iter().map(|(_, sequence)| sequence.to_string()).collect();
        sequences.join("+")
    };
    match message {
        Message::Hello(hello) => format!("hello with {} member records", hello.chain.len()),
        Message::Redeem(request) => format!("redeem a ticket for a {}", request.invitation.body.role),
        Message::Welcome(welcome) => format!("welcome with {} member records", welcome.chain.len()),
        Message::Refused(why) => format!("refused: {why}"),
        Message::Members(records) => format!("{} member records", records.len()),
        Message::Roots(roots) => {
            let list = |roots: &[crate::sync::Root]| {
                let list: Vec<String> =
                    roots.iter().map(|root| format!("{} ({})", root.collection, root.count)).collect();
                list.join(", ")
            };
            let part = |(to, names): &(Option<CollectionName>, Names)| {
                let to = to.as_ref().map_or("..".into(), |to| format!("..{to}"));
                match names {
                    Names::Skip => format!("{to} skip"),
                    Names::Fingerprint(_) => format!("{to} fingerprint"),
                    Names::Listed(roots) => format!("{to} all of {}", list(roots)),
                    Names::Differing(roots) => format!("{to} differing {}", list(roots)),
                }
            };
            let parts: Vec<String> = roots.parts.iter().map(part).collect();
            let step = match roots.step {
                RootsStep::Question => "roots?",
                RootsStep::Answer => "roots!",
                RootsStep::Closer => "roots",
            };
            format!("{step} {}", parts.join(", "))
        }
        Message::Ranges(ranges) => {
            let part = |(to, part): &_| match part {
                crate::sync::Part::Skip => format!("{} skip", end(to)),
                crate::sync::Part::Fingerprint(_) => format!("{} fingerprint", end(to)),
                crate::sync::Part::Digests(digests) => format!("{} {} digests", end(to), digests.len()),
            };
            let from = String::from_utf8_lossy(&ranges.from).into_owned();
            let parts: Vec<String> = ranges.parts.iter().map(part).collect();
            format!("ranges of {} from {from:?}: {}", ranges.collection, parts.join(", "))
        }
        Message::Items(items) => {
            let list: Vec<String> = items.items.iter().map(|(id, v)| format!("{id} at {}", vector(v))).collect();
            let unknown: usize = items.unknown.iter().map(|unknown| unknown.digests.len()).sum();
            format!("items of {}: {}; {unknown} of yours unknown here", items.collection, list.join(", "))
        }
        Message::Changes { number, changes } => {
            let list: Vec<String> = changes.iter().map(|change| change.document.to_string()).collect();
            format!("changes {number}: {}", list.join(", "))
        }
        Message::Acknowledged(number) => format!("acknowledged {number}"),
        Message::RunsTwice(places) => format!("you run at {} places", places.len()),
        Message::Ask(ask) => format!("ask for {} versions", ask.versions.len()),
        Message::Told(told) => {
            format!("receipt for {} versions", told.receipt.as_ref().map_or(0, |r| r.body.versions.len()))
        }
    }
}

fn config(number: u8) -> Config {
    Config {
        keypair: Keypair::from_seed([number + 1; 32]),
        seed: [number + 1; 32],
        mesh_name: format!("mesh {number}"),
        synced: number != 9,
        loss: Loss::Nothing,
        fresh: true,
        seeds: Vec::new(),
    }
}

fn open(number: u8, kv: Arc<dyn Kv>, now: Timestamp) -> Node {
    Node::open(config(number), kv, now).unwrap()
}

#[test]
fn two_peers_share_what_is_written_together_and_apart() {
    let mut world = World::new(2);
    world.put(0, "notes/before", json!({"by": "zero"})).unwrap();
    world.put(1, "notes/mine", json!({"by": "one"})).unwrap();
    world.join(1, 0, Role::Writer);
    // What each had before is on both.
    assert_eq!(world.get(1, "notes/before"), Some(json!({"by": "zero"})));
    assert_eq!(world.get(0, "notes/mine"), Some(json!({"by": "one"})));
    // Live: one hop and it is there.
    world.put(0, "notes/live", json!({"n": 1})).unwrap();
    world.run(2 * LATENCY_MS);
    assert_eq!(world.get(1, "notes/live"), Some(json!({"n": 1})));
    // Apart: both edit different fields.
    world.disconnect(0, 1);
    world.put(0, "notes/live", json!({"n": 2, "a": true})).unwrap();
    world.put(1, "notes/live", json!({"n": 1, "b": [1, 2]})).unwrap();
    world.delete(1, "notes/before").unwrap();
    world.run(60_000);
    assert_eq!(world.get(1, "notes/live"), Some(json!({"n": 1, "b": [1, 2]})));
    world.connect(0, 1);
    world.run(2_000);
    assert_eq!(world.get(0, "notes/live"), Some(json!({"n": 2, "a": true, "b": [1, 2]})));
    assert_eq!(world.get(0, "notes/before"), None);
    assert_eq!(world.state(0), world.state(1));
    let report = world.sync_report(0);
    let standing = &report.collections[0].peers[0];
    assert!(standing.connected && standing.standing.equal && standing.standing.their_count == Some(3), "{report:?}");
}

/// The protocol as a conversation, held in `tests/scripts/conversation.txt`. When a change of the protocol is
/// meant, `AEROLITHSDB_WRITE_SCRIPTS=1 cargo test conversation` writes it anew, to be read in the diff.
#[test]
fn a_peer_that_does_not_answer_is_shown_as_such_until_it_does_or_is_gone() {
    let mut world = World::new(2);
    world.put(0, "notes/a", json!({})).unwrap();
    world.join(1, 0, Role::Writer);
    world.run(2_000);
    let other = world.id(1);
    let shown = |world: &mut World| {
        let Ok(Reply::Status(status)) = world.ask(0, Command::Status) else { panic!("a status") };
        let Ok(Reply::Sync(sync)) = world.ask(0, Command::Sync) else { panic!("a report") };
        let Ok(Reply::Members(members)) = world.ask(0, Command::Members) else { panic!("members") };
        let member = members.into_iter().find(|member| member.peer == other).unwrap();
        let standing = sync.collections[0].peers[0].no_answer_since;
        assert_eq!(member.no_answer_since, standing);
        (status.neighbours.first().map(|neighbour| neighbour.no_answer_since), standing)
    };
    assert_eq!(shown(&mut world), (Some(None), None));
    let since = Timestamp(world.now.0 - 5_500);
    world.feed(0, vec![Input::Unanswered(other, 5_500)]);
    assert_eq!(shown(&mut world), (Some(Some(since)), Some(since)));
    world.feed(0, vec![Input::Answered(other)]);
    assert_eq!(shown(&mut world), (Some(None), None));
    world.feed(0, vec![Input::Unanswered(other, 5_500), Input::Disconnected(other)]);
    assert_eq!(shown(&mut world), (None, None));
}

#[test]
fn the_conversation_of_two_peers_reads_as_written() {
    let mut world = World::new(2);
    world.gossip = false;
    world.transcript = Some(String::new());
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.put(1, "notes/b", json!({"n": 1})).unwrap();
    world.scene("1 joins 0 with a ticket; each has a document of its own", |world| world.join(1, 0, Role::Writer));
    world.scene("0 writes one more", |world| _ = world.put(0, "notes/c", json!({"n": 1})).unwrap());
    world.scene("both edit while apart; 0 edits a document of 1 as well", |world| {
        world.disconnect_all();
        world.put(0, "notes/a", json!({"n": 2})).unwrap();
        world.put(0, "notes/b", json!({"n": 2})).unwrap();
        world.put(1, "notes/b", json!({"n": 1, "m": 1})).unwrap();
        world.put(1, "notes/d", json!({"n": 1})).unwrap();
        world.connect(0, 1);
    });
    world.scene("nothing changed while apart", |world| {
        world.disconnect_all();
        world.connect(0, 1);
    });
    world.scene("0 changed two of three hundred while apart", |world| {
        for n in 0..300 {
            world.put(0, &format!("many/{n:03}"), json!({"n": n})).unwrap();
        }
        world.run(5_000);
        world.disconnect_all();
        world.put(0, "many/042", json!({"n": 0})).unwrap();
        world.put(0, "many/217", json!({"n": 0})).unwrap();
        world.say("...\n");
        world.connect(0, 1);
    });
    let mut said = world.transcript.take().unwrap();
    // The three hundred documents themselves are of no interest.
    said = said.lines().filter(|line| line.len() < 1_000).map(|line| format!("{line}\n")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/conversation.txt");
    if std::env::var_os("AEROLITHSDB_WRITE_SCRIPTS").is_some() {
        std::fs::write(path, &said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(path).unwrap());
    assert_eq!(world.state(0), world.state(1));
}

#[test]
fn peers_in_sync_learn_it_in_one_round_trip_and_few_bytes() {
    let mut world = World::mesh(2);
    for n in 0..3_000 {
        world.put(0, &format!("docs/{n:05}"), json!({"n": n})).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
    world.disconnect_all();
    (world.sent_bytes, world.sent) = (0, BTreeMap::new());
    world.connect(0, 1);
    world.run(300);
    assert_eq!(world.sent, BTreeMap::from([("hello", 2), ("roots", 2)]));
    assert!(world.sent_bytes < 4_096, "{} bytes", world.sent_bytes);
}

#[test]
fn catching_up_costs_what_changed() {
    let mut world = World::mesh(2);
    for n in 0..2_000 {
        world.put(0, &format!("docs/{n:05}"), json!({"n": n, "text": "some more text"})).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    world.disconnect_all();
    for n in 0..20 {
        world.put(0, &format!("docs/{:05}", n * 97), json!({"n": n, "text": "edited"})).unwrap();
    }
    (world.sent_bytes, world.sent) = (0, BTreeMap::new());
    world.connect(0, 1);
    world.run(3_000);
    assert_eq!(world.state(0), world.state(1));
    assert!(world.sent_bytes < 30_000, "{} bytes in {:?}", world.sent_bytes, world.sent);
}

#[test]
fn tickets_that_do_not_let_in_say_why() {
    let mut world = World::new(4);
    let once = world.ticket(0, Role::Writer, 1, 60_000).unwrap();
    world.redeem(1, once.clone(), LocalDocuments::Leave).unwrap();
    let used = world.redeem(2, once, LocalDocuments::Leave).unwrap_err();
    assert!(matches!(&used, Error::Denied(why) if why.contains("used up")), "{used}");
    let short = world.ticket(0, Role::Writer, 1, 1_000).unwrap();
    world.run(2_000);
    let expired = world.redeem(2, short, LocalDocuments::Leave).unwrap_err();
    assert!(matches!(&expired, Error::Denied(why) if why.contains("expired")), "{expired}");
    let denied = world.ticket(1, Role::Writer, 1, 1_000).unwrap_err();
    assert!(matches!(denied, Error::Denied(_)), "{denied}");
    let nobody = world.ticket(0, Role::Writer, 1, 60_000).unwrap();
    world.peers.swap(0, 3);
    world.links.clear();
    let gone = Keypair::from_seed([99; 32]);
    world.peers[3].node.keypair = gone;
    let unreachable = world.redeem(2, nobody, LocalDocuments::Leave).unwrap_err();
    assert!(matches!(&unreachable, Error::Unavailable(why) if why.contains("nobody there")), "{unreachable}");
}

#[test]
fn a_ticket_for_a_higher_role_raises_that_of_a_member() {
    let mut world = World::new(3);
    world.join(1, 0, Role::Reader);
    world.join(2, 0, Role::Writer);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.run(5_000);
    assert!(matches!(world.put(1, "notes/b", json!({"n": 1})), Err(Error::Denied(_))));
    for role in [Role::Writer, Role::Admin] {
        let ticket = world.ticket(0, role, 1, 60_000).unwrap();
        let Ok(Reply::Entered { role: now, carried, .. }) = world.redeem(1, ticket, LocalDocuments::Carry) else {
            panic!("it is not raised to {role}");
        };
        assert_eq!((now, carried), (Some(role), 0));
        world.put(1, &format!("notes/{role}"), json!({"n": 1})).unwrap();
    }
    world.run(5_000);
    // Everybody knows, and takes what it writes and whom it lets in.
    assert!(
        (0..3).all(|at| world.peers[at]
            .node
            .member_report()
            .iter()
            .any(|m| m.peer == world.id(1) && m.role == Role::Admin))
    );
    assert_eq!(world.state(0), world.state(1));
    assert!(world.get(0, "notes/writer").is_some());
    world.add(3);
    world.join(3, 1, Role::Writer);
    assert_eq!(world.peers[0].node.member_report().len(), 4);
    // Equal and lower ones change nothing, and say so.
    for role in [Role::Admin, Role::Reader] {
        let ticket = world.ticket(0, role, 1, 60_000).unwrap();
        let refused = world.redeem(1, ticket, LocalDocuments::Carry).unwrap_err();
        let said = format!("as admin, and the ticket is for a {role}");
        assert!(matches!(&refused, Error::Conflict(why) if why.contains(&said)), "{refused}");
    }
}

#[test]
fn a_ticket_that_is_not_taken_costs_a_member_neither_its_role_nor_its_link() {
    let mut world = World::new(3);
    world.join(1, 0, Role::Writer);
    world.join(2, 0, Role::Writer);
    let raise = world.ticket(0, Role::Admin, 1, 60_000).unwrap();
    world.redeem(1, raise.clone(), LocalDocuments::Carry).unwrap();
    for linked in [true, false] {
        if !linked {
            world.disconnect_all();
            world.cut.clear();
        }
        let used = world.redeem(2, raise.clone(), LocalDocuments::Carry).unwrap_err();
        assert!(matches!(&used, Error::Denied(why) if why.contains("used up")), "{used}");
        world.put(2, &format!("notes/{linked}"), json!({"n": 1})).unwrap();
        world.run(5_000);
        assert!(world.neighbours(2).contains(&0));
        assert!(world.get(0, &format!("notes/{linked}")).is_some());
    }
}

#[test]
fn a_reader_reads_and_cannot_write() {
    let mut world = World::new(2);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.join(1, 0, Role::Reader);
    assert_eq!(world.get(1, "notes/a"), Some(json!({"n": 1})));
    assert!(matches!(world.put(1, "notes/a", json!({"n": 2})), Err(Error::Denied(_))));
    assert!(matches!(world.delete(1, "notes/a"), Err(Error::Denied(_))));
}

#[test]
fn a_peer_of_another_mesh_gets_nothing() {
    let mut world = World::new(2);
    world.put(0, "notes/secret", json!({"n": 1})).unwrap();
    world.connect(0, 1);
    world.run(60_000);
    assert_eq!(world.state(1), BTreeMap::new());
    assert!(!world.sent.contains_key("changes") && !world.sent.contains_key("roots"), "{:?}", world.sent);
    assert!(world.links.is_empty());
}

#[test]
fn news_travel_through_a_peer_in_the_middle_even_without_gossip() {
    let mut world = World::mesh(3);
    world.gossip = false;
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(2_000);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.run(5_000);
    assert_eq!(world.get(2, "notes/a"), Some(json!({"n": 1})));
}

#[test]
fn a_change_waits_for_its_author_to_be_known() {
    let mut world = World::mesh(3);
    // Peer 2 was let in while 1 was away: 1 does not know it yet, and hears its change from 0 first.
    world.add(3);
    world.join(3, 0, Role::Writer);
    world.disconnect_all();
    let change = {
        world.put(3, "notes/new", json!({"n": 1})).unwrap();
        let reader = world.peers[3].node.reader();
        let record = reader.record(&key("notes/new")).unwrap().unwrap();
        let store = &mut world.peers[3].node.store;
        let mut cursor = store.missing(&key("notes/new"), &record, &[]).unwrap();
        store.stream(&mut cursor, 1_000).unwrap()
    };
    world.connect(1, 2);
    world.run(1_000);
    let from = world.id(2);
    world.feed(1, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes: change }))]);
    assert_eq!(world.get(1, "notes/new"), None);
    assert_eq!(world.sync_report(1).letters[0].reason, Reason::AuthorUnknown);
    world.connect(0, 1);
    world.run(2_000);
    assert_eq!(world.get(1, "notes/new"), Some(json!({"n": 1})));
    assert_eq!(world.sync_report(1).letters, []);
}

#[test]
fn changes_without_their_past_wait_and_are_asked_for() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run(1_000);
    world.gossip = false;
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.gossip = true;
    // Only the second change is heard of.
    world.put(0, "notes/a", json!({"n": 2})).unwrap();
    world.run(4 * LATENCY_MS);
    assert_eq!(world.get(1, "notes/a"), Some(json!({"n": 2})));
    assert_eq!(world.sync_report(1).letters, []);
}

#[test]
fn a_restart_keeps_everything_and_goes_on() {
    let mut world = World::mesh(2);
    world.put(1, "notes/a", json!({"n": 1})).unwrap();
    world.restart(1);
    world.put(1, "notes/a", json!({"n": 2})).unwrap();
    world.connect(0, 1);
    world.run(2_000);
    assert_eq!(world.get(0, "notes/a"), Some(json!({"n": 2})));
    assert_eq!(world.state(0), world.state(1));
}

#[test]
fn forged_changes_are_dropped_with_their_sender() {
    let mut world = World::mesh(3);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    let record = world.peers[0].node.reader().record(&key("notes/a")).unwrap().unwrap();
    let store = &mut world.peers[0].node.store;
    let mut cursor = store.missing(&key("notes/a"), &record, &[]).unwrap();
    let mut changes = store.stream(&mut cursor, 1_000).unwrap();
    changes[0].document = key("notes/b");
    world.connect(1, 2);
    world.run(1_000);
    let from = world.id(2);
    world.feed(1, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes }))]);
    assert_eq!(world.state(1), BTreeMap::new());
    assert!(!world.links.contains(&(1, 2)));
    assert_eq!(world.sync_report(1).dropped, BTreeMap::from([("bad_signature", 1)]));
}

#[test]
fn a_damaged_document_comes_back_from_a_peer() {
    let mut world = World::mesh(2);
    for n in 0..50 {
        world.put(0, &format!("docs/{n}"), json!({"n": n})).unwrap();
    }
    world.connect(0, 1);
    world.run(2_000);
    let before = world.state(1);
    world.disconnect_all();
    world.peers[1].node.store.damage_for_test(&key("docs/7"));
    assert!(world.peers[1].node.reader().record(&key("docs/7")).is_err());
    assert!(world.get(1, "docs/8").is_some());
    world.command(1, Command::Damaged(key("docs/7")));
    assert_eq!(world.sync_report(1).damaged, [key("docs/7")]);
    world.connect(0, 1);
    world.run(3_000);
    assert_eq!(world.get(1, "docs/7"), Some(json!({"n": 7})));
    assert_eq!(world.state(1), before);
    assert_eq!(world.sync_report(1).damaged, []);
    assert!(world.sync_report(1).collections[0].peers[0].standing.equal);
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8, u8, u8),
    Delete(usize, u8),
    Connect(usize, usize),
    Disconnect(usize, usize),
    Restart(usize),
    Run(u64),
    Gossip(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4, 0u8..6, 0u8..4, any::<u8>()).prop_map(|(at, id, field, value)| Step::Put(at, id, field, value)),
        1 => (0usize..4, 0u8..6).prop_map(|(at, id)| Step::Delete(at, id)),
        2 => (0usize..4, 0usize..4).prop_map(|(a, b)| Step::Connect(a, b)),
        2 => (0usize..4, 0usize..4).prop_map(|(a, b)| Step::Disconnect(a, b)),
        1 => (0usize..4).prop_map(Step::Restart),
        3 => (1u64..3_000).prop_map(Step::Run),
        1 => any::<bool>().prop_map(Step::Gossip),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_peers_converge_once_they_are_connected(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::mesh(4);
        for step in steps {
            match step {
                Step::Put(at, id, field, value) => {
                    let document = format!("docs/{id}");
                    let mut body = world.get(at, &document).unwrap_or_else(|| json!({}));
                    body[format!("f{field}")] = json!(value);
                    world.put(at, &document, body).unwrap();
                }
                Step::Delete(at, id) => _ = world.delete(at, &format!("docs/{id}")),
                Step::Connect(a, b) => world.connect(a, b),
                Step::Disconnect(a, b) => world.disconnect(a, b),
                Step::Restart(at) => world.restart(at),
                Step::Run(ms) => world.run(ms),
                Step::Gossip(on) => world.gossip = on,
            }
        }
        for at in 0..3 {
            world.connect(at, at + 1);
        }
        world.run(60_000);
        let mesh = world.peers[0].node.mesh();
        let state = world.state(0);
        for at in 0..4 {
            prop_assert_eq!(&world.state(at), &state, "peer {}", at);
            prop_assert_eq!(world.sync_report(at).letters, vec![]);
            for document in state.keys() {
                prop_assert!(world.peers[at].node.store.audit_document(mesh, &key(document)).is_ok());
            }
            let name = "docs".parse().unwrap();
            let store = &world.peers[at].node.store;
            prop_assert_eq!(store.range(&name, b"", Some(b"\xff")).unwrap(), store.total(&name));
        }
    }
}

#[test]
fn a_member_that_floods_wastes_its_own_quota_only() {
    let mut world = World::mesh(3);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(5_000);
    world.sent = BTreeMap::new();
    let from = world.id(2);
    let parts = vec![(None, Names::Listed(Vec::new()))];
    let ask = |salt| {
        Message::Roots(crate::sync::Roots { salt, step: RootsStep::Question, documents: 0, parts: parts.clone() })
    };
    for salt in 0..10_000 {
        world.feed(0, vec![Input::Received(from, Box::new(ask(salt)))]);
    }
    assert!(world.sent["roots"] <= 40, "{:?}", world.sent);
    // The others are served as before.
    world.put(0, "notes/b", json!({"n": 1})).unwrap();
    world.run(1_000);
    assert_eq!(world.get(1, "notes/b"), Some(json!({"n": 1})));
}

/// Two peers with the same 40 documents, not connected.
fn two_with_the_same_documents() -> World {
    let mut world = World::mesh(2);
    for n in 0..40 {
        world.put(0, &format!("docs/{n}"), json!({"n": n})).unwrap();
    }
    world.put(0, "docs/7", json!({"n": 7, "again": true})).unwrap();
    world.connect(0, 1);
    world.run(2_000);
    assert_eq!(world.state(0), world.state(1));
    world.disconnect_all();
    world
}

fn sums_are_right(world: &World, at: usize) {
    let (store, docs) = (&world.peers[at].node.store, "docs".parse().unwrap());
    assert_eq!(store.total(&docs), store.recount_for_test(&docs));
    for n in 0..40 {
        let (middle, id) = (n.to_string(), format!("docs/{n}"));
        let lower = store.range(&docs, b"", Some(middle.as_bytes())).unwrap();
        let upper = store.range(&docs, middle.as_bytes(), None).unwrap();
        assert_eq!(lower.plus(upper), store.total(&docs), "{id}");
    }
}

#[test]
fn a_log_that_does_not_parse_under_an_intact_record_is_healed_by_a_merge() {
    let mut world = two_with_the_same_documents();
    world.restart(1);
    let garble = |entry: &mut crate::store::LoggedRun| entry.run = Run::of(b"no change".as_slice().into());
    world.peers[1].node.store.damage_log_for_test(&key("docs/7"), garble);
    world.put(0, "docs/7", json!({"n": 8})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.get(1, "docs/7"), Some(json!({"n": 8})));
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(world.sync_report(1).damaged, []);
    sums_are_right(&world, 1);
}

#[test]
fn what_is_intact_of_a_damaged_log_outlives_the_repair_though_nobody_else_has_it() {
    let mut world = two_with_the_same_documents();
    world.disconnect_all();
    world.put(1, "docs/7", json!({"n": 7, "again": true, "mine": 1})).unwrap();
    world.restart(1);
    let garble = |entry: &mut crate::store::LoggedRun| entry.run = Run::of(b"no change".as_slice().into());
    world.peers[1].node.store.damage_log_for_test(&key("docs/7"), garble);
    world.put(0, "docs/7", json!({"n": 8, "again": true})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.get(1, "docs/7"), Some(json!({"n": 8, "again": true, "mine": 1})));
    assert_eq!(world.state(0), world.state(1));
    assert_eq!((world.sync_report(1).damaged, world.sync_report(1).letters), (vec![], vec![]));
    sums_are_right(&world, 1);
}

#[test]
fn a_writer_that_was_healed_with_less_than_it_had_written_forks_nothing() {
    let mut world = World::mesh(3);
    world.put(1, "docs/a", json!({"n": 1})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    world.disconnect_all();
    world.put(1, "docs/a", json!({"n": 2})).unwrap();
    world.connect(1, 2);
    world.run(5_000);
    world.disconnect_all();
    world.peers[1].node.store.damage_for_test(&key("docs/a"));
    world.restart(1);
    world.command(1, Command::Damaged(key("docs/a")));
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.get(1, "docs/a"), Some(json!({"n": 1})));
    world.restart(1);
    world.put(1, "docs/a", json!({"n": 1, "more": true})).unwrap();
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(10_000);
    assert_eq!(world.get(1, "docs/a"), Some(json!({"n": 2, "more": true})));
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(world.state(1), world.state(2));
}

#[test]
fn a_document_that_was_found_damaged_is_still_known_as_such_after_a_restart() {
    let mut world = two_with_the_same_documents();
    world.restart(1);
    let garble = |entry: &mut crate::store::LoggedRun| entry.run = Run::of(b"no change".as_slice().into());
    world.peers[1].node.store.damage_log_for_test(&key("docs/7"), garble);
    assert!(matches!(world.put(1, "docs/7", json!({})), Err(Error::Corrupt(_))));
    sums_are_right(&world, 1);
    for _ in 0..2 {
        world.restart(1);
        assert_eq!(world.sync_report(1).damaged, [key("docs/7")]);
        assert_eq!(world.peers[1].node.store.total(&"docs".parse().unwrap()).count, 39);
        sums_are_right(&world, 1);
    }
    assert_eq!(world.get(1, "docs/7"), Some(json!({"n": 7, "again": true})));
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
    world.restart(1);
    assert_eq!(world.sync_report(1).damaged, []);
    sums_are_right(&world, 1);
}

#[test]
fn a_join_that_was_cut_off_never_was_and_can_be_made_again() {
    let mut world = World::new(2);
    world.put(1, "notes/mine", json!({"n": 1})).unwrap();
    let mesh = world.peers[1].node.mesh();
    let store = &mut world.peers[1].node.store;
    store.begin_space().unwrap();
    store.put_fact("secret", &[9u8; 32]).unwrap();
    store.flush().unwrap();
    world.restart(1);
    assert_eq!(world.peers[1].node.mesh(), mesh);
    assert_eq!(world.get(1, "notes/mine"), Some(json!({"n": 1})));
    world.join(1, 0, Role::Writer);
    assert_eq!(world.peers[1].node.context(), world.peers[0].node.context());
    assert_eq!(world.get(0, "notes/mine"), Some(json!({"n": 1})));
    world.restart(1);
    assert_eq!(world.peers[1].node.context(), world.peers[0].node.context());
}
