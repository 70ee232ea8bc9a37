//! The client of a peer.

use std::process::ExitCode;

fn main() -> ExitCode {
    aerolithsdb::cli::run_client()
}
