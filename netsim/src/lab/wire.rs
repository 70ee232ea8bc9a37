//! A line that delays, varies, loses and limits: two TAP devices with a thread between them. Nothing is overtaken. The
//! line can be cut, mended and changed while packets are on their way.
//!
//! What neighbours on one cable ask each other, ARP and neighbour discovery, passes at once: the next hop of a real line
//! is next door, not at the other end of the internet.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::{Namespace, Result, failed};
use crate::time::Span;

/// What a line holds back at most before it drops packets, unless it says so itself.
const BUFFER: Duration = Duration::from_millis(300);
/// How long the thread of a line sleeps at most.
const NAP: Duration = Duration::from_millis(50);
/// Packets that are taken from one end before the other is looked at.
const BATCH: usize = 64;
/// An Ethernet frame of the usual size, with some room.
const FRAME_MAX: usize = 2048;
/// Where the protocol is in an Ethernet frame, and where in that of an IPv6 packet and its ICMPv6 message.
const ETHER_TYPE: std::ops::Range<usize> = 12..14;
const NEXT_HEADER: usize = 20;
const ICMPV6_TYPE: usize = 54;

/// What a line is like, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// How long a packet takes.
    pub delay: Span,
    /// By how much longer it takes at most.
    pub jitter: Span,
    /// Share of packets that are lost, from 0 to 0.5.
    pub loss: f64,
    /// What it carries, in kbit/s; 0 for no limit.
    pub rate_kbit: u64,
    /// What it holds back at most before it drops packets, as time that they take to send; 0 for 300 ms.
    pub buffer: Span,
}

impl Line {
    fn buffer(&self) -> Duration {
        if self.buffer.0 == 0 { BUFFER } else { Duration::from_micros(self.buffer.0) }
    }

    /// Whether it is as good as a plain cable.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A running line. It ends, and its devices with it, when this is dropped.
pub struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    line: Mutex<Line>,
    cut: AtomicBool,
    stop: AtomicBool,
    bytes: AtomicU64,
    lost: AtomicU64,
}

