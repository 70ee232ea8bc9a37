//! Which connections wait for a request, so that one of them can give way to a client that has none.
//!
//! A connection is idle from its start, and from the end of each answer, until its next request. Of the idle ones the
//! one that has been so for the longest gives way: it ends as it would at a shutdown, so that a request that arrives at
//! that moment is still answered. One that is being served never gives way.

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
use tokio::sync::Notify;

/// The turn of a connection that is being served, or was told to give way.
const NOT_IDLE: u64 = 0;

/// The open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Counts how often connections became idle, so that each time has a number of its own.
    turns: AtomicU64,
    seats: Mutex<HashMap<u64, Arc<State>>>,
}

#[derive(Debug)]
struct State {
    /// The turn in which it became idle.
    idle_since: AtomicU64,
    give_way: Notify,
}

/// The place of one connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Seat {
    table: Arc<Table>,
    number: u64,
    state: Arc<State>,
}

impl Table {
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Seats {
    /// The place of a new connection, which is idle.
    pub(super) fn take(&self) -> Seat {
        let table = Arc::clone(&self.0);
        let number = table.turn();
        let state = Arc::new(State { idle_since: AtomicU64::new(number), give_way: Notify::new() });
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

impl Seat {
    /// A request has come.
    pub(super) fn begin(&self) {
        self.state.idle_since.store(NOT_IDLE, Ordering::Relaxed);
    }

    /// The connection is idle again when its answer has been sent, or is whole and only has to be.
    pub(super) fn end(self: &Arc<Self>, response: Response) -> Response {
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
