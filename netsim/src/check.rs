//! The checkers: what the database promises, held against what the hosts show. They know nothing of how a run was made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aerolithsdb::PeerId;
use aerolithsdb::access::Role;
use aerolithsdb::base::{DocumentKey, Encode};
use aerolithsdb::limits::{DEAD_LETTERS_MAX, OUTBOX_JOBS_MAX};
use aerolithsdb::node::{Command, LetterReport, Reply};
use aerolithsdb::store::{Reader, Reason};
use serde_json::Value;

use crate::data;
use crate::dated;
use crate::expected::{Deed, Expectation};
use crate::host::Host;
use crate::time::Span;
use crate::world::{Purpose, World};

/// How long a comparison may be on its way.
const COMPARISON: Span = Span::seconds(60);
/// How long hosts have to say how they stand.
const ANSWER: Span = Span::seconds(2);
/// Faults of one kind that are told.
const TOLD_MAX: usize = 5;

/// What each host had, and when: to tell whether two of them were ever equal when one says so.
#[derive(Debug, Default)]
pub struct Truth {
    of: BTreeMap<usize, VecDeque<Moment>>,
}

#[derive(Debug)]
struct Moment {
    until: Span,
    state: u64,
}

impl Truth {
    /// Takes note of what a host has now, and of what it had on the way there.
    pub fn moved(&mut self, now: Span, host: &Host) {
        let Some(node) = &host.node else { return };
        let moments = self.of.entry(host.number).or_default();
        for state in host.passed.iter().copied().chain([fingerprint(&node.reader())]) {
            match moments.back_mut() {
                Some(last) if last.state == state => last.until = now,
                _ => moments.push_back(Moment { until: now, state }),
            }
        }
        while moments.front().is_some_and(|first| first.until + COMPARISON < now) && moments.len() > 1 {
            moments.pop_front();
        }
    }

    /// Whether two hosts may have been equal of late.
    #[must_use]
    pub fn were_equal(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.of.get(&a), self.of.get(&b)) else { return true };
        let states: BTreeSet<u64> = a.iter().map(|moment| moment.state).collect();
        b.iter().any(|moment| states.contains(&moment.state))
    }
}

/// What a host has, in a number: the totals of its collections.
#[must_use]
pub fn fingerprint(reader: &Reader) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for (name, counts) in reader.collections().unwrap_or_default() {
        hasher.update(name.as_str().as_bytes()).update(&counts.to_bytes());
    }
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Whether all honest hosts that run have the same.
#[must_use]
pub fn equal(world: &World) -> bool {
    let mut states = world.honest().filter_map(|host| host.node.as_ref()).map(|node| fingerprint(&node.reader()));
    let Some(first) = states.next() else { return true };
    states.all(|state| state == first)
}

/// Hosts that held more memory than the scenario allows.
fn memory(world: &World) -> Vec<String> {
    let most = world.scenario.memory_mib;
    let over = world.honest().filter(|host| host.memory_max > (most << 20) as i64);
    over.map(|host| format!("peer {} held {} MiB of memory, more than {most}", host.number, host.memory_max >> 20))
        .collect()
}

/// Everything that is wrong at the end of a run.
pub fn all(world: &mut World) -> Vec<String> {
    let mut wrong = Vec::new();
    let up: Vec<usize> = world.honest().filter(|host| host.is_up()).map(|host| host.number).collect();
    let Some(&first) = up.first() else { return vec!["no honest peer is up at the end".into()] };
    told(&mut wrong, audits(world, &up));
    told(&mut wrong, differences(world, first, &up));
    told(&mut wrong, dated::wrong(world, first));
    let lost = documents(world, first, &mut wrong);
    told(&mut wrong, lost_writes(world, &up, lost));
    told(&mut wrong, reports(world, &up));
    told(&mut wrong, memory(world));
    wrong
}

fn told(wrong: &mut Vec<String>, mut found: Vec<String>) {
    if found.len() > TOLD_MAX {
        let more = found.len() - TOLD_MAX;
        found.truncate(TOLD_MAX);
        found.push(format!("... and {more} more of this kind"));
    }
    wrong.append(&mut found);
}

/// Every host's store against itself: signatures, views against replayed logs, summaries against a recount.
fn audits(world: &mut World, up: &[usize]) -> Vec<String> {
    let mut wrong = Vec::new();
    for &host in up {
        if let Some(node) = &mut world.hosts[host].node
            && let Err(error) = node.audit()
        {
            wrong.push(format!("peer {host}: {error}"));
        }
    }
    wrong
}

