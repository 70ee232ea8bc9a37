//! What goes into a node and what comes out: the whole of its contract with the world.

use crate::access::{Role, Terms, Ticket};
use crate::base::{ChangeHash, CollectionName, DocumentKey, MeshId, PeerId, Timestamp};
use crate::document::{Object, Patch, Unchecked};
use crate::identity::Signed;
use crate::index::{Definition, IndexName};
use crate::limits::{WRITE_CONCERN_MS_MAX, WRITE_CONCERN_PEERS_MAX};
use crate::store::Record;
use crate::sync::gossip::Secret;
use crate::sync::receipt::Receipt;
use crate::sync::{Checked, Introduced, Message, Topic};
use crate::{Error, Result};

use super::report::{LeaveReport, MemberReport, PeerReport, SyncReport, WhyReport};

/// Names a command, so that its reply finds the caller.
pub type CommandId = u64;

/// Names a gossip message towards the driver, which needs a verdict before it forwards it.
pub type GossipId = u64;

/// Something that happened or is asked for.
#[derive(Debug)]
pub enum Input {
    /// A program beside the peer asks for something.
    Command(CommandId, Command),
    /// A link to a peer is up; its identity is proven.
    Connected(PeerId, Link),
    /// The link is gone.
    Disconnected(PeerId),
    /// Nothing has come over the link for so many milliseconds, though something must have: it may be gone.
    Unanswered(PeerId, u64),
    /// Something comes over the link again.
    Answered(PeerId),
    /// A dial to this address failed, and why.
    DialFailed(String, String),
    /// Addresses of a peer were learned: from the LAN, the DHT, or the peer itself.
    Discovered(PeerId, Vec<String>),
    /// A peer sent a message.
    Received(PeerId, Box<Message>),
    /// A peer sent a message with member records; their signatures were checked on a worker.
    Introduced(PeerId, Box<Introduced>),
    /// A peer sent changes; their signatures were checked on a worker.
    Changes {
        /// The sender.
        from: PeerId,
        /// The frame's number.
        number: u64,
        /// The changes.
        changes: Vec<Checked>,
    },
    /// Changes arrived over gossip; their signatures were checked on a worker.
    Published {
        /// The neighbour that passed the message on.
        from: PeerId,
        /// The message, for the verdict.
        id: GossipId,
        /// The changes.
        changes: Vec<Checked>,
    },
    /// A gossip message of ours could not be sent to everybody.
    PublishFailed,
    /// The network is another one, or reaches further than before: addresses that failed are worth another try.
    NetworkChanged,
    /// The clock of this machine was set, or went on while the machine was asleep: it is that much ahead now of the time
    /// that the node is told, which never jumps.
    ClockSet {
        /// Milliseconds.
        ahead_ms: i64,
    },
    /// The time asked for by [`Effect::WakeAt`] has come.
    Wake,
}

/// How a peer is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The remote multiaddr.
    pub address: String,
    /// Whether we dialed it, so that the address is good for the next time.
    pub dialed: bool,
    /// Whether no relay is in between.
    pub direct: bool,
}

