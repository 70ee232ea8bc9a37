//! Running the node: whoever has something for it takes the lock, and does at once what has piled up
//! meanwhile (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).
//!
//! A program that calls a peer runs the node itself, on its own thread, when nobody else does: a write
//! then costs no change of threads. When somebody does, its call waits in a bounded queue, and the one
//! who runs the node takes all of the queue in one go when it is done, so that calls which meet share
//! one flush. What the network brings, and what falls due by time, is done by a thread of its own.
//!
//! This is the only place where the node meets a clock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::FairMutex;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};

use crate::base::{PeerId, Timestamp};
use crate::limits::{BATCH_INPUTS_MAX, COMMANDS_MAX, INPUTS_MAX};
use crate::mesh;
use crate::node::{Command, CommandId, Effect, Event, Input, Node, Reply};
use crate::store::FeedCursor;
use crate::{Error, Result};

/// How long a call waits for room before it fails as overloaded.
const ROOM_MS: u64 = 1_000;

/// Batches that a caller runs, its own among them, before it leaves the rest to the node's thread: nobody
/// works for others forever.
const ROUNDS_MAX: usize = 3;

/// How long the node's thread sleeps at most: so soon a clock that was set is noticed, and a table that a reader found
/// damaged.
const SLEEP_MAX_MS: u64 = 1_000;

/// Milliseconds by which the system's clock moves against steady time before the node is told.
const CLOCK_STEP_MS: u64 = 1_000;

/// A call that waits to be run.
struct Call {
    command: Command,
    reply: oneshot::Sender<Result<Reply>>,
}

/// The node and the queue in front of it.
pub(super) struct Runner {
    driver: FairMutex<Driver>,
    calls: Mutex<VecDeque<Call>>,
    /// The feed's end as far as everything is durable. It names the mesh, too: the store may have turned to
    /// another one that is not joined for good.
    durable: watch::Sender<FeedCursor>,
    room: Semaphore,
    /// Tells the node's thread that calls wait, that a time is due earlier, or that it is over.
    attention: Notify,
    stopped: AtomicBool,
    /// When the node wants to be called again at the latest, in milliseconds; `u64::MAX` for never.
    wake_at_ms: AtomicU64,
    clock: Clock,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

/// Runs what waits when it is dropped, so that a call is run though its caller may have given up.
struct Run<'a>(&'a Runner);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.run_calls();
    }
}

impl Runner {
    /// Starts the node's thread.
    pub(super) fn start(
        node: Node,
        network: Arc<mesh::Handle>,
        events: broadcast::Sender<Event>,
        arriving: mpsc::Receiver<Input>,
    ) -> Result<(Arc<Self>, std::thread::JoinHandle<()>)> {
        let durable = watch::Sender::new(node.feed_end());
        let driver = Driver { node, network, events, durable: durable.clone(), waiting: HashMap::new(), next_id: 0 };
        let runner = Arc::new(Self {
            driver: FairMutex::new(driver),
            calls: Mutex::default(),
            durable,
            room: Semaphore::new(COMMANDS_MAX),
            attention: Notify::new(),
            stopped: AtomicBool::new(false),
            wake_at_ms: AtomicU64::new(u64::MAX),
            clock: Clock::start(),
        });
        // A runtime of its own: the one around us may end before the peer does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Error::Io(format!("the system gives no timer: {error}")))?;
        let running = runner.clone();
        let thread = std::thread::Builder::new()
            .name("node".into())
            .spawn(move || runtime.block_on(running.run(arriving)))
            .map_err(|error| Error::Io(format!("the system gives no thread: {error}")))?;
        Ok((runner, thread))
    }

    /// Has a command done and returns its reply.
    pub(super) async fn send(&self, command: Command) -> Result<Reply> {
        let room = tokio::time::timeout(Duration::from_millis(ROOM_MS), self.room.acquire()).await;
        let Ok(Ok(_room)) = room else {
            return Err(Error::Unavailable("this peer is overloaded; try again in a second".into()));
        };
        let (reply, answer) = oneshot::channel();
        self.queue(Call { command, reply });
        {
            let _run = Run(self);
            // Others that are about to call join the same batch.
            tokio::task::yield_now().await;
        }
        answer.await.map_err(|_| stopped())?
    }

