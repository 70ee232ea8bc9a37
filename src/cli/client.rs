//! The client: its flags, its commands, and its end.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::failure::Outcome;
use super::http::{Access, Peer};
use super::output::{Format, Output, line};
use super::{bench, collection, config, document, export, import, index, mesh, node, query, status, sync, watch};

/// The name of `--format` among the arguments.
const SHOWN: &str = "shown_as";

/// The name of the program.
const NAME: &str = "aerolithsdb-cli";

/// Talks to a running aerolithsDB peer.
#[derive(Debug, Parser)]
#[command(name = NAME, version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable")]
struct Args {
    #[command(flatten)]
    access: Access,
    /// How answers are shown; by default tables on a terminal and JSON in a pipe
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", help_heading = "Output")]
    output: Option<Format>,
    /// Show documents as queries and exports do: their fields with their _id, and nothing beside
    #[arg(long, global = true, help_heading = "Output")]
    flat: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read and write documents
    #[command(subcommand, visible_alias = "doc")]
    Document(document::Command),
    /// List collections and what they hold, make and drop them
    #[command(subcommand)]
    Collection(collection::Command),
    /// Ask for documents: filter, sort, count, aggregate, and see how that is done
    #[command(subcommand)]
    Query(query::Command),
    /// Declare indexes, see how far they are, drop them
    #[command(subcommand)]
    Index(index::Command),
    /// Found a mesh, invite peers, join, leave, see its members
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
    Status(status::Status),
    /// Write the documents of a file into a collection
    Import(import::Import),
    /// Write a collection into a file
    Export(export::Export),
    /// Put load on the peer and show how it bears it
    Bench(bench::Bench),
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
    let args = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match execute(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            failure.code()
        }
    }
}

/// The commands, with `--format` as another name of `--output`, but where a file has a format of its own.
fn command() -> clap::Command {
    let format = || {
        let parser = clap::builder::EnumValueParser::<Format>::new();
        clap::Arg::new(SHOWN).long("format").value_parser(parser).hide(true)
    };
    let add = |command: clap::Command| match command.get_name() {
        "import" | "export" => command,
        _ => command.arg(format().global(true)),
    };
    Args::command().arg(format()).mut_subcommands(add)
}

fn parse<T: Into<std::ffi::OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<Args, clap::Error> {
    let matches = command().try_get_matches_from(words)?;
    let mut args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))?;
    let shown = |matches: &clap::ArgMatches| matches.try_get_one::<Format>(SHOWN).ok().flatten().copied();
    let within = matches.subcommand().and_then(|(_, matches)| shown(matches));
    args.output = args.output.or(within).or_else(|| shown(&matches));
    Ok(args)
}

/// The completions of a shell.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    // Bash's are given two names for the program as its name has a hyphen, and find nothing below the first word
    // (clap_complete 4.6.11).
    script.replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__"))
}

