//! What the steps of a write, of a read and of receiving a change cost, one by one.
//!
//! `cargo bench --bench steps`

use std::hint::black_box;
use std::sync::Arc;

use aerolithsdb::base::{ActorId, DocumentKey, GrantId, Hlc, Incarnation, MeshId, Timestamp};
use aerolithsdb::document::{Change, Document, Envelope, Object};
use aerolithsdb::filter::Filter;
use aerolithsdb::identity::Keypair;
use aerolithsdb::kv::{self, Batch, Durability, Kv, MemoryKv, StorageConfig};
use aerolithsdb::node::{self, Command, Condition, Input, Node};
use aerolithsdb::store::Loss;
use aerolithsdb::sync::frame;
use aerolithsdb::value::{Json, Row};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

fn document(n: usize) -> Object {
    let Value::Object(object) = json!({
        "name": format!("Person Number {n}"), "age": 18 + n % 60, "city": format!("City {}", n % 500),
        "tags": ["alpha", "beta", format!("tag{}", n % 10)],
        "nested": {"street": format!("{n} Long Street"), "zip": 10_000 + n, "active": n.is_multiple_of(2), "score": n as f64 * 0.5,
                   "note": "some words to fill the space"},
    }) else {
        unreachable!("it is an object")
    };
    object
}

fn key(n: usize) -> DocumentKey {
    let parse = "the name is valid";
    DocumentKey::new("docs".parse().expect(parse), format!("doc-{n:07}").parse().expect(parse))
}

fn time() -> Hlc {
    Hlc::from_physical(Timestamp(1_700_000_000_000))
}

fn envelope(n: usize) -> Envelope {
    let keypair = Keypair::from_seed([1; 32]);
    let incarnation = Incarnation([1; 8]);
    let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
    let change = Change::create(actor, time(), &document(n)).expect("the document is small");
    Envelope::sign(&keypair, MeshId([1; 32]), key(n), incarnation, GrantId([1; 32]), change)
}

fn node(kv: Arc<dyn Kv>) -> Node {
    let config = node::Config {
        keypair: Keypair::from_seed([1; 32]),
        seed: [1; 32],
        mesh_name: "bench".into(),
        synced: true,
        loss: Loss::Nothing,
        fresh: true,
        seeds: Vec::new(),
    };
    Node::open(config, kv, Timestamp(1_700_000_000_000)).expect("the storage is new")
}

fn steps(c: &mut Criterion) {
    let body = document(1);
    let keypair = Keypair::from_seed([1; 32]);
    let signed = envelope(1);
    c.bench_function("create a change", |b| {
        b.iter(|| Change::create(ActorId([1; 16]), time(), black_box(&body)));
    });
    c.bench_function("sign a change", |b| {
        b.iter(|| {
            let change = signed.changes()[0].clone();
            Envelope::sign(&keypair, MeshId([1; 32]), key(1), Incarnation([1; 8]), GrantId([1; 32]), change)
        });
    });
    c.bench_function("screen a change", |b| b.iter(|| Change::screen(signed.changes()[0].payload().clone())));
    c.bench_function("check an arriving change, view included", |b| {
        b.iter(|| Envelope::check(MeshId([1; 32]), signed.to_unchecked()));
    });
    c.bench_function("replace one field of an open document", |b| {
        let (mut open, _) = Document::create(ActorId([1; 16]), time(), &body).expect("the document is small");
        let mut age = 0;
        let mut body = body.clone();
        b.iter(|| {
            age += 1;
            body.insert("age".into(), json!(age));
            open.replace(ActorId([1; 16]), time(), &body)
        });
    });
    let changes: Vec<_> = (0..256).map(|n| envelope(n).to_unchecked()).collect();
    let packed = frame::pack(&changes);
    println!("256 changes packed: {} bytes", packed.len());
    c.bench_function("pack 256 changes", |b| b.iter(|| frame::pack(&changes)));
    c.bench_function("unpack 256 changes", |b| b.iter(|| frame::unpack(&packed, 256)));
}

fn filters(c: &mut Criterion) {
    let view = Value::Object(document(1)).to_string();
    let row = Row { id: None, body: Json::new(view.as_bytes()), conflicts: 0 };
    for filter in [
        json!({"age": {"$gte": 18}, "city": "City 1"}),
        json!({"nested.zip": {"$gt": 5_000}, "tags": {"$in": ["beta", "gamma"]}}),
        json!({"name": {"$regex": "^Person"}}),
        json!({"$text": {"$search": "words"}}),
    ] {
        let filter = Filter::parse(&filter).expect("the filter is valid");
        assert!(filter.matches(row), "{filter}");
        c.bench_function(&format!("try {filter}"), |b| b.iter(|| black_box(&filter).matches(black_box(row))));
    }
}

fn puts(c: &mut Criterion, name: &str, kv: Arc<dyn Kv>, group: usize) {
    let mut node = node(kv);
    let mut n = 0;
    c.bench_function(name, |b| {
        b.iter(|| {
            let inputs = (0..group).map(|_| {
                n += 1;
                let command = Command::Put { document: key(n), body: document(n), condition: Condition::Any };
                Input::Command(n as u64, command)
            });
            node.handle(Timestamp(1_700_000_000_000), inputs)
        });
    });
}

fn storage(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let open = |name: &str, durability| {
        let config = StorageConfig { durability, ..StorageConfig::default() };
        kv::open(&folder.path().join(name), &config).expect("the folder is new").0
    };
    let kv = open("kv", Durability::Buffered);
    let mut n = 0u64;
    c.bench_function("apply a batch of 8 keys, 1.2 KB", |b| {
        b.iter(|| {
            let mut batch = Batch::new();
            for k in 0..8u64 {
                n += 1;
                batch.put([n.to_be_bytes(), k.to_be_bytes()].concat(), vec![7; 130]);
            }
            kv.apply(batch)
        });
    });
    puts(c, "put a new document, in memory", Arc::new(MemoryKv::new()), 1);
    puts(c, "put a new document, buffered", Arc::new(open("buffered", Durability::Buffered)), 1);
    puts(c, "put a new document, durable", Arc::new(open("durable", Durability::Durable)), 1);
    puts(c, "put 16 new documents, durable", Arc::new(open("durable16", Durability::Durable)), 16);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = steps, filters, storage
}
criterion_main!(benches);
