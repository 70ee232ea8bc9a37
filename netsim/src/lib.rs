//! The network simulator of aerolithsDB: many peers of the code that ships, in one process, in virtual time, from one
//! seed, through every misfortune that a network and a disk can offer.
//!
//! A peer is a state machine without clock, socket or thread ([`aerolithsdb::node`]). Here it gets a virtual clock, a
//! simulated network and a simulated disk in the place of real ones; nothing in it knows. A run founds a mesh, lets
//! programs write while things go wrong, mends everything, and then holds what the peers show against what they
//! promised. It is a function of the scenario and the seed: a failure is repeated by naming both.
//!
//! To read the code, go from `scenario` (what happens) to `time`, `link` and `network` (what is between the peers),
//! `host` (one machine), `world` (the queue of events) with `founding`, `wire` and `gossip`, `data`, `workload` and
//! `expected` (what is written, and what was promised), `memory` (what it costs), `hostile`, `run` (one run) and `check` (what must hold at its end).
//!
//! What is not simulated: libp2p itself (handshakes, gossipsub's own choice of neighbours, Kademlia), threads, and disks
//! that lie while they work. Tests with real processes are in `tests/`. For real peers behind real NATs there is `lab`,
//! which shares nothing with the simulator but the program.

pub mod check;
pub mod data;
mod dated;
pub mod expected;
mod founding;
mod gossip;
pub mod host;
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod link;
pub mod memory;
pub mod minimize;
pub mod network;
pub mod report;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod seeds;
mod step;
pub mod time;
mod wire;
pub mod workload;
pub mod world;

pub use run::{Outcome, run};
pub use scenario::Scenario;
pub use time::Span;

/// What can be wrong with what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The scenario is none.
    #[error("{0}")]
    Scenario(String),
    /// A data set that a workload needs is not there.
    #[error("{0}")]
    Data(String),
    /// A run failed that was not expected to.
    #[error("a run failed: {0}")]
    Run(String),
    /// Something in the lab cannot be done, or does not behave as it should.
    #[error("{0}")]
    Lab(String),
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(String),
}
