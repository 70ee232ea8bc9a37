//! What each client may do: connections at a time, requests a second, and wrong tokens.
//!
//! All are counted by the address of the client. Requests and wrong tokens are in one bounded table: when it is full,
//! whoever was silent the longest is forgotten. Behind a proxy all clients have one address. No clock is in here:
//! times are arguments.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::limits::GATEWAY_CLIENTS_MAX;

const S: u64 = 1_000_000;
/// Wrong tokens that a client may send at once, and how long it takes until it may send one more.
const WRONG_TOKENS: Rate = Rate { burst: 10, period_us: 5 * S };

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// How often at once.
    burst: u64,
    /// Microseconds after which once more.
    period_us: u64,
}

/// The clients and what they did.
#[derive(Debug)]
pub(super) struct Clients {
    requests: Option<Rate>,
    table: Mutex<LruCache<IpAddr, Client>>,
}

#[derive(Debug, Default)]
struct Client {
    requests: Bucket,
    wrong_tokens: Bucket,
}

/// A token bucket, kept as the one moment at which it will be full again (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Bucket {
    full_at_us: u64,
}

impl Bucket {
    /// Takes one out; or says how many seconds there will be none.
    fn take(&mut self, rate: Rate, now_us: u64) -> Result<(), u64> {
        let room_us = rate.period_us * (rate.burst - 1);
        match self.full_at_us.saturating_sub(now_us + room_us) {
            0 => {
                self.full_at_us = self.full_at_us.max(now_us) + rate.period_us;
                Ok(())
            }
            wait_us => Err(wait_us.div_ceil(S)),
        }
    }
}

impl Clients {
    /// No client yet. Each may make so many requests a second, and as many at once; 0 for any number.
    pub(super) fn new(requests_per_s: u32) -> Self {
        let per_s = u64::from(requests_per_s);
        let requests = (per_s > 0).then(|| Rate { burst: per_s, period_us: S / per_s.min(S) });
        let room = NonZeroUsize::new(GATEWAY_CLIENTS_MAX).expect("the limit is not 0");
        Self { requests, table: Mutex::new(LruCache::new(room)) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// Seconds to wait, when there were too many.
    pub(super) fn request(&self, client: IpAddr, now_us: u64) -> Result<(), u64> {
        let Some(rate) = self.requests else { return Ok(()) };
        let mut table = self.table.lock();
        table.get_or_insert_mut(network(client), Client::default).requests.take(rate, now_us)
    }

    /// Counts a wrong token.
    ///
    /// # Errors
    /// Seconds to wait, when there were too many.
    pub(super) fn wrong_token(&self, client: IpAddr, now_us: u64) -> Result<(), u64> {
        let mut table = self.table.lock();
        table.get_or_insert_mut(network(client), Client::default).wrong_tokens.take(WRONG_TOKENS, now_us)
    }
}

/// The connections that are open, by client. There are no more entries than connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct OpenConnection {
    all: Connections,
    client: IpAddr,
}

impl Connections {
    /// Counts a connection, unless its client has `max` already.
    pub(super) fn open(&self, client: IpAddr, max: usize) -> Option<OpenConnection> {
        let client = network(client);
        let mut open = self.0.lock();
        let count = open.entry(client).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(OpenConnection { all: self.clone(), client })
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.all.0.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an address, or the network of 64 bits that one customer has in IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let clients = Clients::new(2);
        let a = ip("192.0.2.1");
        let ask = |now_ms: u64| clients.request(a, now_ms * 1_000);
        assert_eq!([ask(0), ask(0), ask(0), ask(499)], [Ok(()), Ok(()), Err(1), Err(1)]);
        assert_eq!([ask(500), ask(500), ask(1_000)], [Ok(()), Err(1), Ok(())]);
        assert_eq!(clients.request(ip("192.0.2.2"), 0), Ok(()));
        let unlimited = Clients::new(0);
        assert!((0..10_000).all(|_| unlimited.request(a, 0).is_ok()));
    }

    #[test]
    fn wrong_tokens_are_counted_apart_from_requests() {
        let clients = Clients::new(1);
        let (a, b) = (ip("2001:db8::1"), ip("2001:db8::ffff"));
        for _ in 0..WRONG_TOKENS.burst {
            assert_eq!(clients.wrong_token(a, 0), Ok(()));
        }
        assert_eq!((clients.wrong_token(a, 0), clients.wrong_token(b, S)), (Err(5), Err(4)));
        assert_eq!((clients.wrong_token(a, 5 * S), clients.request(a, 5 * S)), (Ok(()), Ok(())));
        assert_eq!(clients.wrong_token(ip("2001:db8:0:1::1"), 0), Ok(()));
    }

    #[test]
    fn one_client_has_some_of_the_connections() {
        let connections = Connections::default();
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = connections.open(a, 2).unwrap();
        let _second = connections.open(a, 2).unwrap();
        assert!(connections.open(a, 2).is_none());
        let other = connections.open(b, 2).unwrap();
        drop((first, other));
        assert!(connections.open(a, 2).is_some());
        assert_eq!(connections.0.lock().len(), 1);
    }

    #[test]
    fn clients_are_told_apart_by_what_they_can_choose() {
        assert_eq!(network(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    }

    #[test]
    fn the_table_forgets_who_was_silent_the_longest() {
        let clients = Clients::new(1);
        for n in 0..=GATEWAY_CLIENTS_MAX {
            let n = u32::try_from(n).unwrap();
            assert_eq!(clients.request(IpAddr::from(n.to_be_bytes()), 0), Ok(()));
        }
        assert_eq!(clients.table.lock().len(), GATEWAY_CLIENTS_MAX);
    }

    proptest! {
        /// However requests are spread over time, no more pass than the burst and what the rate allows.
        #[test]
        fn no_more_pass_than_are_allowed(per_s in 1u32..1_000, pauses in prop::collection::vec(0u64..100_000, 1..300)) {
            let clients = Clients::new(per_s);
            let (mut now_us, mut passed) = (7, 0);
            for pause in pauses {
                now_us += pause;
                passed += u64::from(clients.request(ip("192.0.2.1"), now_us).is_ok());
            }
            let period_us = S / u64::from(per_s);
            prop_assert!(passed <= u64::from(per_s) + (now_us - 7).div_ceil(period_us));
            // And whoever waits as long as it is told gets through.
            if let Err(wait_s) = clients.request(ip("192.0.2.1"), now_us) {
                prop_assert_eq!(clients.request(ip("192.0.2.1"), now_us + wait_s * S), Ok(()));
            }
        }
    }
}
