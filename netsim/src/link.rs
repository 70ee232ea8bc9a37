//! One direction between two hosts: how long what is sent takes, and what becomes of it.
//!
//! Packets are lost in bursts after Gilbert and Elliott: the line is good or bad, loses nothing when good, and
//! changes from packet to packet. What a reliable stream carries is never lost; each loss in it costs a
//! retransmission. What gossip carries is lost when a packet of it is.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::scenario::Line;
use crate::time::Span;

/// Bytes of a packet.
const PACKET_BYTES: u64 = 1_200;
/// Packets of one message that are drawn one by one; of a longer one the last stand for all.
const PACKETS_DRAWN: u64 = 64;
/// What a retransmission costs beside a round trip.
const RETRANSMISSION: Span = Span::ms(25);

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Pipe {
    bad: bool,
    /// When the last message of the stream arrives: later ones do not overtake it.
    last: Span,
}

impl Pipe {
    /// When a message of a reliable stream arrives that leaves the host at `leaves`.
    pub fn stream(&mut self, line: &Line, rng: &mut StdRng, leaves: Span, bytes: u64) -> Span {
        let losses = self.losses_in_a_row(line, rng, bytes);
        let retransmission = line.latency + line.latency + RETRANSMISSION;
        let arrives = leaves + delay(line, rng) + Span(retransmission.0 * losses);
        self.last = self.last.max(arrives) + Span(1);
        self.last
    }

    /// When a message arrives that nothing orders or repeats; nothing, once or twice.
    pub fn datagram(&mut self, line: &Line, rng: &mut StdRng, leaves: Span, bytes: u64) -> Vec<Span> {
        if self.losses_in_a_row(line, rng, bytes) > 0 {
            return Vec::new();
        }
        let mut arrives = vec![leaves + delay(line, rng)];
        if rng.random_bool(line.duplicate) {
            arrives.push(leaves + delay(line, rng) + line.latency);
        }
        if rng.random_bool(line.reorder) {
            arrives[0] = arrives[0] + line.latency + line.latency;
        }
        arrives
    }

    /// A new stream begins.
    pub fn begin(&mut self) {
        self.last = Span::default();
    }

    /// How often the unluckiest packet of a message is lost until it gets through.
    fn losses_in_a_row(&mut self, line: &Line, rng: &mut StdRng, bytes: u64) -> u64 {
        if line.loss <= 0.0 {
            return 0;
        }
        // Of all packets the share `loss` is to be lost, and a burst is to have `burst` packets.
        let recover = 1.0 / line.burst.max(1.0);
        let fail = (line.loss * recover / (1.0 - line.loss)).min(1.0);
        let (mut losses, mut most) = (0u64, 0);
        for _ in 0..bytes.div_ceil(PACKET_BYTES).clamp(1, PACKETS_DRAWN) {
            self.bad = if self.bad { !rng.random_bool(recover) } else { rng.random_bool(fail) };
            losses = if self.bad { losses + 1 } else { 0 };
            most = most.max(losses);
        }
        // Losses of one burst are repeated together.
        most.min(1) + most / 8
    }
}

fn delay(line: &Line, rng: &mut StdRng) -> Span {
    line.latency + Span(rng.random_range(0..=line.jitter.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::scenario::Preset;

    #[test]
    fn a_stream_keeps_its_order_and_loss_costs_time_only() {
        let (mut pipe, mut rng) = (Pipe::default(), StdRng::seed_from_u64(1));
        let line = Line { loss: 0.3, ..Preset::Mobile.line() };
        let mut last = Span::default();
        for n in 0..1_000 {
            let at = pipe.stream(&line, &mut rng, Span::ms(n), 500);
            assert!(at > last && at >= Span::ms(n) + line.latency);
            last = at;
        }
    }

    #[test]
    fn of_datagrams_the_share_is_lost_that_is_asked_for() {
        let (mut pipe, mut rng) = (Pipe::default(), StdRng::seed_from_u64(2));
        let line = Line { loss: 0.05, burst: 4.0, duplicate: 0.0, ..Preset::Home.line() };
        let arrived: usize = (0..40_000).map(|n| pipe.datagram(&line, &mut rng, Span::ms(n), 100).len()).sum();
        let lost = 1.0 - arrived as f64 / 40_000.0;
        assert!((0.04..0.06).contains(&lost), "{lost}");
    }
}
