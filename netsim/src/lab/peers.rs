//! Real peers in the lab: the program that ships, started on a host, and a client for its gateway, which listens on the
//! loopback interface of that host and is called from inside.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aerolithsdb::config::key::Key;
use serde_json::{Value, json};

use super::namespace::Process;
use super::{Kind, Lab, Namespace, Result, failed};
use crate::Error;

/// The environment variable that names the program.
const PROGRAM: &str = "AEROLITHSDB_PROGRAM";
/// What environment variables of the peers start with.
const PREFIX: &str = "AEROLITHSDB_";
/// The port at which peers listen to each other, by default.
pub const PORT: u16 = 4001;
/// How long a call may take.
const CALL: Duration = Duration::from_secs(20);
/// How long a peer may take until it serves, on a machine that does something else besides.
const START: Duration = Duration::from_secs(60);

/// How peers are started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// Configuration of peers with a public address, as pairs such as `network.relay.server` and `true`.
    pub public: Vec<(String, String)>,
    /// Configuration of the others.
    pub private: Vec<(String, String)>,
    /// What they log.
    pub log: String,
    /// Where the logs stay; they go with the lab when there is none.
    pub logs: Option<PathBuf>,
}

impl Options {
    /// Peers as they are by default, of the program that is given, that `AEROLITHSDB_PROGRAM` names, or that is beside
    /// the running one.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn new(program: Option<PathBuf>) -> Result<Self> {
        let beside = || {
            let own = std::env::current_exe().ok()?;
            // Tests are in a folder below the programs.
            own.ancestors().skip(1).take(2).map(|folder| folder.join("aerolithsdb")).find(|file| file.is_file())
        };
        let named = program.or_else(|| std::env::var_os(PROGRAM).map(PathBuf::from));
        let program = named.or_else(beside).filter(|file| file.is_file()).ok_or_else(|| {
            Error::Lab(format!(
                "the program of the peers is not there: build it with `cargo build`, or name it with --peer-program or {PROGRAM}"
            ))
        })?;
        let program = std::path::absolute(&program).map_err(failed(program.display()))?;
        Ok(Self { program, public: Vec::new(), private: Vec::new(), log: "info".to_owned(), logs: None })
    }
}

impl Options {
    /// The same, for peers that [`Peer::fill_disk`] does not kill.
    ///
    /// # Errors
    /// When the file that starts them cannot be written.
    pub fn unkillable(&self, lab: &Lab) -> Result<Self> {
        let (program, starter) = (self.program.display(), lab.folder().join("start.sh"));
        let text = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{program}' \"$@\"\n");
        std::fs::write(&starter, text).map_err(failed(starter.display()))?;
        std::fs::set_permissions(&starter, std::fs::Permissions::from_mode(0o755))
            .map_err(failed(starter.display()))?;
        Ok(Self { program: starter, ..self.clone() })
    }

    /// Whether no peer of a lab has panicked, by what they logged: a task that panics takes a connection along, and the
    /// peer goes on.
    ///
    /// # Errors
    /// [`Error::Lab`] with the first panic.
    pub fn check_logs(&self, lab: &Lab) -> Result<()> {
        let folder = self.logs.as_deref().unwrap_or(lab.folder());
        for entry in std::fs::read_dir(folder).map_err(failed(folder.display()))? {
            let path = entry.map_err(failed(folder.display()))?.path();
            if path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let said = std::fs::read(&path).map_err(failed(path.display()))?;
            let said = String::from_utf8_lossy(&said);
            if let Some(at) = said.find("panicked at") {
                let what = said[at..].lines().take(2).collect::<Vec<_>>().join(" ");
                return Err(Error::Lab(format!("a peer {what} ({})", path.display())));
            }
        }
        Ok(())
    }
}

/// A running peer. It is killed when this is dropped.
#[derive(Debug)]
pub struct Peer {
    /// The name of its host.
    pub name: String,
    /// Its id, as other peers show it.
    pub id: String,
    namespace: Namespace,
    process: Process,
    url: String,
    agent: ureq::Agent,
}

/// How a peer is connected to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The address of the other side.
    pub address: String,
    /// Whether nobody is in between.
    pub direct: bool,
}

impl Neighbour {
    /// What carries the connection.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        if self.address.contains("/quic") { "quic" } else { "tcp" }
    }
}

