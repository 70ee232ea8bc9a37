//! The configuration: defaults < profile < file < environment < flags.
//!
//! Each layer is a set of [`Settings`], checked against one table of keys ([`key`]) as it is read: a key that
//! nobody knows is an error that names the nearest one, wherever it comes from. Layers are laid over each other, and
//! what results becomes a [`Config`], the values that the program needs: all that can be known to be wrong without
//! opening a file or a socket is refused here.
//!
//! A key whose part of the system is not built yet is accepted; [`Config::warnings`] says which of them were set.
//! Not here: reading flags (`cli`) and what the values do.

mod faults;
pub mod file;
pub mod key;
mod logging;
pub mod profile;
mod rest;
pub mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

pub use self::faults::Faults;
use self::key::{KEYS, Key, Setting};
use crate::access::Genesis;
use crate::base::edit_distance;
use crate::gateway;
use crate::kv::Durability;
use crate::limits::ADDRESS_BYTES_MAX;
use crate::mesh::nat;
use crate::peer::{NetworkConfig, PeerConfig};
use crate::{Error, Result};

/// The port on which peers meet.
const MESH_PORT: u16 = 4001;
/// Variables that begin like ours and belong to the client, or to flags.
const OTHER_VARIABLES: [&str; 7] = [
    "AEROLITHSDB_URL",
    "AEROLITHSDB_TOKEN",
    "AEROLITHSDB_TOKEN_FILE",
    "AEROLITHSDB_TLS_FINGERPRINT",
    "AEROLITHSDB_CA",
    "AEROLITHSDB_CONFIG",
    "AEROLITHSDB_PROFILE",
];

/// What one layer sets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    values: BTreeMap<&'static str, Setting>,
    /// Environment variables that look like ours and name no key.
    unknown_variables: Vec<String>,
}

impl Settings {
    /// Sets a key.
    pub fn set(&mut self, key: &Key, setting: Setting) {
        self.values.insert(key.path, setting);
    }

    /// Sets a key from the text of a flag.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that the key does not take.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn set_text(&mut self, path: &str, text: &str) -> Result<()> {
        let key = Key::at(path).expect("flags set keys of the table");
        self.set(key, key.check_text(text).map_err(Error::invalid)?);
        Ok(())
    }

    /// Lays stronger settings over these.
    pub fn overlay(&mut self, stronger: Self) {
        self.values.extend(stronger.values);
        self.unknown_variables.extend(stronger.unknown_variables);
    }

    /// What is to be told of them: keys without effect, and variables that name no key.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        warnings(self)
    }

    /// What a key is set to.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Setting> {
        self.values.get(key.path)
    }

    /// The paths that are set.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    /// The settings that environment variables make.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that its key does not take.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let named = |key: &'static Key| [(key.variable(), key), (key.short_variable(), key)];
        let keys: BTreeMap<String, &Key> = KEYS.iter().flat_map(named).collect();
        let (mut settings, mut faults) = (Self::default(), Faults::default());
        for (name, text) in variables {
            if let Some(key) = keys.get(&name) {
                let (long, short) = (key.variable(), key.short_variable());
                match key.check_text(&text) {
                    Err(error) => faults.take::<()>(Err(Error::invalid(format!("{name}: {error}")))),
                    Ok(setting) if settings.get(key).is_some_and(|other| *other != setting) => {
                        let why = format!("{long} and {short} set {} to different values", key.path);
                        faults.take::<()>(Err(Error::invalid(why)));
                    }
                    Ok(setting) => settings.set(key, setting),
                }
            } else if name.starts_with("AEROLITHSDB_") && !OTHER_VARIABLES.contains(&name.as_str()) {
                // No error: Kubernetes makes variables like this for a service of our name.
                settings.unknown_variables.push(name);
            }
        }
        settings.unknown_variables.sort();
        faults.unless_any(settings)
    }

    fn text(&self, path: &str) -> Option<&str> {
        match self.value(path)? {
            Setting::Text(text) => Some(text),
            Setting::Flag(_) | Setting::Integer(_) | Setting::Ratio(_) | Setting::List(_) => mismatch(path),
        }
    }

    fn flag(&self, path: &str) -> Option<bool> {
        match self.value(path)? {
            Setting::Flag(flag) => Some(*flag),
            Setting::Text(_) | Setting::Integer(_) | Setting::Ratio(_) | Setting::List(_) => mismatch(path),
        }
    }

    fn integer(&self, path: &str) -> Option<u64> {
        match self.value(path)? {
            Setting::Integer(number) => Some(*number),
            Setting::Text(_) | Setting::Flag(_) | Setting::Ratio(_) | Setting::List(_) => mismatch(path),
        }
    }

    fn list(&self, path: &str) -> Option<Vec<String>> {
        match self.value(path)? {
            Setting::List(items) => Some(items.clone()),
            Setting::Text(_) | Setting::Flag(_) | Setting::Integer(_) | Setting::Ratio(_) => mismatch(path),
        }
    }

    fn value(&self, path: &str) -> Option<&Setting> {
        debug_assert!(Key::at(path).is_some(), "{path} is not in the table of keys");
        self.values.get(path)
    }
}

