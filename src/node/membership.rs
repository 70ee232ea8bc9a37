//! Greeting neighbours, letting newcomers in, and joining.
//!
//! A link carries nothing but greetings until both sides have shown that they are members of the same
//! mesh. A newcomer shows its ticket instead; any member can let it in, and sends it the records that
//! prove so. What happens then is in `turn`.

use std::collections::BTreeSet;

use rand::Rng;

use crate::access::{JoinRequest, Learned, Member, MemberRecord, Members, ProvenRequest, Refusal, Role, Terms, Ticket};
use crate::base::{PeerId, Timestamp};
use crate::limits::{CLOCK_DRIFT_MAX_MS, MEMBERS_PER_FRAME_MAX};
use crate::sync::{Hello, Message, Welcome};
use crate::{Error, Result};

use super::Node;
use super::clock::ahead_ms;
use super::effect::{CommandId, DropReason, Effect, Event, Link, LocalDocuments, Reply};
use super::neighbour::{Neighbour, Stage};
use super::turn::Turn;

/// Milliseconds in which a member must have let us in.
const JOIN_MS: u64 = 20_000;

/// New members of which each is a line of the log; more at once are one line together.
const JOINED_TOLD_MAX: usize = 4;

/// A join under way.
#[derive(Debug)]
pub(super) struct Joining {
    ticket: Box<Ticket>,
    local: LocalDocuments,
    reply: CommandId,
    pub(super) deadline: Timestamp,
    /// Addresses not known to have failed.
    open: BTreeSet<String>,
    /// Peers that were linked when it began: what they refuse may be the greeting of before, so they are asked once more
    /// over a new link when that one ends.
    early: BTreeSet<PeerId>,
    /// What was tried and how it ended.
    tried: Vec<String>,
    /// Whether every try so far ended with a member that said no.
    only_refusals: bool,
}

impl Node {
    pub(super) fn connected(&mut self, now: Timestamp, peer: PeerId, link: Link) {
        self.addresses.connected(peer, &link);
        self.restless.started(now, peer, &link.address);
        self.neighbours.insert(peer, Neighbour::new(now, link));
        self.greet(now, peer);
    }

    pub(super) fn disconnected(&mut self, now: Timestamp, peer: PeerId) {
        self.addresses.disconnected(now, peer);
        self.receipts.forget(&peer);
        if let Some(joining) = &mut self.joining
            && joining.early.remove(&peer)
        {
            let of_peer = joining.open.iter().filter(|address| is_of(address, &peer)).cloned();
            self.effects.extend(of_peer.map(Effect::Dial));
        }
        self.clock.forget(&peer);
        if let Some(neighbour) = self.neighbours.remove(&peer)
            && neighbour.is_admitted()
        {
            self.link_notes.changed(now, peer, false);
            self.emit(Event::PeerDown(peer));
        }
    }