impl Peer {
    /// Starts a peer on a host. Started there again, it is the same peer.
    ///
    /// # Errors
    /// When it does not serve in time, with what it said.
    pub fn start(lab: &Lab, name: &str, options: &Options) -> Result<Self> {
        let host = lab.host(name)?;
        let public = lab.kind(host) == Kind::Public;
        let logs = options.logs.as_deref().unwrap_or(lab.folder());
        std::fs::create_dir_all(logs).map_err(failed(logs.display()))?;
        let log = logs.join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log).map_err(failed(log.display()))?;
        let mut command = Command::new(&options.program);
        command.args(["--rest-port", "0", "--log", &options.log, "--data-dir"]).arg(lab.folder().join(name));
        // What is set where the lab runs is not meant for the peers in it.
        let ours = std::env::vars_os().map(|(key, _)| key);
        ours.filter(|key| key.to_string_lossy().starts_with(PREFIX)).for_each(|key| _ = command.env_remove(key));
        if public {
            // The internet of the lab is one wire, on which they would find each other. Nobody tells them that they can
            // be dialed.
            command.arg("--no-mdns");
        }
        for (key, value) in if public { &options.public } else { &options.private } {
            command.env(variable(key), value);
        }
        let mut process = host.namespace.start(&command, Stdio::piped(), errors.into())?;
        let url = served_url(&mut process, &log)?;
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(CALL));
        let agent = ureq::Agent::new_with_config(config.build());
        let namespace = host.namespace.clone();
        let mut peer = Self { name: name.to_owned(), id: String::new(), namespace, process, url, agent };
        peer.id = text(&peer.get("/nodes/status")?, "peer_id")?;
        Ok(peer)
    }

    /// Lets no file of it grow any more, as on a full disk. It must have been started by [`Options::unkillable`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn fill_disk(&self) -> Result<()> {
        let number = self.process.number().to_string();
        let done = Command::new("prlimit").args(["--pid", &number, "--fsize=0"]).status().map_err(failed("prlimit"))?;
        if done.success() { Ok(()) } else { Err(Error::Lab(format!("prlimit of {} ended with {done}", self.name))) }
    }

    /// Asks it to end (SIGTERM), and returns how long that took.
    ///
    /// # Errors
    /// When the system refuses, or it does not end.
    pub fn stop(mut self) -> Result<Duration> {
        let (number, start) = (self.process.number().to_string(), Instant::now());
        let done = Command::new("kill").args(["-TERM", &number]).status().map_err(failed("kill"))?;
        if !done.success() {
            return Err(Error::Lab(format!("kill of {} ended with {done}", self.name)));
        }
        wait(&format!("{} has ended", self.name), START, || Ok(!self.runs()))?;
        Ok(start.elapsed())
    }

    /// Whether its process still runs.
    pub fn runs(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// What a path below `/api/v1` shows.
    ///
    /// # Errors
    /// When the peer does not answer, or refuses.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(path, |agent, url| agent.get(url).call())
    }

    /// Posts to a path below `/api/v1`.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(path, |agent, url| agent.post(url).send_json(body))
    }

    /// Writes a document.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn put(&self, collection: &str, id: &str, body: &Value) -> Result<()> {
        let path = format!("/collections/{collection}/documents/{id}");
        self.call(&path, |agent, url| agent.put(url).send_json(body)).map(drop)
    }

    /// Writes many documents, a JSON text each line.
    ///
    /// # Errors
    /// As [`Peer::get`], and when a line is refused.
    pub fn load(&self, collection: &str, lines: &str) -> Result<()> {
        let path = format!("/collections/{collection}/documents:bulk?mode=put");
        let answers =
            self.text(&path, |agent, url| agent.post(url).header("content-type", "application/x-ndjson").send(lines))?;
        match answers.lines().find(|line| line.contains("\"error\"")) {
            Some(refused) => Err(Error::Lab(format!("{} refused a document: {refused}", self.name))),
            None => Ok(()),
        }
    }

    /// The text of all documents of a collection, the same on peers that have the same.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn all(&self, collection: &str) -> Result<String> {
        let path = format!("/collections/{collection}/documents");
        self.text(&path, |agent, url| agent.get(url).header("accept", "application/x-ndjson").call())
    }

    /// Documents of a collection.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn count(&self, collection: &str) -> Result<u64> {
        match self.get(&format!("/collections/{collection}")) {
            Ok(shown) => Ok(shown["documents"].as_u64().unwrap_or(0)),
            // It has not heard of the collection yet.
            Err(Error::Lab(why)) if why.contains("404") => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a document.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn has(&self, collection: &str, id: &str) -> Result<bool> {
        match self.get(&format!("/collections/{collection}/documents/{id}")) {
            Ok(_) => Ok(true),
            Err(Error::Lab(why)) if why.contains("404") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs the client, which is beside the program of the peers, with these arguments; returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn client(&self, options: &Options, arguments: &[&str]) -> Result<String> {
        let client = options.program.with_file_name("aerolithsdb-cli").display().to_string();
        self.namespace.tool(&client, &[&["--url", &self.url], arguments].concat(), "")
    }

    /// Lets another peer in, as an admin, who may let others in, so that any peer can go.
    ///
    /// # Errors
    /// When either refuses, or the newcomer cannot reach this peer.
    pub fn let_in(&self, newcomer: &Self) -> Result<()> {
        let ticket = text(&self.post("/mesh/invites", &json!({ "role": "admin" }))?, "ticket")?;
        newcomer.post("/mesh/join", &json!({ "ticket": ticket })).map(drop)
    }

    /// How this peer is connected to another: the best way, when there are several.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn neighbour(&self, other: &Self) -> Result<Option<Neighbour>> {
        let status = self.get("/nodes/status")?;
        let all = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let connections = all.iter().filter(|peer| peer["peer_id"] == other.id.as_str()).map(|peer| {
            let address = peer["address"].as_str().unwrap_or_default().to_owned();
            let direct = peer["direct"] == true && !address.contains("/p2p-circuit");
            Neighbour { address, direct }
        });
        Ok(connections.max_by_key(|connection| connection.direct))
    }

    /// The value of a counter of `/metrics`; `None` when there is no such counter.
    ///
    /// # Errors
    /// As [`Peer::get`].
    pub fn metric(&self, name: &str) -> Result<Option<f64>> {
        let url = format!("{}/metrics", self.url);
        let text = self.read("/metrics", || self.agent.get(&url).call())?;
        let values = text.lines().filter(|line| line.starts_with(name));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).reduce(|sum: f64, value| sum + value))
    }

    fn call(&self, path: &str, call: impl FnOnce(&ureq::Agent, &str) -> Called + Send) -> Result<Value> {
        let text = self.text(path, call)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| Error::Lab(format!("{} answered {path} with {error}", self.name)))
    }

    fn text(&self, path: &str, call: impl FnOnce(&ureq::Agent, &str) -> Called + Send) -> Result<String> {
        let url = format!("{}/api/v1{path}", self.url);
        self.read(path, || call(&self.agent, &url))
    }

    fn read(&self, path: &str, call: impl FnOnce() -> Called + Send) -> Result<String> {
        let wrong = |what: String| Error::Lab(format!("{}: {path}: {what}", self.name));
        let (status, text) = self
            .namespace
            .run(|| {
                let mut answer = call()?;
                let mut text = String::new();
                answer.body_mut().as_reader().read_to_string(&mut text)?;
                Ok((answer.status(), text))
            })
            .map_err(|error: ureq::Error| wrong(error.to_string()))?;
        if status.is_success() { Ok(text) } else { Err(wrong(format!("{}: {text}", status.as_u16()))) }
    }
}

