//! Who a peer is: an Ed25519 key, and what was signed with it.
//!
//! [`Keypair`] is a peer's secret, kept in a file of its own. [`Signed`] is a record as it travels, trusted by
//! nobody; [`Verified`] is the same record after its signature was checked, and there is no other way to make
//! one. What a signer is *allowed* to do is not asked here: that is `access`.

mod keypair;
pub mod secret_file;
mod signed;

pub use keypair::{KeyFileError, Keypair};
pub use secret_file::SecretFileError;
pub use signed::{BadSignature, Signable, Signature, Signed, Verified, verify};
