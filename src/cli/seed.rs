//! Seeds that are REST addresses: the peer there is asked for its multiaddrs.
//!
//! It is asked in the background until it answers, so that peers can be started in any order. What it answers is a
//! hint where to dial, nothing more: whom it belongs to is proven when the link is made.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::http::agent;
use crate::base::PeerId;
use crate::limits::{ADDRESS_BYTES_MAX, TICKET_ADDRESSES_MAX};
use crate::{Error, Peer, Result};

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Why a gateway cannot be asked that refuses plain HTTP.
const OVER_TLS: &str = "the gateway there does not take plain HTTP, by which seeds are asked (it speaks TLS?); name the \
                        peer by its multiaddr, such as /dns4/peer.example.org/udp/4001/quic-v1, or join by a ticket";
/// Bytes of a status: that of a peer with hundreds of neighbours.
const STATUS_BYTES_MAX: u64 = 1 << 20;

/// Asks the peer at `url` (`http://host:port`) where it can be dialed, until it answers, and tells `peer`.
pub(super) async fn ask(peer: Peer, url: String) {
    let mut pause = BACKOFF_MIN;
    loop {
        match learn(&peer, &url).await {
            Ok(()) => return,
            // Once is enough to know; that it goes on is for those who look closer.
            Err(error) if pause == BACKOFF_MIN => tracing::warn!("seed {url}: {error}; it is asked again"),
            Err(error) => tracing::debug!("seed {url}: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

async fn learn(peer: &Peer, url: &str) -> Result<()> {
    let host = url.trim_start_matches("http://").to_owned();
    let found = tokio::net::lookup_host(&host).await;
    let found: Vec<_> = found.map_err(|error| Error::Unavailable(format!("no address is known: {error}")))?.collect();
    let mut failure = Error::Unavailable("no address is known".into());
    for address in found {
        match status(address).await.and_then(|status| addresses(&status, address)) {
            Ok((id, _)) if id == peer.id() => return Ok(()),
            Ok((id, addresses)) => {
                peer.mesh().learn(id, addresses);
                return Ok(());
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Calls by address and not by name: a gateway answers under plain addresses without being told its names.
async fn status(address: SocketAddr) -> Result<Value> {
    let call = move || {
        let answer = agent(ASK_TIMEOUT).get(format!("http://{address}/api/v1/nodes/status")).call();
        let mut answer = answer.map_err(|error| {
            // What answers there does so in another language.
            let over_tls = matches!(error, ureq::Error::Protocol(_));
            if over_tls { Error::Denied(OVER_TLS.into()) } else { Error::Unavailable(error.to_string()) }
        })?;
        if answer.status() == 401 {
            let advice = "the gateway there wants a token, which is not sent to seeds; name the peer by its multiaddr";
            return Err(Error::Denied(advice.into()));
        }
        if answer.status() == 400 {
            return Err(Error::Denied(OVER_TLS.into()));
        }
        let bytes = answer.body_mut().with_config().limit(STATUS_BYTES_MAX).read_to_vec();
        let bytes = bytes.map_err(|error| Error::Unavailable(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|_| not_a_peer())
    };
    tokio::task::spawn_blocking(call).await.map_err(|error| Error::Unavailable(error.to_string()))?
}

fn not_a_peer() -> Error {
    Error::Unavailable("what answers there is not the REST gateway of a peer".into())
}

/// The id and the multiaddrs in a status that came from `from`. Loopback means nothing from another machine.
fn addresses(status: &Value, from: SocketAddr) -> Result<(PeerId, Vec<String>)> {
    let id = status["peer_id"].as_str().and_then(|id| id.parse().ok()).ok_or_else(not_a_peer)?;
    let listed = ["external", "listen"].into_iter().flat_map(|list| status[list].as_array().into_iter().flatten());
    let usable = |address: &&str| {
        address.len() <= ADDRESS_BYTES_MAX
            && address.starts_with('/')
            && (from.ip().is_loopback() || !is_loopback(address))
    };
    let addresses: Vec<_> =
        listed.filter_map(Value::as_str).filter(usable).take(TICKET_ADDRESSES_MAX).map(str::to_owned).collect();
    if addresses.is_empty() {
        return Err(Error::Unavailable("the peer there listens nowhere that can be reached from here".into()));
    }
    Ok((id, addresses))
}

fn is_loopback(address: &str) -> bool {
    let host = address.split('/').nth(2).unwrap_or_default();
    host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) || host == "localhost"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::PeerConfig;
    use crate::gateway;

    #[test]
    fn what_a_seed_answers_is_checked() {
        let id = PeerId([7; 32]).to_string();
        let status = json!({"peer_id": id, "external": ["/dns4/a/tcp/1"], "listen": ["/ip4/127.0.0.1/tcp/1", 3, "x"]});
        let far = "192.0.2.1:8080".parse().unwrap();
        let near = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(addresses(&status, far).unwrap().1, ["/dns4/a/tcp/1"]);
        assert_eq!(addresses(&status, near).unwrap().1, ["/dns4/a/tcp/1", "/ip4/127.0.0.1/tcp/1"]);
        assert!(addresses(&json!({"peer_id": id, "listen": []}), near).is_err());
        assert!(addresses(&json!({"status": "ok"}), near).is_err());
    }

    #[tokio::test]
    async fn a_seed_that_wants_a_token_is_named_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let token_file = Some(folder.path().join("token"));
        let config = gateway::Config { port: 0, token_file, ..Default::default() };
        let gateway = gateway::serve(peer.clone(), config).await.unwrap();
        assert!(matches!(status(gateway.address()).await, Err(Error::Denied(why)) if why.contains("multiaddr")));
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_seed_that_speaks_tls_is_named_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let tls = Some(gateway::Tls::Generated(folder.path().to_owned()));
        let gateway =
            gateway::serve(peer.clone(), gateway::Config { port: 0, tls, ..Default::default() }).await.unwrap();
        assert!(matches!(status(gateway.address()).await, Err(Error::Denied(why)) if why.contains("multiaddr")));
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_peer_that_names_itself_as_seed_is_done() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let gateway = gateway::serve(peer.clone(), gateway::Config { port: 0, ..Default::default() }).await.unwrap();
        let status = status(gateway.address()).await.unwrap();
        assert_eq!(status["peer_id"], json!(peer.id().to_string()));
        gateway.shutdown().await;
        assert!(learn(&peer, "http://127.0.0.1:1").await.is_err());
        peer.shutdown().await;
    }
}
