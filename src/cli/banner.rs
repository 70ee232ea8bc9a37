//! What a peer prints at its start: once, on standard output.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::gateway::PORT;
use crate::node::PeerReport;
use crate::{Error, Peer, Result};

/// How programs reach the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    /// Where the gateway listens.
    pub(super) address: SocketAddr,
    /// The fingerprint of its certificate; `None` without TLS.
    pub(super) fingerprint: Option<&'a str>,
    /// The file with its token; `None` without one.
    pub(super) token_file: Option<&'a Path>,
}

impl Rest<'_> {
    /// The URL for programs on this machine.
    fn url(&self) -> String {
        let scheme = if self.fingerprint.is_some() { "https" } else { "http" };
        match self.address.ip() {
            ip if ip.is_unspecified() => format!("{scheme}://127.0.0.1:{}", self.address.port()),
            _ => format!("{scheme}://{}", self.address),
        }
    }

    /// The flags of the client that differ from its defaults.
    fn flags(&self) -> String {
        let mut flags = String::new();
        let default = self.fingerprint.is_none() && self.address == SocketAddr::from(([127, 0, 0, 1], PORT));
        if !default {
            flags += &format!("--url {} ", self.url());
        }
        if let Some(file) = self.token_file {
            flags += &format!("--token-file {} ", file.display());
        }
        if let Some(fingerprint) = self.fingerprint {
            flags += &format!("--tls-fingerprint {fingerprint} ");
        }
        flags
    }
}

/// Prints what the peer is, where it listens, and how to invite another one.
///
/// # Errors
/// When the peer stopped meanwhile.
pub(super) async fn print(peer: &Peer, rest: Option<Rest<'_>>, data_dir: &Path) -> Result<()> {
    let mesh = peer.mesh();
    let report = mesh.status().await?;
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let text = text(&report, peer.node_id(), rest, &mesh.listen_addresses(), &data_dir);
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        // Nobody has to read it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Error::Io(format!("standard output cannot be written: {error}"))),
    }
}

fn text(report: &PeerReport, node_id: &str, rest: Option<Rest<'_>>, listen: &[String], data_dir: &Path) -> String {
    let mesh = report.mesh.to_string();
    let members = if report.members == 1 { "1 member".into() } else { format!("{} members", report.members) };
    let mut text = format!("aerolithsdb {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut row = |name: &str, value: &str| {
        writeln!(text, "  {name:<8} {value}").expect("a string takes what is written to it");
    };
    row("peer", &format!("{} ({node_id})", report.peer));
    row("mesh", &format!("{} {}, {members}", report.mesh_name, &mesh[..12]));
    row("rest", &rest.map_or_else(|| "off".into(), |rest| rest.url()));
    if let Some(rest) = rest {
        row("docs", &format!("{}/docs", rest.url()));
    }
    if let Some(fingerprint) = rest.and_then(|rest| rest.fingerprint) {
        row("tls", &format!("SHA-256 {fingerprint}"));
    }
    if let Some(file) = rest.and_then(|rest| rest.token_file) {
        row("token", &std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string());
    }
    for (index, address) in listen.iter().enumerate() {
        row(if index == 0 { "listens" } else { "" }, address.split("/p2p/").next().unwrap_or(address));
    }
    row("data", &data_dir.display().to_string());
    if let Some(rest) = rest {
        row("invite", &format!("aerolithsdb-cli {}mesh invite", rest.flags()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{MeshId, PeerId};
    use crate::node::{Agreement, ClockReport, Counters, DiskReport};

    #[test]
    fn it_says_what_one_needs_to_know() {
        let report = PeerReport {
            peer: PeerId([1; 32]),
            mesh: MeshId([0xab; 32]),
            mesh_name: "home".into(),
            role: None,
            members: 2,
            overused: Vec::new(),
            neighbours: Vec::new(),
            restless: Vec::new(),
            collections: 0,
            documents: 0,
            documents_bytes: 0,
            twice: None,
            counters: Counters::default(),
            open_documents: crate::kv::CacheUse::default(),
            letters: 0,
            letters_evicted: 0,
            stored: 0,
            clock: ClockReport {
                shows: crate::base::Timestamp::EARLIEST,
                agreement: Agreement::Alone,
                middle_ahead_ms: 0,
                set: None,
                stamped_until: None,
                kept: 0,
                expiry_waits: None,
            },
            disk: DiskReport::default(),
        };
        let listen = ["/ip4/10.0.0.1/tcp/4001/p2p/12D3K".to_owned(), "/ip4/127.0.0.1/tcp/4001".to_owned()];
        let rest =
            |address: &str| Some(Rest { address: address.parse().unwrap(), fingerprint: None, token_file: None });
        let shown = text(&report, "laptop", rest("127.0.0.1:9000"), &listen, Path::new("/data"));
        for line in [
            "  mesh     home abababababab, 2 members\n",
            "  rest     http://127.0.0.1:9000\n",
            "  listens  /ip4/10.0.0.1/tcp/4001\n           /ip4/127.0.0.1/tcp/4001\n",
            "  data     /data\n",
            "  invite   aerolithsdb-cli --url http://127.0.0.1:9000 mesh invite\n",
        ] {
            assert!(shown.contains(line), "{line:?} is not in\n{shown}");
        }
        let default = text(&report, "laptop", rest("127.0.0.1:8080"), &[], Path::new("/data"));
        assert!(default.contains("aerolithsdb-cli mesh invite"));
        let safe =
            Rest { fingerprint: Some("ab12"), token_file: Some(Path::new("/t")), ..rest("0.0.0.0:8080").unwrap() };
        let shown = text(&report, "laptop", Some(safe), &[], Path::new("/data"));
        for line in [
            "  rest     https://127.0.0.1:8080\n",
            "  tls      SHA-256 ab12\n",
            "  token    /t\n",
            "--url https://127.0.0.1:8080 --token-file /t --tls-fingerprint ab12 mesh invite\n",
        ] {
            assert!(shown.contains(line), "{line:?} is not in\n{shown}");
        }
        assert!(!text(&report, "laptop", None, &[], Path::new("/data")).contains("invite"));
    }
}
