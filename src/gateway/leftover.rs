//! What of a request's body nobody read.
//!
//! Most clients send a body to its end before they read the answer. When an answer comes earlier (the body is too
//! large, has another type, the token is wrong) and the connection is closed on what they still send, they see a
//! broken connection instead of it (RFC 9112, section 9.6). So the rest is read and thrown away, within bounds, while the
//! answer is on its way. Of a client that waits to be asked for its body (`Expect: 100-continue`) nothing is read.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::limits::GATEWAY_LEFTOVER_BYTES_MAX;

/// How long the rest may take in all, and how long nothing of it may come.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(30);
const LEFTOVER_SILENCE: Duration = Duration::from_secs(1);

/// Lets a request through, and has what is left of its body read when the answer is made. A body that is still being
/// read then, by what makes a streamed answer, is left alone.
pub(super) async fn discard_leftover(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (give_back, mut given_back) = oneshot::channel();
    let is_offered = !request.headers().contains_key(EXPECT);
    let watched = |body| Body::new(Watched { body, is_coming: is_offered, give_back: Some(give_back) });
    let response = next.run(request.map(watched)).await;
    if let Ok(rest) = given_back.try_recv() {
        // Who is slower than that is cut off.
        tokio::spawn(timeout(LEFTOVER_TIMEOUT, discard(rest)));
    }
    response
}

async fn discard(mut body: Body) {
    let mut bytes = 0;
    while bytes < GATEWAY_LEFTOVER_BYTES_MAX
        && let Ok(Some(Ok(frame))) = timeout(LEFTOVER_SILENCE, body.frame()).await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body that is given back when it is dropped before its end.
struct Watched {
    body: Body,
    /// Whether the client sends it: it does not wait to be asked, or was asked.
    is_coming: bool,
    give_back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_coming = true;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.is_coming
            && !self.body.is_end_stream()
            && let Some(give_back) = self.give_back.take()
        {
            // When the answer was on its way before, nobody waits for it.
            _ = give_back.send(mem::take(&mut self.body));
        }
    }
}
