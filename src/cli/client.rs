//! The client: its flags, its commands, and its end.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::failure::Outcome;
use super::http::{Access, Peer};
use super::output::{Format, Output, line};
use super::{collection, config, document, mesh, node, status, sync, watch};

/// Talks to a running aerolithsDB peer.
#[derive(Debug, Parser)]
#[command(name = "aerolithsdb-cli", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable")]
struct Args {
    #[command(flatten)]
    access: Access,
    /// How answers are shown; by default tables on a terminal and JSON in a pipe
    #[arg(long, visible_alias = "format", short, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read and write documents
    #[command(subcommand, visible_alias = "doc")]
    Document(document::Command),
    /// List collections and what they hold
    #[command(subcommand)]
    Collection(collection::Command),
    /// Invite peers, join a mesh, see its members
    #[command(subcommand)]
    Mesh(mesh::Command),
    /// See the peer and its neighbours
    #[command(subcommand)]
    Node(node::Command),
    /// See who is in sync, and what is in the way
    #[command(subcommand)]
    Sync(sync::Command),
    /// Print what changes in a collection, as it changes
    Watch(watch::Watch),
    /// See how the peer does
    #[command(subcommand)]
    Status(status::Command),
    /// Make, check and show configurations
    #[command(subcommand)]
    Config(config::Command),
    /// Print shell completions, to be sourced or installed
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs the client with the arguments of the process.
#[must_use]
pub fn run() -> ExitCode {
    match execute(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            failure.code()
        }
    }
}

fn execute(args: Args) -> Outcome {
    let peer = || Peer::at(&args.access);
    let output = Output::new(args.output);
    match args.command {
        Command::Document(command) => document::run(command, &peer()?, output),
        Command::Collection(command) => collection::run(command, &peer()?, output),
        Command::Mesh(command) => mesh::run(command, &peer()?, output),
        Command::Node(command) => node::run(command, &peer()?, output),
        Command::Sync(command) => sync::run(command, &peer()?, output),
        Command::Watch(watch) => watch::run(&watch, &peer()?, output),
        Command::Status(command) => status::run(command, &peer()?, output),
        Command::Config(command) => config::run(command, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "aerolithsdb-cli", &mut script);
            line(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_described_spellings_are_understood() {
        Args::command().debug_assert();
        for line in [
            r#"document put users user123 {"name":"Alice"}"#,
            "document put users user123 -",
            "document get users user123",
            "document update users user123 {}",
            "document put users user123 {} --w 2 --timeout-ms 100",
            "document delete users user123 --w 1",
            "sync safe-to-leave --peers 2",
            "document delete users user123",
            "document get users user123 --at 2026-11-25T10:00:00Z",
            "document history users user123 --limit 5",
            "document conflicts users user123",
            "document diff users user123 --from 2026-11-25T10:00:00Z --to 2026-11-26T10:00:00Z --json-patch",
            "document restore users user123 --at 2026-11-25T10:00:00Z",
            "collection list",
            "collection list users --limit 50 --offset 0",
            "collection stats",
            "mesh invite --role reader --expires-in 1d --uses 3",
            "mesh join aero1x",
            "mesh peers",
            "status health",
            "status system --format table",
            "--output json status system",
            "node status",
            "node join aero1x --local-documents leave",
            "sync status",
            "watch users --since beginning --id-prefix a --no-data",
            "sync why users user123",
            "config init",
            "config check peers/worker.toml",
            "config show --profile laptop",
            "completions bash",
        ] {
            let words = std::iter::once("aerolithsdb-cli").chain(line.split(' '));
            if let Err(error) = Args::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
        let wrong = Args::try_parse_from(["aerolithsdb-cli", "documnet", "get"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
        assert!(wrong.to_string().contains("document"), "{wrong}");
    }
}