fn execute(args: Args) -> Outcome {
    let peer = || Peer::at(&args.access);
    let output = Output::new(args.output, args.flat);
    match args.command {
        Command::Document(command) => document::run(command, &peer()?, output),
        Command::Collection(command) => collection::run(command, &peer()?, output),
        Command::Query(command) => query::run(command, &peer()?, output),
        Command::Index(command) => index::run(command, &peer()?, output),
        Command::Mesh(command) => mesh::run(command, &peer()?, output),
        Command::Node(command) => node::run(command, &peer()?, output),
        Command::Sync(command) => sync::run(command, &peer()?, output),
        Command::Watch(watch) => watch::run(&watch, &peer()?, output),
        Command::Status(status) => status::run(&status, &peer()?, output),
        Command::Import(command) => import::run(&command, &peer()?, output),
        Command::Export(command) => export::run(&command, &peer()?, output),
        Command::Bench(command) => bench::run(&command, &peer()?, output),
        Command::Config(command) => config::run(command, output),
        Command::Completions { shell } => line(completions(shell).trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_described_spellings_are_understood() {
        command().debug_assert();
        for line in [
            r#"document put users user123 {"name":"Alice"}"#,
            "document put users user123 -",
            "document get users user123",
            "document update users user123 {}",
            r#"document insert users {"name":"Ada"} --w 1"#,
            "document insert users @user.json",
            "document list users --limit 5 --flat",
            "document get users user123 --at -1h --flat",
            "document diff users user123 --from -2d --to -1d",
            "document restore users user123 --at yesterday",
            "document put users user123 {} --w 2 --timeout-ms 100",
            "document delete users user123 --w 1",
            "sync safe-to-leave --peers 2",
            "--token -a-token-may-start-like-an-option status health",
            r#"document patch users user123 {"$inc":{"visits":1}} --upsert"#,
            r#"document patch users user123 --merge {"name":"Ada"}"#,
            "document patch users user123 --json-patch -",
            "document delete users user123",
            "document get users user123 --at 2026-11-25T10:00:00Z",
            "document history users user123 --limit 5",
            "document conflicts users user123",
            "document diff users user123 --from 2026-11-25T10:00:00Z --to 2026-11-26T10:00:00Z --json-patch",
            "document restore users user123 --at 2026-11-25T10:00:00Z",
            "collection list",
            "collection list users --limit 50 --offset 0",
            "collection stats",
            "collection create users",
            "collection drop users --yes",
            r#"query search users --filter {"age":{"$gte":18}} --limit 100"#,
            r#"query search users --sort -age,name --offset 20 --projection {"name":1} --hint by-age --timeout-ms 500"#,
            r#"query search users {"age":{"$gte":18}} --projection -secret"#,
            r#"query count users {"age":1}"#,
            r#"query distinct users address.city {"age":1}"#,
            "query explain users {} --projection name,city",
            "query search users --cursor -AAA --all",
            "query search users --explain",
            r#"query count users --filter {"age":{"$gte":18}} --estimate"#,
            r#"query aggregate users [{"$count":"n"}] --timeout-ms 100"#,
            "query aggregate users -",
            "query distinct users address.city --filter {}",
            "query explain users --filter {} --sort name --limit 5",
            "index create users by-name --fields country,-name --unique --sparse --wait",
            "index create users by-age --fields -age --filter {} --expire-after-s 60",
            "index create users words --type text",
            "index create users place --type geo --fields place",
            "index list users --format table",
            "index drop users by-name",
            "index conflicts users by-name --limit 5",
            "mesh init office --local-documents leave",
            "mesh leave",
            "mesh leave --local-documents carry --yes --at-once --without-admin",
            "mesh invite --role reader --expires-in 1d --uses 3",
            "mesh join aero1x",
            "mesh peers",
            "status",
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
            "import cities cities.ndjson.gz --resume --errors failed.ndjson --connections 8",
            "import cities cities.csv --delimiter ;",
            r#"export cities cities.ndjson --force --filter {"country":"IS"}"#,
            "import cities - --format csv --strings --id name --mode insert",
            "export cities",
            "export cities cities.csv --columns _id,name --output json",
            "bench --collection bench --seconds 10 --connections 32 --mix read --size 500 --cleanup --format json",
            "completions bash",
        ] {
            let words = std::iter::once("aerolithsdb-cli").chain(line.split(' '));
            if let Err(error) = parse(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_wrong_word_leads_to_the_right_one() {
        for (line, right) in [
            ("documnet get", "document"),
            ("document gett users a", "get"),
            ("mesh invit", "invite"),
            ("collection lst", "list"),
            ("--outptu json status health", "--output"),
            ("import users x.csv --fromat csv", "--format"),
        ] {
            let words = std::iter::once("aerolithsdb-cli").chain(line.split(' '));
            let wrong = parse(words).unwrap_err();
            assert_eq!(wrong.exit_code(), 2);
            assert!(wrong.to_string().contains(&format!("'{right}'")), "{line}: {wrong}");
        }
    }

    #[test]
    fn format_is_output_but_where_files_have_one() {
        let output = |line: &str| {
            let words = std::iter::once("aerolithsdb-cli").chain(line.split(' '));
            parse(words).unwrap().output
        };
        for line in [
            "status system --format table",
            "--format table status system",
            "status -o table system",
            "bench --format table",
        ] {
            assert_eq!(output(line), Some(Format::Table), "{line}");
        }
        assert_eq!(output("import c f.csv --format csv"), None);
        assert_eq!(output("import c f.csv --format csv -o ndjson"), Some(Format::Ndjson));
    }
}
