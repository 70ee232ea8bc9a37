//! Greeting neighbours, letting newcomers in, and joining.
//!
//! A link carries nothing but greetings until both sides have shown that they are members of the same
//! mesh. A newcomer shows its ticket instead; any member can let it in, and sends it the records that
//! prove so. What happens then is in `turn`.

use std::collections::BTreeSet;

use rand::Rng;

use crate::access::{Insertion, Member, MemberRecord, Members, Role, Terms, Ticket};
use crate::base::{PeerId, Timestamp};
use crate::limits::MEMBERS_PER_FRAME_MAX;
use crate::sync::{Hello, Message, Welcome};
use crate::{Error, Result};

use super::Node;
use super::effect::{CommandId, DropReason, Effect, Event, Link, LocalDocuments, Reply};
use super::neighbour::{Neighbour, Stage};
use super::turn::Turn;

/// Milliseconds in which a member must have let us in.
const JOIN_MS: u64 = 20_000;

/// A join under way.
#[derive(Debug)]
pub(super) struct Joining {
    ticket: Box<Ticket>,
    local: LocalDocuments,
    reply: CommandId,
    pub(super) deadline: Timestamp,
    /// Addresses not known to have failed.
    open: BTreeSet<String>,
    /// What was tried and how it ended.
    tried: Vec<String>,
    /// Whether every try so far ended with a member that said no.
    only_refusals: bool,
}

impl Node {
    pub(super) fn connected(&mut self, now: Timestamp, peer: PeerId, link: Link) {
        self.addresses.connected(peer, &link);
        self.neighbours.insert(peer, Neighbour::new(now, link));
        self.greet(now, peer);
    }

    pub(super) fn disconnected(&mut self, now: Timestamp, peer: PeerId) {
        self.addresses.disconnected(now, peer);
        self.receipts.forget(&peer);
        if let Some(neighbour) = self.neighbours.remove(&peer)
            && neighbour.is_admitted()
        {
            self.emit(Event::PeerDown(peer));
        }
    }

    /// Sends the first message of a link.
    pub(super) fn greet(&mut self, now: Timestamp, peer: PeerId) {
        let invited = |joining: &&Joining| joining.ticket.addresses().iter().any(|address| is_of(address, &peer));
        if let Some(joining) = self.joining.as_ref().filter(invited) {
            let request = joining.ticket.redeem(self.peer_id(), now);
            return self.send(peer, Message::Redeem(Box::new(request)));
        }
        let (mesh, chain) = (self.mesh(), self.chain(&self.peer_id()));
        let hello = Hello { mesh, chain, members: self.members.fingerprint(), at: now };
        self.send(peer, Message::Hello(Box::new(hello)));
    }

    /// The records on which a member's own records rest, and those, in the order of their times.
    fn chain(&self, peer: &PeerId) -> Vec<MemberRecord> {
        let records = self.members.records();
        let mut needed = BTreeSet::from([*peer]);
        // Records come after those they rest on, so one pass from the end finds all of them.
        for record in records.iter().rev() {
            if needed.contains(&record.peer())
                && let Some(joined) = record.joined()
            {
                needed.extend([joined.invitation.body.issuer, joined.admission.body.admitted_by]);
            }
        }
        let mut chain = records;
        chain.retain(|record| needed.contains(&record.peer()));
        chain.truncate(MEMBERS_PER_FRAME_MAX);
        chain
    }

    pub(super) fn hello(&mut self, now: Timestamp, peer: PeerId, hello: Hello) {
        if hello.mesh != self.mesh() {
            if self.joining.is_none() {
                self.send(peer, Message::Refused("this peer is in another mesh; join it with a ticket".into()));
                self.part(peer, DropReason::ForeignMesh);
            }
            return;
        }
        if !self.neighbours.get(&peer).is_some_and(Neighbour::is_admitted) {
            self.insert_chain(now, peer, hello.chain);
        }
        if self.members.get(&peer).is_none() {
            self.send(peer, Message::Refused("you are not a member of this mesh; join it with a ticket".into()));
            return self.part(peer, DropReason::NotAMember);
        }
        let us = self.peer_id();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.stage == Stage::Admitted {
            return;
        }
        neighbour.stage = Stage::Admitted;
        neighbour.clock_ahead_ms = hello.at.0.cast_signed().saturating_sub(now.0.cast_signed());
        // One side asks; which one is settled by the ids.
        if us < peer {
            neighbour.compare_at = now;
        }
        let link = neighbour.link.clone();
        if let Some(addresses) = self.addresses.confirmed(peer, &link)
            && let Err(error) = self.store.put_addresses(&peer, &addresses)
        {
            self.storage_failed("keeping an address", &error);
        }
        if hello.members != self.members.fingerprint() {
            for records in self.members.records().chunks(MEMBERS_PER_FRAME_MAX) {
                self.send(peer, Message::Members(records.to_vec()));
            }
        }
        self.emit(Event::PeerUp(peer));
    }

