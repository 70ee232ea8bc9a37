//! To whom this peer has sent something of late: firewalls and NATs let those in for a while, so that a connection from
//! there does not show that others could come as well.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use libp2p::Multiaddr;
use tokio::time::Instant;

use crate::limits::CONTACTED_MAX;
use crate::mesh::address::endpoint;

/// How long a firewall lets somebody in to whom something was sent, at most.
const OPENED: Duration = Duration::from_secs(600);

/// The addresses to which something was sent, and when last.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    sent: HashMap<IpAddr, Instant>,
}

impl Contacts {
    /// Something is sent to an address. When there are too many, those are forgotten to whom nothing was sent for longest.
    pub(super) fn sent(&mut self, address: &Multiaddr, now: Instant) {
        let Some((at, _)) = endpoint(address) else { return };
        if self.sent.len() >= CONTACTED_MAX && !self.sent.contains_key(&at.ip()) {
            self.sent.retain(|_, sent| now < *sent + OPENED);
            let oldest = self.sent.iter().min_by_key(|(_, sent)| **sent).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest.filter(|_| self.sent.len() >= CONTACTED_MAX) {
                self.sent.remove(&oldest);
            }
        }
        self.sent.insert(at.ip(), now);
    }

    /// Whether a firewall may let somebody in because of what was sent there.
    pub(super) fn lets_in(&self, address: &Multiaddr, now: Instant) -> bool {
        endpoint(address).and_then(|(at, _)| self.sent.get(&at.ip())).is_some_and(|sent| now < *sent + OPENED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: usize) -> Multiaddr {
        format!("/ip4/8.8.{}.{}/tcp/{}", number / 256, number % 256, number % 1_000 + 1).parse().unwrap()
    }

    #[test]
    fn a_firewall_lets_in_for_a_while_and_from_any_port() {
        let (mut contacts, now) = (Contacts::default(), Instant::now());
        contacts.sent(&at(1), now);
        let other_port = "/ip4/8.8.0.1/udp/9/quic-v1".parse().unwrap();
        assert!(contacts.lets_in(&other_port, now + OPENED / 2) && !contacts.lets_in(&at(2), now));
        assert!(!contacts.lets_in(&other_port, now + OPENED));
    }

    #[test]
    fn contacts_are_kept_within_a_bound() {
        let (mut contacts, now) = (Contacts::default(), Instant::now());
        contacts.sent(&at(0), now);
        (1..CONTACTED_MAX + 10).for_each(|number| contacts.sent(&at(number), now + OPENED / 2));
        assert!(contacts.sent.len() == CONTACTED_MAX && !contacts.lets_in(&at(0), now));
        contacts.sent(&at(0), now + 2 * OPENED);
        assert_eq!(contacts.sent.len(), 1);
    }
}
