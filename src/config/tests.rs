//! The layers, the samples of the interface's description, and the profiles.

use super::file::{Language, parse};
use super::key::KEYS;
use super::profile::PROFILES;
use super::*;

/// The four files of the interface's description, as they stand there.
const BOOTSTRAP: &str = r#"node: {node_id: "bootstrap-001", is_bootstrap: true, seed_nodes: []}"#;
const WORKER: &str = r#"
node: {node_id: "worker-001", bind_address: "0.0.0.0", port: 8080, seed_nodes: ["bootstrap-001:8080"]}
network: {discovery_enabled: true}
storage: {data_dir: "./data", sharding_strategy: "ConsistentHash", replication_factor: 3, virtual_nodes: 256}
security: {zero_trust: true, encryption_algorithm: "XChaCha20Poly1305", key_rotation_interval: "24h", audit_level: "Full", compliance_mode: "HIPAA"}
consensus: {algorithm: "ByzantinePBFT", byzantine_tolerance: 0.33, timeout: "5s", max_batch_size: 1000, conflict_resolution: "LastWriterWins"}
api: {rest_api: {enabled: true, port: 8080, cors_enabled: true}, grpc_api: {enabled: true, port: 8082}}
observability: {metrics: {enabled: true, prometheus_endpoint: "http://localhost:9090", collection_interval: "15s"}, tracing: {enabled: true, jaeger_endpoint: "http://localhost:14268", sampling_ratio: 0.1}, logging: {level: "info", format: "json", output: "stdout", audit_enabled: true}}
"#;

fn message(result: Result<impl std::fmt::Debug>) -> String {
    result.expect_err("it should have been refused").to_string()
}

