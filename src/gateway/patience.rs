//! A connection whose writes do not wait forever: a client that reads nothing is cut off.
//!
//! Whoever asks and does not read would hold a connection, and what is on its way to it, for as long as it
//! likes. The time runs only while something waits to be written. Reads have their own bounds (`body`, `server`).

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::seat::Seat;

/// A connection with a bound on how long one write waits.
#[derive(Debug)]
pub(super) struct Patience<S> {
    stream: S,
    seat: Arc<Seat>,
    wait: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>, wait: Duration) -> Self {
        Self { stream, seat, wait, waiting: None }
    }

    /// Passes on what a write gave; while it gives nothing, the time runs.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.waiting.take().is_some() {
                self.seat.stalls(false);
            }
            return written;
        }
        if self.waiting.is_none() {
            self.seat.stalls(true);
        }
        let wait = self.wait;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(waiting.as_mut().poll(context));
        let message = format!("the client has read nothing for {} seconds", wait.as_secs());
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::seat::Seats;
    use super::*;

    #[tokio::test]
    async fn who_reads_nothing_is_cut_off_and_who_reads_is_not() {
        let seat = Arc::new(Seats::default().take());
        let (server, mut client) = duplex(8);
        let mut server = Patience::new(server, seat.clone(), Duration::from_secs(3_600));
        let writing = tokio::spawn(async move { server.write_all(&[7; 64]).await });
        client.read_exact(&mut [0; 64]).await.unwrap();
        assert!(writing.await.unwrap().is_ok());

        let (server, _client) = duplex(8);
        let error = Patience::new(server, seat, Duration::from_millis(1)).write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
