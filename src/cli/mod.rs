//! The two programs: the peer and its client. Both are thin around what the layers below do.
//!
//! - `serve` the peer: from flags to a running peer, and back down on a signal; `open_files` how many it may have,
//!   `allocator` how it keeps memory
//! - `document`, `collection`, `query`, `index`, `mesh`, `node`, `sync`, `status`, `watch`, `config` the client's commands,
//!   one file each; `version` those of `document` that are about its past, `plan` how a query is answered
//! - `turn` how the client leaves a mesh or turns to another: asking before, waiting, showing how far it is
//! - `import`, `export` files into collections and back; `bench` load on a peer
//! - `http` how the client calls a peer, `tls` whom it trusts; `output` how it shows an answer, `quantity` sizes and
//!   times in it; `failure` how it ends
//!
//! The client knows nothing of the peer's inside: it speaks HTTP, and shows what it is told.

mod allocator;
mod banner;
mod bench;
mod client;
mod collection;
mod config;
mod document;
mod export;
mod failure;
mod http;
mod import;
mod index;
mod log;
mod mesh;
mod node;
mod open_files;
mod output;
mod plan;
mod quantity;
mod query;
mod seed;
mod serve;
mod status;
mod sync;
mod tls;
mod turn;
mod version;
mod watch;

pub use allocator::settle_allocator;
pub use client::run as run_client;
pub use serve::run as run_peer;

/// Makes the one cryptography provider that TLS in QUIC and TCP uses the default of the process. To be called
/// first in every program.
pub fn install_crypto_provider() {
    // An error means that one is installed already, which serves as well.
    let _: Result<(), _> = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
