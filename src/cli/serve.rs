//! The peer as a program: from flags to a running peer, and back down on a signal.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::task::JoinHandle;

use super::config::Sources;
use super::log::LogFile;
use super::{banner, log, open_files, seed};
use crate::config::{Config, Settings};
use crate::gateway::{self, Gateway};
use crate::{Error, Peer, Result};

/// How long threads that wait for the disk or the network may hold up the end of the process.
const LINGER: Duration = Duration::from_secs(1);
/// After this time the end of the process says what it waits for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The exit code after a second signal: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// A peer of an aerolithsDB mesh: documents on this machine, in sync with every other peer of the mesh.
///
/// Without arguments the data is in ./data, programs find the peer at http://127.0.0.1:8080, and peers on the same
/// LAN find each other. Stronger than the configuration file are environment variables
/// (AEROLITHSDB_ and the path of a key, such as AEROLITHSDB_STORAGE_DATA_DIR), and stronger than those are flags.
#[derive(Debug, Parser)]
#[command(name = "aerolithsdb", version)]
struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Where the data and the identity of the peer are kept
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The port of the REST gateway; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    rest_port: Option<String>,
    /// The address on which the REST gateway listens
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// The file with the token that every call to the REST gateway needs; made when it is not there
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// TLS of the REST gateway: off, generated (a certificate of its own, for clients that pin it), or files
    #[arg(long, value_name = "WORD")]
    tls: Option<String>,
    /// Where to listen for other peers: a port, address:port, or a multiaddr; 0 takes a free port
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<String>,
    /// A peer to meet first: a multiaddr, or host:port of its REST gateway
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    seed: Vec<String>,
    /// Neither search for peers on the LAN nor be found there
    #[arg(long)]
    no_mdns: bool,
    /// Give the data folder, a copy of another peer's, an identity of its own, and end
    ///
    /// Its documents come along into a mesh of its own; start it as always then, and join the mesh with a ticket.
    #[arg(long)]
    new_identity: bool,
    /// What to log: error, warn, info, debug, trace, or directives such as aerolithsdb=debug,libp2p=info
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl Args {
    /// What the flags set.
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        let mut set = |path, text: Option<&str>| text.map_or(Ok(()), |text| settings.set_text(path, text));
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
        set("storage.data_dir", self.data_dir.as_deref())?;
        set("api.rest_api.port", self.rest_port.as_deref())?;
        set("api.rest_api.bind", self.bind.as_deref())?;
        set("security.token_file", self.token_file.as_deref())?;
        set("security.tls", self.tls.as_deref())?;
        set("network.listen", list(&self.listen).as_deref())?;
        set("node.seed_nodes", list(&self.seed).as_deref())?;
        set("network.mdns", self.no_mdns.then_some("false"))?;
        set("observability.logging.level", self.log.as_deref())?;
        Ok(settings)
    }

    fn config(&self) -> Result<Config> {
        let mut settings = Settings::default();
        for (_, layer) in self.sources.layers()? {
            settings.overlay(layer);
        }
        settings.overlay(self.settings()?);
        Config::new(&settings)
    }
}

/// Runs a peer with the arguments of the process, until a signal ends it.
#[must_use]
pub fn run() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let config = args.config()?;
    open_files::prepare()?;
    let log_file = log::init(&config.logging)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Io(format!("the system gives no threads: {error}")))?;
    let ended = runtime.block_on(async {
        if args.new_identity { renew_identity(config).await } else { live(config, log_file).await }
    });
    runtime.shutdown_timeout(LINGER);
    ended
}

async fn renew_identity(config: Config) -> Result<()> {
    let folder = config.data_dir.display().to_string();
    let peer = Peer::renew_identity(config.peer).await?;
    println!("{folder} belongs to peer {peer} now, in a mesh of its own with all documents.");
    println!("Start it as always, and join the mesh again: aerolithsdb-cli mesh join TICKET");
    Ok(())
}

