//! Scenes in which a connection dies without a word, or only seems to: routers that forget a flow, relays that are cut off,
//! and lines that a transfer fills.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::nat::LIE;
use super::peers::{Peer, wait};
use super::scenes::{CHANGE, COLLECTION, PATIENCE, Stage};
use super::topology::Site;
use super::wire::Line;
use super::{Kind, Result, nat};
use crate::Error;
use crate::time::Span;

/// How long peers whose connection is lost may take until what is written at either is at the other.
const LOST: Duration = Duration::from_secs(15);
/// How long they may take until they say that nothing comes any more.
const SAID: Duration = Duration::from_secs(8);
/// How long the end of a peer may take.
const QUICK: Duration = Duration::from_secs(1);
/// Text that is written in a document of a transfer.
const TEXT_BYTES: usize = 8_000;

impl Stage<'_> {
    /// The router of a host forgets what it has sent to others.
    fn evict(&self, name: &str, others: &[&str]) -> Result<()> {
        let host = self.lab.host(name)?;
        for other in others {
            let mut flows = 0;
            for (ours, theirs) in host.addresses().into_iter().zip(self.lab.host(other)?.addresses()) {
                flows += nat::evict(&self.lab.routers(host.site)[0], ours, theirs)?;
            }
            self.say(&format!("the router of {name} forgets {flows} flows to {other}"));
        }
        Ok(())
    }

    /// What is written at either of two peers is at the other in time; meanwhile both say that nothing comes.
    fn exchange(&self, one: &str, other: &str) -> Result<()> {
        let (start, peers) = (Instant::now(), [self.peer(one)?, self.peer(other)?]);
        for peer in peers {
            peer.put(COLLECTION, &format!("from-{}", peer.name), &json!({}))?;
        }
        let mut silent = BTreeSet::new();
        let both = [(peers[0], peers[1]), (peers[1], peers[0])];
        let said = format!("{one} and {other} say since when nothing has come");
        wait(&said, SAID, || {
            for (peer, other) in both {
                if shown(peer, other)?.is_some_and(|shown| shown["no_answer_since"].is_string()) {
                    silent.insert(&peer.name);
                }
            }
            Ok(silent.len() == 2)
        })?;
        self.say(&format!("{said}, {} ms later", start.elapsed().as_millis()));
        let left = LOST.saturating_sub(start.elapsed());
        let there = || {
            let has = |(peer, other): (&Peer, &Peer)| peer.has(COLLECTION, &format!("from-{}", other.name));
            Ok(has(both[0])? && has(both[1])?)
        };
        wait("what was written at either is at the other", left, there)?;
        self.say(&format!("what was written at either is at the other, {} ms later", start.elapsed().as_millis()));
        Ok(())
    }
}

/// What a peer shows of another in its status.
fn shown(peer: &Peer, other: &Peer) -> Result<Option<Value>> {
    let status = peer.get("/nodes/status")?;
    let mut all = status["peers"].as_array().into_iter().flatten();
    Ok(all.find(|shown| shown["peer_id"] == other.id.as_str()).cloned())
}

pub(super) fn over_tcp() -> Vec<Site> {
    vec![Site::new("ada", Kind::Public), Site::new("bo", Kind::UdpBlocked)]
}

pub(super) fn over_quic() -> Vec<Site> {
    vec![Site::new("ada", Kind::Public), Site::new("bo", Kind::PortRestricted)]
}

/// Lines as they are at the edge of a network: slow, with buffers for seconds.
pub(super) fn slow() -> Vec<Site> {
    let line = Line { delay: Span::ms(30), rate_kbit: 256, buffer: Span::ms(4_000), ..Line::default() };
    let mut sites =
        vec![Site::new("ada", Kind::Public), Site::new("bo", Kind::PortRestricted), Site::new("cy", Kind::UdpBlocked)];
    sites[1..].iter_mut().for_each(|site| site.line = line);
    sites
}

pub(super) fn lost_flow_quic(stage: &mut Stage<'_>) -> Result<()> {
    stage.options.public.push(("network.listen".to_owned(), "/ip4/0.0.0.0/udp/4001/quic-v1".to_owned()));
    lost_flow(stage)
}

