//! Turning to another mesh: one that was joined, or one that this peer founds, by itself or to leave the others.
//!
//! It moves the peer to a fresh space of its store: what the left mesh holds stays on the disk, and its documents are
//! carried over by writing them again, page by page, in a way that a crash only interrupts. Those who stay in the left
//! mesh are not told more than that the link ends: its records of members name this peer still, and a ticket lets it
//! come back. Not here: being let in by others, see `membership`.

use crate::access::{Member, Members, Role};
use crate::base::{
    CollectionName, Decode, DecodeError, DocumentId, DocumentKey, Encode, PeerId, Reader as Decoder, Timestamp, Writer,
};
use crate::limits::PAGE_BYTES_MAX;
use crate::store::{Reader, Store};
use crate::sync::Ledger;
use crate::sync::gossip::Secret;
use crate::{Error, Result};

use super::Node;
use super::effect::{CommandId, Condition, DropReason, Effect, Farewell, LocalDocuments, Reply};
use super::spreading::Spreading;

/// Milliseconds before carrying goes on after the disk refused.
const CARRY_RETRY_MS: u64 = 10_000;

/// Documents that are carried over at a time.
const CARRY_PAGE: usize = 200;

/// A mesh to turn to.
pub(super) struct Turn {
    /// Its members, this peer among them.
    pub(super) members: Members,
    /// Its secret.
    pub(super) secret: [u8; 32],
    /// What happens to the documents of the mesh that is left.
    pub(super) local: LocalDocuments,
    /// Whom to answer.
    pub(super) reply: CommandId,
    /// Who let us in; this peer itself when it founded the mesh.
    pub(super) by: PeerId,
}

/// Documents on their way from the space of a left mesh.
#[derive(Debug)]
pub(super) struct Carry {
    from: Reader,
    cursor: CarryCursor,
    /// The collections that are left, the next one last; `None` until they are listed.
    left: Option<Vec<CollectionName>>,
    /// The last document of the next one that was read.
    after: Option<DocumentId>,
    carried: u64,
    /// When to go on.
    pub(super) next_at: Timestamp,
    /// Whom to answer at the end, unless the peer was started again since, and who let us in.
    reply: Option<(CommandId, PeerId)>,
}

/// Where carrying stands; kept in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CarryCursor {
    space: u8,
    /// The last document that was carried.
    after: Option<DocumentKey>,
}

impl Encode for CarryCursor {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.space).value(&self.after);
    }
}

impl Decode for CarryCursor {
    fn decode(reader: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { space: reader.u8()?, after: reader.value()? })
    }
}

impl Carry {
    fn new(from: Reader, cursor: CarryCursor, now: Timestamp, reply: Option<(CommandId, PeerId)>) -> Self {
        Self { from, cursor, left: None, after: None, carried: 0, next_at: now, reply }
    }

    /// Goes on with what a crash interrupted.
    pub(super) fn resume(store: &Store, cursor: CarryCursor) -> Self {
        Self::new(store.reader_of(cursor.space), cursor, Timestamp::default(), None)
    }

    /// The next documents, in the order of collections and ids; empty at the end.
    fn next(&mut self) -> Result<Vec<(DocumentKey, bytes::Bytes)>> {
        let mut left = match self.left.take() {
            Some(left) => left,
            None => self.list()?,
        };
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while documents.len() < CARRY_PAGE
            && bytes < PAGE_BYTES_MAX
            && let Some(collection) = left.last()
        {
            let page = self.from.page(collection, self.after.as_ref(), CARRY_PAGE - documents.len())?;
            for id in &page.damaged {
                tracing::warn!(%collection, %id, "damaged on the disk, and not carried over");
            }
            for (id, record) in page.documents {
                bytes += record.view.len();
                documents.push((DocumentKey::new(collection.clone(), id), record.view));
            }
            self.after = page.next;
            if self.after.is_none() {
                left.pop();
            }
        }
        self.left = Some(left);
        Ok(documents)
    }

