//! Answers that leave: each has its room among those that are on their way, or is refused.
//!
//! Not here: answers that are streams, which take room for each of their pieces (`rest`), and who reads nothing, whom
//! `patience` cuts off.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;

use super::App;
use super::budget::Room;
use super::problem::{Answer, Problem};
use crate::limits::GATEWAY_SMALL_BYTES;

/// How long the answer to a write waits for room: longer than somebody may read nothing.
const ROOM_TIMEOUT: Duration = Duration::from_secs(40);

/// Lets an answer leave, once there is room for it.
///
/// # Errors
/// 503 for the answer to a call that changed nothing, when there is no room.
pub(super) async fn leave(app: &App, is_reading: bool, response: Response) -> Answer {
    let Some(bytes) = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()) else {
        return Ok(response);
    };
    if bytes <= GATEWAY_SMALL_BYTES {
        return Ok(response);
    }
    let room = match app.try_room(bytes) {
        Ok(room) => room,
        Err(full) if is_reading => return Err(full),
        Err(_) => match timeout(ROOM_TIMEOUT, app.shared.answers.take(bytes)).await {
            Ok(room) => room,
            Err(_) => return Ok(response),
        },
    };
    Ok(response.map(|body| Body::new(Leaving { body, room: Some(room) })))
}

impl App {
    /// Room for an answer, or a piece of one.
    ///
    /// # Errors
    /// 503 when there is none. Those who have read nothing for a while are cut off then.
    pub(super) fn try_room(&self, bytes: usize) -> Answer<Room> {
        let full = || {
            self.shared.seats.cut_stalled();
            let detail = "too many answers are on their way to clients that read slowly; try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        self.shared.answers.try_take(bytes).ok_or_else(full)
    }
}

/// A body in one piece, which takes its room along.
struct Leaving {
    body: Body,
    room: Option<Room>,
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let hold = |bytes: Bytes| match self.room.take() {
            Some(room) => room.hold(bytes),
            None => bytes,
        };
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