pub(super) fn lost_flow(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.evict("bo", &["ada"])?;
    stage.exchange("ada", "bo")?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

/// Both relays are members, and would pass on what bo writes by themselves.
pub(super) fn lost_flow_relayed(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "second-relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.evict("bo", &["relay", "second-relay"])?;
    stage.exchange("ada", "bo")?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

pub(super) fn relay_silent(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "second-relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    let (ada, bo) = (stage.peer("ada")?, stage.peer("bo")?);
    let through = |relay: &Peer| Ok(ada.neighbour(bo)?.is_some_and(|way| way.address.contains(&relay.id)));
    let relays = [stage.peer("relay")?, stage.peer("second-relay")?];
    wait("it is known through whom they are connected", PATIENCE, || Ok(through(relays[0])? || through(relays[1])?))?;
    let used = if through(relays[0])? { 0 } else { 1 };
    let (dead, other) = (&relays[used].name, relays[1 - used]);
    stage.lab.cut(stage.lab.host(dead)?.site, true)?;
    stage.say(&format!("{dead}, through which ada and bo are connected, is cut off"));
    ada.put(COLLECTION, "after", &json!({}))?;
    stage.has("bo", 1, LOST)?;
    let took = wait("ada and bo are connected through the other relay", 2 * LOST, || through(other))?;
    stage.say(&format!("ada and bo are connected through {}, {} ms later", other.name, took.as_millis()));
    Ok(())
}

/// Handshakes over QUIC with somebody who does not answer keep their port for seconds, but not the peer.
pub(super) fn quick_end(stage: &mut Stage<'_>) -> Result<()> {
    // Nobody is there.
    stage.options.private.push(("node.seed_nodes".to_owned(), format!("/ip4/{LIE}/udp/4001/quic-v1")));
    stage.gather(&["relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    let bo = stage.peers.remove("bo").ok_or_else(|| Error::Lab("bo does not run".to_owned()))?;
    let took = bo.stop()?;
    stage.say(&format!("bo ended {} ms after it was told to", took.as_millis()));
    if took < QUICK { Ok(()) } else { Err(Error::Lab("that is too long".to_owned())) }
}

pub(super) fn slow_transfer(stage: &mut Stage<'_>) -> Result<()> {
    const DOCUMENTS: u64 = 80;
    nat::block_tcp(&stage.lab.routers(stage.lab.host("bo")?.site)[0])?;
    stage.gather(&["ada", "bo", "cy"])?;
    let ada = stage.peer("ada")?;
    let edges = [("bo", "quic"), ("cy", "tcp")];
    for (name, transport) in edges {
        let edge = stage.peer(name)?;
        let over = |from: &Peer, to: &Peer| Ok(from.neighbour(to)?.is_some_and(|way| way.transport() == transport));
        let both = || Ok(over(ada, edge)? && over(edge, ada)?);
        wait(&format!("ada and {name} are connected over {transport}"), PATIENCE, both)?;
    }
    let mut rng = StdRng::seed_from_u64(1);
    for name in ["ada", "bo", "cy"] {
        // What cannot be packed.
        let text = |rng: &mut StdRng| (0..TEXT_BYTES).map(|_| char::from(rng.random_range(b'#'..=b'['))).collect();
        let text = |rng: &mut StdRng| -> String { text(rng) };
        let lines: Vec<String> = (0..DOCUMENTS)
            .map(|n| json!({ "_id": format!("{name}-{n}"), "text": text(&mut rng) }).to_string())
            .collect();
        stage.peer(name)?.load(COLLECTION, &lines.join("\n"))?;
    }
    let total = 3 * DOCUMENTS;
    stage.say(&format!("each wrote {DOCUMENTS} documents of {TEXT_BYTES} letters"));
    let links = || {
        let mut links = Vec::new();
        for (name, _) in edges {
            let edge = stage.peer(name)?;
            for (peer, other) in [(ada, edge), (edge, ada)] {
                links.push(shown(peer, other)?.map(|shown| shown["since"].to_string()));
            }
        }
        Ok::<_, Error>(links)
    };
    let before = links()?;
    let start = Instant::now();
    wait("everybody has everything", 3 * PATIENCE, || {
        let now = links()?;
        if now != before {
            return Err(Error::Lab(format!(
                "after {} ms a link is another one: {before:?}, now {now:?}",
                start.elapsed().as_millis()
            )));
        }
        let has_all = |name: &str| Ok::<_, Error>(stage.peer(name)?.count(COLLECTION)? == total);
        Ok(has_all("ada")? && has_all("bo")? && has_all("cy")?)
    })?;
    stage.say(&format!("everybody has everything over the same links, {} ms later", start.elapsed().as_millis()));
    Ok(())
}
