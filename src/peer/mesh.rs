//! The mesh as a program uses it: inviting, joining, founding, leaving, and who is in sync.

use std::time::Duration;

use super::doctor::{self, Finding};
use super::{Peer, run};
use crate::Result;
use crate::access::{Role, Terms, Ticket};
use crate::base::{DocumentKey, MeshId, PeerId};
use crate::mesh::Tried;
use crate::mesh::nat::ReachReport;
use crate::node::{
    Command, Farewell, LeaveReport, LocalDocuments, MemberReport, PeerReport, Reply, SyncReport, WhyReport,
    WriteConcern,
};

/// The invariant behind the `unreachable!`s below.
const ANSWERED: &str = "each command is answered by its own kind of reply";

/// What a ticket gives.
#[derive(Debug, Clone, Copy)]
pub struct Invite {
    /// The role of those who join.
    pub role: Role,
    /// For how long the ticket can be used.
    pub expires_in: Duration,
    /// How many can join with it.
    pub uses: u32,
}

impl Default for Invite {
    /// One writer, within a week.
    fn default() -> Self {
        Self { role: Role::Writer, expires_in: Duration::from_secs(7 * 24 * 60 * 60), uses: 1 }
    }
}

/// A mesh that was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The mesh.
    pub mesh: MeshId,
    /// The member that let us in.
    pub by: PeerId,
    /// What this peer may do there; `None` when it lost that already.
    pub role: Option<Role>,
    /// Documents that were carried over from before.
    pub carried: u64,
}

/// A mesh that was founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// The mesh.
    pub mesh: MeshId,
    /// Its name.
    pub name: String,
    /// Documents that were carried over from before.
    pub carried: u64,
}

/// A handle to the mesh of a peer.
#[derive(Debug, Clone)]
pub struct Mesh {
    peer: Peer,
}

