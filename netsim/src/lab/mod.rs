//! The lab: real peers behind real NATs, on one machine. Routers, hosts and the internet between them are network
//! namespaces of the kernel; the NATs are the kernel's own, set up as home routers and carriers do.
//!
//! A lab is a function of its topology: the addresses are the same each time, and no two labs share a name or an address
//! space, so that many can run side by side. When the process ends, however it ends, the kernel takes everything back.
//!
//! To read the code, go from `namespace` (one machine of the lab), `wire` (a line that delays and loses) and `nat` (what a
//! router does) to `topology` (who is where) and `build` (the lab itself), then to `reflector` (do the NATs behave as
//! declared?), `peers` (real processes), `matrix` (who reaches whom, and how) and `scenes` (what happens to them).
//!
//! The lab needs Linux, root, and a few tools; [`missing`] names what is not there. It does not simulate: for a thousand
//! peers in virtual time there is the rest of this crate.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;

pub mod build;
pub mod chart;
pub mod command;
mod loss;
pub mod matrix;
pub mod namespace;
pub mod nat;
pub mod peers;
pub mod reflector;
pub mod scenes;
pub mod topology;
mod trouble;
pub mod wire;

pub use build::Lab;
pub use namespace::Namespace;
pub use nat::Kind;
pub use topology::Topology;

/// What comes of something done in the lab.
pub type Result<T> = std::result::Result<T, Error>;

/// Tools that the lab calls, and where they come from.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("miniupnpd", "miniupnpd-nftables"),
    ("setpriv", "util-linux"),
];

/// What this machine lacks to run a lab, a sentence each; empty when nothing is missing.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    for (tool, package) in TOOLS {
        let mut probe = Command::new(tool);
        probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if probe.status().is_err() {
            missing.push(format!("{tool} is not installed (package {package})"));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun is not there: lines cannot be delayed".to_owned());
    }
    match Namespace::new("probe") {
        Err(error) => missing.push(format!("network namespaces cannot be made ({error}); root is needed")),
        Ok(probe) => {
            if let Err(error) = probe.nft(&Kind::AddressRestricted.rules()) {
                missing.push(format!("nftables cannot do NAT here: {error}"));
            }
        }
    }
    missing
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Lab(format!("{what}: {error}"))
}