type Called = std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>;

/// The environment variable of a key of the configuration; of one that there is not, something that peers warn of.
fn variable(key: &str) -> String {
    Key::at(key).map_or_else(|| format!("{PREFIX}{}", key.replace('.', "_").to_uppercase()), Key::variable)
}

fn text(body: &Value, key: &str) -> Result<String> {
    body[key].as_str().map(str::to_owned).ok_or_else(|| Error::Lab(format!("{key} is missing in {body}")))
}

/// Reads the URL of the gateway from what a peer prints at its start.
fn served_url(process: &mut Process, log: &Path) -> Result<String> {
    let output = process.output().ok_or_else(|| Error::Lab("the peer has no output".to_owned()))?;
    let (found, url) = std::sync::mpsc::channel();
    // It goes on reading: what the peer prints later must not fill the pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            if let Some(start) = line.find("http://127.0.0.1:").or_else(|| line.find("http://[::1]:")) {
                let url = line[start..].split_whitespace().next().unwrap_or_default();
                _ = found.send(url.trim_end_matches('/').to_owned());
            }
        }
    });
    url.recv_timeout(START).map_err(|_| {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let end = said.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        Error::Lab(format!("a peer did not start; it said:\n{end}"))
    })
}

/// Waits until something is so, and returns how long that took.
///
/// # Errors
/// When it is not so in time, with what was waited for; and what the question itself fails with.
pub fn wait(what: &str, patience: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !so()? {
        if start.elapsed() > patience {
            return Err(Error::Lab(format!("waited {} s in vain until {what}", patience.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(start.elapsed())
}
