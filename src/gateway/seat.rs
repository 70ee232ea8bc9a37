//! Which connections wait for a request, so that one of them can give way to a client that has none.
//!
//! A connection is idle from its start, and from the end of each answer, until its next request. Of the idle ones the
//! one that has been so for the longest gives way: it ends as it would at a shutdown, so that a request that arrives at
//! that moment is still answered. One that is being served never gives way.
//!
//! When there is no room for answers, the connections are cut off that have read nothing of theirs for a while; and at any
//! time one whose answer says so by a [`Cut`].

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The turn of a connection that is being served, or was told to give way.
const NOT_IDLE: u64 = 0;
/// When a connection stalls that does not.
const NOT_STALLED: u64 = u64::MAX;
/// Milliseconds for which a connection reads nothing before it is cut off to make room.
const STALLED_MS: u64 = 5_000;

/// The open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Table>);

#[derive(Debug)]
struct Table {
    start: Instant,
    /// Counts how often connections became idle, so that each time has a number of its own.
    turns: AtomicU64,
    seats: Mutex<HashMap<u64, Arc<State>>>,
}

#[derive(Debug)]
struct State {
    /// The turn in which it became idle.
    idle_since: AtomicU64,
    give_way: Notify,
    /// Milliseconds from [`Table::start`] to when it began to read nothing of what is ready for it.
    stalled_since_ms: AtomicU64,
    cut: Notify,
}

/// What an answer carries whose connection may have to be cut off: it becomes `true` when that is so, and ends before
/// when it is not.
#[derive(Debug, Clone)]
pub(super) struct Cut(pub(super) watch::Receiver<bool>);

/// The place of one connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Seat {
    table: Arc<Table>,
    number: u64,
    state: Arc<State>,
}

impl Default for Table {
    fn default() -> Self {
        Self { start: Instant::now(), turns: AtomicU64::default(), seats: Mutex::default() }
    }
}

impl Table {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Seats {
    /// The place of a new connection, which is idle.
    pub(super) fn take(&self) -> Seat {
        let table = Arc::clone(&self.0);
        let number = table.turn();
        let state = Arc::new(State {
            idle_since: AtomicU64::new(number),
            give_way: Notify::new(),
            stalled_since_ms: AtomicU64::new(NOT_STALLED),
            cut: Notify::new(),
        });
        table.seats.lock().insert(number, Arc::clone(&state));
        Seat { table, number, state }
    }

    /// Has the connection give way that has been idle for the longest; whether there is one.
    pub(super) fn give_way(&self) -> bool {
        let seats = self.0.seats.lock();
        let idle = |state: &&Arc<State>| state.idle_since.load(Ordering::Relaxed) != NOT_IDLE;
        let longest = seats.values().filter(idle).min_by_key(|state| state.idle_since.load(Ordering::Relaxed));
        let Some(longest) = longest else { return false };
        longest.idle_since.store(NOT_IDLE, Ordering::Relaxed);
        longest.give_way.notify_one();
        true
    }
}

impl Seats {
    /// Cuts the connections off that have read nothing for a while.
    pub(super) fn cut_stalled(&self) {
        let before_ms = self.0.now_ms().saturating_sub(STALLED_MS);
        let seats = self.0.seats.lock();
        let stalled = seats.values().filter(|state| state.stalled_since_ms.load(Ordering::Relaxed) < before_ms);
        stalled.for_each(|state| state.cut.notify_one());
    }
}

impl Seat {
    /// What was written last waits for the client to read, or does not.
    pub(super) fn stalls(&self, is_stalled: bool) {
        let since_ms = if is_stalled { self.table.now_ms() } else { NOT_STALLED };
        self.state.stalled_since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// Returns when the connection is to be cut off.
    pub(super) async fn told_to_end(&self) {
        self.state.cut.notified().await;
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.state.idle_since.store(NOT_IDLE, Ordering::Relaxed);
    }

    /// The connection is idle again when its answer has been sent, or is whole and only has to be.
    pub(super) fn end(self: &Arc<Self>, mut response: Response) -> Response {
        if let Some(Cut(mut cut)) = response.extensions_mut().remove() {
            let state = Arc::clone(&self.state);
            tokio::spawn(async move {
                if cut.wait_for(|cut| *cut).await.is_ok() {
                    state.cut.notify_one();
                }
            });
        }
        let served = Served(Arc::clone(self));
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| Body::new(Answer { body, _served: served }))
    }

    /// Returns when the connection is to give way.
    pub(super) async fn told_to_give_way(&self) {
        self.state.give_way.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.seats.lock().remove(&self.number);
    }
}

/// An answer that is under way.
struct Served(Arc<Seat>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.state.idle_since.store(self.0.table.turn(), Ordering::Relaxed);
    }
}

/// The body of an answer that is made while it is sent.
struct Answer {
    body: Body,
    _served: Served,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;

    fn is_told(seat: &Seat) -> bool {
        seat.told_to_give_way().now_or_never().is_some()
    }

    #[test]
    fn who_has_been_idle_for_the_longest_gives_way_and_nobody_who_is_served() {
        let seats = Seats::default();
        let [a, b, c] = [(); 3].map(|()| Arc::new(seats.take()));
        // The first one was served since, and the last one is being served.
        a.begin();
        drop(a.end(Response::new(Body::from("done"))));
        c.begin();
        assert!(seats.give_way());
        assert_eq!([&a, &b, &c].map(|seat| is_told(seat)), [false, true, false]);
        assert!(seats.give_way());
        assert_eq!([&a, &b, &c].map(|seat| is_told(seat)), [true, false, false]);
        assert!(!seats.give_way());
        drop((a, b));
        assert_eq!(seats.0.seats.lock().len(), 1);
    }

    #[test]
    fn an_answer_is_under_way_until_its_body_is_gone() {
        let seats = Seats::default();
        let seat = Arc::new(seats.take());
        seat.begin();
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let response = seat.end(Response::new(body));
        assert!(!seats.give_way());
        drop(response);
        assert!(seats.give_way() && is_told(&seat));
    }
}
