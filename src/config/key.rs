//! Every key of the configuration: its path, what it takes, its default, and what it is for.
//!
//! This one table is what files are checked against, what environment variables are named after, and what
//! `config init` prints. A key whose part of the system is not built yet is in it too, so that files written for
//! later versions load, and says so: it has no effect.

use std::fmt;

use super::units;
use crate::base::edit_distance;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// true or false.
    Flag,
    /// A whole number up to this one.
    Integer(u64),
    /// A number from 0 to 1.
    Ratio,
    /// A list of texts; in the environment separated by commas.
    List,
    /// A duration such as `5s`.
    Duration,
    /// A size such as `64MiB`, or a number of bytes.
    Size,
    /// One of these words, whatever the case.
    Word(&'static [&'static str]),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its full path, such as `storage.data_dir`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default as TOML writes it, or an example for a key without a default.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Whether the part of the system that reads it is built.
    pub built: bool,
}

/// A value of a key, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// A text or a word, words in lower case.
    Text(String),
    /// A switch.
    Flag(bool),
    /// A number, milliseconds or bytes.
    Integer(u64),
    /// A ratio.
    Ratio(f64),
    /// Texts.
    List(Vec<String>),
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc, built: true }
}

const fn later(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc, built: false }
}

const PORT: Kind = Kind::Integer(u16::MAX as u64);
const COUNT: Kind = Kind::Integer(u32::MAX as u64);

