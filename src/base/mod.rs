//! The words every other module speaks: identifiers, hybrid logical time, and the canonical codec.
//!
//! Nothing here knows about disks, networks or documents, and nothing here reads a clock.

mod codec;
mod id;
mod rfc3339;
mod spelling;
mod time;

pub use codec::{Decode, DecodeError, Encode, Reader, Writer};
pub use id::{
    ActorId, ChangeHash, CollectionName, DocumentId, DocumentKey, GrantId, Hash, Incarnation, InvalidId, MeshId, PeerId,
};
pub use spelling::{edit_distance, suggestion};
pub use time::{Clock, Hlc, Timestamp};