/// What a program asks for.
#[derive(Debug)]
pub enum Command {
    /// Create a document or replace what it holds.
    Put {
        /// The document.
        document: DocumentKey,
        /// What it is to hold: a JSON object.
        body: Object,
        /// What must be so for it to happen.
        condition: Condition,
    },
    /// Change parts of a document.
    Patch {
        /// The document.
        document: DocumentKey,
        /// What is to change.
        patch: Patch,
        /// What must be so for it to happen.
        condition: Condition,
        /// What happens when the document does not exist.
        absent: Absent,
    },
    /// Delete a document.
    Delete {
        /// The document.
        document: DocumentKey,
        /// What must be so for it to happen.
        condition: Condition,
    },
    /// Do a write, and answer when so many other peers have it on their disks too.
    Confirm {
        /// The document that it writes.
        document: DocumentKey,
        /// The write.
        write: Box<Self>,
        /// How many, and how long to wait for them.
        concern: WriteConcern,
    },
    /// Make an empty collection.
    CreateCollection(CollectionName),
    /// Declare an index, or declare it anew.
    PutIndex(CollectionName, IndexName, Definition),
    /// Drop an index.
    DropIndex(CollectionName, IndexName),
    /// Make a ticket.
    Invite {
        /// Role, expiry and uses.
        terms: Terms,
        /// Multiaddrs at which this peer can be reached, each ending in its peer id.
        addresses: Vec<String>,
    },
    /// Join the mesh of a ticket.
    Join {
        /// The ticket.
        ticket: Box<Ticket>,
        /// What happens to the documents of the mesh that is left.
        local: LocalDocuments,
    },
    /// Found a mesh of this one peer and turn to it.
    Found {
        /// Its name.
        name: String,
        /// What happens to the documents of the mesh that is left.
        local: LocalDocuments,
        /// Whether those who stay may be without an admin.
        farewell: Farewell,
    },
    /// Leave the others: found a mesh as the first start of this peer did, and turn to it.
    Part {
        /// What happens to the documents of the mesh that is left.
        local: LocalDocuments,
        /// Whether those who stay may be without an admin.
        farewell: Farewell,
    },
    /// A reader found this document damaged on the disk.
    Damaged(DocumentKey),
    /// Who is in sync.
    Sync,
    /// How one document stands.
    Why(DocumentKey),
    /// Whether so many other peers have everything that is here.
    Leave(WriteConcern),
    /// The members of the mesh.
    Members,
    /// This peer and its neighbours.
    Status,
}

/// How many other peers must have something on their disks, and how long to wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteConcern {
    /// Other peers; this one has it anyway.
    pub peers: usize,
    /// Milliseconds.
    pub timeout_ms: u64,
}

impl WriteConcern {
    /// Checks that nobody waits for too many or for too long.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what may be.
    pub(crate) fn check(self) -> Result<()> {
        if self.peers <= WRITE_CONCERN_PEERS_MAX && self.timeout_ms <= WRITE_CONCERN_MS_MAX {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a write waits for at most {WRITE_CONCERN_PEERS_MAX} peers and {WRITE_CONCERN_MS_MAX} ms"
        )))
    }
}

/// What must be so for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The document must not exist.
    Absent,
    /// The document must exist.
    Present,
    /// The document's heads must be one of these.
    Heads(Vec<Vec<ChangeHash>>),
}

/// What a patch does when its document does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absent {
    /// It fails.
    #[default]
    Refuse,
    /// It makes the document, starting from no fields ("upsert").
    Create,
}

/// What happens to local documents on turning to another mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalDocuments {
    /// They are written into that mesh.
    #[default]
    Carry,
    /// They stay behind, on the disk, invisible.
    Leave,
}

/// Whether the members of a mesh that is left may be without an admin, so that nobody lets others in any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Farewell {
    /// One of them is an admin.
    #[default]
    WithAdmin,
    /// None of them need be.
    WithoutAdmin,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The document is new, or was deleted before.
    Created,
    /// The document was there before.
    Replaced,
    /// The document held exactly that already; nothing was written.
    Unchanged,
    /// The document is deleted.
    Deleted,
}

/// The answer to a command.
#[derive(Debug)]
pub enum Reply {
    /// A write is durable.
    Written(Write, Record),
    /// A write is durable, and other peers have it as far as the receipts say.
    Confirmed {
        /// What it did.
        write: Write,
        /// The document after it.
        record: Record,
        /// One of each peer that has it on its disk.
        receipts: Vec<Signed<Receipt>>,
        /// Whether they are as many as were asked for.
        complete: bool,
    },
    /// Whether it is safe to leave.
    Leave {
        /// Whether as many peers as asked for have everything.
        safe: bool,
        /// Every peer that was compared since the start.
        peers: Vec<LeaveReport>,
    },
    /// A ticket.
    Ticket(Box<Ticket>),
    /// Whether a collection is new; it is there in any case.
    Collection(bool),
    /// Whether a declaration of an index, or its end, changed anything.
    Index(bool),
    /// The mesh is another one now.
    Entered {
        /// The mesh.
        mesh: MeshId,
        /// Its name.
        name: String,
        /// The member who let us in: this peer itself when it founded the mesh.
        by: PeerId,
        /// What this peer may do there; `None` when it lost that already.
        role: Option<Role>,
        /// Documents that were carried over.
        carried: u64,
    },
    /// Who is in sync.
    Sync(Box<SyncReport>),
    /// How one document stands.
    Why(Box<WhyReport>),
    /// The members.
    Members(Vec<MemberReport>),
    /// This peer.
    Status(Box<PeerReport>),
}

