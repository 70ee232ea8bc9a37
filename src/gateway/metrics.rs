//! Counters as Prometheus reads them: its text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Names follow its conventions: the unit last, in base units, and `_total` behind what only grows. All counters start
//! at zero with the peer. The number of series is bounded: of the collections only the largest have some of their own.
//! Not here: pushing, histories, alerts, which are the business of whoever reads this.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use crate::base::CollectionName;
use crate::kv::CacheUse;
use crate::mesh::nat::ReachReport;
use crate::node::PeerReport;
use crate::peer::{Latency, Stats};
use crate::store;

/// The media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Microseconds of a second.
const SECOND_US: f64 = 1_000_000.0;

/// What a metric does.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// It only grows, until the peer is started again.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is some quantiles, a sum and a count.
    Summary,
}

/// A label: its name and its value.
type Label<'a> = (&'static str, &'a str);

/// The text as it grows.
struct Text(String);

impl Text {
    /// Begins a metric. Its samples follow.
    fn metric(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        self.push(format_args!("# HELP aerolithsdb_{name} {help}\n# TYPE aerolithsdb_{name} {kind}\n"))
    }

    /// A value of a metric.
    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) -> &mut Self {
        self.push(format_args!("aerolithsdb_{name}"));
        for (index, (label, of)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            self.push(format_args!("{separator}{label}=\"{}\"", escaped(of)));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.push(format_args!("{end} {value}\n"))
    }

    /// A metric of one value.
    fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.metric(name, kind, help).sample(name, &[], value);
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) -> &mut Self {
        self.0.write_fmt(text).expect("memory takes what is written");
        self
    }
}

/// A value of a label, in which three characters have a meaning of their own.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics of a peer, with those of its largest collections.
pub(super) fn text(stats: &Stats, largest: &[(CollectionName, store::Collection)], uptime: Duration) -> String {
    let mut text = Text(String::new());
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.metric("build_info", Kind::Gauge, "The version of the program; always 1.").sample("build_info", &version, 1);
    text.single("uptime_seconds", Kind::Gauge, "Seconds since the start.", uptime.as_secs_f64());
    collections(&mut text, &stats.peer, largest);
    changes(&mut text, stats);
    peers(&mut text, stats);
    reach(&mut text, &stats.reach);
    operations(&mut text, stats);
    storage(&mut text, stats);
    text.0
}

fn collections(text: &mut Text, peer: &PeerReport, largest: &[(CollectionName, store::Collection)]) {
    text.single("collections", Kind::Gauge, "Collections.", peer.collections);
    text.single("documents", Kind::Gauge, "Documents that are not deleted.", peer.documents);
    text.single("documents_bytes", Kind::Gauge, "Bytes of all documents as JSON.", peer.documents_bytes);
    let name = "collection_documents";
    text.metric(name, Kind::Gauge, "Documents of each collection; of the largest collections only.");
    for (collection, counts) in largest {
        text.sample(name, &[("collection", collection.as_str())], counts.documents);
    }
    let name = "collection_documents_bytes";
    text.metric(name, Kind::Gauge, "Bytes of the documents of each collection as JSON; of the largest ones only.");
    for (collection, counts) in largest {
        text.sample(name, &[("collection", collection.as_str())], counts.bytes);
    }
}

fn changes(text: &mut Text, stats: &Stats) {
    let counters = &stats.peer.counters;
    text.single("changes_stored", Kind::Gauge, "Batches of changes ever stored in this mesh.", stats.peer.stored);
    text.single("changes_written_total", Kind::Counter, "Changes that were made here.", counters.written);
    text.single("changes_received_total", Kind::Counter, "Changes of other peers that were applied.", counters.applied);
    let name = "changes_known_total";
    text.metric(
        name,
        Kind::Counter,
        "Changes of other peers that were here already, by the way on which they came again.",
    )
    .sample(name, &[("by", "gossip")], counters.known.gossip)
    .sample(name, &[("by", "comparing")], counters.known.comparing)
    .sample(name, &[("by", "reconnecting")], counters.known.reconnecting);
    let name = "changes_dropped_total";
    text.metric(name, Kind::Counter, "Changes of other peers that were dropped, by reason.");
    for (reason, count) in &counters.dropped {
        text.sample(name, &[("reason", reason)], count);
    }
    text.single("dead_letters", Kind::Gauge, "Changes that are kept and cannot be applied now.", stats.peer.letters);
    let help = "Of those, how many gave way to others.";
    text.single("dead_letters_evicted_total", Kind::Counter, help, stats.peer.letters_evicted);
}

