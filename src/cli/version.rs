//! The commands of `document` that are about its past: history, conflicts, diff and restore.

use clap::Args;
use serde_json::{Value, json};

use super::document::Name;
use super::failure::Outcome;
use super::http::Peer;
use super::output::{Field, Output, line};
use super::quantity;
use crate::base::Timestamp;
use crate::config::units;
use crate::gateway::path_segment;
use crate::limits::HISTORY_PAGE_MAX;

const HISTORY: [Field; 5] =
    [("TIME", "/time"), ("KIND", "/kind"), ("CHANGED", "/places"), ("AUTHOR", "/author"), ("CHANGE", "/change")];
const CONFLICTS: [Field; 6] = [
    ("PATH", "/path"),
    ("VALUE", "/value"),
    ("SHOWN", "/winner"),
    ("TIME", "/time"),
    ("AUTHOR", "/author"),
    ("CHANGE", "/change"),
];
const DIFF: [Field; 3] = [("PATH", "/path"), ("BEFORE", "/before"), ("AFTER", "/after")];

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Places of one change in a table; JSON has all.
const PLACES_MAX: usize = 6;

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    name: Name,
    /// Changes at most
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    #[command(flatten)]
    name: Name,
    /// The first version: the hashes of its heads, with commas between them, a time such as 2026-11-25T10:00:00Z or
    /// 2026-11-25, -1h for an hour ago, or yesterday for a day ago
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = when)]
    from: String,
    /// The second version; the present one when left out
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = when)]
    to: Option<String>,
    /// Print a JSON Patch (RFC 6902) that turns the first into the second
    #[arg(long)]
    json_patch: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    name: Name,
    /// The version: the hashes of its heads, with commas between them, a time such as 2026-11-25T10:00:00Z or
    /// 2026-11-25, -1h for an hour ago, or yesterday for a day ago
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = when)]
    at: String,
}

/// A version as the peer takes it: what is said from this machine's clock becomes a time, the rest stays.
///
/// # Errors
/// For what begins like a duration and is none.
pub(super) fn when(text: &str) -> Result<String, String> {
    let before_ms = match text {
        "now" => 0,
        "yesterday" => DAY_MS,
        _ => match text.strip_prefix('-') {
            Some(duration) => {
                units::duration_ms(duration).ok_or("use a duration such as -30m, -1h or -7d, or a time")?
            }
            None => {
                let day = format!("{text}T00:00:00Z");
                return Ok(Timestamp::from_rfc3339(&day).map_or_else(|| text.to_owned(), |_| day));
            }
        },
    };
    Ok(Timestamp(quantity::now().0.saturating_sub(before_ms)).to_string())
}

