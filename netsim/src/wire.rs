//! Connections of the world: dialing, what is sent on them, what is held up, and how they end.

use aerolithsdb::PeerId;
use aerolithsdb::base::Encode;
use aerolithsdb::document::Unchecked;
use aerolithsdb::node::{DropReason, Input, Link};
use aerolithsdb::sync::{self, Checked, Introduced, Message};
use bytes::Bytes;

use crate::host::Host;
use crate::network::{DIAL, IDLE, Path};
use crate::time::Span;
use crate::world::{Arrival, Event, World};

/// How long a peer that misbehaved is kept out.
const BLOCKED: Span = Span::seconds(600);
/// Checked changes that are remembered, so that each is checked once in a run and not once a host.
const CHECKED_MAX: usize = 100_000;

impl World {
    pub(crate) fn send(&mut self, from: usize, to: usize, message: &Message) {
        self.send_bytes(from, to, message.to_bytes().into());
    }

    /// Sends bytes on the connection, if there is one.
    pub fn send_bytes(&mut self, from: usize, to: usize, bytes: Bytes) {
        let Some(session) = self.network.session(from, to).map(|session| session.number) else { return };
        match self.network.send(&mut self.rng, self.now, from, to, bytes.len() as u64) {
            Some(at) => {
                let what = Arrival::Message { from, session, bytes };
                let boot = self.hosts[to].boot;
                self.at(at, Event::Arrive { to, boot, what });
            }
            None => self.break_session(from, to),
        }
    }

    pub(crate) fn arrive(&mut self, to: usize, boot: u64, what: Arrival) {
        if self.hosts[to].boot != boot {
            return;
        }
        let (from, session) = match &what {
            Arrival::Message { from, session, .. }
            | Arrival::Gossip { from, session, .. }
            | Arrival::Closed { from, session } => (*from, *session),
            Arrival::Input(_) => {
                if let Arrival::Input(input) = what {
                    self.input(to, *input);
                }
                return;
            }
        };
        if let Arrival::Closed { .. } = what {
            return self.hear_of_the_end(to, from);
        }
        if self.network.session(from, to).is_none_or(|current| current.number != session) {
            return;
        }
        if !self.network.passes(from, to) {
            if let Arrival::Message { .. } = what {
                self.held.entry((from, to)).or_default().push(Event::Arrive { to, boot, what });
            }
            return;
        }
        match what {
            Arrival::Message { bytes, .. } => self.message(from, to, &bytes),
            Arrival::Gossip { id, .. } => self.gossip_arrived(from, to, id),
            Arrival::Closed { .. } | Arrival::Input(_) => {}
        }
    }

    fn message(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.note("message", to, bytes);
        let id = self.hosts[from].id;
        match sync::message::decode(bytes) {
            Ok(Message::Changes { number, changes }) => {
                let changes = self.check(to, changes);
                self.input(to, Input::Changes { from: id, number, changes });
            }
            Ok(message) => {
                let introduced = self.introduce(message);
                self.input(to, Input::Introduced(id, Box::new(introduced)));
            }
            // What cannot be read ends the session, as it does in the driver.
            Err(_) => self.break_session(from, to),
        }
    }

