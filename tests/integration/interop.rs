//! Other implementations of libp2p as strangers: js-libp2p and py-libp2p speak with a real peer what is for everybody,
//! and read none of the members' data. Their programs are in `tests/interop`; what those need is installed once, below
//! the target folder, and where it cannot be had that program is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Peer;

/// What every document holds, and no stranger may see.
const SECRET: &str = "the tide turns at nine";
/// What both programs ask the DHT about.
const KEY: &str = "a key of strangers";
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(20);

/// What a program must show, in its order.
const SHOWN: [&str; 6] = ["identify", "ping", "find_node", "providers", "sync_refused", "sync_closed"];

#[test]
fn strangers_of_other_implementations_are_served_and_read_nothing() {
    let programs = [javascript(), python()].map(|program| {
        program.map_err(|missing| println!("unsupported: {missing}; its half of the test is skipped")).ok()
    });
    if programs.iter().all(Option::is_none) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tcp = ["--listen", "/ip4/127.0.0.1/tcp/0"].map(str::to_owned);
    let a = Peer::start_with(&folder.path().join("a"), 0, &tcp);
    let b = Peer::start(&folder.path().join("b"));
    a.let_in(&b);
    let [status, other] = [&a, &b].map(|peer| peer.get("/api/v1/nodes/status").body);
    let mut listen = status["listen"].as_array().unwrap().iter().map(|at| at.as_str().unwrap());
    let address = listen.find(|at| at.contains("/tcp/")).unwrap();

    let [js, py] = programs.map(|program| program.map(|program| shown(while_writing(&a, program, address))));
    for shown in js.iter().chain(&py) {
        let names: Vec<_> = shown.iter().map(|line| line["shown"].as_str().unwrap()).collect();
        assert!(names.starts_with(&SHOWN), "{names:?}");
        let agent = shown[0]["agent"].as_str().unwrap();
        assert!(agent.starts_with(concat!("aerolithsdb/", env!("CARGO_PKG_VERSION"))), "{agent}");
        assert!(shown[0]["addresses"].as_array().unwrap().iter().any(|at| address.starts_with(at.as_str().unwrap())));
        assert!(names_peer(&shown[2]["closer"], &other["peer_id"]), "the other member is in the DHT: {shown:?}");
    }
    if let (Some(js), Some(py)) = (&js, &py) {
        assert_eq!(js.last().unwrap()["shown"], "gossip_sealed");
        assert!(names_peer(&py[3]["providers"], &js[3]["announced"]), "they find each other in the DHT: {py:?}");
    }
    // The members were not disturbed.
    assert_eq!(a.get("/api/v1/nodes/status").body["peers"].as_array().unwrap().len(), 1);
}

fn names_peer(list: &Value, id: &Value) -> bool {
    list.as_array().unwrap().contains(id)
}

/// Runs a program to its end while documents are written.
fn while_writing(peer: &Peer, mut program: Command, address: &str) -> Output {
    program.args([address, SECRET, KEY]);
    std::thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(move || {
            for number in 0.. {
                let answer = peer.put("/api/v1/collections/tides/documents/a", &json!({ "n": number, "text": SECRET }));
                assert!(answer.status < 300, "{answer:?}");
                if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let output = program.output();
        drop(stop);
        output.unwrap()
    })
}

/// The lines of JSON that a program printed; it must have ended well.
fn shown(output: Output) -> Vec<Value> {
    let [said, failed] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}: {failed}\n{said}", output.status);
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// The js-libp2p program.
///
/// # Errors
/// What is missing.
fn javascript() -> Result<Command, String> {
    let version = run(Command::new("node").args(["-p", "process.versions.node"]), "node")?;
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major < Some(20) {
        return Err(format!("node {} is too old for js-libp2p, which needs 20", version.trim()));
    }
    let folder = installed("js", &["package.json", "package-lock.json"], |folder| {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]);
        run(npm.current_dir(folder), "js-libp2p by npm").map(drop)
    })?;
    // Modules are looked for beside the program.
    fs::copy(source("stranger.mjs"), folder.join("stranger.mjs")).unwrap();
    let mut program = Command::new("node");
    program.arg(folder.join("stranger.mjs"));
    Ok(program)
}

/// The py-libp2p program.
///
/// # Errors
/// What is missing.
fn python() -> Result<Command, String> {
    let folder = installed("py", &["requirements.txt"], |folder| {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder), "python3-venv")?;
        let mut pip = Command::new(folder.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--retries", "1", "-r", "requirements.txt"]);
        run(pip.current_dir(folder), "py-libp2p by pip").map(drop)
    })?;
    let mut program = Command::new(folder.join("venv/bin/python"));
    program.arg(source("stranger.py"));
    Ok(program)
}

/// A folder in which what these files name is installed: the one of a run before, when they are the same.
pub(crate) fn installed(
    name: &str,
    files: &[&str],
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop").join(name);
    let wanted: String = files.iter().map(|file| fs::read_to_string(source(file)).unwrap()).collect();
    let done = folder.join("installed");
    if fs::read_to_string(&done).ok().as_ref() != Some(&wanted) {
        // It may not be there.
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for file in files {
            fs::copy(source(file), folder.join(file)).unwrap();
        }
        install(&folder)?;
        fs::write(done, wanted).unwrap();
    }
    Ok(folder)
}

/// What a command printed.
///
/// # Errors
/// That it is not there, or failed.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{what} is not here ({error})"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what} could not be installed: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