fn mismatch<T>(path: &str) -> T {
    unreachable!("{path} was checked to be of the kind that its key takes")
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogOutput {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// How the peer logs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logging {
    /// Directives of `tracing_subscriber`'s filter.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
    /// Where it goes.
    pub output: LogOutput,
}

/// Everything that the program needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The peer.
    pub peer: PeerConfig,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Seeds that are REST addresses of peers, to be asked for their multiaddrs: `http://host:port`.
    pub rest_seeds: Vec<String>,
    /// The gateway; `None` when it is switched off.
    pub rest: Option<gateway::Config>,
    /// The log.
    pub logging: Logging,
    /// What is to be told once at the start.
    pub warnings: Vec<String>,
}

impl Config {
    /// The configuration that settings make.
    ///
    /// # Errors
    /// [`Error::Invalid`] for values that make no sense, [`Error::Denied`] for a gateway that would be open to others.
    pub fn new(settings: &Settings) -> Result<Self> {
        let data_dir = PathBuf::from(settings.text("storage.data_dir").unwrap_or("./data"));
        let mut faults = Faults::default();
        let (seeds, rest_seeds) = seeds(settings, &mut faults);
        let defaults = PeerConfig::default();
        let cache_bytes = settings.integer("storage.cache_size_bytes").map(usize::try_from).transpose();
        let cache_bytes = cache_bytes.map_err(|_| Error::invalid("storage.cache_size_bytes is beyond this machine"));
        let cache_bytes = faults.take(cache_bytes);
        let mesh_name = settings.text("node.mesh_name").map_or(defaults.mesh_name, str::to_owned);
        let checked = Genesis::check_name(&mesh_name);
        faults.take(checked.map_err(|error| Error::invalid(format!("node.mesh_name: {error}"))));
        let peer = PeerConfig {
            data_dir: Some(data_dir.clone()),
            cache_bytes: cache_bytes.unwrap_or(defaults.cache_bytes),
            durability: durability(settings),
            node_id: settings.text("node.node_id").map_or(defaults.node_id, str::to_owned),
            mesh_name,
            slow_query: settings
                .integer("observability.slow_query_ms")
                .map_or(defaults.slow_query, Duration::from_millis),
            network: network(settings, seeds, &mut faults),
        };
        let rest = faults.take(rest::rest(settings, &data_dir));
        let logging = faults.take(logging::logging(settings));
        let warnings = warnings(settings);
        faults.unless_any(Self { peer, rest_seeds, rest, logging, warnings, data_dir })
    }
}

fn durability(settings: &Settings) -> Durability {
    match settings.text("storage.durability") {
        Some("buffered") => Durability::Buffered,
        Some(_) | None => Durability::Durable,
    }
}

/// Seeds to dial, and seeds to ask.
fn seeds(settings: &Settings, faults: &mut Faults) -> (Vec<String>, Vec<String>) {
    let all = settings.list("node.seed_nodes").unwrap_or_default();
    let (dial, ask): (Vec<_>, Vec<_>) = all.into_iter().partition(|seed| seed.starts_with('/'));
    let dial = dial.into_iter().map(|seed| checked_multiaddr("node.seed_nodes", seed));
    (faults.take_all(dial), faults.take_all(ask.iter().map(|seed| rest_url(seed))))
}

fn rest_url(seed: &str) -> Result<String> {
    let wrong = || {
        Error::invalid(format!(
            "node.seed_nodes: {seed:?} is neither a multiaddr such as /ip4/192.0.2.1/udp/4001/quic-v1 nor host:port"
        ))
    };
    if seed.starts_with("https://") {
        return Err(Error::invalid(format!(
            "node.seed_nodes: {seed:?} cannot be asked: its certificate is known to nobody, and its token is not sent to \
             seeds; name the peer by its multiaddr, such as /dns4/peer.example.org/udp/4001/quic-v1, or join by a ticket"
        )));
    }
    let authority = seed.strip_prefix("http://").unwrap_or(seed).trim_end_matches('/');
    let parsed: axum::http::uri::Authority = authority.parse().map_err(|_| wrong())?;
    if parsed.port_u16().is_none() || parsed.host().is_empty() || authority.contains('@') {
        return Err(wrong());
    }
    Ok(format!("http://{authority}"))
}

/// An address on which the network can listen: an IP address with QUIC, or with TCP.
fn checked_listener(text: String) -> Result<String> {
    let text = checked_multiaddr("network.listen", text)?;
    let address: Multiaddr = text.parse().expect("it was just checked");
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_), Protocol::P2p(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)] => Ok(text),
        _ => Err(Error::invalid(format!(
            "network.listen: {text:?} cannot be listened on; addresses like /ip4/0.0.0.0/udp/4001/quic-v1 and \
             /ip4/0.0.0.0/tcp/4001 can"
        ))),
    }
}