impl Wire {
    /// A line from an interface of one namespace to one of another.
    ///
    /// # Errors
    /// When the kernel has no TAP devices, or a name is taken.
    pub fn new(ends: [(&Namespace, &str); 2], line: Line, seed: u64) -> Result<Self> {
        let device = |(namespace, name): (&Namespace, &str)| {
            let build = || {
                let device = DeviceBuilder::new().name(name).layer(Layer::L2).build_sync()?;
                device.set_nonblocking(true)?;
                Ok(device)
            };
            namespace.run(build).map_err(failed(format!("a line to {name} in {}", namespace.name())))
        };
        let devices = [device(ends[0])?, device(ends[1])?];
        let shared = Arc::new(Shared {
            line: Mutex::new(line),
            cut: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || carry(&devices, &shared, StdRng::seed_from_u64(seed))
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on nothing arrives, or everything does again.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// From now on the line is another one.
    pub fn change(&self, line: Line) {
        *self.shared.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Bytes that arrived, in both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Packets that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("bytes", &self.bytes()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// Packets on their way in one direction.
#[derive(Default)]
struct Lane {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// When the sender has sent what it has.
    free: Option<Instant>,
}

impl Lane {
    /// Lets a packet set off; false when it is lost.
    fn send(&mut self, now: Instant, packet: &[u8], line: &Line, random: &mut StdRng) -> bool {
        if is_among_neighbours(packet) {
            self.packets.push_front((now, packet.to_vec()));
            return true;
        }
        if line.loss > 0.0 && random.random_bool(line.loss) {
            return false;
        }
        let start = self.free.map_or(now, |free| free.max(now));
        if start - now > line.buffer() {
            return false;
        }
        let sending_us = (packet.len() as u64 * 8_000).checked_div(line.rate_kbit).unwrap_or(0);
        let sent = start + Duration::from_micros(sending_us);
        self.free = Some(sent);
        let wait = line.delay.0 + random.random_range(0..=line.jitter.0);
        let due = sent + Duration::from_micros(wait);
        let due = self.packets.back().map_or(due, |(last, _)| due.max(*last));
        self.packets.push_back((due, packet.to_vec()));
        true
    }
}

/// Whether a frame is one of ARP (RFC 826) or of neighbour discovery (RFC 4861, types 133 to 137).
fn is_among_neighbours(frame: &[u8]) -> bool {
    match frame.get(ETHER_TYPE) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            frame.get(NEXT_HEADER) == Some(&58) && frame.get(ICMPV6_TYPE).is_some_and(|kind| (133..=137).contains(kind))
        }
        _ => false,
    }
}

fn carry(devices: &[SyncDevice; 2], shared: &Shared, mut random: StdRng) {
    let mut lanes = [Lane::default(), Lane::default()];
    let mut buffer = vec![0; FRAME_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        let next = lanes.iter().filter_map(|lane| Some(lane.packets.front()?.0)).min();
        let sleep = next.map_or(NAP, |due| due.saturating_duration_since(Instant::now()).min(NAP));
        let mut polled = [0, 1].map(|end: usize| PollFd::new(devices[end].as_fd(), PollFlags::POLLIN));
        let sleep = TimeSpec::nanoseconds(i64::try_from(sleep.as_nanos()).unwrap_or(i64::MAX));
        // An interrupted sleep is a shorter one.
        _ = ppoll(&mut polled, Some(sleep), None);
        let down = |end: &PollFd| end.revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if polled.iter().any(down) {
            // An end that is not up is no reason to spin.
            std::thread::sleep(Duration::from_millis(1));
        }
        let line = *shared.line.lock().unwrap_or_else(PoisonError::into_inner);
        for (end, lane) in lanes.iter_mut().enumerate() {
            take(&devices[end], lane, &mut buffer, shared, &line, &mut random);
            deliver(&devices[1 - end], lane, shared);
        }
    }
}

/// Takes what waits at an end.
fn take(from: &SyncDevice, lane: &mut Lane, buffer: &mut [u8], shared: &Shared, line: &Line, random: &mut StdRng) {
    for _ in 0..BATCH {
        // Nothing there, or a device that is down: another look is taken soon.
        let Ok(length) = from.recv(buffer) else { return };
        let cut = shared.cut.load(Ordering::Relaxed);
        if cut || !lane.send(Instant::now(), &buffer[..length], line, random) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Hands over what has arrived.
fn deliver(to: &SyncDevice, lane: &mut Lane, shared: &Shared) {
    let now = Instant::now();
    while let Some((_, packet)) = lane.packets.pop_front_if(|(due, _)| *due <= now) {
        let sent =
            if shared.cut.load(Ordering::Relaxed) { Err(io::ErrorKind::NotConnected.into()) } else { to.send(&packet) };
        match sent {
            Ok(_) => shared.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed),
            Err(_) => shared.lost.fetch_add(1, Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Two machines and a line, and how long a datagram takes over it and back; nothing when it does not return.
    fn round_trip(wire: &Wire, sockets: &[UdpSocket; 2]) -> Option<Duration> {
        assert!(wire.thread.is_some());
        let start = Instant::now();
        sockets[0].send_to(b"there", "44.128.0.2:9").unwrap();
        let (_, from) = sockets[1].recv_from(&mut [0; 16]).ok()?;
        sockets[1].send_to(b"back", from).unwrap();
        sockets[0].recv_from(&mut [0; 16]).ok()?;
        Some(start.elapsed())
    }

    #[test]
    fn a_line_delays_and_can_be_cut_and_mended() {
        let Ok(one) = Namespace::new("one") else { return println!("unsupported: no root") };
        let two = Namespace::new("two").unwrap();
        let line = Line { delay: Span::ms(20), ..Line::default() };
        let wire = Wire::new([(&one, "eth0"), (&two, "eth0")], line, 1).unwrap();
        let sockets = [(&one, 1), (&two, 2)].map(|(host, number)| {
            host.ip(&format!("addr add 44.128.0.{number}/24 dev eth0\nlink set eth0 up\n")).unwrap();
            let socket = host.run(|| UdpSocket::bind("0.0.0.0:9")).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket
        });
        // The first one as well, though the two have yet to find each other on the cable.
        for _ in 0..2 {
            let took = round_trip(&wire, &sockets).unwrap();
            assert!((40..80).contains(&took.as_millis()), "{took:?}");
        }
        wire.cut(true);
        assert!(round_trip(&wire, &sockets).is_none() && wire.lost() > 0);
        wire.cut(false);
        wire.change(Line::default());
        assert!(round_trip(&wire, &sockets).unwrap() < Duration::from_millis(20));
    }

    #[test]
    fn what_is_lost_and_when_the_rest_arrives_is_in_the_seed() {
        let line = Line { delay: Span::ms(5), jitter: Span::ms(3), loss: 0.2, rate_kbit: 1000, ..Line::default() };
        let start = Instant::now();
        let lane = |seed| {
            let (mut lane, mut random) = (Lane::default(), StdRng::seed_from_u64(seed));
            (0..100).for_each(|_| _ = lane.send(start, &[0; 125], &line, &mut random));
            lane.packets.iter().map(|(due, _)| *due - start).collect::<Vec<_>>()
        };
        assert_eq!(lane(1), lane(1));
        assert_ne!(lane(1), lane(2));
        assert!(lane(1).len() > 60 && lane(1).len() < 95 && lane(1).is_sorted());
        // Each takes a millisecond to send.
        assert!(lane(1)[50] > Duration::from_millis(50));
    }

    #[test]
    fn neighbours_find_each_other_however_bad_the_line_is() {
        let frame = |ether_type: u16, next_header: u8, icmp: u8| {
            let mut frame = [0; 90];
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            (frame[20], frame[54]) = (next_header, icmp);
            frame
        };
        let line = Line { delay: Span::ms(5), loss: 0.5, ..Line::default() };
        let (mut lane, mut random, now) = (Lane::default(), StdRng::seed_from_u64(1), Instant::now());
        let arrived = |lane: &Lane| lane.packets.iter().filter(|(due, _)| *due == now).count();
        for _ in 0..20 {
            assert!(lane.send(now, &frame(0x0806, 0, 0), &line, &mut random));
            assert!(lane.send(now, &frame(0x86dd, 58, 135), &line, &mut random));
        }
        assert_eq!(arrived(&lane), 40);
        // An echo and what only looks like it are packets as all others.
        for other in [frame(0x86dd, 58, 128), frame(0x86dd, 17, 135), frame(0x0800, 58, 135)] {
            let sent = (0..40).filter(|_| lane.send(now, &other, &line, &mut random)).count();
            assert!((5..35).contains(&sent), "{sent}");
        }
        assert_eq!(arrived(&lane), 40);
    }
}