/// Something to be done in the world.
#[derive(Debug)]
pub enum Effect {
    /// Send a message to a connected peer.
    Send(PeerId, Message),
    /// Publish changes on a topic, sealed under the mesh's secret.
    Publish(Topic, Vec<Unchecked>),
    /// Pass a gossip message on, or not.
    Verdict(GossipId, Verdict),
    /// Dial an address; it ends in the peer id when that is known.
    Dial(String),
    /// Close the link to a peer.
    Drop(PeerId, DropReason),
    /// Call again at this time at the latest; only the last one counts.
    WakeAt(Timestamp),
    /// Tell whoever watches.
    Emit(Event),
    /// Answer a command.
    Reply(CommandId, Result<Reply>),
    /// The mesh is this from now on.
    Context(MeshContext),
}

impl Effect {
    /// What is left of an effect when the flush before it failed: errors for answers, no messages.
    pub(super) fn unless_durable(self, error: &Error) -> Option<Self> {
        match self {
            Self::Reply(id, Ok(_)) => Some(Self::Reply(id, Err(error.clone()))),
            Self::Verdict(id, _) => Some(Self::Verdict(id, Verdict::Ignore)),
            Self::Emit(_) => Some(Self::Emit(Event::StorageFailed(error.to_string()))),
            Self::Reply(..) | Self::Dial(_) | Self::Drop(..) | Self::WakeAt(_) | Self::Context(_) => Some(self),
            Self::Send(..) | Self::Publish(..) => None,
        }
    }
}

/// Effects in the order in which they are to be carried out.
#[must_use = "effects do nothing unless the driver carries them out"]
#[derive(Debug, Default)]
pub struct Effects(pub Vec<Effect>);

/// What is to become of a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: pass it on.
    Accept,
    /// Of no use here; do not pass it on, nobody is to blame.
    Ignore,
    /// Invalid: the sender loses score.
    Reject,
}

/// Why a peer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// It is in another mesh.
    ForeignMesh,
    /// It showed no membership.
    NotAMember,
    /// It joined, and does not stand among those whom its ticket lets in.
    Fallen,
    /// It did not greet in time.
    Silent,
    /// It sent what no honest peer sends.
    Misbehaved,
    /// We have turned to another mesh.
    LeftMesh,
    /// Our disk took no more, and takes changes again: what was left out is sent again over a new link.
    NoRoom,
}

impl DropReason {
    /// The word by which logs and counters show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignMesh => "foreign_mesh",
            Self::NotAMember => "not_a_member",
            Self::Fallen => "member_fell",
            Self::Silent => "silent",
            Self::Misbehaved => "misbehaved",
            Self::LeftMesh => "left_mesh",
            Self::NoRoom => "no_room",
        }
    }
}

/// Something that whoever watches may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A document changed and the change is durable.
    Changed {
        /// The document.
        document: DocumentKey,
        /// Whether it is deleted now.
        deleted: bool,
        /// The change's position in the feed.
        position: u64,
        /// Whether the change was made here.
        local: bool,
    },
    /// A member is connected and was greeted.
    PeerUp(PeerId),
    /// A member is gone.
    PeerDown(PeerId),
    /// A peer was dropped.
    PeerDropped(PeerId, DropReason),
    /// Everything was found equal with this peer.
    InSync(PeerId),
    /// Somebody joined the mesh.
    MemberJoined(PeerId),
    /// Somebody is no member any more: those who come before it use up its ticket.
    MemberFell(PeerId),
    /// The storage refused; writes fail until the peer is started again.
    StorageFailed(String),
}

/// What the driver must know of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshContext {
    /// The mesh.
    pub mesh: MeshId,
    /// Its name.
    pub name: String,
    /// The secret under which live changes are sealed.
    pub secret: Secret,
}
