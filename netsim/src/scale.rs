//! How a mesh grows: what each peer costs, and how long it takes until something written is everywhere.

use crate::Error;
use crate::report::clean;
use crate::scenario::{Act, Scenario, Step};
use crate::time::Span;

/// Peers that each peer hears of in a large mesh.
const KNOWN: usize = 12;
/// Documents that are written.
const DOCUMENTS: usize = 100;

/// What the columns of [`measure`] are.
pub const HEADING: &str =
    "peers   equal after   messages/peer   KB/peer   inputs waiting   virtual s   real s   peak MB";

/// Grows a mesh to so many peers, has one of them write, and says what that cost, as a line of a table.
///
/// # Errors
/// When something is wrong at the end.
pub fn measure(peers: usize) -> Result<String, Error> {
    let mut scenario = Scenario::quiet("scale", peers, Span::seconds(10));
    scenario.network.known = Some(KNOWN.min(peers.saturating_sub(1)));
    scenario.steps = vec![Step { at: Span::seconds(5), act: Act::Write { peer: peers / 2, documents: DOCUMENTS } }];
    scenario.check().map_err(|(key, why)| Error::Scenario(format!("{key}: {why}")))?;
    let outcome = clean(&scenario, 1)?;
    let each = |total: u64| total as f64 / peers as f64;
    Ok(format!(
        "{peers:<7} {:>9.1} s {:>15.0} {:>9.1} {:>16} {:>11.0} {:>8.1} {:>9}",
        outcome.converged_ms.unwrap_or(0) as f64 / 1e3,
        each(outcome.messages),
        each(outcome.bytes) / 1e3,
        outcome.inbox_max,
        outcome.virtual_ms as f64 / 1e3,
        outcome.real_ms as f64 / 1e3,
        peak_megabytes().map_or_else(|| "?".into(), |peak| peak.to_string()),
    ))
}

/// The most memory that this process has ever held, where the system tells.
fn peak_megabytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1_024)
}