    /// Has a command done whose reply nobody waits for, soon; it is dropped when there is no room.
    pub(super) fn notify(&self, command: Command) {
        // Nobody waits for it, so it holds no room: what counts is how many calls are queued.
        if self.queued() < COMMANDS_MAX {
            let (reply, _) = oneshot::channel();
            self.queue(Call { command, reply });
            self.attention.notify_one();
        }
    }

    /// Tells the node where a peer may be found.
    pub(super) fn discovered(&self, peer: PeerId, addresses: Vec<String>) {
        self.run_inputs(vec![Input::Discovered(peer, addresses)]);
    }

    /// The feed's end as far as everything is durable, now and whenever it moves.
    pub(super) fn durable(&self) -> watch::Receiver<FeedCursor> {
        self.durable.subscribe()
    }

    /// Does what was asked for before, and nothing after.
    pub(super) fn stop(&self) {
        let mut driver = self.driver.lock();
        self.stopped.store(true, Ordering::Release);
        let batch = self.take_calls(&mut driver, usize::MAX);
        self.step(&mut driver, batch);
        self.attention.notify_one();
        // Whoever waits for changes sees that there will be none.
        self.durable.send_modify(|_| {});
    }

    /// # Errors
    /// When the peer is shutting down.
    pub(super) fn check_running(&self) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) { Err(stopped()) } else { Ok(()) }
    }

    fn queue(&self, call: Call) {
        if let Err(error) = self.check_running() {
            // The caller may have given up.
            let _: std::result::Result<(), _> = call.reply.send(Err(error));
            return;
        }
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push_back(call);
    }

    fn queued(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn has_calls(&self) -> bool {
        self.queued() > 0
    }

    fn take_calls(&self, driver: &mut Driver, limit: usize) -> Vec<Input> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.len().min(limit);
        calls.drain(..count).map(|call| driver.accept(call)).collect()
    }

    /// Runs inputs together with the calls that wait.
    fn run_inputs(&self, mut batch: Vec<Input>) {
        let mut driver = self.driver.lock();
        batch.extend(self.take_calls(&mut driver, BATCH_INPUTS_MAX));
        self.step(&mut driver, batch);
        drop(driver);
        self.run_calls();
    }

    /// Runs the calls that wait, unless somebody else runs the node: who does looks again when done.
    fn run_calls(&self) {
        for _ in 0..ROUNDS_MAX {
            if !self.has_calls() {
                return;
            }
            let Some(mut driver) = self.driver.try_lock() else { return };
            let batch = self.take_calls(&mut driver, BATCH_INPUTS_MAX);
            self.step(&mut driver, batch);
        }
        if self.has_calls() {
            self.attention.notify_one();
        }
    }

    /// Runs the node. Whoever has done so must look for calls afterwards: those that came meanwhile found the
    /// lock taken.
    fn step(&self, driver: &mut Driver, mut batch: Vec<Input>) {
        // Before anything that is dated.
        if let Some(ahead_ms) = self.clock.set() {
            batch.insert(0, Input::ClockSet { ahead_ms });
        }
        let wake_at = driver.step(self.clock.now(), batch).map_or(u64::MAX, |at| at.0);
        let before = self.wake_at_ms.swap(wake_at, Ordering::AcqRel);
        if wake_at < before {
            self.attention.notify_one();
        }
    }

    /// The node's thread: what the network brings, what is due, and what callers leave.
    async fn run(&self, mut arriving: mpsc::Receiver<Input>) {
        self.run_inputs(Vec::new());
        while self.check_running().is_ok() {
            let wake_at = Timestamp(self.wake_at_ms.load(Ordering::Acquire));
            let sleep = Duration::from_millis(wake_at.since_ms(self.clock.now()).min(SLEEP_MAX_MS));
            let mut batch = Vec::new();
            tokio::select! {
                Some(input) = arriving.recv() => batch.push(input),
                () = self.attention.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
            while batch.len() < BATCH_INPUTS_MAX
                && let Ok(input) = arriving.try_recv()
            {
                batch.push(input);
            }
            self.run_inputs(batch);
        }
    }
}