fn contents(reader: &Reader) -> BTreeMap<DocumentKey, (Vec<u8>, bool, Vec<u8>)> {
    let mut contents = BTreeMap::new();
    for (collection, _) in reader.collections().unwrap_or_default() {
        let mut after = None;
        while let Ok(page) = reader.page(&collection, after.as_ref(), 1_000) {
            for (id, record) in page.documents {
                let heads = record.heads.iter().flat_map(|head| head.0).collect();
                let key = DocumentKey::new(collection.clone(), id);
                contents.insert(key, (heads, record.deleted, record.view.to_vec()));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    contents
}

/// Convergence: every host against the first one, document by document.
fn differences(world: &World, first: usize, up: &[usize]) -> Vec<String> {
    let of = |host: usize| world.hosts[host].node.as_ref().map(|node| contents(&node.reader())).unwrap_or_default();
    let reference = of(first);
    let mut wrong = Vec::new();
    for &host in up {
        let here = of(host);
        let keys: BTreeSet<&DocumentKey> = reference.keys().chain(here.keys()).collect();
        for key in keys {
            if reference.get(key) != here.get(key) {
                wrong.push(format!("peers {first} and {host} do not show the same document {key}"));
            }
        }
    }
    wrong
}

/// Acknowledged writes whose changes are not there.
fn lost_writes(world: &mut World, up: &[usize], lost: BTreeMap<DocumentKey, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, mut writes) in lost {
        // Where somebody used a sequence number twice, what fell with it was made again, in other changes.
        let ask = |host: &usize| (*host, world.command(*host, Command::Why(key.clone()), Purpose::Ask));
        let asked: Vec<_> = up.iter().map(ask).collect();
        let until = world.now + ANSWER;
        world.run_until(until);
        let is_proof = |reply| matches!(reply, Some(Ok(Reply::Why(why))) if why.waiting.contains_key(&Reason::Forked));
        let proven = asked.into_iter().filter(|&(host, id)| is_proof(world.reply(host, id))).count() > 0;
        if !proven {
            wrong.append(&mut writes);
        }
    }
    wrong
}

/// What was acknowledged against what the first host shows. Gives the writes whose changes are not there.
fn documents(world: &World, first: usize, all_wrong: &mut Vec<String>) -> BTreeMap<DocumentKey, Vec<String>> {
    let mut lost: BTreeMap<DocumentKey, Vec<String>> = BTreeMap::new();
    let Some(node) = &world.hosts[first].node else { return lost };
    let reader = node.reader();
    let writers: BTreeSet<PeerId> =
        world.hosts.iter().filter(|host| host.role != Role::Reader).map(|host| host.id).collect();
    let mut wrong = Vec::new();
    for (key, expectation) in world.expected.documents() {
        let opened = match reader.open_document(key) {
            Ok(opened) => opened,
            Err(error) => {
                wrong.push(format!("{key}: {error}"));
                continue;
            }
        };
        let sure: Vec<_> = expectation.acknowledged.iter().filter(|(_, write)| !write.excused).collect();
        let Some(opened) = opened else {
            if let Some((_, write)) = sure.first() {
                wrong.push(format!("{key}: peer {} acknowledged a write, and nobody has the document", write.host));
            }
            continue;
        };
        for (hash, write) in sure {
            if !opened.document.has(hash) {
                let text = format!("{key}: lost the write {hash} that peer {} acknowledged", write.host);
                lost.entry(key.clone()).or_default().push(text);
            }
        }
        for author in opened.authors.values().filter(|author| !writers.contains(*author)) {
            wrong.push(format!("{key}: holds changes of {author}, who may not write"));
        }
        let kinds: Option<Vec<bool>> = opened
            .record
            .heads
            .iter()
            .map(|head| expectation.acknowledged.get(head).map(|write| write.deed == Deed::Delete))
            .collect();
        if let Some(kinds) = kinds
            && opened.record.deleted != kinds.iter().all(|is_delete| *is_delete)
        {
            wrong.push(format!("{key}: is deleted {}, its last writes are deletes {kinds:?}", opened.record.deleted));
        }
        let view: Value = serde_json::from_slice(&opened.record.view).unwrap_or_default();
        wrong.extend(sums(key, expectation, &view));
    }
    told(all_wrong, wrong);
    lost
}

/// Counters, texts and lists against what was added to them.
fn sums(key: &DocumentKey, expectation: &Expectation, view: &Value) -> Vec<String> {
    let sums = expectation.sums();
    let mut wrong = Vec::new();
    if let Some(counted) = view["n"].as_u64().filter(|_| key.id.as_str().starts_with("counter")) {
        let (least, most) = (sums.sure.0, sums.sure.0 + sums.maybe.0);
        if !(least..=most).contains(&counted) {
            wrong.push(format!("{key}: shows {counted}, was counted up to between {least} and {most}"));
        }
    }
    if let Some(text) = view["text"].as_str().filter(|_| key.id.as_str().starts_with("text")) {
        let (shown, least, most) = (text.chars().count() as u64, sums.sure.1, sums.sure.1 + sums.maybe.1);
        if !(least..=most).contains(&shown) {
            wrong.push(format!("{key}: shows {shown} characters, between {least} and {most} were typed"));
        }
    }
    if let Some(text) = view["text"].as_str().filter(|_| key.id.as_str().starts_with("paper"))
        && let (Some(keys), Ok(paper)) = (expectation.keys(), data::paper())
        && data::typed(&paper[..keys]) != text
    {
        wrong.push(format!("{key}: is not what {keys} keystrokes make"));
    }
    if let Some(items) = view["items"].as_array().filter(|_| key.id.as_str().starts_with("list")) {
        let shown: Vec<u64> = items.iter().filter_map(Value::as_u64).collect();
        let set: BTreeSet<u64> = shown.iter().copied().collect();
        let missing = sums.sure.2.difference(&set).count();
        let foreign = set.iter().filter(|item| !sums.sure.2.contains(item) && !sums.maybe.2.contains(item)).count();
        if missing + foreign > 0 || set.len() != shown.len() {
            let twice = shown.len() - set.len();
            wrong.push(format!(
                "{key}: {missing} items are missing, {foreign} nobody appended, {twice} are there twice"
            ));
        }
    }
    wrong
}

/// What the hosts say of themselves: who is in sync, what waits, how much is queued.
fn reports(world: &mut World, up: &[usize]) -> Vec<String> {
    let is_peaceful = world.hosts.iter().all(|host| !host.is_hostile);
    let mut wrong = Vec::new();
    let mut ask = |host: usize, command| (host, world.command(host, command, Purpose::Ask));
    let asked: Vec<_> = up.iter().map(|&host| (ask(host, Command::Sync), ask(host, Command::Status))).collect();
    let until = world.now + ANSWER;
    world.run_until(until);
    let mut forked: BTreeSet<String> = BTreeSet::new();
    let mut waiting: Vec<(usize, LetterReport)> = Vec::new();
    for ((host, sync), (_, status)) in asked {
        let (Some(Ok(Reply::Sync(sync))), Some(Ok(Reply::Status(status)))) =
            (world.reply(host, sync), world.reply(host, status))
        else {
            wrong.push(format!("peer {host} does not answer how it stands"));
            continue;
        };
        for (peer, documents) in &sync.forks {
            if world.honest().any(|other| other.id == *peer && !other.was_restored) {
                wrong
                    .push(format!("peer {host} says that honest {peer} used a number twice, in {documents} documents"));
            }
        }
        let honest: BTreeMap<PeerId, usize> = world.honest().map(|other| (other.id, other.number)).collect();
        for neighbour in &status.neighbours {
            let Some(other) = honest.get(&neighbour.peer) else { continue };
            if !neighbour.in_sync {
                wrong.push(format!("peer {host} does not know that it is in sync with its neighbour {other}"));
            }
            if neighbour.to_send > OUTBOX_JOBS_MAX {
                wrong.push(format!("peer {host} has {} jobs for {other}", neighbour.to_send));
            }
        }
        if status.letters > DEAD_LETTERS_MAX as u64 {
            wrong.push(format!("peer {host} keeps {} dead letters", status.letters));
        }
        for letters in sync.letters {
            if matches!(letters.reason, Reason::Forked | Reason::Fallen) {
                // Kept as proof; it waits for nothing.
                forked.insert(letters.collection);
            } else {
                waiting.push((host, letters));
            }
        }
        if !sync.damaged.is_empty() {
            wrong.push(format!("peer {host} still has {} damaged documents", sync.damaged.len()));
        }
    }
    // What builds on a side that fell everywhere, or on what a disk lost, waits for what nobody has any more.
    let may_wait = !is_peaceful || world.expected.losses > 0;
    for (host, letters) in waiting.iter().filter(|(_, letters)| !may_wait && !forked.contains(&letters.collection)) {
        wrong.push(format!("peer {host} still has {} dead letters: {}", letters.count, letters.reason.as_str()));
    }
    wrong
}
