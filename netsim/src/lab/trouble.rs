//! Scenes in which the network itself is the trouble: firewalls, cables that are pulled, routes that change, and tunnels
//! that lose what is large.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::peers::Peer;
use super::scenes::{CHANGE, COLLECTION, PATIENCE, Stage, homes};
use super::topology::Site;
use super::{Kind, Result, nat};
use crate::Error;

/// How long peers may take to notice that what they are connected over is dead.
const NOTICE: Duration = Duration::from_secs(5);
/// The largest packet that a tunnel lets through.
const TUNNEL_BYTES: u32 = 1_300;

impl Stage<'_> {
    /// Something happens upon which all connections of a peer are dead, which it notices soon.
    fn notices(&self, name: &str, what: &str, happens: impl FnOnce() -> Result<()>) -> Result<()> {
        let sessions = |status: &Value| -> Vec<String> {
            let all = status["peers"].as_array().into_iter().flatten();
            all.map(|peer| format!("{} since {}", peer["peer_id"], peer["since"])).collect()
        };
        let before = sessions(&self.peer(name)?.get("/nodes/status")?);
        happens()?;
        self.say(what);
        let is_over = |status: &Value| sessions(status).iter().all(|session| !before.contains(session));
        self.shows(name, "shows none of the connections that it had", NOTICE, is_over)
    }
}

pub(super) fn firewalled() -> Vec<Site> {
    vec![
        Site::new("relay", Kind::Public),
        Site::new("ada", Kind::Firewall),
        Site::new("bo", Kind::PortRestricted),
        Site::new("cy", Kind::Ipv6),
    ]
}

pub(super) fn two_ways() -> Vec<Site> {
    let mut sites = homes();
    sites.push(Site::new("cafe", Kind::PortRestricted));
    sites
}

pub(super) fn tunnel() -> Vec<Site> {
    vec![Site::new("relay", Kind::Public), Site::new("ada", Kind::UdpBlocked)]
}

pub(super) fn firewalls(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo", "cy"])?;
    stage.shows("relay", "knows that it can be dialed", NOTICE, |status| status["reachability"] == "public")?;
    let count = stage.write_countries("ada")?;
    stage.has("bo", count, PATIENCE)?;
    stage.has("cy", count, PATIENCE)?;
    for (one, other) in [("ada", "bo"), ("ada", "cy")] {
        stage.connected(one, other, PATIENCE)?;
    }
    for name in ["ada", "cy"] {
        stage.shows(name, "knows of its firewall", CHANGE, |status| status["reachability"] == "firewalled")?;
        stage.shows(name, "names relays", NOTICE, |status| status["external"].to_string().contains("p2p-circuit"))?;
    }
    stage.all_equal()
}

pub(super) fn unplugged(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.notices("bo", "the cable of bo is pulled", || stage.lab.unplug("bo", true))?;
    stage.peer("ada")?.put(COLLECTION, "meanwhile", &json!({}))?;
    stage.lab.unplug("bo", false)?;
    stage.say("the cable of bo is back");
    stage.has("bo", 1, 2 * NOTICE)?;
    stage.connected("ada", "bo", CHANGE)
}

pub(super) fn new_route(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    let cafe = stage.lab.host("cafe")?.site;
    stage.notices("bo", "bo goes through the cafe", || stage.lab.connect_besides("bo", cafe))?;
    stage.peer("ada")?.put(COLLECTION, "after", &json!({}))?;
    stage.has("bo", 1, 2 * NOTICE)?;
    stage.connected("ada", "bo", CHANGE)
}

pub(super) fn black_hole(stage: &mut Stage<'_>) -> Result<()> {
    let site = stage.lab.host("ada")?.site;
    nat::swallow_large(&stage.lab.routers(site)[0], TUNNEL_BYTES)?;
    for name in ["relay", "ada"] {
        stage.peers.insert(name, Peer::start(&stage.lab, name, &stage.options)?);
    }
    let (start, words) = (Instant::now(), "larger packets");
    match stage.peer("relay")?.let_in(stage.peer("ada")?) {
        Err(Error::Lab(why)) if why.contains(words) => {
            stage.say(&format!("ada is not let in after {} ms: {why}", start.elapsed().as_millis()));
        }
        other => return Err(Error::Lab(format!("nothing was said of {words}: {other:?}"))),
    }
    stage.doctor_says("ada", "packets", words)
}