impl Mesh {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer }
    }

    /// Makes a ticket that carries this peer's addresses.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when this peer is not an admin, `Invalid` for terms that break a rule.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket> {
        let expires_ms = u64::try_from(invite.expires_in.as_millis()).unwrap_or(u64::MAX);
        let terms = Terms { role: invite.role, expires: run::now().plus_ms(expires_ms), uses: invite.uses };
        let addresses = self.peer.shared.network.best_addresses();
        let Reply::Ticket(ticket) = self.peer.command(Command::Invite { terms, addresses }).await? else {
            unreachable!("{ANSWERED}")
        };
        Ok(*ticket)
    }

    /// What is known of each address that a ticket of this peer names: whether somebody reaches it there. Ways through relays
    /// are tried, which takes a few seconds at most.
    pub async fn try_ticket(&self, ticket: &Ticket) -> Vec<(String, Tried)> {
        let found = self.peer.shared.network.try_addresses(ticket.addresses()).await;
        ticket.addresses().iter().cloned().zip(found).collect()
    }

    /// Joins the mesh of a ticket and stays in it. A ticket of the mesh that this peer is in raises its role.
    ///
    /// # Errors
    /// `Invalid` for a text that is no ticket, `Denied` when it has expired, `Conflict` when this peer shares
    /// another mesh with others or has the role of the ticket or a higher one, `Unavailable` with everything that was tried when no member let us in.
    pub async fn join(&self, ticket: &str, local: LocalDocuments) -> Result<Joined> {
        let ticket = Box::new(Ticket::parse(ticket.trim())?);
        let reply = self.peer.command(Command::Join { ticket, local }).await?;
        let Reply::Entered { mesh, by, role, carried, .. } = reply else { unreachable!("{ANSWERED}") };
        Ok(Joined { mesh, by, role, carried })
    }

    /// Founds a new mesh of this one peer and turns to it. What the mesh before holds stays on the disk, invisible,
    /// and its members go on without this peer.
    ///
    /// # Errors
    /// `Invalid` for a name that breaks its rule, `Conflict` while this peer turns to another mesh already, and when the
    /// members that stay need an admin and have none.
    pub async fn init(&self, name: &str, local: LocalDocuments, farewell: Farewell) -> Result<Founded> {
        self.found(Command::Found { name: name.to_owned(), local, farewell }).await
    }

    /// Leaves the mesh that this peer shares with others: as [`Mesh::init`], with the name that the peer is set up
    /// with. A ticket of the left mesh lets it come back.
    ///
    /// # Errors
    /// `Conflict` when nobody shares the mesh, while this peer turns to another mesh already, and when the members that
    /// stay need an admin and have none.
    pub async fn leave(&self, local: LocalDocuments, farewell: Farewell) -> Result<Founded> {
        self.found(Command::Part { local, farewell }).await
    }

    async fn found(&self, command: Command) -> Result<Founded> {
        let Reply::Entered { mesh, name, carried, .. } = self.peer.command(command).await? else {
            unreachable!("{ANSWERED}")
        };
        Ok(Founded { mesh, name, carried })
    }

    /// The members, in the order of their ids, and after them those who were let in and are no members.
    ///
    /// # Errors
    /// `Unavailable` when the peer is overloaded or shut down.
    pub async fn members(&self) -> Result<Vec<MemberReport>> {
        let Reply::Members(members) = self.peer.command(Command::Members).await? else { unreachable!("{ANSWERED}") };
        Ok(members)
    }

    /// This peer and its neighbours.
    ///
    /// # Errors
    /// `Unavailable` when the peer is overloaded or shut down.
    pub async fn status(&self) -> Result<PeerReport> {
        let Reply::Status(status) = self.peer.command(Command::Status).await? else { unreachable!("{ANSWERED}") };
        Ok(*status)
    }

    /// Who is in sync, as of when, behind by how much, and what is in the way.
    ///
    /// # Errors
    /// `Unavailable` when the peer is overloaded or shut down.
    pub async fn sync(&self) -> Result<SyncReport> {
        let Reply::Sync(sync) = self.peer.command(Command::Sync).await? else { unreachable!("{ANSWERED}") };
        Ok(*sync)
    }

    /// How one document stands.
    ///
    /// # Errors
    /// `NotFound` when nothing is known of it, `Unavailable` when the peer is overloaded or shut down.
    pub async fn why(&self, document: DocumentKey) -> Result<WhyReport> {
        let Reply::Why(why) = self.peer.command(Command::Why(document)).await? else { unreachable!("{ANSWERED}") };
        Ok(*why)
    }

    /// Whether so many other peers have everything that is here on their disks; waits for that until the time is
    /// over. With every peer that was compared since the start.
    ///
    /// # Errors
    /// `Invalid` for a concern beyond its bounds, `Unavailable` when the peer is overloaded or shut down.
    pub async fn safe_to_leave(&self, concern: WriteConcern) -> Result<(bool, Vec<LeaveReport>)> {
        let Reply::Leave { safe, peers } = self.peer.command(Command::Leave(concern)).await? else {
            unreachable!("{ANSWERED}")
        };
        Ok((safe, peers))
    }

    /// Multiaddrs on which this peer listens, with their real ports.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.peer.shared.network.listen_addresses()
    }

    /// Multiaddrs at which others outside may reach this peer.
    #[must_use]
    pub fn external_addresses(&self) -> Vec<String> {
        self.peer.shared.network.external_addresses()
    }

    /// How this peer is reached, and how it reaches others.
    #[must_use]
    pub fn reach(&self) -> ReachReport {
        self.peer.shared.network.reach()
    }

    /// What is wrong with this peer's network, in plain words.
    ///
    /// # Errors
    /// As [`Mesh::status`].
    pub async fn diagnose(&self) -> Result<Vec<Finding>> {
        Ok(doctor::diagnose(&self.status().await?, &self.reach(), run::now()))
    }

    /// Tells the peer where another one may be found.
    pub fn learn(&self, peer: PeerId, addresses: Vec<String>) {
        self.peer.shared.runner.discovered(peer, addresses);
    }
}
