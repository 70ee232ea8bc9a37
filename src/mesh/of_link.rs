//! Addresses of the link (fe80::/10): each network interface has one as soon as it is up, and on a network without router
//! and DHCP there are no others. They say nothing without the interface behind which they are, which a multiaddr does not
//! name, and libp2p's transports do not ask for. So they are dialed behind each interface at once: who answers has to show
//! its key anyway. That is for TCP; an endpoint of QUIC is libp2p's own and cannot be told, so that such addresses are not
//! told to others there.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::{BoxFuture, select_ok};
use libp2p::core::Transport;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::{Multiaddr, tcp};

use super::address::endpoint;
use crate::limits::LINK_ADDRESSES_MAX;

/// How an address of the link is dialed behind one interface.
type Dial<T> = fn(SocketAddrV6) -> BoxFuture<'static, Result<<T as Transport>::Output, <T as Transport>::Error>>;

/// A transport, and what it lacks for addresses of the link.
pub(super) struct OfLink<T: Transport> {
    inner: T,
    /// `None` when it cannot be done.
    dial: Option<Dial<T>>,
    /// Those that are told to others.
    told: HashSet<Multiaddr>,
}

impl OfLink<tcp::tokio::Transport> {
    /// TCP, with addresses of the link.
    pub(super) fn tcp(config: tcp::Config) -> Self {
        let dial = |at| async move { connect(at).await }.boxed();
        Self { inner: tcp::tokio::Transport::new(config), dial: Some(dial), told: HashSet::new() }
    }
}

impl<T: Transport> OfLink<T> {
    /// A transport without addresses of the link.
    pub(super) fn without(inner: T) -> Self {
        Self { inner, dial: None, told: HashSet::new() }
    }

    /// Whether others are told of what became of an address at which the transport listens.
    fn tells(&mut self, address: &Multiaddr, is_new: bool) -> bool {
        if of_link(address).is_none() {
            return true;
        }
        if !is_new {
            return self.told.remove(address);
        }
        let is_room = self.dial.is_some() && self.told.len() < LINK_ADDRESSES_MAX;
        is_room && self.told.insert(address.clone())
    }
}

impl<T> Transport for OfLink<T>
where
    T: Transport + Unpin,
    T::Output: 'static,
    T::Error: From<io::Error> + Send + 'static,
    T::Dial: Send + 'static,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<T::Error>> {
        let Some(at) = of_link(&address) else { return Ok(self.inner.dial(address, options)?.boxed()) };
        let Some(dial) = self.dial else { return Err(TransportError::MultiaddrNotSupported(address)) };
        let behind: Vec<_> = links().into_iter().map(|link| scoped(at, link)).map(dial).collect();
        if behind.is_empty() {
            let what = "this machine has no network interface with IPv6, behind which the address could be";
            return Err(TransportError::Other(io::Error::new(io::ErrorKind::NetworkUnreachable, what).into()));
        }
        Ok(select_ok(behind).map(|first| first.map(|(stream, _)| stream)).boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        loop {
            let event = ready!(Pin::new(&mut self.inner).poll(cx));
            let is_told = if let TransportEvent::NewAddress { listen_addr, .. } = &event {
                self.tells(listen_addr, true)
            } else if let TransportEvent::AddressExpired { listen_addr, .. } = &event {
                self.tells(listen_addr, false)
            } else {
                true
            };
            if is_told {
                return Poll::Ready(event);
            }
        }
    }
}

/// Where an address of the link is, but for the interface; `None` when it is another one.
fn of_link(address: &Multiaddr) -> Option<SocketAddrV6> {
    match endpoint(address)?.0 {
        SocketAddr::V6(at) if at.ip().is_unicast_link_local() => Some(at),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

fn scoped(at: SocketAddrV6, link: u32) -> SocketAddrV6 {
    SocketAddrV6::new(*at.ip(), at.port(), 0, link)
}

/// The network interfaces behind which there are addresses of the link.
fn links() -> HashSet<u32> {
    let all = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
    let with_link = all.filter(|interface| matches!(interface.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
    with_link.filter_map(|interface| interface.index).take(LINK_ADDRESSES_MAX).collect()
}

async fn connect(at: SocketAddrV6) -> io::Result<tcp::tokio::TcpStream> {
    let stream = tokio::net::TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    Ok(tcp::tokio::TcpStream(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bounded_number_of_addresses_of_the_link_is_told_and_none_of_them_for_quic() {
        let (mut tcp, mut other) =
            (OfLink::tcp(tcp::Config::default()), OfLink::without(tcp::tokio::Transport::default()));
        let of_link = |n: usize| at(&format!("/ip6/fe80::{n}/tcp/4001"));
        let told = (0..LINK_ADDRESSES_MAX + 3).filter(|n| tcp.tells(&of_link(*n), true)).count();
        assert_eq!((told, other.tells(&of_link(0), true)), (LINK_ADDRESSES_MAX, false));
        // One that goes makes room, and goes for others only if it came for them.
        assert!(tcp.tells(&of_link(0), false) && !tcp.tells(&of_link(0), false));
        assert!(tcp.tells(&of_link(0), true));
        for far in ["/ip4/192.168.1.5/tcp/1", "/ip6/fd00::1/tcp/1"] {
            assert!(tcp.tells(&at(far), true) && other.tells(&at(far), false));
        }
    }

    #[tokio::test]
    async fn an_address_of_the_link_is_dialed_behind_each_interface() {
        let mut tcp = OfLink::tcp(tcp::Config::default());
        let own = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip());
        let Some(ip) = own.into_iter().find(|ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())) else {
            return println!("unsupported: this machine has no network interface with IPv6");
        };
        let listener = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options =
            DialOpts { role: libp2p::core::Endpoint::Dialer, port_use: libp2p::core::transport::PortUse::New };
        let dial = tcp.dial(at(&format!("/ip6/{ip}/tcp/{port}")), options).unwrap();
        let (dialed, accepted) = tokio::join!(dial, listener.accept());
        assert_eq!(dialed.unwrap().0.local_addr().unwrap(), accepted.unwrap().1);
    }
}
