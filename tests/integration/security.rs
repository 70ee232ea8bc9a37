//! A peer that is open to other machines, as a real process, and the client that calls it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use crate::harness::{client, program};

/// A peer with a token and a certificate of its own. It is killed when this is dropped.
struct Guarded {
    child: Child,
    port: u16,
    fingerprint: String,
    token_file: PathBuf,
}

impl Guarded {
    /// Starts one on all addresses, and reads what it prints.
    fn start(folder: &Path) -> Self {
        let token_file = folder.join("token");
        let mut command = program();
        command.args(["--bind", "0.0.0.0", "--rest-port", "0", "--no-mdns", "--tls", "generated"]);
        command.args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        command.arg("--token-file").arg(&token_file).arg("--data-dir").arg(folder.join("data"));
        let mut child = command.stderr(std::process::Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut row = |name: &str| {
            let line = lines.find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            line.split_whitespace().last().unwrap().to_owned()
        };
        let url = row("rest");
        let port = url.strip_prefix("https://127.0.0.1:").unwrap_or_else(|| panic!("{url}")).parse().unwrap();
        let fingerprint = row("tls");
        assert_eq!(row("token"), token_file.display().to_string());
        assert!(row("invite").ends_with("invite"));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port, fingerprint, token_file }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The client with the right fingerprint and the right token.
    fn client(&self) -> Command {
        let mut command = client();
        command.args(["--url", &self.url(), "--tls-fingerprint", &self.fingerprint, "--token-file"]);
        command.arg(&self.token_file);
        command
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_pinned_client_with_the_token_works_and_no_other() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let peer = Guarded::start(folder.path());
    for file in [peer.token_file.clone(), folder.path().join("data/gateway-tls.pem")] {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let put = peer.client().args(["document", "put", "notes", "a", r#"{"n": 1}"#]).output().unwrap();
    assert!(put.status.success(), "{}", said(&put));
    let get = peer.client().args(["document", "get", "notes", "a"]).output().unwrap();
    assert!(String::from_utf8_lossy(&get.stdout).contains(r#"{"n":1}"#), "{get:?}");

    let wrong = peer.fingerprint.replace(['0', '1'], "2");
    let get = |arguments: &[&str]| client().args(arguments).args(["document", "get", "notes", "a"]).output().unwrap();
    let url = peer.url();
    let token = fs::read_to_string(&peer.token_file).unwrap();
    let refused = get(&["--url", &url, "--token", token.trim(), "--tls-fingerprint", &wrong]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains(&peer.fingerprint) && said(&refused).contains(&wrong), "{refused:?}");
    // Nobody vouches for it: neither the system nor another certificate.
    let refused = get(&["--url", &url, "--token", token.trim()]);
    assert!(said(&refused).contains("--tls-fingerprint"), "{refused:?}");
    // Its own file does.
    let certificate = folder.path().join("data/gateway-tls.pem");
    let trusted = get(&["--url", &url, "--token", token.trim(), "--ca", certificate.to_str().unwrap()]);
    assert!(trusted.status.success(), "{trusted:?}");

    let missing = get(&["--url", &url, "--tls-fingerprint", &peer.fingerprint]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    assert!(said(&missing).contains("--token-file"), "{missing:?}");
    let plain = get(&["--url", &format!("http://127.0.0.1:{}", peer.port)]);
    assert!(plain.status.code() == Some(1) && said(&plain).contains("https://"), "{plain:?}");
    let downgraded = get(&["--url", "http://127.0.0.1:1", "--tls-fingerprint", &peer.fingerprint]);
    assert_eq!(downgraded.status.code(), Some(2), "{downgraded:?}");
    // Health is for everybody.
    let health =
        client().args(["--url", &url, "--tls-fingerprint", &peer.fingerprint]).args(["status", "health"]).output();
    assert!(health.unwrap().status.success());
}

#[test]
fn tls_on_a_plain_port_names_the_other_scheme() {
    let folder = tempfile::tempdir().unwrap();
    let peer = crate::harness::Peer::start(folder.path());
    let url = peer.url.replace("http://", "https://");
    let output = client().args(["--url", &url, "status", "health"]).output().unwrap();
    assert!(output.status.code() == Some(1) && said(&output).contains("http:// instead of https://"), "{output:?}");
}

#[test]
fn wrong_tokens_are_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Guarded::start(folder.path());
    let wrong = ["--url", &peer.url(), "--tls-fingerprint", &peer.fingerprint, "--token", "wrong"];
    let try_it = || client().args(wrong).args(["collection", "list"]).output().unwrap();
    let first = try_it();
    assert_eq!(first.status.code(), Some(4), "{first:?}");
    assert!(said(&first).contains("the token is wrong"), "{first:?}");
    // Ten at once, and then one in five seconds: a process is faster than that.
    let last =
        (0..200).map(|_| try_it()).find(|output| output.status.code() == Some(5)).expect("it was never told to wait");
    assert!(said(&last).contains("too many wrong tokens"), "{last:?}");
    assert!(peer.client().args(["collection", "list"]).output().unwrap().status.success());
}

#[test]
fn a_certificate_and_a_token_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Guarded::start(folder.path());
    let (fingerprint, token) = (peer.fingerprint.clone(), fs::read_to_string(&peer.token_file).unwrap());
    peer.child.kill().unwrap();
    peer.child.wait().unwrap();
    let peer = Guarded::start(folder.path());
    assert_eq!((&peer.fingerprint, fs::read_to_string(&peer.token_file).unwrap()), (&fingerprint, token));
}

#[test]
fn an_open_gateway_without_a_token_or_tls_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("peer.toml");
    for (flags, config, advice) in [
        (&[][..], "", "--token-file FILE"),
        (&["--tls", "generated"][..], "[security]\ntls = \"generated\"\n", "--token-file FILE"),
        (&["--token-file", "token"][..], "[security]\ntoken_file = \"token\"\n", "--tls generated"),
    ] {
        let output = program().args(["--bind", "0.0.0.0"]).args(flags).arg("--data-dir").arg(&data).output().unwrap();
        assert!(!output.status.success());
        assert!(said(&output).contains(advice) && said(&output).contains("allow_insecure"), "{output:?}");
        // Before anything is made.
        assert!(!data.exists());
        fs::write(&file, format!("{config}[api.rest_api]\nbind = \"0.0.0.0\"\n")).unwrap();
        let output = client().args(["config", "check"]).arg(&file).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(advice), "{output:?}");
    }
    let output = program().args(["--log", "loud"]).arg("--data-dir").arg(&data).output().unwrap();
    assert!(said(&output).contains("target=level"), "{output:?}");
}
