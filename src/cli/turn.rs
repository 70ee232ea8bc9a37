//! Turning to another mesh from the client: asking before, waiting for the others, showing how far it is, and Ctrl-C.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::Method;

use super::collection::confirm;
use super::export::bar;
use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use crate::{Error, Result};

/// How often the peer is asked how far it is.
const PROGRESS: Duration = Duration::from_millis(500);
/// Without any progress for so long others are not waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The exit code after Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Makes sure that leaving the others is meant, and that nothing is lost by it.
pub(super) fn prepare(peer: &Peer, yes: bool, at_once: bool, without_admin: bool) -> Outcome {
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !yes && !is_asked {
        let message =
            "this leaves the mesh, and only a ticket of its members lets this peer come back: say --yes to mean it";
        return Err(Failure::new(Kind::Usage, message));
    }
    let status = peer.get("/api/v1/nodes/status")?;
    let name = status["mesh_name"].as_str().unwrap_or_default();
    let others = status["members"].as_u64().unwrap_or(1).saturating_sub(1);
    let follows = if without_admin {
        "When none of them is an admin, nobody lets others in any more, not this peer either."
    } else {
        "Only a ticket of theirs lets this peer come back."
    };
    let question = format!("Leave mesh {name:?} and its {others} other members? {follows} [y/N] ");
    if !yes && !confirm(&question)? {
        return Err(Failure::new(Kind::Failed, "the mesh was not left"));
    }
    if others == 0 || at_once { Ok(()) } else { await_others(peer) }
}

/// Waits until another member has everything that is here; Ctrl-C ends that, and nothing was done.
fn await_others(peer: &Peer) -> Outcome {
    let interrupted = interruption().map_err(Failure::from)?;
    let mut start = Instant::now();
    let mut before = None;
    let mut bar = None;
    loop {
        let wait_ms = PROGRESS.as_millis();
        let safe = peer.get(&format!("/api/v1/sync/safe-to-leave?peers=1&timeout_ms={wait_ms}"))?;
        if safe["safe"] == true {
            break;
        }
        let status = peer.get("/api/v1/nodes/status")?;
        let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if peers.is_empty() {
            let message = "no other member is connected, so what only this peer has would be lost to them; the mesh was not \
                           left (--at-once leaves it all the same)";
            return Err(Failure::new(Kind::Unavailable, message));
        }
        // One of them is enough.
        let left = peers.iter().filter_map(|peer| peer["to_send"].as_u64()).min().unwrap_or(0);
        if before != Some(left) {
            (before, start) = (Some(left), Instant::now());
        }
        let shown = bar.get_or_insert_with(|| {
            eprintln!(
                "waiting until another member has everything that is here; Ctrl-C stops it, and nothing was left"
            );
            waiting(left)
        });
        shown.set_message(format!("{left} ranges and frames to go to the others"));
        if interrupted.try_recv().is_ok() {
            shown.finish_and_clear();
            return Err(Failure::new(Kind::Failed, "stopped; the mesh was not left"));
        }
        if start.elapsed() > PATIENCE {
            shown.finish_and_clear();
            let message = "no other member has everything that is here, and none comes nearer to it; the mesh was not left \
                           (see `sync status`; --at-once leaves it all the same)";
            return Err(Failure::new(Kind::Unavailable, message));
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

fn waiting(left: u64) -> indicatif::ProgressBar {
    let bar = bar(left);
    bar.set_style(
        indicatif::ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()),
    );
    bar
}

/// Has a peer turn to another mesh, and shows how many documents are carried over meanwhile.
pub(super) fn turn(peer: &Peer, path: &str, body: &Value) -> Outcome<Value> {
    let documents = || Ok::<_, Failure>(peer.get("/api/v1/stats")?["documents"].as_u64().unwrap_or(0));
    let mesh = || Ok::<_, Failure>(peer.get("/api/v1/nodes/status")?["mesh"].clone());
    let (total, left) = (documents()?, mesh()?);
    let interrupted = interruption().map_err(Failure::from)?;
    let bar = bar(total);
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let turning = scope.spawn(move || {
            // Dropped at the end, however it comes.
            let _ended = ended;
            peer.work(Method::POST, path, Some(body))
        });
        while end.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
            // An error shows in the call itself.
            let has_left = mesh().is_ok_and(|mesh| mesh != left);
            if interrupted.try_recv().is_ok() {
                bar.finish_and_clear();
                stop(has_left);
            }
            if has_left && let Ok(carried) = documents() {
                bar.set_position(carried);
            }
        }
        bar.finish_and_clear();
        turning.join().unwrap_or_else(|_| Err(Failure::new(Kind::Failed, "a fault in this program")))
    })
}

/// Ends the program: the call to the peer cannot be taken back.
fn stop(has_left: bool) -> ! {
    let what = if has_left {
        "the mesh is another one already, and the peer goes on to carry its documents over by itself"
    } else {
        "the peer was asked already, and may go on; `node status` shows its mesh"
    };
    eprintln!("stopped: {what}");
    std::process::exit(INTERRUPTED)
}

/// Hears of Ctrl-C, which no longer ends the program from now on.
fn interruption() -> Result<Receiver<()>> {
    let (heard, interrupted) = mpsc::channel();
    let failed = |error: io::Error| Error::Io(format!("Ctrl-C cannot be caught: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let pressed = {
        // It is caught from here on, and not only when the thread runs.
        let _runtime = runtime.enter();
        pressed().map_err(failed)?
    };
    let listen = move || {
        runtime.block_on(pressed);
        // Who hears of it may be gone.
        heard.send(()).unwrap_or_default();
    };
    thread::Builder::new().name("interrupt".into()).spawn(listen).map_err(failed)?;
    Ok(interrupted)
}

/// Ends when Ctrl-C is pressed.
#[cfg(unix)]
fn pressed() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    Ok(async move { interrupt.recv().await.unwrap_or_default() })
}

#[cfg(not(unix))]
fn pressed() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
