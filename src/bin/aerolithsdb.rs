//! The peer.

use std::process::ExitCode;

fn main() -> ExitCode {
    aerolithsdb::cli::install_crypto_provider();
    aerolithsdb::cli::run_peer()
}
