//! The peer.

use std::process::ExitCode;

fn main() -> ExitCode {
    aerolithsdb::cli::settle_allocator();
    aerolithsdb::cli::install_crypto_provider();
    aerolithsdb::cli::run_peer()
}
