//! The peer.
//!
//! With the feature `jemalloc` it runs on that allocator, whose threads give back to the system what was freed. With the
//! system's (glibc) the same work five times takes ever more memory, and what a busy hour took stays. Programs that embed
//! a peer choose for themselves.

use std::process::ExitCode;

#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    aerolithsdb::cli::install_crypto_provider();
    aerolithsdb::cli::run_peer()
}