/// Every key, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("node.node_id", Kind::Text, "\"peer\"", "A name for people; it need not be unique."),
    key("node.mesh_name", Kind::Text, "\"mesh\"", "The name of the mesh that a new peer founds."),
    key("node.bind_address", Kind::Text, "\"all\"", "The address on which ports without one are listened on for other peers; all = every one of this machine, of IPv4 and of IPv6."),
    key("node.port", PORT, "8080", "The port of the REST gateway, unless api.rest_api.port says otherwise."),
    key("node.seed_nodes", Kind::List, "[]", "Peers to meet first: multiaddrs, or host:port of their REST gateway, which is asked for its multiaddrs."),
    later("node.is_bootstrap", Kind::Flag, "false", "Whether others find the mesh through this peer."),

    key("storage.data_dir", Kind::Text, "\"./data\"", "Where the data and the identity of the peer are kept."),
    key("storage.cache_size_bytes", Kind::Size, "\"32MiB\"", "Memory for what is read often; what the journal and queries may take follows from it. A number of bytes, or 64MiB and the like."),
    key("storage.durability", Kind::Word(&["durable", "buffered"]), "\"durable\"", "What an acknowledged write survives: durable = a power loss; buffered = the end of the process."),
    later("storage.sharding_strategy", Kind::Text, "\"ConsistentHash\"", "How documents are spread over peers."),
    later("storage.replication_factor", COUNT, "3", "On how many peers each document is kept."),
    later("storage.virtual_nodes", COUNT, "256", "Points of each peer on the ring."),

    key("network.listen", Kind::List, "[\"4001\"]", "Where to listen for other peers: a port (at node.bind_address) or address:port for QUIC and TCP, or multiaddrs; port 0 takes a free one."),
    key("network.external_addresses", Kind::List, "[]", "Multiaddrs at which others can reach this peer, when it cannot know them by itself (port forwarding)."),
    key("network.discovery_enabled", Kind::Flag, "true", "Whether peers are searched for at all; false switches mdns and kademlia off."),
    key("network.mdns", Kind::Flag, "true", "Whether peers on the same LAN find each other."),
    key("network.kademlia", Kind::Flag, "true", "Whether peers find each other through a distributed hash table."),
    key("network.upnp", Kind::Flag, "true", "Whether the router is asked to forward the ports on which this peer listens."),
    key("network.stun_servers", Kind::List, "[]", "STUN servers that tell what the NAT does, as host:port, beside the members that can be dialed from anywhere."),
    key("network.stun_port", PORT, "3478", "The UDP port (and the next one) at which this peer answers as a STUN server, while it can be dialed from anywhere; 0 for none."),
    key("network.hole_punching", Kind::Flag, "true", "Whether direct connections through NATs are tried."),
    key("network.relay.client", Kind::Flag, "true", "Whether other peers' relays are used, to reach peers and to be reached."),
    key("network.relay.server", Kind::Flag, "true", "Whether this peer relays for others, while it can be dialed from outside itself."),
    key("network.relay.slots", COUNT, "256", "Peers that are reached through this one."),
    key("network.relay.circuits", COUNT, "128", "Relayed connections at a time."),
    key("network.relay.circuit_size_bytes", Kind::Size, "\"1GiB\"", "What one relayed connection carries before it is closed and has to be made anew."),

    key("security.token_file", Kind::Text, "\"\"", "The file with the token that every call over HTTP needs (Authorization: Bearer); it is made when it is not there. Empty for no token."),
    key("security.tls", Kind::Word(&["off", "generated", "files"]), "\"off\"", "TLS of the gateway: generated = with a certificate that is made once and kept in the data directory, for clients that pin its fingerprint; files = with that of the next two keys."),
    key("security.tls_certificate", Kind::Text, "\"\"", "A file with the gateway's certificate and those above it (PEM)."),
    key("security.tls_key", Kind::Text, "\"\"", "The file with its key (PEM)."),
    later("security.zero_trust", Kind::Flag, "true", "Whether every call needs a token."),
    later("security.encryption_algorithm", Kind::Text, "\"XChaCha20Poly1305\"", "How payloads are sealed."),
    later("security.key_rotation_interval", Kind::Duration, "\"24h\"", "How often keys are renewed."),
    later("security.audit_level", Kind::Text, "\"Full\"", "What the audit log holds."),
    later("security.compliance_mode", Kind::Text, "\"None\"", "A set of rules to follow."),

    later("consensus.algorithm", Kind::Text, "\"ByzantinePBFT\"", "How ordered collections agree."),
    later("consensus.byzantine_tolerance", Kind::Ratio, "0.33", "The share of peers that may be faulty."),
    later("consensus.timeout", Kind::Duration, "\"5s\"", "How long a round may take."),
    later("consensus.max_batch_size", COUNT, "1000", "Changes in one round."),
    later("consensus.conflict_resolution", Kind::Text, "\"LastWriterWins\"", "What becomes of concurrent values."),

    key("api.rest_api.enabled", Kind::Flag, "true", "Whether programs can talk to the peer over HTTP."),
    key("api.rest_api.bind", Kind::Text, "\"127.0.0.1\"", "The address on which the gateway listens."),
    key("api.rest_api.port", PORT, "8080", "Its port; 0 takes a free one."),
    key("api.rest_api.allow_insecure", Kind::Flag, "false", "Whether it may listen beyond loopback without a token or without TLS: whoever reaches it can do everything, or read along."),
    key("api.rest_api.allowed_hosts", Kind::List, "[]", "Names beside localhost and plain addresses under which it answers."),
    key("api.rest_api.rate_limit_per_s", COUNT, "0", "Requests a second that one client address may make, and as many at once; 0 for any number. When it is not set: 0 on loopback, 500 elsewhere."),
    key("api.rest_api.cors_enabled", Kind::Flag, "false", "Whether pages of other origins may call it."),
    key("api.rest_api.cors_origins", Kind::List, "[]", "Which origins, \"*\" for all; when empty, those on this machine."),
    later("api.graphql_api.enabled", Kind::Flag, "false", "Whether GraphQL is served."),
    later("api.graphql_api.port", PORT, "8081", "Its port."),
    later("api.grpc_api.enabled", Kind::Flag, "false", "Whether gRPC is served."),
    later("api.grpc_api.port", PORT, "8082", "Its port."),
    later("api.websocket_api.enabled", Kind::Flag, "false", "Whether changes are pushed over WebSockets."),
    later("api.websocket_api.port", PORT, "8083", "Its port."),

    key("observability.slow_query_ms", COUNT, "500", "Queries that take longer are told in the log; 0 for none."),
    key("observability.logging.level", Kind::Text, "\"info\"", "error, warn, info, debug, trace, or directives such as aerolithsdb=debug,libp2p=info."),
    key("observability.logging.format", Kind::Word(&["text", "json"]), "\"text\"", "text for people, json for machines."),
    key("observability.logging.output", Kind::Text, "\"stderr\"", "stderr, stdout, or a file to append to."),
    later("observability.logging.audit_enabled", Kind::Flag, "false", "Whether an audit log is kept."),
    later("observability.metrics.enabled", Kind::Flag, "false", "Whether metrics are pushed; GET /metrics has them in any case."),
    later("observability.metrics.prometheus_endpoint", Kind::Text, "\"http://localhost:9090\"", "Where they are pushed to."),
    later("observability.metrics.collection_interval", Kind::Duration, "\"15s\"", "How often."),
    later("observability.tracing.enabled", Kind::Flag, "false", "Whether traces are collected."),
    later("observability.tracing.jaeger_endpoint", Kind::Text, "\"http://localhost:14268\"", "Where they are sent to."),
    later("observability.tracing.sampling_ratio", Kind::Ratio, "0.1", "Which share of them."),
];

