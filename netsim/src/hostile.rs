//! Members that do what no honest peer does. They run the node that ships, so that they are let in and hear of
//! everything; what they send is changed on its way out, and other things are sent beside it.

use aerolithsdb::base::{ActorId, DocumentKey, Encode, GrantId, Hash, Hlc, Incarnation, MeshId, Timestamp};
use aerolithsdb::document::{Change, Document, Envelope, Run, Unchecked};
use aerolithsdb::identity::Keypair;
use aerolithsdb::node::Node;
use aerolithsdb::store::Reader;
use aerolithsdb::sync::{Hello, Message, Names, Part, Ranges, Roots, Step};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};

use crate::scenario::Deed;

/// Questions of one flood.
const FLOOD: usize = 200;
/// Frames that are sent again and again.
const REPLAYED_MAX: usize = 64;
/// Documents of a collection among which those are looked for in which it equivocates, and how many it takes.
const PAGE: usize = 100;
const TARGETS: usize = 2;

/// One hostile member.
#[derive(Debug)]
pub struct Villain {
    deeds: Vec<Deed>,
    /// Frames that it sent before.
    sent: Vec<Bytes>,
    number: u64,
}

impl Villain {
    /// A member that does these things.
    #[must_use]
    pub fn new(deeds: Vec<Deed>) -> Self {
        let deeds = if deeds.is_empty() { Deed::ALL.to_vec() } else { deeds };
        Self { deeds, sent: Vec::new(), number: 1 << 32 }
    }

    fn does(&self, deed: Deed) -> bool {
        self.deeds.contains(&deed)
    }