    /// The collections from the cursor on.
    fn list(&mut self) -> Result<Vec<CollectionName>> {
        let after = self.cursor.after.as_ref();
        let names = self.from.collections()?.into_iter().map(|(name, _)| name);
        let mut left: Vec<_> = names.filter(|name| after.is_none_or(|after| after.collection <= *name)).collect();
        left.reverse();
        self.after = after.filter(|after| left.last() == Some(&after.collection)).map(|after| after.id.clone());
        Ok(left)
    }
}

impl Node {
    /// Founds a mesh of this one peer and turns to it.
    pub(super) fn found(
        &mut self,
        now: Timestamp,
        id: CommandId,
        name: &str,
        local: LocalDocuments,
        farewell: Farewell,
    ) -> Result<()> {
        self.may_turn()?;
        self.may_leave(farewell)?;
        self.store.check_writable()?;
        let (genesis, secret) = super::genesis(name, &self.keypair, &mut self.clock, &mut self.rng, now)?;
        let (members, by) = (Members::found(genesis), self.peer_id());
        self.turn(now, Turn { members, secret, local, reply: id, by })
    }

    /// Leaves the mesh that is shared with others for one of this peer's own.
    pub(super) fn part_from_others(
        &mut self,
        now: Timestamp,
        id: CommandId,
        local: LocalDocuments,
        farewell: Farewell,
    ) -> Result<()> {
        self.may_turn()?;
        if self.members.len() == 1 && self.members.get(&self.peer_id()).is_some() {
            let mesh = self.mesh();
            return Err(Error::Conflict(format!(
                "this peer is alone in mesh {mesh}; there is nobody to leave (mesh init founds another mesh)"
            )));
        }
        self.found(now, id, &self.mesh_name.clone(), local, farewell)
    }

