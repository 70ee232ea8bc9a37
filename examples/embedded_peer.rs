//! A peer inside a program: write, read, list, delete.
//!
//! Run: `cargo run --example embedded_peer`
//! Prints the document it wrote, the number of countries it loaded, and three of them.

use aerolithsdb::{Peer, PeerConfig};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In memory and on loopback; `PeerConfig::at("./data")` keeps the data in a folder.
    let peer = Peer::start(PeerConfig::local()).await?;

    let notes = peer.collection("notes")?;
    let note = notes.insert(json!({"text": "buy milk", "done": false})).await?;
    let again = notes.get(note.id())?.ok_or("it was just written")?;
    println!("wrote {} = {}", again.id(), again.data());

    // The countries that ship as sample data: one JSON object a line, `_id` names the document.
    let countries = peer.collection("countries")?;
    for line in include_str!("data/countries.ndjson").lines() {
        countries.insert(serde_json::from_str::<Value>(line)?).await?;
    }
    println!("{} countries", countries.count()?);
    for country in countries.page(None, 3)?.documents {
        println!("{}: {}", country.id(), country.data()["name"]);
    }

    notes.delete(note.id()).await?;
    assert!(notes.get(note.id())?.is_none());
    peer.shutdown().await;
    Ok(())
}