    /// Takes in what a stranger shows as proof, up to the first record that does not rest on those before.
    fn insert_chain(&mut self, now: Timestamp, from: PeerId, chain: Vec<MemberRecord>) {
        let mut inserted = Vec::new();
        for record in chain {
            match self.members.insert(record) {
                Ok(Insertion::Inserted(new)) => inserted.extend(new),
                Ok(Insertion::Known) => {}
                Ok(Insertion::Waiting(_)) | Err(_) => break,
            }
        }
        self.note_admitted(now, from, inserted);
    }

    /// Member records from a neighbour.
    pub(super) fn learn(&mut self, now: Timestamp, from: PeerId, records: Vec<MemberRecord>) {
        let mut inserted = Vec::new();
        for record in records {
            match self.members.insert(record) {
                Ok(Insertion::Inserted(new)) => inserted.extend(new),
                Ok(Insertion::Known | Insertion::Waiting(_)) => {}
                Err(why) => tracing::warn!(%from, %why, "dropped a member record"),
            }
        }
        self.note_admitted(now, from, inserted);
    }

    fn note_admitted(&mut self, now: Timestamp, from: PeerId, new: Vec<Member>) {
        if let Err(error) = self.admitted(now, from, new) {
            self.storage_failed("keeping member records", &error);
        }
    }