    /// Checks changes as a host's workers do. The outcome depends on nothing but the bytes and the mesh, so it is
    /// remembered.
    pub(crate) fn check(&mut self, host: usize, changes: Vec<Unchecked>) -> Vec<Checked> {
        let Some(node) = &self.hosts[host].node else { return Vec::new() };
        let mesh = node.mesh();
        if self.checked.len() > CHECKED_MAX {
            self.checked.clear();
        }
        let mut check = |change: Unchecked| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&mesh.0).update(&change.to_bytes());
            let name = *hasher.finalize().as_bytes();
            if let Some(known) = self.checked.get(&name) {
                return known.clone();
            }
            let checked = sync::check(mesh, vec![change]).remove(0);
            self.checked.insert(name, checked.clone());
            checked
        };
        changes.into_iter().map(&mut check).collect()
    }

    /// Checks the member records of a message as a host's workers do, and remembers the outcome.
    fn introduce(&mut self, message: Message) -> Introduced {
        if self.introduced.len() > CHECKED_MAX {
            self.introduced.clear();
        }
        let known = &mut self.introduced;
        sync::introduce(message, |record| {
            known.entry(record.grant_id()).or_insert_with(|| sync::verify_member(record)).clone()
        })
    }

    pub(crate) fn dial(&mut self, from: usize, address: String) {
        let to = address.strip_prefix("/sim/").and_then(|rest| rest.split('/').next()).and_then(|n| n.parse().ok());
        let boot = self.hosts[from].boot;
        let Some(to) = to.filter(|to: &usize| *to < self.hosts.len()) else {
            let input = Input::DialFailed(address, "there is no such host".into());
            let what = Arrival::Input(Box::new(input));
            return self.at(self.now + Span::ms(1), Event::Arrive { to: from, boot, what });
        };
        let reachable = self.network.path(&self.hosts, from, to).is_some();
        let after = if reachable { Span(2 * self.network.round_trip().0) } else { DIAL };
        self.at(self.now + after, Event::Dialed { from, boot, to, address });
    }

    pub(crate) fn dialed(&mut self, from: usize, to: usize, address: String) {
        let path = self.network.path(&self.hosts, from, to);
        let kept_out =
            |host: &Host, other: PeerId, now: Span| host.blocked.get(&other).is_some_and(|until| *until > now);
        let refused = kept_out(&self.hosts[to], self.hosts[from].id, self.now)
            || kept_out(&self.hosts[from], self.hosts[to].id, self.now);
        match path {
            Some(path) if self.hosts[to].is_up() && from != to && !refused => {
                if self.network.session(from, to).is_some() {
                    // It is connected, which is what was wanted, unless only the other side thinks so.
                    return;
                }
                self.note("connect", from, &(to as u64).to_be_bytes());
                self.hear_of_the_end(from, to);
                self.hear_of_the_end(to, from);
                self.network.connect(from, to, path);
                for (at, other, dialed) in [(from, to, true), (to, from, false)] {
                    let address = if dialed { address.clone() } else { format!("/sim/{other}/inbound") };
                    let link = Link { address, dialed, direct: path == Path::Direct };
                    self.input(at, Input::Connected(self.hosts[other].id, link));
                }
            }
            Some(_) | None => self.input(from, Input::DialFailed(address, "no answer".into())),
        }
    }

    pub(crate) fn drop_peer(&mut self, host: usize, peer: PeerId, reason: DropReason) {
        let Some(&other) = self.by_id.get(&peer) else { return };
        if reason == DropReason::Misbehaved {
            if !self.hosts[host].is_hostile && !self.hosts[other].is_hostile {
                self.faults.push(format!("{}: peer {host} dropped honest peer {other} for misbehaviour", self.now));
            }
            self.hosts[host].blocked.insert(peer, self.now + BLOCKED);
        }
        // What was sent before still arrives.
        let after = self.network.round_trip();
        self.end_session(host, other, after, &[other]);
    }

    /// Both ends find a connection broken.
    pub fn break_session(&mut self, a: usize, b: usize) {
        self.end_session(a, b, Span(1), &[a, b]);
    }

    /// Ends a connection; those hosts hear of it after a while.
    pub(crate) fn end_session(&mut self, a: usize, b: usize, after: Span, told: &[usize]) {
        let Some(session) = self.network.disconnect(a, b) else { return };
        self.note("disconnect", a, &(b as u64).to_be_bytes());
        self.held.remove(&(a, b));
        self.held.remove(&(b, a));
        for &to in told {
            let from = if to == a { b } else { a };
            let (boot, what) = (self.hosts[to].boot, Arrival::Closed { from, session: session.number });
            self.leaving.insert((to, from));
            self.at(self.now + after, Event::Arrive { to, boot, what });
        }
    }

    /// A host hears that a connection is gone: after a while, or at the latest when there is a new one.
    fn hear_of_the_end(&mut self, to: usize, from: usize) {
        if self.leaving.remove(&(to, from)) {
            self.input(to, Input::Disconnected(self.hosts[from].id));
        }
    }

    /// Blocks directions.
    pub fn block(&mut self, directions: &[(usize, usize)]) {
        for &(from, to) in directions {
            self.network.block(from, to);
            if let Some(session) = self.network.session(from, to).map(|session| session.number) {
                self.at(self.now + IDLE, Event::Idle { a: from, b: to, session });
            }
        }
    }

    /// Opens directions that were blocked; what waited goes on.
    pub fn unblock(&mut self, directions: &[(usize, usize)]) {
        for &(from, to) in directions {
            self.network.unblock(from, to);
            self.release(from, to);
        }
    }

    /// Opens all directions.
    pub fn unblock_all(&mut self) {
        self.network.unblock_all();
        let held: Vec<(usize, usize)> = self.held.keys().copied().collect();
        for (from, to) in held {
            self.release(from, to);
        }
    }

    fn release(&mut self, from: usize, to: usize) {
        if !self.network.passes(from, to) {
            return;
        }
        let at = self.now + self.network.round_trip();
        for event in self.held.remove(&(from, to)).unwrap_or_default() {
            self.at(at, event);
        }
    }
}