    /// Whether those who stay have an admin, or need none.
    fn may_leave(&self, farewell: Farewell) -> Result<()> {
        let us = self.peer_id();
        let is_admin = |member: &Member| member.role() == Role::Admin;
        let others = self.members.iter().filter(|member| member.peer() != us).count();
        let is_last = self.members.get(&us).is_some_and(is_admin)
            && !self.members.iter().any(|member| member.peer() != us && is_admin(member));
        if farewell == Farewell::WithoutAdmin || !is_last || others == 0 {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "this peer is the only admin of mesh {}: nobody could let others in, raise a role or declare an index any \
             more, for the {others} who stay; give one of them a ticket for an admin first (mesh invite --role admin), or \
             leave them without one on purpose (mesh leave --without-admin, \"without_admin\": true)",
            self.mesh()
        )))
    }

    /// Founds a mesh of this one peer, with all documents that are here.
    pub(super) fn start_over(&mut self, now: Timestamp) -> Result<()> {
        let name = self.mesh_name.clone();
        let (genesis, secret) = super::genesis(&name, &self.keypair, &mut self.clock, &mut self.rng, now)?;
        let (members, cursor) = (Members::found(genesis), CarryCursor { space: self.store.space(), after: None });
        self.store_membership(&members, &secret, Some(&cursor))?;
        self.store.flush()?;
        (self.members, self.secret) = (members, Secret::new(secret));
        self.carry = Some(Carry::resume(&self.store, cursor));
        self.effects.push(Effect::Context(self.context()));
        Ok(())
    }

    /// Whether no turn is under way.
    pub(super) fn may_turn(&self) -> Result<()> {
        if self.joining.is_none() && self.carry.is_none() {
            return Ok(());
        }
        Err(Error::Conflict("this peer is turning to another mesh already; wait for that to end".into()))
    }

    /// Turns to a mesh. The caller is answered when the documents are carried over, or left.
    pub(super) fn turn(&mut self, now: Timestamp, to: Turn) -> Result<()> {
        let Turn { members, secret, local, reply, by } = to;
        let left = self.store.space();
        let cursor = (local == LocalDocuments::Carry).then_some(CarryCursor { space: left, after: None });
        if let Err(error) = self.store_membership(&members, &secret, cursor.as_ref()) {
            self.store.turn_to_space(left)?;
            return Err(error);
        }
        self.members = members;
        self.secret = Secret::new(secret);
        self.ledger = Ledger::default();
        self.fresh.clear();
        self.spreading = Spreading::default();
        self.part_from_left(now, by);
        self.effects.push(Effect::Context(self.context()));
        if let Some(cursor) = cursor {
            let from = self.store.reader_of(left);
            self.carry = Some(Carry::new(from, cursor, now, Some((reply, by))));
        } else {
            self.entered(reply, by, 0);
        }
        if by != self.peer_id() {
            self.greet(now, by);
        }
        Ok(())
    }

    /// Ends what there was with the members of the left mesh: links, addresses, and questions to them.
    fn part_from_left(&mut self, now: Timestamp, by: PeerId) {
        let others: Vec<PeerId> = self.neighbours.keys().copied().filter(|peer| *peer != by).collect();
        for peer in others {
            self.part(peer, DropReason::LeftMesh);
        }
        self.addresses.forget_foreign();
        self.receipts.close(now);
    }

    /// Stores what makes this peer a member of the mesh, in a space of its own. The last record decides: a turn that
    /// is cut off before it never was.
    fn store_membership(&mut self, members: &Members, secret: &[u8; 32], carry: Option<&CarryCursor>) -> Result<()> {
        self.store.begin_space()?;
        for record in members.records() {
            self.store.put_member(&record)?;
        }
        self.store.put_fact("secret", secret)?;
        self.store.put_fact("carry", &carry.cloned())?;
        if let Some(carry) = carry {
            for (name, _) in self.store.reader_of(carry.space).collections()? {
                self.store.create_collection(&name)?;
            }
        }
        self.store.keep_space()
    }

    pub(super) fn entered(&mut self, reply: CommandId, by: PeerId, carried: u64) {
        let (mesh, name) = (self.mesh(), self.members.genesis().name.clone());
        let role = self.members.get(&self.peer_id()).map(Member::role);
        let shown = role.map(tracing::field::display);
        tracing::info!(%mesh, name, role = shown, %by, carried, "this peer is in a mesh that it joined or founded");
        self.effects.push(Effect::Reply(reply, Ok(Reply::Entered { mesh, name, by, role, carried })));
    }

    /// Carries a page of documents over from the mesh that was left. When the disk refuses, the caller is
    /// answered with that, and carrying goes on later from where it was.
    pub(super) fn carry_on(&mut self, now: Timestamp) {
        let Some(mut carry) = self.carry.take_if(|carry| carry.next_at <= now) else { return };
        match self.carry_page(now, &mut carry) {
            Ok(true) => self.carry = Some(carry),
            Ok(false) => {
                if let Some((reply, by)) = carry.reply {
                    self.entered(reply, by, carry.carried);
                }
            }
            Err(error) => {
                self.storage_failed("carrying documents over", &error);
                if let Some((reply, _)) = carry.reply.take() {
                    let why =
                        format!("the mesh is another one now, but not all documents are carried over yet: {error}");
                    self.effects.push(Effect::Reply(reply, Err(Error::Unavailable(why))));
                }
                carry.next_at = now.plus_ms(CARRY_RETRY_MS);
                carry.left = None;
                self.carry = Some(carry);
            }
        }
    }

    /// Carries one page over; false at the end. A document that is in the mesh already stays as it is.
    fn carry_page(&mut self, now: Timestamp, carry: &mut Carry) -> Result<bool> {
        let page = carry.next()?;
        let Some((last, _)) = page.last() else {
            self.store.put_fact("carry", &None::<CarryCursor>)?;
            return Ok(false);
        };
        let after = Some(last.clone());
        for (document, view) in page {
            let body = crate::document::json::parse_document(&view)?;
            if self.store.record(&document)?.is_some() {
                continue;
            }
            match self.put(now, document.clone(), &body, &Condition::Absent) {
                Ok(_) => carry.carried += 1,
                Err(error @ (Error::Invalid(_) | Error::Denied(_) | Error::Conflict(_))) => {
                    tracing::warn!(%document, %error, "a document could not be carried over");
                }
                Err(error) => return Err(error),
            }
        }
        carry.cursor.after = after;
        self.store.put_fact("carry", &Some(carry.cursor.clone()))?;
        Ok(true)
    }
}
