//! The libp2p behaviour that opens and accepts the streams on which messages travel.
//!
//! Each side opens one stream per session, on a connection that the driver names, and only sends on it.
//! The driver refuses a second inbound stream of a session by dropping it. (`libp2p-stream` does almost this, but it picks a
//! connection at random, dials by itself, and loses inbound streams when several arrive at once.)

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, ToSwarm,
};

/// The protocol of the streams.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/aerolithsdb/sync/1");
/// No protocol, but a word among those that identify tells others: that this peer is behind a symmetric NAT. Identify
/// tells them by itself when it changes. A stream for it is closed at once.
pub(super) const SYMMETRIC: StreamProtocol = StreamProtocol::new("/aerolithsdb/nat/symmetric");

/// What became of a stream on a connection.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// Ours is open.
    Opened(Stream),
    /// Ours could not be opened, and why.
    Failed(StreamError),
    /// The other side opened one.
    Accepted(Stream),
}

/// Why our stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the peer there did not answer in time")]
    Late,
    /// It may speak other protocols of ours, such as the DHT's.
    #[error("the peer there does not speak aerolithsDB's protocol")]
    Unspoken,
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
}

/// Ask for our stream on a connection.
#[derive(Debug)]
pub(super) struct Open;

/// The behaviour.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    queue: VecDeque<ToSwarm<(PeerId, ConnectionId, StreamEvent), Open>>,
    waker: Option<Waker>,
    /// Whether others are told that this peer is behind a symmetric NAT.
    symmetric: Arc<AtomicBool>,
}

impl Behaviour {
    /// Has others be told that this peer is behind a symmetric NAT, or no longer: on each connection the next time that
    /// something goes over it, a ping at the latest.
    pub(super) fn say_symmetric(&self, is_symmetric: bool) {
        self.symmetric.store(is_symmetric, Ordering::Relaxed);
    }

    fn handler(&self) -> Handler {
        Handler { queue: VecDeque::new(), symmetric: self.symmetric.clone() }
    }

    /// Opens our stream to a peer on one of its connections; the outcome is reported as an event.
    pub(super) fn open(&mut self, peer_id: PeerId, connection: ConnectionId) {
        let handler = NotifyHandler::One(connection);
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Open });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Behaviour {
    /// Says that this peer may be reached at an address, for others to try out.
    pub(super) fn candidate(&mut self, address: Multiaddr) {
        self.queue.push_back(ToSwarm::NewExternalAddrCandidate(address));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = (PeerId, ConnectionId, StreamEvent);

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: StreamEvent) {
        self.queue.push_back(ToSwarm::GenerateEvent((peer, connection, event)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.queue.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the other side may open, or see.
#[derive(Debug)]
pub(super) struct Offer {
    symmetric: bool,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Chain<std::iter::Once<StreamProtocol>, std::option::IntoIter<StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(PROTOCOL).chain(self.symmetric.then_some(SYMMETRIC))
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Option<Stream>;
    type Error = Infallible;
    type Future = Ready<Result<Option<Stream>, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol == PROTOCOL).then_some(stream)))
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Handler {
    queue: VecDeque<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), StreamEvent>>,
    symmetric: Arc<AtomicBool>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = StreamEvent;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer { symmetric: self.symmetric.load(Ordering::Relaxed) }, ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), StreamEvent>> {
        // Whoever adds to the queue is followed by a poll: events of the connection and of the behaviour.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
        self.queue.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>>) {
        if let Some(event) = stream_event(event) {
            self.queue.push_back(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
    }
}

fn stream_event(event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>>) -> Option<StreamEvent> {
    if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) = event {
        return protocol.map(StreamEvent::Accepted);
    }
    if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) = event {
        return Some(StreamEvent::Opened(protocol));
    }
    if let ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) = event {
        return Some(StreamEvent::Failed(error.into()));
    }
    None
}

impl From<StreamUpgradeError<Infallible>> for StreamError {
    fn from(error: StreamUpgradeError<Infallible>) -> Self {
        match error {
            StreamUpgradeError::Timeout => Self::Late,
            StreamUpgradeError::NegotiationFailed => Self::Unspoken,
            StreamUpgradeError::Io(error) => Self::Io(error),
            StreamUpgradeError::Apply(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use libp2p::swarm::SwarmEvent;
    use libp2p::{Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};

    use super::*;

    #[derive(NetworkBehaviour)]
    struct Both {
        link: Behaviour,
        identify: identify::Behaviour,
        ping: ping::Behaviour,
    }

    fn swarm() -> Swarm<Both> {
        let both = |key: &libp2p::identity::Keypair| Both {
            link: Behaviour::default(),
            identify: identify::Behaviour::new(identify::Config::new("/test".into(), key.public())),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(std::time::Duration::from_millis(50))),
        };
        let builder = SwarmBuilder::with_new_identity().with_tokio();
        let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default).unwrap();
        builder.with_behaviour(both).unwrap().build()
    }

    #[tokio::test]
    async fn others_are_told_of_a_symmetric_nat_and_of_its_end() {
        let (mut teller, mut told) = (swarm(), swarm());
        teller.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let mut hears = Vec::new();
        let talk = async {
            while hears != [false, true, false] {
                tokio::select! {
                    event = teller.select_next_some() => {
                        if let SwarmEvent::NewListenAddr { address, .. } = event {
                            told.dial(address).unwrap();
                        }
                    }
                    event = told.select_next_some() => {
                        if let SwarmEvent::Behaviour(BothEvent::Identify(identify::Event::Received { info, .. })) = event {
                            assert!(info.protocols.contains(&PROTOCOL));
                            let is_symmetric = info.protocols.contains(&SYMMETRIC);
                            if hears.last() != Some(&is_symmetric) {
                                hears.push(is_symmetric);
                                teller.behaviour().link.say_symmetric(!is_symmetric);
                            }
                        }
                    }
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), talk).await.expect("all is told in time");
    }
}