fn stopped() -> Error {
    Error::Unavailable("this peer is shutting down".into())
}

/// The channel on which the network's inputs arrive.
pub(super) fn inputs() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
    mpsc::channel(INPUTS_MAX)
}

/// The time as the system tells it.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time that the node is told: it starts as the system's and goes on steadily, so that what is due comes when it is,
/// whatever is done to the system's clock. By how much that is ahead of it the node is told besides.
struct Clock {
    started: Instant,
    started_at: Timestamp,
    /// By how much the system's clock was ahead when it was last looked at, in milliseconds.
    ahead_ms: AtomicI64,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), started_at: now(), ahead_ms: AtomicI64::new(0) }
    }

    fn now(&self) -> Timestamp {
        self.started_at.plus_ms(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// By how much the system's clock is ahead now, when that has changed.
    fn set(&self) -> Option<i64> {
        self.moved_to(now().0.cast_signed().saturating_sub(self.now().0.cast_signed()))
    }

    fn moved_to(&self, ahead_ms: i64) -> Option<i64> {
        if self.ahead_ms.load(Ordering::Acquire).abs_diff(ahead_ms) < CLOCK_STEP_MS {
            return None;
        }
        self.ahead_ms.store(ahead_ms, Ordering::Release);
        Some(ahead_ms)
    }
}

/// The node with those who wait for it.
struct Driver {
    node: Node,
    network: Arc<mesh::Handle>,
    events: broadcast::Sender<Event>,
    durable: watch::Sender<FeedCursor>,
    waiting: HashMap<CommandId, oneshot::Sender<Result<Reply>>>,
    next_id: CommandId,
}

impl Driver {
    fn accept(&mut self, call: Call) -> Input {
        self.next_id += 1;
        self.waiting.insert(self.next_id, call.reply);
        Input::Command(self.next_id, call.command)
    }

    /// Runs the node, carries its effects out, and says when it wants to be called again at the latest.
    fn step(&mut self, now: Timestamp, batch: Vec<Input>) -> Option<Timestamp> {
        let mut wake_at = None;
        for effect in self.node.handle(now, batch).0 {
            if let Effect::Context(_) = effect {
                // The feed is another mesh's now, with positions of its own.
                self.durable.send_replace(self.node.feed_end());
            }
            match effect {
                Effect::Reply(id, reply) => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        // The caller may have given up.
                        let _: std::result::Result<(), _> = waiting.send(reply);
                    }
                }
                Effect::WakeAt(at) => wake_at = Some(at),
                Effect::Emit(event) => {
                    if let Event::Changed { position, .. } = event {
                        self.durable.send_if_modified(|durable| {
                            let moved = durable.at(position);
                            std::mem::replace(durable, moved) != moved
                        });
                    }
                    // An error means that nobody watches.
                    let _: std::result::Result<_, _> = self.events.send(event);
                }
                network @ (Effect::Send(..)
                | Effect::Publish(..)
                | Effect::Verdict(..)
                | Effect::Dial(_)
                | Effect::Drop(..)
                | Effect::Context(_)) => self.network.carry_out(network),
            }
        }
        wake_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_told_of_a_clock_that_was_set_and_of_no_jitter() {
        let clock = Clock::start();
        let told: Vec<Option<i64>> =
            [3, -900, 1_000, 1_500, 86_400_000, 0, 2, -5_000].map(|ms| clock.moved_to(ms)).into();
        assert_eq!(told, [None, None, Some(1_000), None, Some(86_400_000), Some(0), None, Some(-5_000)]);
    }
}
