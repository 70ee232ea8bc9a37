//! TLS on TCP, for machines whose clock can have it.
//!
//! The certificates of libp2p are valid from 1975 on. A machine that boots in 1970 takes none of them, so there TLS is not
//! offered, and both sides take Noise, which has no dates. QUIC has nothing but TLS and works once the clock is set.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::tls;

use crate::base::Timestamp;

/// TLS as it is offered at the time.
#[derive(Clone)]
pub(super) struct Tls(tls::Config);

impl Tls {
    pub(super) fn new(keypair: &Keypair) -> Result<Self, tls::certificate::GenError> {
        tls::Config::new(keypair).map(Self)
    }
}

/// The name under which TLS is offered, unless the clock shows a time before certificates.
fn offered(name: Option<&'static str>, now: SystemTime) -> std::option::IntoIter<&'static str> {
    name.filter(|_| now >= UNIX_EPOCH + Duration::from_millis(Timestamp::EARLIEST.0)).into_iter()
}

impl UpgradeInfo for Tls {
    type Info = &'static str;
    type InfoIter = std::option::IntoIter<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        offered(self.0.protocol_info().next(), SystemTime::now())
    }
}

impl<C> InboundConnectionUpgrade<C> for Tls
where
    tls::Config: InboundConnectionUpgrade<C, Info = &'static str>,
{
    type Output = <tls::Config as InboundConnectionUpgrade<C>>::Output;
    type Error = <tls::Config as InboundConnectionUpgrade<C>>::Error;
    type Future = <tls::Config as InboundConnectionUpgrade<C>>::Future;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(socket, info)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Tls
where
    tls::Config: OutboundConnectionUpgrade<C, Info = &'static str>,
{
    type Output = <tls::Config as OutboundConnectionUpgrade<C>>::Output;
    type Error = <tls::Config as OutboundConnectionUpgrade<C>>::Error;
    type Future = <tls::Config as OutboundConnectionUpgrade<C>>::Future;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(socket, info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_offered_once_certificates_can_be_valid() {
        let keypair = Keypair::generate_ed25519();
        let tls = Tls::new(&keypair).unwrap();
        assert_eq!(tls.protocol_info().collect::<Vec<_>>(), ["/tls/1.0.0"]);
        assert_eq!(offered(Some("/tls/1.0.0"), UNIX_EPOCH + Duration::from_secs(60)).next(), None);
    }
}
