//! Documents that expire: every peer has the index by which they do, some clocks are wrong, and what is fresh must stay.
//!
//! Each document carries a time, by a right clock, and is written by any peer; some are about to expire. Whether they did
//! is held against the true time, which no peer knows.

use aerolithsdb::base::{DocumentKey, Timestamp};
use aerolithsdb::index::Definition;
use aerolithsdb::node::{Command, Condition, Input};
use rand::RngExt;
use serde_json::{Map, json};

use crate::time::{HostClock, Span};
use crate::world::{Arrival, Event, Purpose, World};

/// How often one is written.
const EVERY: Span = Span::seconds(20);
/// How long after a document has expired it may still be there, at the end.
const GRACE: Span = Span::seconds(300);

impl World {
    /// Has every peer declare the index, and plans what is written while there is work.
    pub(crate) fn plan_dated(&mut self, work: Span) {
        let Some(after) = self.scenario.workload.expire_after else { return };
        let definition = json!({"fields": "at", "expire_after_s": after.as_ms() / 1_000});
        for host in 0..self.hosts.len() {
            let definition = Definition::parse(&definition).expect("the definition is well-formed");
            let (collection, name) = (key(0).collection, "age".parse().expect("the name is valid"));
            self.command(host, Command::PutIndex(collection, name, definition), Purpose::Tend);
        }
        let (mut at, end) = (self.now, self.now + work);
        while at < end {
            let host = self.rng.random_range(0..self.hosts.len());
            // Half of them are new, the others expire within the next minutes.
            let age = if self.rng.random_bool(0.5) {
                Span(self.rng.random_range(0..after.0 / 4))
            } else {
                after - Span(self.rng.random_range(0..600_000_000))
            };
            let dated = Timestamp(HostClock::default().shows(at).0 - age.as_ms());
            self.put_dated(at, host, dated);
            at = at + EVERY;
        }
    }

    fn put_dated(&mut self, at: Span, host: usize, dated: Timestamp) {
        let document = key(self.dated.len());
        self.dated.push((document.clone(), dated));
        let body = Map::from_iter([("at".to_owned(), json!(dated.0))]);
        let command = Command::Put { document, body, condition: Condition::Any };
        let what = Arrival::Input(Box::new(Input::Command(u64::MAX, command)));
        let boot = self.hosts[host].boot;
        self.at(at, Event::Arrive { to: host, boot, what });
    }
}

fn key(number: usize) -> DocumentKey {
    let parse = "the name is valid";
    DocumentKey::new("dated".parse().expect(parse), format!("dated-{number}").parse().expect(parse))
}

/// Documents that were destroyed before their time or are there long after it, and those that several peers deleted.
pub(crate) fn wrong(world: &World, at: usize) -> Vec<String> {
    let (Some(after), Some(node)) = (world.scenario.workload.expire_after, &world.hosts[at].node) else {
        return Vec::new();
    };
    let (reader, now) = (node.reader(), HostClock::default().shows(world.now));
    // By how much a clock that counts as right may be ahead.
    let clocks = &world.scenario.clocks;
    let ahead = clocks.skew + Span(world.now.0 / 1_000_000 * u64::from(clocks.drift_ppm));
    let mut wrong = Vec::new();
    for (document, dated) in &world.dated {
        let Ok(Some(record)) = reader.record(document) else {
            wrong.push(format!("{document} was written and is nowhere"));
            continue;
        };
        let expires = dated.plus_ms(after.as_ms());
        let changes = record.changes();
        if record.deleted && expires > now.plus_ms(ahead.as_ms()) {
            wrong.push(format!("{document} was destroyed {} ms before it expires", expires.since_ms(now)));
        }
        if !record.deleted && expires.plus_ms(GRACE.as_ms()) < now {
            wrong.push(format!("{document} is still there {} ms after it has expired", now.since_ms(expires)));
        }
        // Written and deleted; where clocks are wrong also deleted, and kept, before.
        let deletes = changes - if changes > 2 && world.scenario.clocks.wrong > 0 { 3 } else { 1 };
        if deletes > u64::from(record.deleted) {
            wrong.push(format!("{document} has {changes} changes: more than one peer deleted it"));
        }
    }
    wrong
}
