//! A peer process with a folder of its own, and a client for its gateway.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running peer. It is killed when this is dropped.
pub(crate) struct Peer {
    child: Child,
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    agent: ureq::Agent,
    arguments: Vec<String>,
}

/// What a call answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerolithsdb"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program under test, which may have so many files open.
pub(crate) fn with_open_files(max: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {max}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_aerolithsdb")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The client under test.
pub(crate) fn client() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerolithsdb-cli"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    ureq::Agent::new_with_config(config.build())
}

/// A UDP port that is free now.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Peer {
    /// Starts a peer in a folder, and waits until it serves.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, free_port(), &[])
    }

    pub(crate) fn start_with(folder: &Path, port: u16, extra: &[String]) -> Self {
        let listen = format!("/ip4/127.0.0.1/udp/{port}/quic-v1");
        let network = ["--no-mdns".to_owned(), "--listen".to_owned(), listen];
        Self::launch(folder, [&network, extra].concat(), Stdio::inherit())
    }

    /// Starts a peer that logs all there is to where nothing can be written.
    pub(crate) fn start_on_full_disk_for_logs(folder: &Path) -> Self {
        let listen = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port());
        let arguments = ["--no-mdns", "--log", "trace", "--listen", &listen].map(str::to_owned).to_vec();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        Self::launch(folder, arguments, full.into())
    }

    /// Starts a peer that looks for others on the LAN, at a port that nobody knows.
    pub(crate) fn start_on_lan(folder: &Path) -> Self {
        Self::launch(folder, ["--listen", "/ip4/0.0.0.0/udp/0/quic-v1"].map(str::to_owned).to_vec(), Stdio::inherit())
    }

    /// Starts a peer that may have so many files open.
    pub(crate) fn start_with_open_files(folder: &Path, max: usize) -> Self {
        let listen = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port());
        let arguments = ["--no-mdns", "--listen", &listen].map(str::to_owned).to_vec();
        Self::launch_as(with_open_files(max), folder, arguments, Stdio::inherit())
    }

    /// Starts a peer in a cgroup, given by the file that lists its processes.
    pub(crate) fn start_in_group(folder: &Path, processes: &Path, arguments: &[String]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo 0 > "$0" && exec "$@""#]).arg(processes).arg(program().get_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self::launch_as(command, folder, arguments.to_vec(), Stdio::inherit())
    }

    fn launch(folder: &Path, arguments: Vec<String>, log: Stdio) -> Self {
        Self::launch_as(program(), folder, arguments, log)
    }

    fn launch_as(mut command: Command, folder: &Path, arguments: Vec<String>, log: Stdio) -> Self {
        command.args(["--rest-port", "0", "--data-dir"]).arg(folder).args(&arguments).stderr(log);
        let mut child = command.spawn().unwrap();
        let (url, rest) = served_url(&mut child);
        // Whatever it prints later must not fill the pipe.
        std::thread::spawn(move || rest.lines().for_each(drop));
        let folder = folder.to_owned();
        Self { child, url, folder, agent: agent(), arguments }
    }

    /// SIGKILL, and the same peer again.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(mut self) -> Self {
        // Nothing is left to kill after a stop.
        _ = self.child.kill();
        _ = self.child.wait();
        Self::launch(&self.folder.clone(), std::mem::take(&mut self.arguments), Stdio::inherit())
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let id = self.process_id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the peer did not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(self.agent.get(format!("{}{path}", self.url)).call().unwrap())
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.try_put(path, body).unwrap()
    }

    /// As [`Peer::put`], for peers that may be gone.
    pub(crate) fn try_put(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        self.agent.put(format!("{}{path}", self.url)).send_json(body).map(read)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        read(self.agent.post(format!("{}{path}", self.url)).send_json(body).unwrap())
    }

    /// Writes documents, a line of JSON each.
    pub(crate) fn bulk(&self, collection: &str, lines: &str) {
        let call = self.agent.post(format!("{}/api/v1/collections/{collection}/documents:bulk", self.url));
        let mut answer = call.content_type("application/x-ndjson").send(lines).unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        // It is over when its last result is there.
        std::io::copy(&mut answer.body_mut().as_reader(), &mut std::io::sink()).unwrap();
    }

    /// Changes parts of a document with update operators.
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Answer {
        self.try_patch(path, body).unwrap()
    }

    /// As [`Peer::patch`], for peers that may be gone.
    pub(crate) fn try_patch(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        self.agent.patch(format!("{}{path}", self.url)).send_json(body).map(read)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.try_delete(path).unwrap()
    }

    /// As [`Peer::delete`], for peers that may be gone.
    pub(crate) fn try_delete(&self, path: &str) -> Result<Answer, ureq::Error> {
        self.agent.delete(format!("{}{path}", self.url)).call().map(read)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn invite(&self, body: &Value) -> String {
        let answer = self.post("/api/v1/mesh/invites", body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["ticket"].as_str().unwrap().to_owned()
    }

    pub(crate) fn join(&self, ticket: &str) -> Answer {
        self.post("/api/v1/mesh/join", &serde_json::json!({ "ticket": ticket }))
    }

    /// Lets another peer in as a writer.
    pub(crate) fn let_in(&self, newcomer: &Self) {
        let ticket = self.invite(&serde_json::json!({ "role": "writer" }));
        let answer = newcomer.join(&ticket);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(crate) fn count(&self, collection: &str) -> u64 {
        self.get(&format!("/api/v1/collections/{collection}")).body["documents"].as_u64().unwrap_or(0)
    }

    /// Every document of a collection, in the order of ids.
    pub(crate) fn all(&self, collection: &str) -> Vec<(String, Value)> {
        let mut documents = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/collections/{collection}/documents?limit=1000{cursor}"));
            assert_eq!(page.status, 200, "{page:?}");
            for document in page.body["documents"].as_array().unwrap() {
                documents.push((document["id"].as_str().unwrap().to_owned(), document["data"].clone()));
            }
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return documents,
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let mut text = String::new();
    response.body_mut().as_reader().read_to_string(&mut text).unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    Answer { status: response.status().as_u16(), body }
}

/// Reads the URL of the gateway from what a peer prints at its start.
fn served_url(child: &mut Child) -> (String, BufReader<std::process::ChildStdout>) {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the peer ended before it served; it printed: {printed}");
        printed.push_str(&line);
        if let Some(start) = line.find("http://127.0.0.1:") {
            let url = line[start..].split_whitespace().next().unwrap().trim_end_matches('/').to_owned();
            wait("the gateway answers", || agent().get(format!("{url}/health")).call().is_ok());
            return (url, output);
        }
    }
}

/// Waits until something is so.
pub(crate) fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until peers show the same documents, and returns them.
pub(crate) fn wait_equal(collection: &str, count: u64, peers: &[&Peer]) -> Vec<(String, Value)> {
    wait("all have all documents", || peers.iter().all(|peer| peer.count(collection) == count));
    wait("all have them equal", || {
        let first = peers[0].all(collection);
        peers.iter().all(|peer| peer.all(collection) == first)
    });
    peers[0].all(collection)
}
