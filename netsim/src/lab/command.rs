//! `netsim lab ...`: the lab from the command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::matrix::{self, Limits, Measured, Pair, Plan};
use super::nat::Family;
use super::peers::Options;
use super::wire::Line;
use super::{Kind, Lab, Result, Topology, chart, missing, reflector, scenes};
use crate::Error;
use crate::time::Span;

/// Exit code where the lab cannot run at all.
const UNSUPPORTED: u8 = 3;

/// What to do in the lab.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this machine lacks to run the lab, and whether its NATs behave as declared
    Check(Check),
    /// Measure who reaches whom through which NATs, and how
    Matrix(Matrix),
    /// Run a scene: real peers, and what happens to them
    Run(Run),
    /// List the scenes
    List,
}

/// What to check.
#[derive(Debug, Args)]
pub struct Check {
    /// Check the NATs of this topology, a TOML file, in the place of one of each kind
    topology: Option<PathBuf>,
}

/// What to measure.
#[derive(Debug, Args)]
pub struct Matrix {
    /// Pairs: LISTENER:DIALER, ticket:LISTENER:DIALER with the ticket of the listener, or same:NAT [default: all]
    #[arg(long, value_delimiter = ',')]
    pairs: Vec<Pair>,
    /// Labs that run side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Measurements of each pair
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// How long to wait for a connection, in seconds
    #[arg(long, default_value_t = 20)]
    patience_s: u64,
    /// What a line delays, in one direction; between two peers there are two lines
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// What it delays besides at most, at random
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// Share of packets that a line loses
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    loss: f64,
    /// What a line carries, in kbit/s; 0 for no limit
    #[arg(long, default_value_t = 0)]
    rate_kbit: u64,
    /// What the lines draw their losses from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fail when a pair is connected later than this
    #[arg(long, value_name = "MS")]
    connected_within_ms: Option<u64>,
    /// Fail when a pair is connected directly, where that is possible, later than this after it was connected at all
    #[arg(long, value_name = "MS")]
    direct_within_ms: Option<u64>,
    /// Write each measurement to this file, as NDJSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the matrix to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    peers: Peers,
}

/// What to run.
#[derive(Debug, Args)]
pub struct Run {
    /// Scenes by name, or `all`
    #[arg(required = true)]
    scenes: Vec<String>,
    #[command(flatten)]
    peers: Peers,
}

/// How peers are started.
#[derive(Debug, Args)]
pub struct Peers {
    /// The program of the peers [default: AEROLITHSDB_PROGRAM, or the one beside this program]
    #[arg(long, value_name = "FILE")]
    peer_program: Option<PathBuf>,
    /// A setting of public peers, such as network.relay.server=true
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    public: Vec<(String, String)>,
    /// A setting of peers behind a NAT
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    private: Vec<(String, String)>,
    /// What peers log
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    peer_log: String,
    /// Keep the logs of the peers in this folder
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

impl Peers {
    fn options(&self) -> Result<Options> {
        let mut options = Options::new(self.peer_program.clone())?;
        options.public.clone_from(&self.public);
        options.private.clone_from(&self.private);
        options.log.clone_from(&self.peer_log);
        options.logs.clone_from(&self.logs);
        Ok(options)
    }
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=0.5).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 0.5".to_owned()),
    }
}

/// Does what is asked.
///
/// # Errors
/// What cannot be done.
pub fn run(command: &Command) -> Result<ExitCode> {
    if !matches!(command, Command::List) {
        let missing = missing();
        missing.iter().for_each(|what| println!("unsupported: {what}"));
        if !missing.is_empty() {
            return Ok(ExitCode::from(UNSUPPORTED));
        }
    }
    match command {
        Command::Check(args) => check(args),
        Command::Matrix(args) => measure(args),
        Command::Run(args) => play(args),
        Command::List => {
            scenes::ALL.iter().for_each(|scene| println!("{:<22} {}", scene.name, scene.about));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(args: &Check) -> Result<ExitCode> {
    if let Some(file) = &args.topology {
        let topology = Topology::load(file)?;
        reflector::check(&Lab::build(&topology)?)?;
        println!("{}: every NAT behaves as declared", topology.name);
        return Ok(ExitCode::SUCCESS);
    }
    let results = std::thread::scope(|scope| {
        let checks = Kind::ALL.map(|kind| (kind, scope.spawn(move || reflector::check_kind(kind))));
        checks.map(|(kind, check)| (kind, check.join().expect("a check does not panic")))
    });
    for (kind, result) in &results {
        let one = |family| format!("IP{family:?} {:?}", kind.declared(family));
        let both = matches!(kind, Kind::Ipv6 | Kind::DualStack);
        let behaves = if both { one(Family::V4) + ", " + &one(Family::V6) } else { one(Family::V4) };
        println!("{kind:<18} {}", result.as_ref().map_or_else(ToString::to_string, |()| behaves));
    }
    Ok(if results.iter().all(|(_, result)| result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(args: &Matrix) -> Result<ExitCode> {
    let plan = Plan {
        pairs: if args.pairs.is_empty() { Pair::all() } else { args.pairs.clone() },
        repeat: args.repeat,
        jobs: args.jobs,
        patience: Duration::from_secs(args.patience_s),
        line: Line {
            delay: Span::ms(args.delay_ms),
            jitter: Span::ms(args.jitter_ms),
            loss: args.loss,
            rate_kbit: args.rate_kbit,
            buffer: Span::default(),
        },
        seed: args.seed,
        options: args.peers.options()?,
    };
    println!("{}", chart::heading());
    let results = matrix::measure_all(&plan, |result| println!("{}", chart::line(result)));
    println!("\n{}\n{}", chart::grid(&results), chart::times(&results));
    if let Some(file) = &args.json {
        write(file, &results.iter().map(json).collect::<String>())?;
    }
    if let Some(file) = &args.svg {
        write(file, &chart::svg(&results))?;
    }
    let limits = Limits { connected_ms: args.connected_within_ms, direct_ms: args.direct_within_ms };
    match matrix::judge(&results, limits) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(faults) => {
            println!("{faults}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn json(result: &Measured) -> String {
    serde_json::to_string(result).unwrap_or_default() + "\n"
}

fn play(args: &Run) -> Result<ExitCode> {
    let options = args.peers.options()?;
    let all = args.scenes.iter().any(|name| name == "all");
    let chosen: Vec<_> = match all {
        true => scenes::ALL.iter().collect(),
        false => args.scenes.iter().map(|name| scenes::find(name)).collect::<Result<_>>()?,
    };
    let mut failed = 0;
    for scene in chosen {
        println!("{}: {}", scene.name, scene.about);
        if let Err(error) = scene.play(&options, |line| println!("  {line}")) {
            failed += 1;
            println!("  FAILED: {error}");
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| Error::Io(format!("{} cannot be written: {error}", file.display())))
}