/// A peer's life, from its start to a signal.
async fn live(config: Config, log_file: LogFile) -> Result<()> {
    let mut signals = Signals::new()?;
    let hangups = tokio::spawn(hangups(log_file)?);
    let peer = Peer::start(config.peer).await.map_err(advise)?;
    let token_file = config.rest.as_ref().and_then(|rest| rest.token_file.clone());
    let gateway = match serve(&peer, config.rest).await {
        Ok(gateway) => gateway,
        Err(error) => {
            peer.shutdown().await;
            return Err(error);
        }
    };
    let rest = gateway.as_ref().map(|gateway| banner::Rest {
        address: gateway.address(),
        fingerprint: gateway.fingerprint(),
        token_file: token_file.as_deref(),
    });
    banner::print(&peer, rest, &config.data_dir).await?;
    tracing::info!(peer = %peer.id(), version = env!("CARGO_PKG_VERSION"), "started");
    let seeds = ask_seeds(&peer, config.rest_seeds);
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    tracing::info!("stopping; a second signal ends the process at once");
    hangups.abort();
    seeds.iter().for_each(JoinHandle::abort);
    if let Some(gateway) = gateway {
        patiently("requests that are being answered", gateway.shutdown()).await;
    }
    patiently("what is queued for other peers, and the router that gives ports back", peer.end()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a part of the end, and says so when it takes long.
async fn patiently(what: &str, part: impl Future<Output = ()>) {
    tokio::pin!(part);
    tokio::select! {
        () = &mut part => return,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    tracing::info!("still waiting for {what}");
    part.await;
}

/// A hangup, as of a terminal that is closed or from a program that has moved the log file away, does not end the peer: its
/// log file is opened anew.
#[cfg(unix)]
fn hangups(log_file: LogFile) -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Error::Io(format!("signals cannot be caught: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            match log_file.open_anew() {
                Ok(true) => tracing::info!("SIGHUP: the log file is opened anew"),
                Ok(false) => tracing::info!("SIGHUP: the log goes to no file, so nothing is done"),
                Err(error) => tracing::warn!(%error, "SIGHUP: the log goes on in the file that it had"),
            }
        }
    })
}

#[cfg(not(unix))]
fn hangups(_: LogFile) -> Result<impl Future<Output = ()>> {
    Ok(std::future::pending())
}

async fn serve(peer: &Peer, config: Option<gateway::Config>) -> Result<Option<Gateway>> {
    match config {
        Some(config) => gateway::serve(peer.clone(), config).await.map(Some),
        None => Ok(None),
    }
}

fn ask_seeds(peer: &Peer, seeds: Vec<String>) -> Vec<JoinHandle<()>> {
    seeds.into_iter().map(|seed| tokio::spawn(seed::ask(peer.clone(), seed))).collect()
}

/// Adds where a port is set that is in use, which the layers below cannot know.
fn advise(error: Error) -> Error {
    let text = error.to_string();
    if !text.contains("the port is in use") {
        return error;
    }
    Error::Io(format!(
        "{text}. It is set with --listen PORT, AEROLITHSDB_NETWORK_LISTEN, or network.listen in the configuration"
    ))
}

/// The signals that end a peer.
#[derive(Debug)]
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error| Error::Io(format!("signals cannot be caught: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::PeerConfig;

    #[test]
    fn flags_set_keys() {
        Args::command().debug_assert();
        let line = "aerolithsdb --data-dir d --rest-port 0 --bind ::1 --listen 0 --listen 127.0.0.1:5 --seed a:1 \
                    --no-mdns --token-file t --tls generated";
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let config = Config::new(&args.settings().unwrap()).unwrap();
        let rest = config.rest.unwrap();
        assert_eq!((config.data_dir.to_str(), rest.port, rest.bind.to_string().as_str()), (Some("d"), 0, "::1"));
        assert_eq!((rest.token_file, rest.tls), (Some("t".into()), Some(gateway::Tls::Generated("d".into()))));
        assert_eq!(config.peer.network.listen, ["/ip4/127.0.0.1/udp/5/quic-v1", "/ip4/127.0.0.1/tcp/5"]);
        assert_eq!(config.peer.network.listen_ports, [0]);
        assert_eq!((config.rest_seeds, config.peer.network.mdns), (vec!["http://a:1".to_owned()], false));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut config = PeerConfig::local();
        config.network.listen = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
        let error = advise(Peer::start(config).await.unwrap_err()).to_string();
        assert!(error.contains(&port.to_string()) && error.contains("in use") && error.contains("--listen"), "{error}");
        assert_eq!(advise(Error::Io("no".into())), Error::Io("no".into()));
    }
}
