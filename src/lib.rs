//! aerolithsDB: a peer-to-peer mesh database of JSON documents.
//!
//! Every peer holds replicas of the documents of its mesh as Automerge CRDTs in an embedded store, works
//! offline, and exchanges signed changes with other peers. There is no server. Programs embed a [`Peer`],
//! or talk to the one beside them over HTTP.
//!
//! # Words
//!
//! - **Mesh**: the set of peers that share data; named by the hash of its signed genesis record.
//! - **Peer**: one process, one store, one Ed25519 identity (the same key is its libp2p identity).
//! - **Collection**: a named set of documents.
//! - **Document**: a JSON object under a string id, held in three forms: the log of its changes, a
//!   compacted snapshot, and the *view*, the current JSON, which is all that reading needs.
//! - **Change**: one Automerge change in a signed envelope: the unit of storage, of sync and of trust.
//! - **Heads**: the changes that no other change depends on: a document's version. Its ETag is made of them.
//! - **Grant**: proof that somebody was allowed to do a thing, made only by the access check.
//!
//! # The one idea
//!
//! The peer is a deterministic state machine: [`node::Node::handle`] takes a time and inputs, and returns
//! effects. No clock, socket, thread or global randomness is inside. A driver around it owns the network,
//! the clock and the threads; the simulator (`netsim/`) puts virtual ones in their place and drives the same code.
//!
//! # Layers
//!
//! A module uses only those above it in this list (`tests/tidy.rs` holds that).
//!
//! | module | what it is |
//! |---|---|
//! | `error`, [`limits`], [`memory`], [`base`] | the public error; every bound; shares of memory; ids, hybrid time, the canonical codec |
//! | [`kv`], [`identity`] | ordered keys on a disk behind a commit journal; keys and signatures |
//! | [`value`] | JSON values in place: their order, keys that keep it, paths |
//! | [`filter`] | what queries ask of a document; values computed from it |
//! | [`document`], [`access`] | JSON and Automerge, signed changes; members, tickets, grants |
//! | [`index`] | what an index is, and a document's keys in it |
//! | [`store`] | logs, views, snapshots, range summaries: one change, one atomic batch |
//! | [`query`] | queries over views: their order, what is shown, pipelines |
//! | [`sync`] | reconciliation, messages, credit, the ledger of who is in sync |
//! | [`query`] | queries over views and indexes: planner, pages, aggregation |
//! | [`node`] | the state machine |
//! | [`mesh`] | libp2p: the driver that owns the swarm; NATs, relays, hole punching (`mesh::nat`) |
//! | [`peer`] | the thread around the node, and the handles that programs hold |
//! | [`gateway`] | HTTP |
//! | [`config`], [`cli`] | configuration in four layers; the two programs |
//!
//! # Data paths
//!
//! - **Write**: gateway, `peer`, a bounded channel, `node/write`: access check, edit, signature,
//!   `store/commit`, flush. Only then the reply, and gossip.
//! - **Sync in**: a frame, `mesh` (its signatures are checked on workers), `node/inbound`: the *author's*
//!   right, merge, `store/commit`, flush. Only then the acknowledgement, and what is passed on.
//! - **Read**: gateway, `peer`, `store/reader`. No node thread, no network, no Automerge.
//! - **Feed**: gateway, `peer/feed`, `store/feed`, up to where everything is durable.
//! - **Past** (history, old versions, conflicts): gateway, `peer/version`, `store/opened`, `document/version`: a
//!   document is opened from its log beside the node, a few at a time.
//! - **Receipts** (write concern): `node/receipt` asks the neighbours, which answer when they have it on their disks.
//!
//! # Promises
//!
//! 1. Acknowledged means durable, and nothing is announced before it is durable.
//! 2. Peers with the same changes show the same documents, whatever the order of arrival, also when an author signed
//!    two changes under one sequence number.
//! 3. Reads stay available, and cost the same however long a document's history is.
//! 4. Catching up costs what changed, not what is stored.
//! 5. Memory is bounded by caches (the range summaries keep about 7 bytes a document).
//! 6. Nothing disappears silently: what cannot be applied is counted, and kept where it may become valid.
//! 7. A hostile peer can waste its own quota only: every queue and frame is bounded.
//!
//! # Where to start reading
//!
//! [`node`] for the machine, [`sync`] for the protocol, [`store`] for the layout on the disk,
//! [`kv`] for what happens at a power cut, [`document`] for what a valid change is.

pub mod access;
pub mod base;
pub mod cli;
pub mod config;
pub mod document;
mod error;
pub mod filter;
pub mod gateway;
pub mod identity;
pub mod index;
pub mod kv;
pub mod limits;
pub mod memory;
pub mod mesh;
pub mod node;
pub mod peer;
pub mod query;
pub mod store;
pub mod sync;
pub mod value;

pub use base::PeerId;
pub use document::Patch;
pub use error::{Error, Invalid, InvalidKind, Result};
pub use node::{Absent, Condition, Event, Farewell, LocalDocuments, WriteConcern};
pub use peer::{At, Changes, Collection, Document, Feed, Mesh, Peer, PeerConfig};
pub use store::FeedCursor;
