//! The libp2p behaviour that opens and accepts the streams on which messages travel.
//!
//! Each side opens one stream per session, on a connection that the driver names, and only sends on it.
//! The driver refuses a second inbound stream of a session by dropping it. (`libp2p-stream` does almost this, but it picks a
//! connection at random, dials by itself, and loses inbound streams when several arrive at once.)

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, ToSwarm,
};

/// The protocol of the streams.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/aerolithsdb/sync/1");

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
}

impl Behaviour {
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
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
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

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Handler {
    queue: VecDeque<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), StreamEvent>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = StreamEvent;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
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

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>,
    ) {
        if let Some(event) = stream_event(event) {
            self.queue.push_back(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
    }
}

fn stream_event(
    event: ConnectionEvent<'_, ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>,
) -> Option<StreamEvent> {
    if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) = event {
        return Some(StreamEvent::Accepted(protocol));
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
