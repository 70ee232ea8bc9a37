//! Who belongs to a mesh and what they may do, in a form that anybody can check offline.
//!
//! A mesh begins with its signed [`Genesis`]; the founder is its first admin. An admin signs an
//! [`Invitation`], which travels in a [`Ticket`] together with a one-time key. Whoever has the ticket signs a
//! [`Redemption`] with that key and shows it to any member, who signs the [`Admission`]. The three signatures
//! are the new member's [`MemberRecord`], which every peer keeps in its [`Members`] table and hands on.
//! [`Members::check`] is the only way to a [`Grant`], and every read and write path takes one.
//!
//! What keeps the tables of all peers equal, whatever the order in which records arrive:
//! - A join rests on its issuer, who must have been an admin, and on its admitter, who must have been a member, *before*
//!   it by the records' hybrid times. So no two records can vouch for each other.
//! - Which joins stand is judged from all of them and not remembered, see [`Fall`] for why one does not. Of those of
//!   one invitation as many as it has uses: first those that admins admitted, then the others in the order of their
//!   depth, ties by hash. Of members in all likewise.
//! - Records that do not stand are kept within bounds and handed on, so that all judge alike.
//!
//! So a member that was let in with a ticket which others used elsewhere at the same time can lose its standing when
//! the two sides meet. From then on it is no member: nobody keeps a link to it, nothing that it publishes is taken, it
//! admits nobody, and its receipts do not count. What it had written is part of the documents of those who took it,
//! so members hand that on to each other, and every peer takes it from a member ([`Members::check_author`]): the same
//! changes, the same documents. [`Members::overused`] names who fell; an admin lets it in again by a new ticket.
//!
//! What this does not prevent: the time of joining is what the admitting member says it is, so a member can let a
//! ticket outlive its expiry as long as it has uses left, and can use up what is left of a ticket that it knows.
//! Removing members is not part of this form.

mod admit;
mod genesis;
mod grant;
mod invitation;
mod member;
mod members;
mod refusal;
mod role;
mod standing;
#[cfg(test)]
mod tests;
mod ticket;

pub use admit::{Admitted, Terms};
pub use genesis::Genesis;
pub use grant::{Denial, Grant};
pub use invitation::Invitation;
pub use member::{Admission, Joined, Member, MemberRecord, Redemption, Rejected};
pub use members::{Insertion, Learned, Members, Need, Overuse};
pub use refusal::Refusal;
pub use role::{Ability, Role};
pub use standing::Fall;
pub use ticket::{JoinRequest, ProvenRequest, Ticket, TicketError};

use crate::base::{Encode, Hash};

/// The hash of a record's canonical encoding, for one purpose.
fn hash(purpose: &str, record: &impl Encode) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(&record.to_bytes());
    Hash(*hasher.finalize().as_bytes())
}