    /// A peer answers no more, and since when, or does again.
    pub(super) fn answers(&mut self, peer: PeerId, no_answer_since: Option<Timestamp>) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.no_answer_since = no_answer_since;
        }
    }

    /// Sends the first message of a link.
    pub(super) fn greet(&mut self, now: Timestamp, peer: PeerId) {
        let invited = |joining: &&Joining| joining.ticket.addresses().iter().any(|address| is_of(address, &peer));
        if let Some(joining) = self.joining.as_ref().filter(invited) {
            let request = joining.ticket.redeem(self.peer_id(), self.clock.shows(now));
            return self.send(peer, Message::Redeem(Box::new(request)));
        }
        self.say_hello(now, peer);
    }

    /// Greets as a member of the mesh.
    fn say_hello(&mut self, now: Timestamp, peer: PeerId) {
        let (mesh, chain) = (self.mesh(), self.chain(&self.peer_id()));
        let hello = Hello { mesh, chain, members: self.members.fingerprint(), at: self.clock.shows(now) };
        self.send(peer, Message::Hello(Box::new(hello)));
    }

    /// The records on which a member's own records rest, and those, in the order of their times.
    fn chain(&self, peer: &PeerId) -> Vec<MemberRecord> {
        let mut chain = self.members.chain(peer);
        chain.truncate(MEMBERS_PER_FRAME_MAX);
        chain
    }

    pub(super) fn hello(&mut self, now: Timestamp, peer: PeerId, hello: &Hello, shown: Vec<Member>) {
        if hello.mesh != self.mesh() {
            if self.joining.is_none() {
                self.send(peer, Message::Refused("this peer is in another mesh; join it with a ticket".into()));
                self.part(peer, DropReason::ForeignMesh);
            }
            return;
        }
        if !self.neighbours.get(&peer).is_some_and(Neighbour::is_admitted) {
            let learned = self.members.learn_shown(shown);
            self.learned(now, peer, learned);
        }
        if self.members.get(&peer).is_none() {
            return self.turn_away(peer);
        }
        let us = self.peer_id();
        self.hear_time(now, peer, hello.at);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.stage == Stage::Admitted {
            return;
        }
        neighbour.stage = Stage::Admitted;
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
            self.send_records(peer, &self.members.records());
        }
        self.link_notes.changed(now, peer, true);
        self.tell_twice(now, peer);
        self.emit(Event::PeerUp(peer));
    }

    fn send_records(&mut self, peer: PeerId, records: &[MemberRecord]) {
        for records in records.chunks(MEMBERS_PER_FRAME_MAX) {
            self.send(peer, Message::Members(records.to_vec()));
        }
    }

    /// Ends the link to a peer that is no member, and says why. One that was gets the records which show it.
    fn turn_away(&mut self, peer: PeerId) {
        if self.members.fall(&peer).is_none() {
            self.send(peer, Message::Refused("you are not a member of this mesh; join it with a ticket".into()));
            return self.part(peer, DropReason::NotAMember);
        }
        self.send_records(peer, &self.members.chain(&peer));
        let why = "you are no member of this mesh any more: others had used your ticket up when you joined, or whoever \
                   let you in is no member either; ask an admin for a new ticket";
        self.send(peer, Message::Refused(why.into()));
        self.part(peer, DropReason::Fallen);
    }

    /// Member records from a neighbour.
    pub(super) fn learn(&mut self, now: Timestamp, from: PeerId, records: Vec<Member>) {
        let learned = self.members.learn(records);
        self.learned(now, from, learned);
    }

    fn learned(&mut self, now: Timestamp, from: PeerId, learned: Learned) {
        if let Err(error) = self.keep_learned(now, from, learned) {
            self.storage_failed("keeping member records", &error);
        }
    }

    /// Stores new member records, passes them on, parts from those who fell, and tries the changes that waited.
    fn keep_learned(&mut self, now: Timestamp, from: PeerId, learned: Learned) -> Result<()> {
        let Learned { new, gone, joined, fell } = learned;
        let us = self.peer_id();
        for member in &new {
            self.store.put_member(member.record())?;
        }
        // Our own record tells a later start that this peer was let in.
        self.store.drop_members(gone.iter().filter(|member| member.peer() != us).map(Member::grant))?;
        let told_alone = joined.len() <= JOINED_TOLD_MAX;
        if !told_alone && self.notes.may(now, from, "members joined") {
            tracing::info!(count = joined.len(), %from, "members joined");
        }
        for peer in joined {
            if told_alone && self.notes.may(now, peer, "joined") {
                tracing::info!(%peer, %from, "a member joined");
            }
            self.emit(Event::MemberJoined(peer));
        }
        let records: Vec<MemberRecord> = new.iter().map(|member| member.record().clone()).collect();
        let others = self.neighbours.iter().filter(|(peer, n)| n.is_admitted() && **peer != from);
        for peer in others.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.send_records(peer, &records);
        }
        for peer in fell {
            let why = || format!("{peer} is no member any more: those who come before it use up its ticket");
            self.complain(now, from, "member_fell", None, why);
            self.emit(Event::MemberFell(peer));
            if self.neighbours.contains_key(&peer) {
                self.turn_away(peer);
            }
        }
        self.retry_authors(now, from, &new.iter().map(Member::peer).collect())
    }

    /// Makes a ticket.
    pub(super) fn invite(&mut self, now: Timestamp, terms: Terms, addresses: Vec<String>) -> Result<Reply> {
        if self.clock.is_impossible(now) {
            let shows = self.clock.shows(now);
            return Err(Error::invalid(format!(
                "this machine's clock shows {shows}, which cannot be, and the ticket would have expired long ago: set the \
                 clock first"
            )));
        }
        let (mut seed, mut nonce) = ([0; 32], [0; 16]);
        self.rng.fill_bytes(&mut seed);
        self.rng.fill_bytes(&mut nonce);
        let ticket = self.members.invite(&self.keypair, terms, seed, nonce, addresses, self.clock.wall(now))?;
        Ok(Reply::Ticket(Box::new(ticket)))
    }

    /// A newcomer shows a ticket.
    pub(super) fn redeem(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        request: &JoinRequest,
        proven: Option<&ProvenRequest>,
        shown: Vec<Member>,
    ) {
        if request.redemption.body.joiner != peer {
            self.send(
                peer,
                Message::Refused("the ticket was redeemed by another peer than the one that shows it".into()),
            );
            return self.part(peer, DropReason::Misbehaved);
        }
        if !self.clock.can_judge(now) {
            let why = "the clock of the peer asked is wrong, so it cannot tell whether the ticket has expired: ask another \
                       peer of the mesh, or have that clock set";
            return self.turn_down(peer, why.into());
        }
        let at = self.clock.tick(now);
        let before = self.members.get(&peer).map(Member::role);
        let proven = proven.ok_or(Refusal::BadProof);
        match proven.and_then(|proven| self.members.admit_shown(proven, shown, &self.keypair, at)) {
            Ok(admitted) => {
                let role = admitted.member.role();
                if let Err(error) = self.keep_learned(now, peer, admitted.learned) {
                    self.storage_failed("keeping member records", &error);
                    self.send(peer, Message::Refused("this member's disk takes nothing; ask another one".into()));
                    return self.part(peer, DropReason::NoRoom);
                }
                if before < Some(role) && self.notes.may(now, peer, "admitted") {
                    let issuer = request.invitation.body.issuer;
                    tracing::info!(%peer, %role, %issuer, "a ticket was used: admitted, or raised to this role");
                }
                let welcome = Welcome { chain: self.chain(&peer), secret: self.secret.to_bytes() };
                self.send(peer, Message::Welcome(Box::new(welcome)));
                self.greet(now, peer);
            }
            Err(refusal) => {
                if self.notes.may(now, peer, "not admitted") {
                    tracing::info!(%peer, %refusal, "did not take a ticket");
                }
                let why = self.refusal_text(now, &refusal, request.redemption.body.at);
                if matches!(refusal, Refusal::ForeignMesh { .. }) {
                    self.send(peer, Message::Refused(why));
                    return self.part(peer, DropReason::NotAMember);
                }
                self.turn_down(peer, why);
            }
        }
    }

    /// Does not take a ticket. The link to a member stays: it keeps the role that it has.
    fn turn_down(&mut self, peer: PeerId, why: String) {
        self.send(peer, Message::Refused(why));
        if self.members.get(&peer).is_none() {
            self.part(peer, DropReason::NotAMember);
        }
    }

    /// Why a newcomer is not let in, whose clock shows `theirs`: where that and ours differ, a ticket may have expired by
    /// one of them only.
    fn refusal_text(&self, now: Timestamp, refusal: &Refusal, theirs: Timestamp) -> String {
        let off_s = ahead_ms(theirs, self.clock.shows(now)) / 1_000;
        if let Refusal::Expired { expires, now: at } = refusal
            && off_s.unsigned_abs() * 1_000 > CLOCK_DRIFT_MAX_MS
        {
            let (ago_s, way) = (at.since_ms(*expires) / 1_000, if off_s > 0 { "behind" } else { "ahead of" });
            return format!(
                "the ticket expired {ago_s} s ago by the clock of the peer asked, which is {} s {way} the one of this \
                 computer: set the clock that is wrong, or ask an admin for a new ticket",
                off_s.abs()
            );
        }
        refusal.to_string()
    }

    /// Starts to join the mesh of a ticket.
    pub(super) fn join(&mut self, now: Timestamp, id: CommandId, ticket: Box<Ticket>, local: LocalDocuments) {
        if let Err(error) = self.may_join(&ticket, local) {
            return self.effects.push(Effect::Reply(id, Err(error)));
        }
        let open: BTreeSet<String> = ticket.addresses().iter().cloned().collect();
        let deadline = now.plus_ms(JOIN_MS);
        let addresses: Vec<String> = open.iter().cloned().collect();
        let connected: BTreeSet<PeerId> = self.neighbours.keys().copied().collect();
        let is_invited = |peer: &&PeerId| addresses.iter().any(|address| is_of(address, peer));
        // Who has greeted us as a member has refused nothing.
        let is_admitted = |peer: &&PeerId| self.neighbours.get(*peer).is_some_and(Neighbour::is_admitted);
        let early = connected.iter().filter(|peer| is_invited(peer) && !is_admitted(peer)).copied().collect();
        self.joining =
            Some(Joining { ticket, local, reply: id, deadline, open, early, tried: Vec::new(), only_refusals: true });
        for address in addresses {
            match connected.iter().find(|peer| is_of(&address, peer)) {
                Some(peer) => self.greet(now, *peer),
                None => self.effects.push(Effect::Dial(address)),
            }
        }
    }

    fn may_join(&self, ticket: &Ticket, local: LocalDocuments) -> Result<()> {
        self.may_turn()?;
        if ticket.addresses().is_empty() {
            return Err(Error::invalid("the ticket carries no address: ask for one from a peer that can be reached"));
        }
        if ticket.mesh() == self.mesh() {
            // Who fell comes back by a new ticket, and one for a higher role raises that of a member.
            return match self.members.get(&self.peer_id()).map(Member::role) {
                Some(ours) if ours >= ticket.role() => Err(Error::Conflict(format!(
                    "this peer is a member of mesh {} already, as {ours}, and the ticket is for a {}: only one for a higher \
                     role changes that",
                    self.mesh(),
                    ticket.role()
                ))),
                Some(_) | None => Ok(()),
            };
        }
        if self.members.len() > 1 {
            return Err(Error::Conflict(format!(
                "this peer shares mesh {} with {} others; leave it first (mesh leave), or start another peer with its own \
                 --data-dir",
                self.mesh(),
                self.members.len() - 1
            )));
        }
        if local == LocalDocuments::Carry && ticket.role() == Role::Reader && self.store.documents() > 0 {
            return Err(Error::Conflict(
                "the ticket is for a reader, who cannot carry the documents of this peer over; leave them behind \
                 (they stay on the disk), or ask for a writer's ticket"
                    .into(),
            ));
        }
        Ok(())
    }

    /// A member lets us in.
    pub(super) fn welcome(&mut self, now: Timestamp, peer: PeerId, welcome: &Welcome, shown: Vec<Member>) {
        // Only whom the ticket names is believed.
        let invited = |joining: &mut Joining| joining.ticket.addresses().iter().any(|address| is_of(address, &peer));
        let Some(joining) = self.joining.take_if(invited) else { return };
        match self.enter(now, peer, &joining, welcome.secret, shown) {
            Ok(()) => {}
            Err(error) => self.effects.push(Effect::Reply(joining.reply, Err(error))),
        }
    }

    fn enter(
        &mut self,
        now: Timestamp,
        by: PeerId,
        joining: &Joining,
        secret: [u8; 32],
        shown: Vec<Member>,
    ) -> Result<()> {
        if joining.ticket.mesh() == self.mesh() {
            return self.enter_again(now, by, joining, shown);
        }
        let mut members = Members::found(joining.ticket.genesis().clone());
        members.learn(shown);
        let me = members.get(&self.peer_id()).ok_or_else(|| {
            Error::Denied(format!("{by} answered the ticket without a record of our membership; ask another member"))
        })?;
        let may_write = me.role().allows(crate::access::Ability::Write);
        let local = if may_write { joining.local } else { LocalDocuments::Leave };
        self.turn(now, Turn { members, secret, local, reply: joining.reply, by })
    }

    /// A member lets us in again after we fell, or in a higher role: all is where it was.
    fn enter_again(&mut self, now: Timestamp, by: PeerId, joining: &Joining, shown: Vec<Member>) -> Result<()> {
        let learned = self.members.learn(shown);
        self.keep_learned(now, by, learned)?;
        let role = self.members.get(&self.peer_id()).map(Member::role);
        if role < Some(joining.ticket.role()) {
            return Err(Error::Denied(format!("{by} took a ticket that is used up; ask for another")));
        }
        self.entered(joining.reply, by, 0);
        // Others that were shown the ticket wait for a greeting.
        let is_asked = |peer: &PeerId| joining.ticket.addresses().iter().any(|address| is_of(address, peer));
        for peer in self.neighbours.keys().copied().filter(is_asked).collect::<Vec<_>>() {
            self.say_hello(now, peer);
        }
        Ok(())
    }

    /// The other side will not let us in.
    pub(super) fn refused(&mut self, now: Timestamp, peer: PeerId, why: &str) {
        let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
        if let Some(joining) = &mut self.joining {
            if joining.early.contains(&peer) {
                return;
            }
            let of_peer: Vec<String> = joining.open.iter().filter(|address| is_of(address, &peer)).cloned().collect();
            if !of_peer.is_empty() {
                for address in of_peer {
                    joining.open.remove(&address);
                }
                joining.tried.push(format!("{peer} refused: {why}"));
                self.give_up_joining(now);
                if self.members.get(&peer).is_some() {
                    // It stays linked, and may know no more of us than the ticket.
                    self.say_hello(now, peer);
                }
                return;
            }
        }
        if self.notes.may(now, peer, "refused") {
            tracing::info!(%peer, why, "a peer refused us");
        }
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
        // Whether a ticket has expired is for the member to say that is asked: this clock may be the wrong one.
        let shows = self.clock.shows(now);
        let ago_s = shows.since_ms(joining.ticket.expires()) / 1_000;
        let expired = if ago_s > 0 && !denied {
            format!("; by the clock of this computer, which shows {shows}, the ticket expired {ago_s} s ago")
        } else {
            String::new()
        };
        let text = format!("no member let us in; tried {}{expired}", tried.join("; "));
        let error = if denied { Error::Denied(text) } else { Error::Unavailable(text) };
        self.effects.push(Effect::Reply(joining.reply, Err(error)));
    }

    /// Ends the link to a peer.
    pub(super) fn part(&mut self, peer: PeerId, reason: DropReason) {
        *self.counters.parted.entry(reason.as_str()).or_default() += 1;
        self.clock.forget(&peer);
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
