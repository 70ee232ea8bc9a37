//! Documents: JSON outside, Automerge inside.
//!
//! - [`json`] reads JSON from clients: strict, bounded, and exact about numbers.
//! - [`Change`] is one Automerge change that passed the screen; nothing else ever reaches Automerge.
//! - [`Document`] is an open document: create, replace, patch, delete, apply changes of others, view; and its past:
//!   its changes ([`HistoryPage`]), its versions ([`Version`]), their [`Differences`], and its [`Conflicts`].
//! - [`patch`] is the language of patches: update operators, JSON Patch, JSON Merge Patch.
//!
//! Three rules of this module are part of the protocol, because peers that disagreed on them would diverge:
//!
//! 1. **A change has one valid form**: the bytes that Automerge itself writes. Automerge stores operations,
//!    not changes, and writes the changes anew from them; bytes of any other form would come back with
//!    another hash, and a saved document would not load.
//! 2. **A change refers only to its own past**: every operation, object and list element that it names exists,
//!    is of the right kind, and was made by the change itself or by one that it depends on, and a value is
//!    overwritten only in its own place. Automerge takes this for granted: it panics, or keeps or drops the
//!    reference depending on what else arrived in the same batch.
//! 3. **Of two changes under one sequence number of an actor one stands**: the one that was made earlier by its author's
//!    clock, then the one with the smaller hash ([`Document::stands_before`]). What builds on the other is not part
//!    of the document. `store/fork` says why.
//!
//! What is left out: signatures and rights (`access`), storage (`store`).

mod align;
mod apply;
mod change;
mod column;
mod conflict;
mod counter;
mod difference;
mod edit;
mod envelope;
mod error;
mod first;
mod history;
pub mod json;
mod open;
mod operation;
pub mod patch;
mod place;
mod present;
mod remake;
mod replay;
mod run;
#[cfg(test)]
mod tests;
mod tip;
mod version;
mod view;

pub use change::Change;
pub use conflict::{Conflict, Conflicts, Rival};
pub use difference::{Bounds, Difference, Differences, Side, differences};
pub use envelope::{Author, Envelope, Header, Refused, Unchecked};
pub use error::{Broken, Refusal, ScreenError};
pub use json::Object;
pub use open::{Applied, Document};
pub use operation::DELETE_MARK;
pub use patch::Patch;
pub use remake::Remaking;
pub use run::Run;
pub use tip::Tip;
pub use version::{At, Authors, ChangeKind, HistoryEntry, HistoryPage, Version};
pub use view::bounded;
