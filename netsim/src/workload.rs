//! What programs write: drawn from the seed, within what the scenario says.
//!
//! Documents are of four kinds, told apart by the beginning of their ids, so that what was written can be added up at
//! the end: `doc` is replaced, changed and deleted; `counter` is only counted up; `text` is only typed into; `list` is
//! only appended to; `paper` is typed key by key by one peer, as a real paper was.

use std::collections::BTreeMap;

use aerolithsdb::Patch;
use aerolithsdb::base::DocumentKey;
use aerolithsdb::index::Definition;
use aerolithsdb::node::{Absent, Command, Condition};
use aerolithsdb::store::Reader;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use crate::data;
use crate::expected::Deed;
use crate::scenario::Workload;

/// Documents of one bulk load.
const BULK: usize = 40;
/// Keystrokes at a time.
const KEYS: usize = 12;
/// Collections that documents are spread over.
const COLLECTIONS: usize = 3;

/// A write to be made.
#[derive(Debug)]
pub struct Write {
    /// The document.
    pub document: DocumentKey,
    /// The command.
    pub command: Command,
    /// What it adds to the document.
    pub deed: Deed,
}

/// Makes writes.
#[derive(Debug)]
pub struct Writer {
    workload: Workload,
    bodies: &'static [String],
    /// How far each host has got with its paper.
    papers: BTreeMap<usize, usize>,
    /// Numbers everything that is appended and created.
    next: u64,
}

impl Writer {
    /// Makes writes as the workload says.
    #[must_use]
    pub fn new(workload: &Workload) -> Self {
        Self { workload: workload.clone(), bodies: data::documents(workload.data), papers: BTreeMap::new(), next: 0 }
    }

    /// What is written before the work begins: texts and lists that two peers make at the same time are two, of which
    /// one shows, so one peer makes them.
    pub fn prepare(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for number in 0..self.workload.documents {
            self.next += 1;
            let text = json!({"$text": {"text": {"position": 0, "insert": "."}}});
            writes.push(patch(key("text", number), text, Deed::Type(1), Absent::Create));
            let list = json!({"$push": {"items": self.next}});
            writes.push(patch(key("list", number), list, Deed::Push(self.next), Absent::Create));
        }
        writes
    }

    /// What a program at a host writes next.
    pub fn draw(&mut self, rng: &mut StdRng, host: usize, reader: &Reader) -> Vec<Write> {
        let mix = &self.workload.mix;
        let weights = mix.weights();
        let mut at = rng.random_range(0.0..weights.iter().sum::<f64>());
        let kind = weights.iter().position(|weight| {
            at -= weight;
            at < 0.0
        });
        match kind {
            Some(1) => vec![self.set(rng)],
            Some(2) => vec![self.delete(rng)],
            Some(3) => vec![self.count(rng)],
            Some(4) => vec![self.text(rng, reader)],
            Some(5) => vec![self.push(rng)],
            Some(6) => (0..BULK).map(|_| self.create(rng)).collect(),
            Some(7) => self.keys(host),
            _ => vec![self.put(rng)],
        }
    }

    /// A new document.
    pub fn create(&mut self, rng: &mut StdRng) -> Write {
        self.next += 1;
        let document = key("new", self.next as usize);
        self.replace(rng, document)
    }

    /// A change of one field of a document that is there, or a new document.
    pub fn set(&self, rng: &mut StdRng) -> Write {
        let document = self.any(rng, "doc");
        let field = format!("f{}", rng.random_range(0..8));
        let value = rng.random_range(0..1_000_000u64);
        patch(document, json!({"$set": {field: value}}), Deed::Edit, Absent::Create)
    }

    fn put(&self, rng: &mut StdRng) -> Write {
        let document = self.any(rng, "doc");
        self.replace(rng, document)
    }

    fn replace(&self, rng: &mut StdRng, document: DocumentKey) -> Write {
        let body = match self.bodies.len() {
            0 => generated(rng),
            many => data::parse(&self.bodies[rng.random_range(0..many)]),
        };
        let command = Command::Put { document: document.clone(), body, condition: Condition::Any };
        Write { document, command, deed: Deed::Edit }
    }

    fn delete(&self, rng: &mut StdRng) -> Write {
        let document = self.any(rng, "doc");
        let command = Command::Delete { document: document.clone(), condition: Condition::Any };
        Write { document, command, deed: Deed::Delete }
    }

    fn count(&self, rng: &mut StdRng) -> Write {
        let by = rng.random_range(1..10u64);
        let document = self.any(rng, "counter");
        patch(document, json!({"$inc": {"n": by}}), Deed::Count(by), Absent::Create)
    }

