//! Two peers edit the same document while only one of them runs at a time, and both edits survive.
//!
//! Run: `cargo run --example offline_merge`
//! Prints the document on both sides, apart, and then what both show after they met again.

use std::path::Path;
use std::time::Duration;

use aerolithsdb::peer::Invite;
use aerolithsdb::{LocalDocuments, Peer, PeerConfig};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let (boat_dir, shore_dir) = (folder.path().join("boat"), folder.path().join("shore"));

    // The boat invites, the shore joins. From then on they find each other by themselves.
    let (boat, shore) = (start(&boat_dir).await?, start(&shore_dir).await?);
    let ticket = boat.mesh().invite(Invite::default()).await?;
    shore.mesh().join(&ticket.to_string(), LocalDocuments::Carry).await?;
    boat.collection("log")?.put("today", json!({"wind": 4, "crew": ["Ada", "Bo"]})).await?;
    until(&shore, |entry| entry["wind"] == 4).await?;
    stop(shore).await;

    // The shore is dark; the boat goes on.
    boat.collection("log")?.put("today", json!({"wind": 7, "crew": ["Ada", "Bo"]})).await?;
    println!("boat:  {}", today(&boat)?);
    stop(boat).await;

    // Now the boat is dark, and the shore, which knows nothing of its wind, changes the crew.
    let shore = start(&shore_dir).await?;
    shore.collection("log")?.put("today", json!({"wind": 4, "crew": ["Ada", "Bo", "Cy"]})).await?;
    println!("shore: {}", today(&shore)?);

    // They meet again: the wind of one, the crew of the other.
    let boat = start(&boat_dir).await?;
    let merged = json!({"wind": 7, "crew": ["Ada", "Bo", "Cy"]});
    for peer in [&boat, &shore] {
        until(peer, |entry| *entry == merged).await?;
    }
    println!("both:  {merged}");
    stop(boat).await;
    stop(shore).await;
    Ok(())
}

/// Starts a peer that is found where it was before: the port is kept beside its folder.
async fn start(folder: &Path) -> Result<Peer, Failure> {
    let kept = folder.with_extension("port");
    if !kept.exists() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(&kept, free.to_string())?;
    }
    let mut config = PeerConfig { data_dir: Some(folder.to_owned()), ..PeerConfig::local() };
    config.network.listen = vec![format!("/ip4/127.0.0.1/udp/{}/quic-v1", std::fs::read_to_string(kept)?)];
    Ok(Peer::start(config).await?)
}

/// Stops a peer; its folder is free once this last handle is gone.
async fn stop(peer: Peer) {
    peer.shutdown().await;
}

fn today(peer: &Peer) -> Result<Value, Failure> {
    Ok(peer.collection("log")?.get("today")?.ok_or("there is no entry")?.data())
}

/// Waits until a peer shows the entry as expected.
async fn until(peer: &Peer, expected: impl Fn(&Value) -> bool) -> Result<(), Failure> {
    for _ in 0..1_500 {
        if today(peer).is_ok_and(|entry| expected(&entry)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("it did not arrive within 15 s".into())
}
