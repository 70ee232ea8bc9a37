//! Handshakes over TCP that come to a standstill. When a peer has answered the first small packets and the larger ones
//! of the handshake do not arrive, something on the way loses large packets and does not say so (a tunnel, with ICMP
//! forbidden). The system would send them again until the connection's time is over; here that is noticed, counted and said.
//!
//! Nothing can be done about it from here: the largest segment is agreed upon when a TCP connection is made, and libp2p
//! does not let anybody choose it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, MapErr, TryFutureExt};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use tokio::time::timeout;

/// How long a handshake may take: a few round trips on the worst of lines, and less than a dial.
const HANDSHAKE: Duration = Duration::from_secs(6);
/// What is said of one that does not get on.
pub(super) const STALLED: &str =
    "the peer there answers, but its larger packets or ours are lost on the way (path MTU); see `node doctor`";

/// Handshakes that came to a standstill since the last one that did not.
#[derive(Debug, Clone, Default)]
pub(super) struct Stalls(Arc<AtomicU64>);

impl Stalls {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A handshake whose standstill is noticed, by who dials.
#[derive(Debug, Clone)]
pub(super) struct Timely<U> {
    upgrade: U,
    stalls: Stalls,
    within: Duration,
}

impl<U> Timely<U> {
    pub(super) fn new(upgrade: U, stalls: Stalls) -> Self {
        Self { upgrade, stalls, within: HANDSHAKE }
    }
}

/// Why there is no secure connection.
#[derive(Debug)]
pub(super) enum Fault<E> {
    /// Nothing more came.
    Stalled,
    /// The handshake failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled => f.write_str(STALLED),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Fault<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stalled => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Timely<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> U::InfoIter {
        self.upgrade.protocol_info()
    }
}

impl<C, U: InboundConnectionUpgrade<C>> InboundConnectionUpgrade<C> for Timely<U> {
    type Output = U::Output;
    type Error = Fault<U::Error>;
    type Future = MapErr<U::Future, fn(U::Error) -> Fault<U::Error>>;

    fn upgrade_inbound(self, socket: C, info: U::Info) -> Self::Future {
        self.upgrade.upgrade_inbound(socket, info).map_err(Fault::Failed)
    }
}

impl<C, U> OutboundConnectionUpgrade<C> for Timely<U>
where
    U: OutboundConnectionUpgrade<C>,
    U::Future: Send + 'static,
{
    type Output = U::Output;
    type Error = Fault<U::Error>;
    type Future = BoxFuture<'static, Result<U::Output, Fault<U::Error>>>;

    fn upgrade_outbound(self, socket: C, info: U::Info) -> Self::Future {
        // The two have agreed on this handshake over the connection, so what is small arrives.
        let handshake = timeout(self.within, self.upgrade.upgrade_outbound(socket, info));
        let stalls = self.stalls;
        async move {
            let Ok(done) = handshake.await else {
                stalls.0.fetch_add(1, Ordering::Relaxed);
                return Err(Fault::Stalled);
            };
            if done.is_ok() {
                stalls.0.store(0, Ordering::Relaxed);
            }
            done.map_err(Fault::Failed)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};
    use std::iter::{Once, once};

    use super::*;

    /// Answers with what it is given, or not at all.
    #[derive(Clone)]
    struct Other(Option<Result<(), std::io::ErrorKind>>);

    impl UpgradeInfo for Other {
        type Info = &'static str;
        type InfoIter = Once<&'static str>;

        fn protocol_info(&self) -> Once<&'static str> {
            once("/other")
        }
    }

    impl InboundConnectionUpgrade<()> for Other {
        type Output = ();
        type Error = std::io::Error;
        type Future = Ready<Result<(), std::io::Error>>;

        fn upgrade_inbound(self, (): (), _: &'static str) -> Self::Future {
            ready(Ok(()))
        }
    }

    impl OutboundConnectionUpgrade<()> for Other {
        type Output = ();
        type Error = std::io::Error;
        type Future = BoxFuture<'static, Result<(), std::io::Error>>;

        fn upgrade_outbound(self, (): (), _: &'static str) -> Self::Future {
            match self.0 {
                Some(answer) => ready(answer.map_err(Into::into)).boxed(),
                None => pending().boxed(),
            }
        }
    }

    #[tokio::test]
    async fn a_handshake_that_does_not_get_on_is_said_and_counted_until_another_does() {
        let stalls = Stalls::default();
        let dial = |answer: Option<Result<(), std::io::ErrorKind>>| {
            let within = Duration::from_millis(if answer.is_some() { 30_000 } else { 5 });
            Timely { upgrade: Other(answer), stalls: stalls.clone(), within }.upgrade_outbound((), "/other")
        };
        for times in 1..=2 {
            assert!(dial(None).await.unwrap_err().to_string().contains("larger packets"));
            assert_eq!(stalls.count(), times);
        }
        let refused = dial(Some(Err(std::io::ErrorKind::ConnectionReset))).await.unwrap_err();
        assert!(matches!(refused, Fault::Failed(_)) && stalls.count() == 2);
        dial(Some(Ok(()))).await.unwrap();
        assert_eq!(stalls.count(), 0);
    }
}