    /// Texts and lists are there before, and are not made anew where a disk has lost them.
    fn text(&self, rng: &mut StdRng, reader: &Reader) -> Write {
        let document = self.any(rng, "text");
        let length = length_of_text(reader, &document);
        let word: String = (0..rng.random_range(1..12)).map(|_| rng.random_range('a'..='z')).collect();
        let position = rng.random_range(0..=length);
        let typed = Deed::Type(word.len() as u64);
        patch(document, json!({"$text": {"text": {"position": position, "insert": word}}}), typed, Absent::Refuse)
    }

    fn push(&mut self, rng: &mut StdRng) -> Write {
        self.next += 1;
        let what = self.next;
        patch(self.any(rng, "list"), json!({"$push": {"items": what}}), Deed::Push(what), Absent::Refuse)
    }

    /// The next keystrokes of the paper that this host types. What it typed may be gone with its disk, and then
    /// positions do not fit: such a keystroke is refused.
    fn keys(&mut self, host: usize) -> Vec<Write> {
        let paper = data::paper().unwrap_or_default();
        let done = self.papers.entry(host).or_default();
        let keys = (*done..paper.len()).take(KEYS).map(|at| (at, paper[at]));
        let writes: Vec<Write> = keys
            .map(|(at, stroke)| {
                let splice = match stroke.insert {
                    Some(character) => json!({"position": stroke.position, "insert": character}),
                    None => json!({"position": stroke.position, "delete": 1}),
                };
                // The first one makes the text.
                let absent = if at == 0 { Absent::Create } else { Absent::Refuse };
                patch(key("paper", host), json!({"$text": {"text": splice}}), Deed::Key(at), absent)
            })
            .collect();
        *done += writes.len();
        writes
    }

    /// A document of a kind; the first ones more often.
    fn any(&self, rng: &mut StdRng, kind: &str) -> DocumentKey {
        key(kind, uneven(rng, self.workload.documents, self.workload.hot))
    }
}

/// A number below `many`, the first ones more often: Zipf's distribution with an exponent, 0 for all alike.
pub(crate) fn uneven(rng: &mut StdRng, many: usize, exponent: f64) -> usize {
    let end = many as f64 + 1.0;
    let at: f64 = rng.random_range(0.0..1.0);
    // The inverse of the distribution function of a continuous Zipf distribution.
    let rank = if (exponent - 1.0).abs() < 1e-6 {
        end.powf(at)
    } else {
        (at * (end.powf(1.0 - exponent) - 1.0) + 1.0).powf(1.0 / (1.0 - exponent))
    };
    (rank as usize).clamp(1, many) - 1
}

/// What a peer does to its indexes next.
pub fn index(rng: &mut StdRng) -> Command {
    let parse = "the name is valid";
    let collection = format!("collection-{}", rng.random_range(0..COLLECTIONS)).parse().expect(parse);
    let all = [
        json!({"fields": "f0"}),
        json!({"fields": "-f1,f2"}),
        json!({"fields": "f2.tags,_id", "sparse": true}),
        json!({"fields": "items"}),
        json!({"fields": "f3", "unique": true, "sparse": true}),
        json!({"fields": "f4", "filter": {"f5": {"$exists": true}}}),
        json!({"type": "text"}),
    ];
    let number = rng.random_range(0..all.len());
    let name = format!("index-{}", number % 4).parse().expect(parse);
    if rng.random_bool(0.2) {
        return Command::DropIndex(collection, name);
    }
    Command::PutIndex(collection, name, Definition::parse(&all[number]).expect("the definition is well-formed"))
}

fn key(kind: &str, number: usize) -> DocumentKey {
    let parse = "the name is valid";
    let collection = format!("collection-{}", number % COLLECTIONS).parse().expect(parse);
    DocumentKey::new(collection, format!("{kind}-{number}").parse().expect(parse))
}

fn patch(document: DocumentKey, operators: Value, deed: Deed, absent: Absent) -> Write {
    let patch = Patch::operators(operators).expect("the operators are well-formed");
    let named = document.clone();
    let command = Command::Patch { document: named, patch, condition: Condition::Any, absent };
    Write { document, command, deed }
}

fn length_of_text(reader: &Reader, document: &DocumentKey) -> usize {
    let Ok(Some(record)) = reader.record(document) else { return 0 };
    let view: Value = serde_json::from_slice(&record.view).unwrap_or_default();
    view["text"].as_str().map_or(0, |text| text.chars().count())
}

fn generated(rng: &mut StdRng) -> Map<String, Value> {
    let mut body = Map::new();
    for field in 0..rng.random_range(1..8) {
        let value = match rng.random_range(0..5) {
            0 => json!(rng.random_range(-1_000_000..1_000_000i64)),
            1 => json!(rng.random_range(0.0..1.0f64)),
            2 => json!({"x": rng.random_range(0..100), "tags": ["a", "b", rng.random_range(0..9).to_string()]}),
            3 => json!((0..rng.random_range(0..6)).collect::<Vec<u32>>()),
            _ => json!("some words ".repeat(rng.random_range(1..12))),
        };
        body.insert(format!("f{field}"), value);
    }
    body
}