    /// What it sends instead of a message.
    pub fn tamper(&mut self, rng: &mut StdRng, message: Message) -> Vec<Message> {
        if let Message::Changes { .. } = &message
            && self.sent.len() < REPLAYED_MAX
        {
            self.sent.push(message.to_bytes().into());
        }
        match message {
            Message::Changes { .. } if self.does(Deed::Withhold) && rng.random_bool(0.5) => Vec::new(),
            Message::Changes { number, mut changes } => {
                let forges = self.does(Deed::Forge) && rng.random_bool(0.1);
                if let Some(change) = changes.last_mut().filter(|_| forges) {
                    change.signature[rng.random_range(0..64)] ^= 1;
                }
                vec![Message::Changes { number, changes }]
            }
            Message::Roots(mut roots) => {
                if self.does(Deed::Lie) && rng.random_bool(0.5) {
                    lie(rng, &mut roots);
                }
                vec![Message::Roots(roots)]
            }
            Message::Ranges(mut ranges) => {
                if self.does(Deed::Lie) && rng.random_bool(0.5) {
                    garble(rng, &mut ranges);
                }
                vec![Message::Ranges(ranges)]
            }
            Message::Hello(hello) if self.does(Deed::Pose) && rng.random_bool(0.3) => vec![pose(rng, *hello)],
            honest @ (Message::Hello(_)
            | Message::Redeem(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Members(_)
            | Message::Items(_)
            | Message::Acknowledged(_)
            | Message::Ask(_)
            | Message::Told(_)
            | Message::RunsTwice(_)) => vec![honest],
        }
    }

    /// Frames that it sends of its own accord, each with the number of the neighbour that gets it. The node is its
    /// own, and the keypair the node's.
    pub fn strike(
        &mut self,
        rng: &mut StdRng,
        node: &Node,
        keypair: &Keypair,
        neighbours: usize,
        at: Timestamp,
    ) -> Vec<(usize, Bytes)> {
        if neighbours == 0 {
            return Vec::new();
        }
        let to = rng.random_range(0..neighbours);
        let deed = self.deeds[rng.random_range(0..self.deeds.len())];
        if deed == Deed::Equivocate {
            return self.equivocate(rng, node, keypair, neighbours, at).unwrap_or_default();
        }
        let messages: Vec<Bytes> = match deed {
            Deed::Forge => vec![self.frame(vec![forged(rng, node.mesh(), at)])],
            Deed::Replay => self.sent.clone(),
            Deed::Bomb => {
                let bomb = |rng: &mut StdRng| {
                    let mut change = forged(rng, node.mesh(), at);
                    change.run = Run::of(vec![rng.random(); rng.random_range(1..1 << 20)].into());
                    change
                };
                vec![self.frame(vec![bomb(rng)]), vec![rng.random(); 100].into(), vec![2, 8, 0].into()]
            }
            Deed::Lie => {
                let mut roots = question(rng);
                lie(rng, &mut roots);
                vec![Message::Roots(roots).to_bytes().into()]
            }
            Deed::Withhold | Deed::Equivocate => Vec::new(),
            Deed::Flood => (0..FLOOD).map(|_| Message::Roots(question(rng)).to_bytes().into()).collect(),
            Deed::Pose => {
                let hello = Hello { mesh: node.mesh(), chain: Vec::new(), members: Hash([7; 32]), at };
                vec![pose(rng, hello).to_bytes().into()]
            }
        };
        messages.into_iter().map(|bytes| (to, bytes)).collect()
    }

    /// Two changes of one document under one sequence number: each neighbour gets one of them.
    fn equivocate(
        &mut self,
        rng: &mut StdRng,
        node: &Node,
        keypair: &Keypair,
        neighbours: usize,
        at: Timestamp,
    ) -> Option<Vec<(usize, Bytes)>> {
        let document = target(rng, &node.reader())?;
        let incarnation = Incarnation(rng.random());
        let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
        let mut sides = Vec::new();
        for side in 0..2u64 {
            let opened = node.reader().open_document(&document).ok()??;
            let mut body = opened.document.fields();
            body.insert("side".into(), json!(side));
            body.insert("said".into(), json!(rng.random::<u32>()));
            let time = Hlc::from_physical(at.plus_ms(rng.random_range(0..2)));
            let mut opened = opened.document;
            let change = opened.replace(actor, time, &body).ok()??;
            let grant = GrantId(rng.random());
            let signed = Envelope::sign(keypair, node.mesh(), document.clone(), incarnation, grant, change);
            sides.push(signed.to_unchecked());
        }
        let turn = rng.random_range(0..2usize);
        Some((0..neighbours).map(|to| (to, self.frame(vec![sides[(to + turn) % 2].clone()]))).collect())
    }

    fn frame(&mut self, changes: Vec<Unchecked>) -> Bytes {
        self.number += 1;
        Message::Changes { number: self.number, changes }.to_bytes().into()
    }
}

/// One of the first documents of a collection, of those that may hold anything.
fn target(rng: &mut StdRng, reader: &Reader) -> Option<DocumentKey> {
    let collections = reader.collections().ok()?;
    let (collection, _) = collections.get(rng.random_range(0..collections.len().max(1)))?;
    let page = reader.page(collection, None, PAGE).ok()?;
    let ids: Vec<_> =
        page.documents.into_iter().map(|(id, _)| id).filter(|id| id.as_str().starts_with("doc")).collect();
    let id = ids.get(rng.random_range(0..ids.len().clamp(1, TARGETS)))?;
    Some(DocumentKey::new(collection.clone(), id.clone()))
}

/// A change of a peer that is no member, or with a signature that is not its author's.
fn forged(rng: &mut StdRng, mesh: MeshId, at: Timestamp) -> Unchecked {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let (keypair, incarnation) = (Keypair::from_seed(seed), Incarnation(rng.random()));
    let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
    let body: Map<String, Value> = serde_json::from_value(json!({"forged": true})).unwrap_or_default();
    let (_, change): (Document, Change) =
        Document::create(actor, Hlc::from_physical(at), &body).expect("the document is small");
    let parse = "the name is valid";
    let id = format!("forged-{}", rng.random_range(0..1_000u32)).parse().expect(parse);
    let document = DocumentKey::new("collection-0".parse().expect(parse), id);
    let grant = GrantId(rng.random());
    let mut change = Envelope::sign(&keypair, mesh, document, incarnation, grant, change).to_unchecked();
    if rng.random_bool(0.5) {
        change.signature[0] ^= 1;
    }
    change
}

/// A question of somebody who has nothing.
fn question(rng: &mut StdRng) -> Roots {
    Roots { salt: rng.random(), step: Step::Question, documents: 0, parts: vec![(None, Names::Listed(Vec::new()))] }
}

fn lie(rng: &mut StdRng, roots: &mut Roots) {
    roots.documents = rng.random();
    for (_, names) in &mut roots.parts {
        match names {
            Names::Skip => {}
            Names::Fingerprint(fingerprint) => *fingerprint = rng.random(),
            Names::Listed(listed) | Names::Differing(listed) => {
                if listed.is_empty() {
                    let name = "collection-0".parse().expect("the name is valid");
                    listed.push(aerolithsdb::sync::Root { collection: name, count: 7, fingerprint: rng.random() });
                }
                for root in listed {
                    root.count = rng.random();
                    root.fingerprint = rng.random();
                }
            }
        }
    }
}

fn garble(rng: &mut StdRng, ranges: &mut Ranges) {
    for (_, part) in &mut ranges.parts {
        *part = match rng.random_range(0..3) {
            0 => Part::Skip,
            1 => Part::Fingerprint(rng.random()),
            _ => Part::Digests((0..rng.random_range(0..50)).map(|_| rng.random()).collect()),
        };
    }
}

fn pose(rng: &mut StdRng, mut hello: Hello) -> Message {
    if rng.random_bool(0.5) {
        hello.mesh = MeshId(rng.random());
    } else {
        hello.chain.clear();
    }
    Message::Hello(Box::new(hello))
}
