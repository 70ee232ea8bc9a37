//! One of two security protocols, whichever both sides speak; the first is preferred. libp2p has the same, together with
//! its bare TCP only.

use either::Either;
use futures::future::{self, BoxFuture};
use futures::{FutureExt, TryFutureExt};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};

/// An upgrade that is one of two.
#[derive(Debug, Clone)]
pub(super) struct OneOf<A, B>(pub(super) A, pub(super) B);

type Secured<A, B> = (PeerId, future::Either<A, B>);
type Upgrade<A, B, E, F> = BoxFuture<'static, Result<Secured<A, B>, Either<E, F>>>;

impl<A: UpgradeInfo, B: UpgradeInfo> UpgradeInfo for OneOf<A, B> {
    type Info = Either<A::Info, B::Info>;
    type InfoIter = Vec<Self::Info>;

    fn protocol_info(&self) -> Vec<Self::Info> {
        let first = self.0.protocol_info().into_iter().map(Either::Left);
        first.chain(self.1.protocol_info().into_iter().map(Either::Right)).collect()
    }
}

impl<C, A, B, TA, TB> InboundConnectionUpgrade<C> for OneOf<A, B>
where
    A: InboundConnectionUpgrade<C, Output = (PeerId, TA), Future: Send + 'static, Error: 'static>,
    B: InboundConnectionUpgrade<C, Output = (PeerId, TB), Future: Send + 'static, Error: 'static>,
{
    type Output = Secured<TA, TB>;
    type Error = Either<A::Error, B::Error>;
    type Future = Upgrade<TA, TB, A::Error, B::Error>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        match info {
            Either::Left(info) => {
                let done = self.0.upgrade_inbound(socket, info).map_err(Either::Left);
                done.map_ok(|(peer, stream)| (peer, future::Either::Left(stream))).boxed()
            }
            Either::Right(info) => {
                let done = self.1.upgrade_inbound(socket, info).map_err(Either::Right);
                done.map_ok(|(peer, stream)| (peer, future::Either::Right(stream))).boxed()
            }
        }
    }
}

impl<C, A, B, TA, TB> OutboundConnectionUpgrade<C> for OneOf<A, B>
where
    A: OutboundConnectionUpgrade<C, Output = (PeerId, TA), Future: Send + 'static, Error: 'static>,
    B: OutboundConnectionUpgrade<C, Output = (PeerId, TB), Future: Send + 'static, Error: 'static>,
{
    type Output = Secured<TA, TB>;
    type Error = Either<A::Error, B::Error>;
    type Future = Upgrade<TA, TB, A::Error, B::Error>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        match info {
            Either::Left(info) => {
                let done = self.0.upgrade_outbound(socket, info).map_err(Either::Left);
                done.map_ok(|(peer, stream)| (peer, future::Either::Left(stream))).boxed()
            }
            Either::Right(info) => {
                let done = self.1.upgrade_outbound(socket, info).map_err(Either::Right);
                done.map_ok(|(peer, stream)| (peer, future::Either::Right(stream))).boxed()
            }
        }
    }
}