impl fmt::Display for Setting {
    /// As TOML writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Ratio(ratio) => write!(f, "{ratio}"),
            Self::List(items) => {
                write!(f, "{}", toml::Value::Array(items.iter().cloned().map(toml::Value::String).collect()))
            }
        }
    }
}

impl Key {
    /// The key at a path.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The environment variable that sets it: its path in capitals, with `_` for `.`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("AEROLITHSDB_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// A shorter name of that: `rest_api` and its sisters without `_api`, and a key that repeats its section
    /// (`node.node_id`) said once.
    #[must_use]
    pub fn short_variable(&self) -> String {
        let mut words: Vec<&str> = Vec::new();
        for word in self.path.split('.') {
            let word = word.strip_suffix("_api").unwrap_or(word);
            let repeated =
                words.last().and_then(|last| word.strip_prefix(last)).and_then(|rest| rest.strip_prefix('_'));
            words.push(repeated.unwrap_or(word));
        }
        format!("AEROLITHSDB_{}", words.join("_").to_ascii_uppercase())
    }

    /// Checks a value from a file.
    ///
    /// # Errors
    /// What it takes instead.
    pub fn check(&self, value: &serde_json::Value) -> Result<Setting, String> {
        let checked = match (self.kind, value) {
            (_, serde_json::Value::String(text)) => return self.check_text(text),
            (Kind::Flag, serde_json::Value::Bool(flag)) => Some(Setting::Flag(*flag)),
            (Kind::Integer(max), serde_json::Value::Number(number)) => {
                number.as_u64().filter(|number| *number <= max).map(Setting::Integer)
            }
            (Kind::Size, serde_json::Value::Number(number)) => number.as_u64().map(Setting::Integer),
            (Kind::Ratio, serde_json::Value::Number(number)) => number.as_f64().and_then(ratio),
            (Kind::List, serde_json::Value::Array(items)) => {
                let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                texts.map(Setting::List)
            }
            _ => None,
        };
        checked.ok_or_else(|| self.expected(value))
    }