fn checked_multiaddr(path: &str, text: String) -> Result<String> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(Error::invalid(format!("{path}: an address is longer than {ADDRESS_BYTES_MAX} bytes")));
    }
    match text.parse::<Multiaddr>() {
        Ok(_) => Ok(text),
        Err(error) => Err(Error::invalid(format!("{path}: {text:?} is not a multiaddr ({error})"))),
    }
}

fn network(settings: &Settings, seeds: Vec<String>, faults: &mut Faults) -> NetworkConfig {
    let discovery = settings.flag("network.discovery_enabled").unwrap_or(true);
    const EXTERNAL: &str = "network.external_addresses";
    let external = settings.list(EXTERNAL).unwrap_or_default();
    let external = external.into_iter().map(|text| checked_multiaddr(EXTERNAL, text));
    let (listen, listen_ports) = listeners(settings, faults);
    NetworkConfig {
        listen,
        listen_ports,
        external_addresses: faults.take_all(external),
        seeds,
        mdns: discovery && settings.flag("network.mdns").unwrap_or(true),
        kademlia: discovery && settings.flag("network.kademlia").unwrap_or(true),
        nat: nat(settings),
    }
}

fn nat(settings: &Settings) -> nat::Settings {
    let default = nat::Settings::default();
    nat::Settings {
        relay_client: settings.flag("network.relay.client").unwrap_or(default.relay_client),
        relay_server: settings.flag("network.relay.server").unwrap_or(default.relay_server),
        relay_slots: settings.integer("network.relay.slots").map_or(default.relay_slots, |n| n as usize),
        relay_circuits: settings.integer("network.relay.circuits").map_or(default.relay_circuits, |n| n as usize),
        relay_circuit_bytes: settings
            .integer("network.relay.circuit_size_bytes")
            .unwrap_or(default.relay_circuit_bytes),
        upnp: settings.flag("network.upnp").unwrap_or(default.upnp),
        stun_servers: settings.list("network.stun_servers").unwrap_or_default(),
        stun_port: settings.integer("network.stun_port").map_or(default.stun_port, |port| port as u16),
        hole_punching: settings.flag("network.hole_punching").unwrap_or(default.hole_punching),
    }
}

/// Where to listen: the multiaddrs, and the ports that are listened on at all addresses. A port or `address:port` means QUIC
/// and TCP.
fn listeners(settings: &Settings, faults: &mut Faults) -> (Vec<String>, Vec<u16>) {
    const BIND: &str = "node.bind_address";
    let bind = match settings.text(BIND) {
        None | Some("all") => None,
        Some(_) => faults.take(address(settings, BIND, "all").map(Some)),
    };
    let (mut named, mut ports) = (Vec::new(), Vec::new());
    for text in settings.list("network.listen").unwrap_or_else(|| vec![MESH_PORT.to_string()]) {
        match (text.parse(), bind, text.parse::<SocketAddr>()) {
            (Ok(port), None, _) => ports.push(port),
            (Ok(port), Some(ip), _) => named.extend(listeners_at(ip, port)),
            (Err(_), _, Ok(address)) => named.extend(listeners_at(address.ip(), address.port())),
            (Err(_), _, Err(_)) => named.extend(faults.take_all([checked_listener(text)])),
        }
    }
    (named, ports)
}

fn listeners_at(ip: IpAddr, port: u16) -> Vec<String> {
    let protocol = if ip.is_ipv4() { "ip4" } else { "ip6" };
    vec![format!("/{protocol}/{ip}/udp/{port}/quic-v1"), format!("/{protocol}/{ip}/tcp/{port}")]
}

fn address(settings: &Settings, path: &str, default: &str) -> Result<IpAddr> {
    let text = settings.text(path).unwrap_or(default);
    let text = if text == "localhost" { "127.0.0.1" } else { text };
    text.parse().map_err(|_| Error::invalid(format!("{path} takes an IP address such as 127.0.0.1, not {text:?}")))
}

fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let later: Vec<_> = settings.paths().filter(|path| Key::at(path).is_some_and(|key| !key.built)).collect();
    if !later.is_empty() {
        warnings.push(format!("set, but not built yet and without effect: {}", later.join(", ")));
    }
    if !settings.unknown_variables.is_empty() {
        let variables: Vec<String> = KEYS.iter().filter(|key| key.built).map(Key::variable).collect();
        let told = |name: &String| {
            let near = variables.iter().map(|known| (edit_distance(name, known), known)).min();
            match near.filter(|(distance, _)| *distance <= 3) {
                Some((_, known)) => format!("{name} (did you mean {known}?)"),
                None => name.clone(),
            }
        };
        let told: Vec<String> = settings.unknown_variables.iter().map(told).collect();
        warnings.push(format!("environment variables that name no key: {}", told.join(", ")));
    }
    warnings
}
