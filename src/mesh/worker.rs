//! Work that takes a processor for a while (compression, signatures), kept away from the tasks that
//! others wait for, and bounded by the number of processors.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Threads for heavy work.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<Semaphore>);

impl Workers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZeroUsize::get))))
    }

    /// Does `work` on a thread of its own.
    ///
    /// # Errors
    /// When it panics, or the runtime is shutting down.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
    }
}
