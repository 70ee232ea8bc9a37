//! Counts the bytes of all streams: what protocols send and receive, without the overhead of the
//! transports below (encryption, acknowledgements, retransmissions).
//!
//! Where a transport shows nothing but its streams, they say as well whether the other side lives. And whatever the
//! transport, it closes within a bound of time: one whose other side is gone would wait for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{MapOk, TryFutureExt};
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use tokio::time::{Sleep, sleep};

use super::life::{Heard, Life, Lives};

/// How long closing a connection may take.
const CLOSE: Duration = Duration::from_secs(1);

/// Bytes on all streams since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// Where the bytes are counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self) -> Traffic {
        Traffic {
            sent_bytes: self.0.sent.load(Ordering::Relaxed),
            received_bytes: self.0.received.load(Ordering::Relaxed),
        }
    }

    /// A multiplexer whose streams are counted.
    pub(super) fn count<M>(&self, muxer: M) -> Counted
    where
        M: StreamMuxer + Send + 'static,
        M::Substream: Send + 'static,
        M::Error: Send + Sync + 'static,
    {
        Counted { inner: StreamMuxerBox::new(muxer), meter: self.clone(), life: None, closing: None }
    }
}

/// A multiplexer whose streams are counted.
#[derive(Debug)]
pub(super) struct Counted {
    inner: StreamMuxerBox,
    meter: Meter,
    life: Option<Life>,
    /// Until when it may take to close.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    /// The same, over when nothing comes on its streams for too long.
    pub(super) fn living(mut self, lives: &Lives, peer: PeerId) -> Self {
        let life = lives.begin();
        lives.enroll(peer, life.heard());
        self.life = Some(life);
        self
    }

    fn stream(&self, inner: SubstreamBox) -> CountedStream {
        CountedStream { inner, meter: self.meter.clone(), heard: self.life.as_ref().map(|life| life.heard().clone()) }
    }
}

impl StreamMuxer for Counted {
    type Substream = CountedStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        let stream = self.stream(inner);
        stream.heard();
        Poll::Ready(Ok(stream))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(inner)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_close(cx);
        let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE)));
        if closed.is_pending() { closing.as_mut().poll(cx).map(Ok) } else { closed }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let event = Pin::new(&mut self.inner).poll(cx);
        match &mut self.life {
            Some(life) if event.is_pending() => life.poll_over(cx).map(Err),
            Some(_) | None => event,
        }
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct CountedStream {
    inner: SubstreamBox,
    meter: Meter,
    heard: Option<Heard>,
}

impl CountedStream {
    /// Something has come from the other side.
    fn heard(&self) {
        if let Some(heard) = &self.heard {
            heard.now();
        }
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.meter.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard();
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.inner).poll_write(cx, buffer))?;
        self.meter.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A multiplexer upgrade whose outcome is counted.
#[derive(Debug, Clone)]
pub(super) struct Counting<U> {
    pub(super) upgrade: U,
    pub(super) meter: Meter,
}

type Count<M> = Box<dyn FnOnce(M) -> Counted + Send>;

impl<U> Counting<U> {
    fn counter<M>(meter: Meter) -> Count<M>
    where
        M: StreamMuxer + Send + 'static,
        M::Substream: Send + 'static,
        M::Error: Send + Sync + 'static,
    {
        Box::new(move |muxer| meter.count(muxer))
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Counting<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.upgrade.protocol_info()
    }
}

impl<C, U, M> InboundConnectionUpgrade<C> for Counting<U>
where
    U: InboundConnectionUpgrade<C, Output = M>,
    M: StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    type Output = Counted;
    type Error = U::Error;
    type Future = MapOk<U::Future, Count<M>>;

    fn upgrade_inbound(self, socket: C, info: U::Info) -> Self::Future {
        self.upgrade.upgrade_inbound(socket, info).map_ok(Self::counter(self.meter))
    }
}

impl<C, U, M> OutboundConnectionUpgrade<C> for Counting<U>
where
    U: OutboundConnectionUpgrade<C, Output = M>,
    M: StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    type Output = Counted;
    type Error = U::Error;
    type Future = MapOk<U::Future, Count<M>>;

    fn upgrade_outbound(self, socket: C, info: U::Info) -> Self::Future {
        self.upgrade.upgrade_outbound(socket, info).map_ok(Self::counter(self.meter))
    }
}