/// Shows changes, page by page.
pub(super) fn history(history: &History, peer: &Peer, output: Output) -> Outcome {
    let mut entries: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    while entries.len() < history.limit {
        let wanted = (history.limit - entries.len()).min(HISTORY_PAGE_MAX);
        let mut page = peer.get(&format!("{}/history?limit={wanted}{cursor}", history.name.path()))?;
        if let Value::Array(found) = page["history"].take() {
            entries.extend(found);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    if output.is_table() {
        entries.iter_mut().for_each(add_places);
    }
    output.list(&entries, &HISTORY)
}

/// Adds what a table shows of an entry: the first of the places that it changed.
fn add_places(entry: &mut Value) {
    let changes = entry["changes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut places: Vec<String> = changes.iter().take(PLACES_MAX).map(|change| place(change).to_owned()).collect();
    if changes.len() > PLACES_MAX || entry["truncated"] == true {
        places.push("(and more)".to_owned());
    }
    if entry["merge"] == true {
        entry["kind"] = json!(format!("{}, merge", entry["kind"].as_str().unwrap_or_default()));
    }
    entry["places"] = json!(places);
}

/// The place of a change as people read it.
fn place(change: &Value) -> &str {
    change["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("(everything)")
}

/// Shows places with several values.
pub(super) fn conflicts(name: &Name, peer: &Peer, output: Output) -> Outcome {
    let answer = peer.get(&format!("{}/conflicts", name.path()))?;
    if !output.is_table() {
        return output.document(&answer);
    }
    output.list(&rivals(&answer), &CONFLICTS)?;
    note_cut(&answer)
}

/// One row for each value.
fn rivals(answer: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for conflict in answer["conflicts"].as_array().into_iter().flatten() {
        for rival in conflict["values"].as_array().into_iter().flatten() {
            let mut row = rival.clone();
            row["path"] = conflict["path"].clone();
            row["value"] = json!(rival["value"].to_string());
            rows.push(row);
        }
    }
    rows
}

/// Shows what differs between two versions.
pub(super) fn diff(diff: &Diff, peer: &Peer, output: Output) -> Outcome {
    let mut path = format!("{}/diff?from={}", diff.name.path(), path_segment(&diff.from));
    if let Some(to) = &diff.to {
        path.push_str(&format!("&to={}", path_segment(to)));
    }
    if diff.json_patch {
        return output.document(&peer.get(&format!("{path}&format=json-patch"))?);
    }
    let answer = peer.get(&path)?;
    if !output.is_table() {
        return output.document(&answer);
    }
    let row = |change: &Value| {
        let side = |side: &str| change.get(side).map(Value::to_string);
        json!({"path": place(change), "before": side("before"), "after": side("after")})
    };
    let rows: Vec<Value> = answer["changes"].as_array().into_iter().flatten().map(row).collect();
    output.list(&rows, &DIFF)?;
    note_cut(&answer)
}

fn note_cut(answer: &Value) -> Outcome {
    if answer["truncated"] == true { line("\nThere is more than one answer holds.") } else { Ok(()) }
}

/// Writes an old version again.
pub(super) fn restore(restore: &Restore, peer: &Peer, output: Output) -> Outcome {
    output.document(&peer.post(&format!("{}/restore", restore.name.path()), &json!({"at": restore.at}))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_history_shows_the_first_places() {
        let changes: Vec<Value> = (0..8).map(|n| json!({"path": format!("/{n}")})).collect();
        let mut entry = json!({"kind": "edit", "merge": true, "changes": changes, "truncated": false});
        add_places(&mut entry);
        assert_eq!(entry["places"], json!(["/0", "/1", "/2", "/3", "/4", "/5", "(and more)"]));
        assert_eq!(entry["kind"], "edit, merge");
        let mut whole = json!({"kind": "create", "merge": false, "changes": [{"path": ""}], "truncated": false});
        add_places(&mut whole);
        assert_eq!((&whole["places"], &whole["kind"]), (&json!(["(everything)"]), &json!("create")));
    }

    #[test]
    fn versions_are_told_from_now() {
        let before = |text: &str| {
            let time = Timestamp::from_rfc3339(&when(text).unwrap()).unwrap();
            quantity::now().since_ms(time) / 60_000
        };
        assert_eq!((before("now"), before("-90m"), before("-2d"), before("yesterday")), (0, 90, 2_880, 1_440));
        assert_eq!(when("2026-11-25").unwrap(), "2026-11-25T00:00:00Z");
        for stays in ["2026-11-25T10:00:00+01:00", "abcd,ef01", "2026-13-01", "last week"] {
            assert_eq!(when(stays).unwrap(), stays);
        }
        assert!(when("-soon").is_err());
    }

    #[test]
    fn each_value_of_a_conflict_has_a_row() {
        let answer = json!({"conflicts": [
            {"path": "/n", "values": [{"value": "1", "winner": true}, {"value": 1, "winner": false}]},
        ]});
        assert_eq!(
            rivals(&answer),
            [
                json!({"path": "/n", "value": "\"1\"", "winner": true}),
                json!({"path": "/n", "value": "1", "winner": false}),
            ]
        );
    }
}
