//! The program `netsim`: runs scenarios with many seeds, makes failing ones smaller, and draws what they cost.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use netsim::memory::{self, Tracked};
use netsim::minimize::minimize;
use netsim::report::{self, Summary};
use netsim::seeds::{Seeds, run_all};
use netsim::{Error, Outcome, Scenario, data, scale};

/// The network simulator of aerolithsDB: many peers of the code that ships, in virtual time, from one seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario with one or many seeds
    Run(Run),
    /// List the scenarios that come with the program
    List,
    /// Leave out of a failing scenario what it does not need
    Minimize(Minimize),
    /// Draw convergence time, messages and bytes as charts in an HTML file
    Report(Report),
    /// Grow a mesh and print what each peer costs
    Scale(Scale),
    /// Real peers behind real NATs, in network namespaces of this machine
    #[cfg(target_os = "linux")]
    #[command(subcommand)]
    Lab(netsim::lab::command::Command),
}

#[derive(Debug, Args)]
struct Run {
    /// A scenario by its name, or a TOML file
    scenario: String,
    /// One seed, or a range such as 0..1000
    #[arg(long, default_value = "0..10")]
    seeds: Seeds,
    /// Seeds that run side by side [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Run each seed twice and compare the traces
    #[arg(long)]
    twice: bool,
    /// Write the outcome of each run to this file, as NDJSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Minimize {
    /// A scenario by its name, or a TOML file
    scenario: String,
    /// The seed that fails
    #[arg(long)]
    seed: u64,
    /// Seeds to try each smaller scenario with
    #[arg(long, default_value_t = 5)]
    tries: u64,
}

#[derive(Debug, Args)]
struct Report {
    /// Where to write it
    #[arg(long, default_value = "netsim.html", value_name = "FILE")]
    output: PathBuf,
    /// Seeds of each point
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Peers at most
    #[arg(long, default_value_t = 40)]
    peers_max: usize,
}

#[derive(Debug, Args)]
struct Scale {
    /// Peers of each step
    #[arg(long, value_delimiter = ',', default_value = "10,20,50,100,200,500,1000")]
    peers: Vec<usize>,
}

/// So that what each peer holds is known.
#[global_allocator]
static ALLOCATOR: Tracked = Tracked::system();

fn main() -> ExitCode {
    memory::track();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(run) => run_seeds(&run),
        Command::List => list(),
        Command::Minimize(args) => minimized(&args),
        Command::Report(args) => draw(&args),
        Command::Scale(args) => grow(&args),
        #[cfg(target_os = "linux")]
        Command::Lab(command) => netsim::lab::command::run(&command),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<ExitCode, Error> {
    for name in Scenario::shipped() {
        println!("{name:<22} {}", Scenario::load(name)?.about);
    }
    Ok(ExitCode::SUCCESS)
}

fn run_seeds(args: &Run) -> Result<ExitCode, Error> {
    let scenario = Scenario::load(&args.scenario)?;
    data::check(&scenario.workload)?;
    let mut json = args.json.as_ref().map(create).transpose()?;
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = bar(args.seeds.0.end - args.seeds.0.start);
    let (mut summary, mut written) = (Summary::default(), Ok(()));
    run_all(&scenario, &args.seeds, jobs, args.twice, |outcome| {
        if !outcome.wrong.is_empty() {
            bar.suspend(|| print_failure(&args.scenario, &outcome));
        }
        if let Some(file) = &mut json {
            let line = serde_json::to_string(&outcome).unwrap_or_default();
            if let Err(error) = writeln!(file, "{line}") {
                written = Err(error);
            }
        }
        summary.add(&outcome);
        bar.inc(1);
        bar.set_message(format!("{} failed", summary.failed));
    });
    bar.finish_and_clear();
    written.map_err(|error| Error::Io(format!("the outcomes cannot be written: {error}")))?;
    println!("{}", summary.text(&scenario.name));
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_failure(scenario: &str, outcome: &Outcome) {
    println!("FAILED: netsim run {scenario} --seeds {}", outcome.seed);
    for wrong in &outcome.wrong {
        println!("  {wrong}");
    }
}

fn minimized(args: &Minimize) -> Result<ExitCode, Error> {
    let scenario = Scenario::load(&args.scenario)?;
    let Some(found) = minimize(&scenario, args.seed, args.tries, |line| println!("{line}")) else {
        println!("{} does not fail with seed {}", args.scenario, args.seed);
        return Ok(ExitCode::SUCCESS);
    };
    println!("\nwhat is left fails with seed {}, {} peers:", found.outcome.seed, found.outcome.peers);
    for wrong in &found.outcome.wrong {
        println!("  {wrong}");
    }
    println!("\nas a scenario:\n\n{}", found.scenario.to_toml());
    Ok(ExitCode::FAILURE)
}

fn draw(args: &Report) -> Result<ExitCode, Error> {
    let points = report::sizes(args.peers_max).len() + report::DIFFERENCES.len();
    let bar = bar(points as u64 * args.seeds);
    let page = report::page(args.seeds, args.peers_max, || bar.inc(1))?;
    bar.finish_and_clear();
    create(&args.output)?
        .write_all(page.as_bytes())
        .map_err(|error| Error::Io(format!("{}: {error}", args.output.display())))?;
    println!("{}", args.output.display());
    Ok(ExitCode::SUCCESS)
}

fn grow(args: &Scale) -> Result<ExitCode, Error> {
    println!("{}", scale::HEADING);
    for &peers in &args.peers {
        println!("{}", scale::measure(peers)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn create(path: &PathBuf) -> Result<std::fs::File, Error> {
    std::fs::File::create(path).map_err(|error| Error::Io(format!("{} cannot be written: {error}", path.display())))
}

/// A bar of progress on a terminal, and none elsewhere.
fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
