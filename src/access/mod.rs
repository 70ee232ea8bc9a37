//! Who belongs to a mesh and what they may do, in a form that anybody can check offline.
//!
//! A mesh begins with its signed [`Genesis`]; the founder is its first admin. An admin signs an
//! [`Invitation`], which travels in a [`Ticket`] together with a one-time key. Whoever has the ticket signs a
//! [`Redemption`] with that key and shows it to any member, who signs the [`Admission`]. The three signatures
//! are the new member's [`MemberRecord`], which every peer keeps in its [`Members`] table and hands on.
//! [`Members::check`] is the only way to a [`Grant`], and every read and write path takes one.
//!
//! What keeps the tables of all peers equal, whatever the order in which records arrive:
//! - A record counts when its issuer was an admin and its admitter a member *before* it, by the records'
//!   hybrid times. So no two records can vouch for each other, and what once counts keeps counting.
//! - Of several records of one member those stay that no other beats: another beats one when it gives at least
//!   the same role from no later a time on (ties go to the smaller hash).
//!
//! The time of joining is what the admitting member says it is; a member who lies about it can let a ticket
//! outlive its expiry. Two members apart can admit more joiners than a ticket has uses: all of them stay, and
//! [`Members::overused`] tells. Removing members is not part of this form.

mod admit;
mod genesis;
mod grant;
mod invitation;
mod member;
mod members;
mod refusal;
mod role;
#[cfg(test)]
mod tests;
mod ticket;

pub use admit::{Admitted, Terms};
pub use genesis::Genesis;
pub use grant::{Denial, Grant};
pub use invitation::Invitation;
pub use member::{Admission, Joined, Member, MemberRecord, Redemption, Rejected};
pub use members::{Insertion, Members, Need, Overuse};
pub use refusal::Refusal;
pub use role::{Ability, Role};
pub use ticket::{JoinRequest, Ticket, TicketError};

use crate::base::{Encode, Hash};

/// The hash of a record's canonical encoding, for one purpose.
fn hash(purpose: &str, record: &impl Encode) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(&record.to_bytes());
    Hash(*hasher.finalize().as_bytes())
}