    /// Checks a value from the environment or from a flag.
    ///
    /// # Errors
    /// What it takes instead.
    pub fn check_text(&self, text: &str) -> Result<Setting, String> {
        let checked = match self.kind {
            Kind::Text => Some(Setting::Text(text.into())),
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(Setting::Flag(true)),
                "false" | "0" | "no" | "off" => Some(Setting::Flag(false)),
                _ => None,
            },
            Kind::Integer(max) => text.parse().ok().filter(|number| *number <= max).map(Setting::Integer),
            Kind::Ratio => text.parse().ok().and_then(ratio),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Setting::List(items.map(str::to_owned).collect()))
            }
            Kind::Duration => units::duration_ms(text).map(Setting::Integer),
            Kind::Size => units::size_bytes(text).map(Setting::Integer),
            Kind::Word(words) => {
                words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| Setting::Text((*word).into()))
            }
        };
        checked.ok_or_else(|| self.expected(&text))
    }

    fn expected(&self, found: &dyn std::fmt::Display) -> String {
        let wanted = match self.kind {
            Kind::Text => "a text".into(),
            Kind::Flag => "true or false".into(),
            Kind::Integer(max) => format!("a whole number from 0 to {max}"),
            Kind::Ratio => "a number from 0 to 1".into(),
            Kind::List => "a list of texts".into(),
            Kind::Duration => "a duration such as 500ms, 5s, 15m or 24h".into(),
            Kind::Size => "a number of bytes or a size such as 64MiB".into(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        };
        let shown: String = found.to_string().chars().take(40).collect();
        format!("{} takes {wanted}, not {shown}", self.path)
    }
}

fn ratio(number: f64) -> Option<Setting> {
    (0.0..=1.0).contains(&number).then_some(Setting::Ratio(number))
}

/// The known path that is nearest to an unknown one, by edits; `None` when nothing is near.
#[must_use]
pub fn nearest(path: &str) -> Option<&'static str> {
    let (distance, nearest) = KEYS.iter().map(|key| (edit_distance(path, key.path), key.path)).min()?;
    let last = path.rsplit('.').next().unwrap_or(path);
    // A good name in the wrong section is the more common mistake.
    let moved = KEYS.iter().map(|key| key.path).find(|known| known.rsplit('.').next() == Some(last));
    if distance <= 3 { Some(nearest) } else { moved.or((distance <= path.len() / 2).then_some(nearest)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_has_a_path_a_variable_and_a_default_of_its_own() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((paths.len(), variables.len()), (KEYS.len(), KEYS.len()));
        // No name is that of two keys.
        let all: BTreeSet<_> =
            KEYS.iter().flat_map(|key| [(key.variable(), key.path), (key.short_variable(), key.path)]).collect();
        assert_eq!(all.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), all.len());
        for key in KEYS {
            let table: toml::Table = format!("x = {}", key.default).parse().unwrap();
            let value = serde_json::to_value(&table["x"]).unwrap();
            assert!(key.check(&value).is_ok(), "{}: {:?}", key.path, key.check(&value));
        }
    }

    #[test]
    fn variables_are_named_after_sections_and_keys() {
        for (path, variable, short) in [
            ("node.node_id", "AEROLITHSDB_NODE_NODE_ID", "AEROLITHSDB_NODE_ID"),
            ("storage.data_dir", "AEROLITHSDB_STORAGE_DATA_DIR", "AEROLITHSDB_STORAGE_DATA_DIR"),
            ("api.rest_api.port", "AEROLITHSDB_API_REST_API_PORT", "AEROLITHSDB_API_REST_PORT"),
            ("api.rest_api.cors_enabled", "AEROLITHSDB_API_REST_API_CORS_ENABLED", "AEROLITHSDB_API_REST_CORS_ENABLED"),
            ("network.relay.client", "AEROLITHSDB_NETWORK_RELAY_CLIENT", "AEROLITHSDB_NETWORK_RELAY_CLIENT"),
        ] {
            let key = Key::at(path).unwrap();
            assert_eq!((key.variable().as_str(), key.short_variable().as_str()), (variable, short));
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        assert_eq!(nearest("storage.data_dirr"), Some("storage.data_dir"));
        assert_eq!(nearest("storage.mdns"), Some("network.mdns"));
        assert_eq!(nearest("x"), None);
    }
}