fn environment(pairs: &[(&str, &str)]) -> Result<Settings> {
    Settings::from_environment(pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
}

#[test]
fn the_described_files_load_as_they_are() {
    let bootstrap = Config::new(&parse(BOOTSTRAP, Language::Yaml).unwrap()).unwrap();
    assert_eq!(bootstrap.peer.node_id, "bootstrap-001");
    assert!(bootstrap.rest_seeds.is_empty());

    let worker = Config::new(&parse(WORKER, Language::Yaml).unwrap()).unwrap();
    assert_eq!(worker.rest_seeds, ["http://bootstrap-001:8080"]);
    assert_eq!(worker.peer.network.listen[0], "/ip4/0.0.0.0/udp/4001/quic-v1");
    assert_eq!((bootstrap.peer.network.listen.len(), bootstrap.peer.network.listen_ports), (0, vec![4001]));
    let rest = worker.rest.unwrap();
    assert_eq!((rest.bind.to_string().as_str(), rest.port, rest.cors_enabled), ("127.0.0.1", 8080, true));
    assert_eq!((worker.logging.json, worker.logging.output), (true, LogOutput::Stdout));
    assert_eq!(worker.warnings.len(), 1);
    for key in ["api.grpc_api.port", "consensus.timeout", "security.zero_trust", "storage.virtual_nodes"] {
        assert!(worker.warnings[0].contains(key), "{key}: {:?}", worker.warnings);
    }
    assert!(!worker.warnings[0].contains("data_dir"));
}

#[test]
fn each_section_alone_loads_too() {
    for line in WORKER.lines().filter(|line| !line.is_empty()) {
        let settings = parse(line, Language::Yaml).unwrap();
        assert!(settings.paths().count() > 0, "{line}");
    }
}

#[test]
fn the_three_languages_say_the_same() {
    let toml = parse("[api.rest_api]\nport = 1\n[node]\nseed_nodes = [\"a:1\"]", Language::Toml).unwrap();
    let yaml = parse("api:\n  rest_api:\n    port: 1\nnode:\n  seed_nodes:\n    - a:1\n", Language::Yaml).unwrap();
    let json = parse(r#"{"api":{"rest_api":{"port":1}},"node":{"seed_nodes":["a:1"]}}"#, Language::Json).unwrap();
    assert_eq!((&toml, &toml), (&yaml, &json));
    assert_eq!(parse("", Language::Yaml).unwrap(), Settings::default());
    assert_eq!(parse("node:\n  seed_nodes:\nstorage:\n", Language::Yaml).unwrap(), Settings::default());
}

#[test]
fn stronger_layers_win() {
    let mut settings = parse("[api.rest_api]\nport = 1\n[node]\nnode_id = \"file\"", Language::Toml).unwrap();
    settings
        .overlay(environment(&[("AEROLITHSDB_API_REST_PORT", "2"), ("AEROLITHSDB_NETWORK_MDNS", "false")]).unwrap());
    let config = Config::new(&settings).unwrap();
    assert_eq!((config.rest.unwrap().port, config.peer.network.mdns, config.peer.network.kademlia), (2, false, true));
    let mut flags = Settings::default();
    flags.set_text("api.rest_api.port", "3").unwrap();
    settings.overlay(flags);
    let config = Config::new(&settings).unwrap();
    assert_eq!((config.rest.unwrap().port, config.peer.node_id.as_str()), (3, "file"));
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let unknown = |text: &str| message(parse(text, Language::Toml));
    assert!(unknown("[storage]\ndata_dirr = \"x\"").contains("did you mean storage.data_dir?"));
    assert!(unknown("[api.rest]\nport = 1").contains("api.rest"));
    assert!(unknown("[node]\nmdns = true").contains("network.mdns"));
    assert!(unknown("zzzzzzzzzzzz = 1").contains("the sections are node, storage, network"));
    assert!(unknown("storage = 1").contains("is a section"));
    assert!(unknown("[storage]\ndata_dir = {}").contains("takes a text"));
}

#[test]
fn a_wrong_value_says_what_the_key_takes() {
    for (text, part) in [
        ("[api.rest_api]\nport = 70000", "from 0 to 65535"),
        ("[network]\nmdns = 3", "true or false"),
        ("[storage]\ncache_size_bytes = \"many\"", "64MiB"),
        ("[storage]\ndurability = \"none\"", "durable, buffered"),
        ("[consensus]\ntimeout = \"5 years\"", "5s"),
        ("[consensus]\nbyzantine_tolerance = 1.5", "from 0 to 1"),
    ] {
        assert!(message(parse(text, Language::Toml)).contains(part), "{text}");
    }
    assert!(message(environment(&[("AEROLITHSDB_NETWORK_MDNS", "perhaps")])).contains("AEROLITHSDB_NETWORK_MDNS"));
    for text in
        ["[node]\nseed_nodes = [\"nowhere\"]", "[network]\nlisten = [\"tcp:1\"]", "[node]\nbind_address = \"x\""]
    {
        assert!(Config::new(&parse(text, Language::Toml).unwrap()).is_err(), "{text}");
    }
}

#[test]
fn variables_that_name_no_key_are_told() {
    let names = [
        ("AEROLITHSDB_SERVICE_HOST", "10.0.0.1"),
        ("AEROLITHSDB_URL", "x"),
        ("PATH", "x"),
        ("AEROLITHSDB_STORAGE_DATADIR", "x"),
    ];
    let settings = environment(&names).unwrap();
    let told = "environment variables that name no key: AEROLITHSDB_SERVICE_HOST, AEROLITHSDB_STORAGE_DATADIR (did you \
                mean AEROLITHSDB_STORAGE_DATA_DIR?)";
    assert_eq!((settings.warnings(), Config::new(&settings).unwrap().warnings), (vec![told.into()], vec![told.into()]));
}

#[test]
fn a_variable_is_the_path_or_its_short_form() {
    let port = |pairs: &[(&str, &str)]| Config::new(&environment(pairs)?).map(|config| config.rest.unwrap().port);
    let (long, short) = ("AEROLITHSDB_API_REST_API_PORT", "AEROLITHSDB_API_REST_PORT");
    assert_eq!((port(&[(long, "5")]).unwrap(), port(&[(short, "6")]).unwrap()), (5, 6));
    assert_eq!(port(&[(long, "7"), (short, "7")]).unwrap(), 7);
    let why = message(port(&[(long, "5"), (short, "6")]));
    assert!(why.contains(long) && why.contains(short), "{why}");
    let cors = environment(&[("AEROLITHSDB_API_REST_API_CORS_ENABLED", "true")]).unwrap();
    assert!(Config::new(&cors).unwrap().rest.unwrap().cors_enabled);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let why = message(parse("[storage]\ndata_dirr = 1\n[network]\nmdns = 3\n[node]\nport = \"x\"", Language::Toml));
    assert_eq!(why.lines().count(), 3, "{why}");
    let text = "[node]\nmesh_name = \"\"\nseed_nodes = [\"nowhere\", \"/ip9\"]\nbind_address = \"x\"\n[network]\n\
                listen = [\"tcp:1\", \"udp:2\"]\n[security]\ntls = \"files\"\n[observability.logging]\nlevel = \"loud\"";
    let why = message(Config::new(&parse(text, Language::Toml).unwrap()));
    for part in ["mesh_name", "nowhere", "/ip9", "node.bind_address", "tcp:1", "udp:2", "security.tls_key", "loud"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(why.lines().count(), 8, "{why}");
    let why = message(environment(&[("AEROLITHSDB_NETWORK_MDNS", "3"), ("AEROLITHSDB_NODE_PORT", "x")]));
    assert_eq!(why.lines().count(), 2, "{why}");
    let why = message(Config::new(&parse("[node]\nseed_nodes = [\"https://a:8080\"]", Language::Toml).unwrap()));
    assert!(why.contains("multiaddr") && why.contains("ticket"), "{why}");
}

#[test]
fn discovery_can_be_switched_off_at_once() {
    let settings = parse("[network]\ndiscovery_enabled = false\nmdns = true", Language::Toml).unwrap();
    let network = Config::new(&settings).unwrap().peer.network;
    assert_eq!((network.mdns, network.kademlia), (false, false));
}

#[test]
fn profiles_load_completely_and_without_warnings() {
    for (name, _) in PROFILES {
        let config = Config::new(&profile::read(name).unwrap()).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
    }
    assert!(message(profile::read("lap")).contains("laptop"));
    let built = KEYS.iter().filter(|key| key.built);
    let missing: Vec<_> = built
        .filter(|key| {
            !PROFILES.iter().any(|(name, _)| profile::read(name).unwrap().paths().any(|path| path == key.path))
        })
        .map(|key| key.path)
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "keys that no profile shows");
}

#[test]
fn the_seeds_that_profiles_name_work_with_the_other_profiles() {
    let mut seen = 0;
    for (name, text) in PROFILES {
        // A gateway of a profile listens on loopback only, so that nobody elsewhere could ask it.
        let rest = Config::new(&profile::read(name).unwrap()).unwrap().rest.unwrap();
        assert!(rest.bind.is_loopback(), "{name}");
        for line in text.lines() {
            let after = |mark: &str| line.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next());
            for seed in [after("--seed "), after("SEED_NODES=")].into_iter().flatten() {
                let mut settings = profile::read(name).unwrap();
                settings.set_text("node.seed_nodes", seed).unwrap();
                assert_eq!(Config::new(&settings).unwrap().peer.network.seeds, [seed], "{name}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 2, "worker.toml names one, twice");
}

#[test]
fn the_defaults_of_the_table_are_those_of_the_program() {
    let mut settings = Settings::default();
    for key in KEYS.iter().filter(|key| key.built) {
        let table: toml::Table = format!("x = {}", key.default).parse().unwrap();
        settings.set(key, key.check(&serde_json::to_value(&table["x"]).unwrap()).unwrap());
    }
    let (ours, theirs) = (Config::new(&settings).unwrap(), Config::new(&Settings::default()).unwrap());
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn what_the_start_would_refuse_is_refused_before() {
    for (text, advice) in [
        ("[api.rest_api]\nbind = \"0.0.0.0\"", "allow_insecure"),
        ("[api.rest_api]\nbind = \"0.0.0.0\"\n[security]\ntls = \"generated\"", "--token-file"),
        ("[api.rest_api]\nbind = \"0.0.0.0\"\n[security]\ntoken_file = \"t\"", "--tls generated"),
        ("[security]\ntls = \"files\"", "security.tls_key"),
        ("[security]\ntls_key = \"x\"", "security.tls = files"),
        ("[network]\nlisten = [\"/ip4/0.0.0.0/udp/4001\"]", "cannot be listened on"),
        ("[network]\nlisten = [\"/dns4/a.example/tcp/1\"]", "cannot be listened on"),
        ("[network]\nlisten = [\"/ip4/0.0.0.0/tcp/1/ws\"]", "cannot be listened on"),
        ("[network]\nexternal_addresses = [\"a.example:1\"]", "not a multiaddr"),
        ("[node]\nmesh_name = \"\"", "node.mesh_name"),
        ("[observability.logging]\nlevel = \"debgu\"", "target=level"),
    ] {
        let why = message(Config::new(&parse(text, Language::Toml).unwrap()));
        assert!(why.contains(advice), "{text}: {why}");
    }
    for text in [
        "[api.rest_api]\nbind = \"0.0.0.0\"\n[security]\ntls = \"generated\"\ntoken_file = \"t\"",
        "[api.rest_api]\nbind = \"0.0.0.0\"\nenabled = false",
        "[api.rest_api]\nbind = \"0.0.0.0\"\nallow_insecure = true",
        "[network]\nlisten = [\"/ip6/::/udp/0/quic-v1\", \"/ip4/127.0.0.1/tcp/0\", \"0\"]",
    ] {
        assert!(Config::new(&parse(text, Language::Toml).unwrap()).is_ok(), "{text}");
    }
}

#[test]
fn requests_are_limited_beyond_loopback_unless_it_is_said() {
    let limit = |text: &str| {
        let text = format!("[security]\ntls = \"generated\"\ntoken_file = \"t\"\n[api.rest_api]\n{text}");
        Config::new(&parse(&text, Language::Toml).unwrap()).unwrap().rest.unwrap().rate_limit_per_s
    };
    assert_eq!((limit(""), limit("rate_limit_per_s = 7")), (0, 7));
    assert_eq!((limit("bind = \"::\""), limit("bind = \"::\"\nrate_limit_per_s = 0")), (500, 0));
}
