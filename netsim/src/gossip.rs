//! Gossip in the world: a message goes to some neighbours, each of which checks it and passes it on. Nothing of it is
//! repeated when it is lost.

use aerolithsdb::document::Unchecked;
use aerolithsdb::node::Input;
use aerolithsdb::sync::{Checked, Topic};
use rand::RngExt;

use crate::world::{Arrival, Event, World};

/// To how many neighbours a message is passed on when the scenario does not say.
const FANOUT: usize = 6;

/// A message under way.
#[derive(Debug)]
pub(crate) struct Gossip {
    secret: [u8; 32],
    bytes: u64,
    changes: Vec<Checked>,
}

impl World {
    pub(crate) fn publish(&mut self, host: usize, topic: Topic, changes: &[Unchecked]) {
        let Some(node) = &self.hosts[host].node else { return };
        let context = node.context();
        let mut nonce = [0; 24];
        self.rng.fill(&mut nonce[..]);
        let sealed = context.secret.seal(topic, nonce, changes);
        self.note("publish", host, &sealed);
        // Through the wire form, as between real peers; whoever has the secret gets the same.
        let Ok(opened) = context.secret.open(topic, &sealed) else { return };
        let changes = self.check(host, opened);
        self.next_gossip += 1;
        let id = self.next_gossip;
        let message = Gossip { secret: context.secret.to_bytes(), bytes: sealed.len() as u64, changes };
        self.gossip.insert(id, message);
        self.hosts[host].seen.insert(id);
        self.pass_on(host, id, None);
    }

    /// Passes a gossip message on to some neighbours.
    pub(crate) fn pass_on(&mut self, host: usize, id: u64, except: Option<usize>) {
        let Some(bytes) = self.gossip.get(&id).map(|message| message.bytes) else { return };
        let mut others: Vec<usize> = self.network.neighbours(host).iter().copied().collect();
        others.retain(|other| Some(*other) != except);
        let fanout = self.scenario.network.fanout.unwrap_or(FANOUT);
        for _ in 0..fanout.min(others.len()) {
            let to = others.swap_remove(self.rng.random_range(0..others.len()));
            let Some(session) = self.network.session(host, to).map(|session| session.number) else { continue };
            for at in self.network.spread(&mut self.rng, self.now, host, to, bytes) {
                let boot = self.hosts[to].boot;
                self.at(at, Event::Arrive { to, boot, what: Arrival::Gossip { from: host, session, id } });
            }
        }
    }

    pub(crate) fn gossip_arrived(&mut self, from: usize, to: usize, id: u64) {
        let Some(message) = self.gossip.get(&id) else { return };
        if !self.hosts[to].seen.insert(id) {
            return self.hosts[to].copied(message.changes.len());
        }
        let Some(node) = &self.hosts[to].node else { return };
        if node.context().secret.to_bytes() != message.secret {
            return;
        }
        let input = Input::Published { from: self.hosts[from].id, id, changes: message.changes.clone() };
        self.note("gossip", to, &id.to_be_bytes());
        self.input(to, input);
    }
}
