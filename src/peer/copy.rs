//! A data directory that is a copy of another peer's, and an identity of its own for it.
//!
//! Two peers with one identity take each other's links away, and both write under one sequence of numbers. The copy
//! becomes a peer of its own: a new key, and a mesh of its own with the documents that are here.

use std::fs;
use std::path::Path;

use crate::base::PeerId;
use crate::identity::Keypair;
use crate::node::Node;
use crate::{Error, Result};

use super::{Peer, PeerConfig, Storage, fresh_seed, node_config, open_storage, run};

/// Where the new key is until the store knows it, so that a crash in between is gone on from.
const NEXT_KEY: &str = "identity.key.next";

impl Peer {
    /// Gives a data directory an identity of its own. The peer that it is a copy of must not be told of it, and nothing
    /// that it holds is lost: the documents are in a mesh of this new peer alone, from which it can join others.
    /// Returns the new identity; start the peer as always then.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no peer in the directory; else as [`Peer::start`].
    pub async fn renew_identity(config: PeerConfig) -> Result<PeerId> {
        let renewed = tokio::task::spawn_blocking(move || renew(&config));
        renewed.await.map_err(|error| Error::Io(format!("renewing the identity: {error}")))?
    }
}

fn renew(config: &PeerConfig) -> Result<PeerId> {
    let directory = config.data_dir.as_deref().filter(|directory| directory.join("identity.key").exists());
    let Some(directory) = directory else {
        return Err(Error::invalid("there is no peer in the data directory; a new one draws its own identity"));
    };
    let Storage { kv, loss, .. } = open_storage(config)?;
    let keypair = Keypair::load_or_create(&directory.join(NEXT_KEY), fresh_seed()?)?;
    let peer = keypair.peer_id();
    Node::open_as_another(node_config(config, keypair, false, loss)?, kv, run::now())?;
    take_key(directory)?;
    Ok(peer)
}

fn take_key(directory: &Path) -> Result<()> {
    let failed = |error| Error::Io(format!("cannot put the new identity into {}: {error}", directory.display()));
    fs::rename(directory.join(NEXT_KEY), directory.join("identity.key")).map_err(failed)?;
    fs::File::open(directory).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_copy_becomes_a_peer_of_its_own_with_all_documents() {
        let folder = tempfile::tempdir().unwrap();
        let config = PeerConfig { data_dir: Some(folder.path().to_owned()), ..PeerConfig::local() };
        assert!(matches!(Peer::renew_identity(config.clone()).await, Err(Error::Invalid(_))));

        let original = Peer::start(config.clone()).await.unwrap();
        let (id, mesh) = (original.id(), original.mesh().status().await.unwrap().mesh);
        let notes = original.collection("notes").unwrap();
        for n in 0..500 {
            notes.put(&format!("{n}"), json!({ "n": n })).await.unwrap();
        }
        original.shutdown().await;
        drop((original, notes));

        let renewed = Peer::renew_identity(config.clone()).await.unwrap();
        assert_ne!(renewed, id);
        let copy = Peer::start(config).await.unwrap();
        assert_eq!(copy.id(), renewed);
        assert_ne!(copy.mesh().status().await.unwrap().mesh, mesh);
        let notes = copy.collection("notes").unwrap();
        let mut events = copy.events();
        while notes.get("499").unwrap().is_none() || notes.get("99").unwrap().is_none() {
            events.recv().await.unwrap();
        }
        for n in 0..500 {
            assert_eq!(notes.get(&format!("{n}")).unwrap().unwrap().data(), json!({ "n": n }));
        }
        notes.put("0", json!({"mine": true})).await.unwrap();
        copy.shutdown().await;
    }
}