fn peers(text: &mut Text, stats: &Stats) {
    text.single("members", Kind::Gauge, "Members of the mesh, this peer included.", stats.peer.members);
    text.single("connected_peers", Kind::Gauge, "Members that are connected.", stats.peer.neighbours.len());
    let name = "peers_dropped_total";
    text.metric(name, Kind::Counter, "Peers whose link was ended, by reason.");
    for (reason, count) in &stats.peer.counters.parted {
        text.sample(name, &[("reason", reason)], count);
    }
    let name = "traffic_bytes_total";
    text.metric(name, Kind::Counter, "Bytes to and from other peers.")
        .sample(name, &[("direction", "received")], stats.traffic.received_bytes)
        .sample(name, &[("direction", "sent")], stats.traffic.sent_bytes);
    let name = "relayed_bytes_total";
    text.metric(name, Kind::Counter, "Those of them that went through other peers as relays.")
        .sample(name, &[("direction", "received")], stats.relayed.received_bytes)
        .sample(name, &[("direction", "sent")], stats.relayed.sent_bytes);
}

fn reach(text: &mut Text, reach: &ReachReport) {
    let reasons: [(&str, &str, &BTreeMap<&'static str, u64>); 4] = [
        ("router_refusals_total", "What the router did not do as asked (UPnP), by reason.", &reach.router_refused),
        ("relay_slots_refused_total", "Slots that relays refused this peer, by reason.", &reach.relay_slots_refused),
        (
            "relay_circuits_refused_total",
            "Connections through relays that they refused, by reason.",
            &reach.relay_circuits_refused,
        ),
        ("stun_rejected_total", "Answers of STUN servers that were not believed, by reason.", &reach.stun_rejected),
    ];
    for (name, help, counts) in reasons {
        text.metric(name, Kind::Counter, help);
        for (reason, count) in counts {
            text.sample(name, &[("reason", reason)], count);
        }
    }
    let name = "stun_requests_total";
    text.metric(name, Kind::Counter, "Datagrams to this peer as a STUN server, by what became of them.")
        .sample(name, &[("outcome", "answered")], reach.stun_served.answered)
        .sample(name, &[("outcome", "ignored")], reach.stun_served.ignored);
    let name = "hole_punches_total";
    text.metric(name, Kind::Counter, "Attempts to punch holes, by what became of them.")
        .sample(name, &[("outcome", "succeeded")], reach.punches.succeeded)
        .sample(name, &[("outcome", "failed")], reach.punches.failed);
    let service = &reach.service;
    text.single("relay_slots", Kind::Gauge, "Peers that are reached through this one.", service.slots);
    text.single("relay_slots_max", Kind::Gauge, "How many may be.", service.slots_max);
    text.single("relay_circuits", Kind::Gauge, "Relayed connections through this peer.", service.circuits);
    text.single("relay_circuits_max", Kind::Gauge, "How many there may be.", service.circuits_max);
    let name = "relay_denied_total";
    text.metric(name, Kind::Counter, "Requests to this peer as a relay that were denied for lack of room.")
        .sample(name, &[("what", "slot")], service.slots_denied)
        .sample(name, &[("what", "circuit")], service.circuits_denied);
}

fn operations(text: &mut Text, stats: &Stats) {
    let kinds: [(&str, Latency); 3] = [("read", stats.reads), ("write", stats.writes), ("query", stats.queries)];
    let name = "operation_duration_seconds";
    text.metric(
        name,
        Kind::Summary,
        "How long reads and writes of documents and queries took; quantiles since the start.",
    );
    for (operation, latency) in kinds {
        for (quantile, micros) in [("0.5", latency.p50_us), ("0.99", latency.p99_us)] {
            // Without an operation there is no quantile.
            let seconds = if latency.count == 0 { f64::NAN } else { micros as f64 / SECOND_US };
            text.sample(name, &[("operation", operation), ("quantile", quantile)], seconds);
        }
        let labels = [("operation", operation)];
        text.sample(&format!("{name}_sum"), &labels, latency.total_us as f64 / SECOND_US);
        text.sample(&format!("{name}_count"), &labels, latency.count);
    }
    let name = "operation_failures_total";
    text.metric(name, Kind::Counter, "Reads and writes of documents and queries that failed.");
    for (operation, latency) in kinds {
        text.sample(name, &[("operation", operation)], latency.failures);
    }
    text.single("slow_queries_total", Kind::Counter, "Queries that the log tells of as slow.", stats.slow_queries);
}

fn storage(text: &mut Text, stats: &Stats) {
    text.single("disk_bytes", Kind::Gauge, "Bytes on the disk, about.", stats.disk_bytes);
    if let Some(bytes) = stats.resident_bytes {
        text.single("resident_bytes", Kind::Gauge, "Bytes of the process that are in memory.", bytes);
    }
    let shares = "Bytes that caches, the journal, open documents and queries may take in memory together, about.";
    text.single("memory_shares_bytes", Kind::Gauge, shares, stats.memory.total_bytes());
    let caches: [(&str, CacheUse); 2] = [("table", stats.table_cache), ("open_documents", stats.peer.open_documents)];
    for (name, help, of) in [
        ("cache_hits_total", "Looks that found what they needed in a cache.", (|of| of.hits) as fn(CacheUse) -> u64),
        ("cache_misses_total", "Looks that did not find what they needed in a cache.", |of| of.misses),
    ] {
        text.metric(name, Kind::Counter, help);
        for (cache, usage) in caches {
            text.sample(name, &[("cache", cache)], of(usage));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::{Peer, PeerConfig};

    /// Reads the format, and holds it to its rules; the samples by their name with labels.
    fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
        let (mut help, mut kinds) = (BTreeSet::new(), BTreeMap::new());
        let (mut samples, mut current) = (BTreeMap::new(), String::new());
        for line in text.strip_suffix('\n').ok_or("the last line does not end")?.split('\n') {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, said) = rest.split_once(' ').ok_or(format!("{line}: no help"))?;
                if said.is_empty() || !is_name(name) || !help.insert(name.to_owned()) {
                    return Err(format!("{line}: help twice, or of nothing"));
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or(format!("{line}: no type"))?;
                let known = ["counter", "gauge", "summary"].contains(&kind);
                if !known || !help.contains(name) || kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(format!("{line}: a type twice, without help, or unknown"));
                }
                current = name.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').ok_or(format!("{line}: no value"))?;
                let name = series.split('{').next().unwrap_or_default();
                let summary = kinds.get(&current).is_some_and(|kind| kind == "summary");
                let base = name.strip_suffix("_sum").or(name.strip_suffix("_count")).filter(|_| summary);
                if name != current && base != Some(current.as_str()) {
                    return Err(format!("{line}: not below the type of {name}"));
                }
                if kinds[&current] == "counter" && !name.ends_with("_total") {
                    return Err(format!("{line}: a counter without _total"));
                }
                labels(&series[name.len()..]).ok_or(format!("{line}: its labels are none"))?;
                let value = value.parse().map_err(|_| format!("{line}: not a number"))?;
                if samples.insert(series.to_owned(), value).is_some() {
                    return Err(format!("{line}: twice"));
                }
            }
        }
        Ok(samples)
    }

    fn is_name(name: &str) -> bool {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// `{name="value",...}`, or nothing. A name occurs once.
    fn labels(text: &str) -> Option<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        if text.is_empty() {
            return Some(labels);
        }
        let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        _ => return None,
                    }),
                    (_, c) => value.push(c),
                }
            };
            if !is_name(name) || labels.insert(name.to_owned(), value).is_some() {
                return None;
            }
            match after[end + 1..].strip_prefix(',') {
                Some(next) => rest = next,
                None => return after[end + 1..].is_empty().then_some(labels),
            }
        }
    }

    #[tokio::test]
    async fn what_prometheus_reads_is_what_happened() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        notes.put("a", json!({"n": 1})).await.unwrap();
        notes.put("a", json!({"n": 2})).await.unwrap();
        notes.delete("none").await.unwrap_err();
        notes.get("a").unwrap();
        peer.collection("empty").unwrap().create().await.unwrap();
        let mut stats = peer.stats().await.unwrap();
        stats.peer.counters.dropped.insert("bad_signature", 3);
        stats.peer.counters.parted.insert("silent", 2);
        stats.reach.relay_slots_refused.insert("full", 4);
        stats.reach.router_refused.insert("not_public", 5);
        stats.reach.stun_served.answered = 6;
        stats.reach.service.circuits_denied = 7;
        stats.slow_queries = 8;
        let largest = peer.largest_collections(10).unwrap();
        let said = text(&stats, &largest, Duration::from_millis(1_500));
        let samples = parse(&said).unwrap_or_else(|error| panic!("{error}\n{said}"));
        for (series, value) in [
            ("uptime_seconds", 1.5),
            ("collections", 2.0),
            ("documents", 1.0),
            ("collection_documents{collection=\"notes\"}", 1.0),
            ("collection_documents{collection=\"empty\"}", 0.0),
            ("collection_documents_bytes{collection=\"notes\"}", 7.0),
            ("changes_written_total", 2.0),
            ("changes_dropped_total{reason=\"bad_signature\"}", 3.0),
            ("peers_dropped_total{reason=\"silent\"}", 2.0),
            ("relay_slots_refused_total{reason=\"full\"}", 4.0),
            ("relay_slots_refused_total{reason=\"refused\"}", 0.0),
            ("router_refusals_total{reason=\"not_public\"}", 5.0),
            ("stun_requests_total{outcome=\"answered\"}", 6.0),
            ("relay_denied_total{what=\"circuit\"}", 7.0),
            ("relay_slots_max", 256.0),
            ("operation_duration_seconds_count{operation=\"write\"}", 3.0),
            ("operation_duration_seconds_count{operation=\"read\"}", 1.0),
            ("operation_failures_total{operation=\"write\"}", 1.0),
            ("slow_queries_total", 8.0),
            ("members", 1.0),
            ("connected_peers", 0.0),
            ("dead_letters", 0.0),
        ] {
            assert_eq!(samples.get(&format!("aerolithsdb_{series}")), Some(&value), "{series}\n{said}");
        }
        assert!(samples["aerolithsdb_operation_duration_seconds_sum{operation=\"write\"}"] > 0.0, "{said}");
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn of_many_collections_the_largest_are_shown() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        for n in 0..6 {
            let collection = peer.collection(&format!("c{n}")).unwrap();
            for document in 0..=n {
                collection.put(&format!("d{document}"), json!({})).await.unwrap();
            }
        }
        let (stats, largest) = (peer.stats().await.unwrap(), peer.largest_collections(4).unwrap());
        assert_eq!((stats.peer.collections, stats.peer.documents), (6, 21));
        let samples = parse(&text(&stats, &largest, Duration::ZERO)).unwrap();
        let shown = samples.keys().filter(|series| series.starts_with("aerolithsdb_collection_documents{"));
        assert_eq!(shown.count(), 4);
        assert_eq!(samples["aerolithsdb_collection_documents{collection=\"c5\"}"], 6.0);
        assert_eq!((samples["aerolithsdb_collections"], samples["aerolithsdb_documents"]), (6.0, 21.0));
        peer.shutdown().await;
    }

    #[test]
    fn values_of_labels_are_escaped() {
        let wild = "a\"b\\c\nd,e=\"f\"}";
        let mut text = Text(String::new());
        text.metric("x", Kind::Gauge, "Some help.").sample("x", &[("of", wild), ("to", "")], 1);
        let samples = parse(&text.0).unwrap();
        let series = samples.keys().next().unwrap();
        let expected = BTreeMap::from([("of".to_owned(), wild.to_owned()), ("to".to_owned(), String::new())]);
        assert_eq!(labels(series.strip_prefix("aerolithsdb_x").unwrap()), Some(expected), "{series}");
    }

    #[test]
    fn what_breaks_the_rules_of_the_format_is_noticed() {
        for bad in [
            "x 1\n",
            "# HELP x y\n# TYPE x gauge\nx 1",
            "# HELP x y\n# TYPE x gauge\nx 1\nx 1\n",
            "# HELP x y\n# TYPE x counter\nx 1\n",
            "# HELP x y\n# TYPE x gauge\nx{a=\"1\",a=\"2\"} 1\n",
            "# HELP x y\n# TYPE x gauge\nx{a=\"\\x\"} 1\n",
            "# TYPE x gauge\nx 1\n",
            "# HELP x y\n# TYPE x gauge\nx one\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