    /// Stores new member records, passes them on, and tries the changes that waited for them.
    fn admitted(&mut self, now: Timestamp, from: PeerId, new: Vec<Member>) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        for member in &new {
            self.store.put_member(member.record())?;
            self.emit(Event::MemberJoined(member.peer()));
        }
        let records: Vec<MemberRecord> = new.iter().map(|member| member.record().clone()).collect();
        let others = self.neighbours.iter().filter(|(peer, n)| n.is_admitted() && **peer != from);
        let others: Vec<PeerId> = others.map(|(peer, _)| *peer).collect();
        for peer in others {
            for records in records.chunks(MEMBERS_PER_FRAME_MAX) {
                self.send(peer, Message::Members(records.to_vec()));
            }
        }
        self.retry_authors(now, from, &new.iter().map(Member::peer).collect())
    }

    /// Makes a ticket.
    pub(super) fn invite(&mut self, now: Timestamp, terms: Terms, addresses: Vec<String>) -> Result<Reply> {
        let (mut seed, mut nonce) = ([0; 32], [0; 16]);
        self.rng.fill_bytes(&mut seed);
        self.rng.fill_bytes(&mut nonce);
        let ticket = self.members.invite(&self.keypair, terms, seed, nonce, addresses, now)?;
        Ok(Reply::Ticket(Box::new(ticket)))
    }

    /// A newcomer shows a ticket.
    pub(super) fn redeem(&mut self, now: Timestamp, peer: PeerId, request: &crate::access::JoinRequest) {
        if request.redemption.body.joiner != peer {
            self.send(
                peer,
                Message::Refused("the ticket was redeemed by another peer than the one that shows it".into()),
            );
            return self.part(peer, DropReason::Misbehaved);
        }
        let at = self.clock.tick(now);
        match self.members.admit(request, &self.keypair, at) {
            Ok(admitted) => {
                if let Err(error) = self.admitted(now, peer, admitted.inserted) {
                    self.storage_failed("keeping member records", &error);
                    self.send(peer, Message::Refused("this member's disk takes nothing; ask another one".into()));
                    return self.part(peer, DropReason::NoRoom);
                }
                let welcome = Welcome { chain: self.chain(&peer), secret: self.secret.to_bytes() };
                self.send(peer, Message::Welcome(Box::new(welcome)));
                self.greet(now, peer);
            }
            Err(refusal) => {
                tracing::info!(%peer, %refusal, "did not let a newcomer in");
                self.send(peer, Message::Refused(refusal.to_string()));
                self.part(peer, DropReason::NotAMember);
            }
        }
    }

    /// Starts to join the mesh of a ticket.
    pub(super) fn join(&mut self, now: Timestamp, id: CommandId, ticket: Box<Ticket>, local: LocalDocuments) {
        if let Err(error) = self.may_join(now, &ticket, local) {
            return self.effects.push(Effect::Reply(id, Err(error)));
        }
        let open: BTreeSet<String> = ticket.addresses().iter().cloned().collect();
        let deadline = now.plus_ms(JOIN_MS);
        let addresses: Vec<String> = open.iter().cloned().collect();
        self.joining =
            Some(Joining { ticket, local, reply: id, deadline, open, tried: Vec::new(), only_refusals: true });
        let connected: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for address in addresses {
            match connected.iter().find(|peer| is_of(&address, peer)) {
                Some(peer) => self.greet(now, *peer),
                None => self.effects.push(Effect::Dial(address)),
            }
        }
    }

    fn may_join(&self, now: Timestamp, ticket: &Ticket, local: LocalDocuments) -> Result<()> {
        self.may_turn()?;
        if ticket.mesh() == self.mesh() {
            return Err(Error::Conflict(format!("this peer is a member of mesh {} already", self.mesh())));
        }
        if ticket.expires() < now {
            let ago = now.since_ms(ticket.expires()) / 1_000;
            return Err(Error::Denied(format!("the ticket expired {ago} s ago: ask an admin for a new one")));
        }
        if self.members.len() > 1 {
            return Err(Error::Conflict(format!(
                "this peer shares mesh {} with {} others; leave it first (mesh leave), or start another peer with its own \
                 --data-dir",
                self.mesh(),
                self.members.len() - 1
            )));
        }
        if local == LocalDocuments::Carry
            && ticket.role() == Role::Reader
            && self.store.totals().any(|(_, total)| total.count > 0)
        {
            return Err(Error::Conflict(
                "the ticket is for a reader, who cannot carry the documents of this peer over; leave them behind \
                 (they stay on the disk), or ask for a writer's ticket"
                    .into(),
            ));
        }
        if ticket.addresses().is_empty() {
            return Err(Error::invalid("the ticket carries no address: ask for one from a peer that can be reached"));
        }
        Ok(())
    }

    /// A member lets us in.
    pub(super) fn welcome(&mut self, now: Timestamp, peer: PeerId, welcome: Welcome) {
        // Only whom the ticket names is believed.
        let invited = |joining: &mut Joining| joining.ticket.addresses().iter().any(|address| is_of(address, &peer));
        let Some(joining) = self.joining.take_if(invited) else { return };
        match self.enter(now, peer, &joining, welcome) {
            Ok(()) => {}
            Err(error) => self.effects.push(Effect::Reply(joining.reply, Err(error))),
        }
    }

    fn enter(&mut self, now: Timestamp, by: PeerId, joining: &Joining, welcome: Welcome) -> Result<()> {
        let members = Members::restore(joining.ticket.genesis().clone(), welcome.chain)?;
        let me = members.get(&self.peer_id()).ok_or_else(|| {
            Error::Denied(format!("{by} answered the ticket without a record of our membership; ask another member"))
        })?;
        let may_write = me.role().allows(crate::access::Ability::Write);
        let local = if may_write { joining.local } else { LocalDocuments::Leave };
        self.turn(now, Turn { members, secret: welcome.secret, local, reply: joining.reply, by })
    }

    /// The other side will not let us in.
    pub(super) fn refused(&mut self, now: Timestamp, peer: PeerId, why: &str) {
        let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
        if let Some(joining) = &mut self.joining {
            let of_peer: Vec<String> = joining.open.iter().filter(|address| is_of(address, &peer)).cloned().collect();
            if !of_peer.is_empty() {
                for address in of_peer {
                    joining.open.remove(&address);
                }
                joining.tried.push(format!("{peer} refused: {why}"));
                return self.give_up_joining(now);
            }
        }
        tracing::info!(%peer, why, "a peer refused us");
        self.addresses.foreign(now, peer);
    }

    /// A dial of a join failed.
    pub(super) fn join_dial_failed(&mut self, now: Timestamp, address: &str, why: &str) {
        if let Some(joining) = &mut self.joining
            && joining.open.remove(address)
        {
            joining.tried.push(format!("{address}: {why}"));
            joining.only_refusals = false;
            self.give_up_joining(now);
        }
    }

    /// Ends a join that has nobody left to ask, or no time.
    pub(super) fn give_up_joining(&mut self, now: Timestamp) {
        let over = |joining: &mut Joining| joining.open.is_empty() || joining.deadline <= now;
        let Some(joining) = self.joining.take_if(over) else { return };
        let denied = joining.only_refusals && joining.open.is_empty();
        let mut tried = joining.tried;
        tried.extend(joining.open.into_iter().map(|address| format!("{address}: no answer")));
        let text = format!("no member let us in; tried {}", tried.join("; "));
        let error = if denied { Error::Denied(text) } else { Error::Unavailable(text) };
        self.effects.push(Effect::Reply(joining.reply, Err(error)));
    }

    /// Ends the link to a peer.
    pub(super) fn part(&mut self, peer: PeerId, reason: DropReason) {
        *self.counters.parted.entry(reason.as_str()).or_default() += 1;
        if self.neighbours.remove(&peer).is_some_and(|neighbour| neighbour.is_admitted()) {
            self.emit(Event::PeerDown(peer));
        }
        self.addresses.parted(peer, reason);
        self.emit(Event::PeerDropped(peer, reason));
        self.effects.push(Effect::Drop(peer, reason));
    }
}

/// Whether a multiaddr ends in this peer's id.
pub(super) fn is_of(address: &str, peer: &PeerId) -> bool {
    address.rsplit_once("/p2p/").is_some_and(|(_, id)| id == peer.to_string())
}
