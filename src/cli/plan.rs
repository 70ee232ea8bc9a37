//! How a query was answered, as people read it: the plan as a tree, and what else could have been done.

use serde_json::Value;

use super::failure::Outcome;
use super::output::{Field, Output, line, printable};
use super::query::items;

const REJECTED: [Field; 5] = [
    ("NOT TAKEN", "/stage"),
    ("INDEX", "/index"),
    ("EXPECTED ROWS", "/estimated_rows"),
    ("COST", "/cost"),
    ("IN ORDER", "/in_order"),
];

/// What is shown of a stage elsewhere than among its details.
const SHOWN_APART: [&str; 5] = ["stage", "estimated_rows", "actual_rows", "input", "inputs"];

/// Characters of one detail of a stage, which may be a filter of any size.
const DETAIL_CHARS_MAX: usize = 200;

/// Shows an explanation: for people on a terminal, all of it as JSON elsewhere.
pub(super) fn show(explained: &Value, output: Output) -> Outcome {
    if !output.is_table() {
        return output.document(explained);
    }
    let mut lines = Vec::new();
    tree(&explained["plan"], "", "", &mut lines);
    lines.iter().try_for_each(|text| line(text))?;
    line(&format!("\n{}", looked_at(explained)))?;
    let rejected = items(explained, "rejected");
    if rejected.is_empty() {
        return Ok(());
    }
    line("")?;
    output.list(rejected, &REJECTED)
}

fn looked_at(explained: &Value) -> String {
    let ms = explained["time_us"].as_u64().unwrap_or_default() as f64 / 1_000.0;
    format!(
        "{} documents from {} entries of indexes and {} documents examined, in {ms:.1} ms",
        explained["documents"], explained["entries_examined"], explained["documents_examined"]
    )
}

/// A line for each stage: `first` stands before the stage's own, `rest` before those of its inputs.
fn tree(stage: &Value, first: &str, rest: &str, lines: &mut Vec<String>) {
    lines.push(format!("{first}{}", described(stage)));
    let inputs: Vec<&Value> = stage.get("input").into_iter().chain(items(stage, "inputs")).collect();
    for (index, input) in inputs.iter().enumerate() {
        let (branch, below) = if index + 1 == inputs.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        tree(input, &format!("{rest}{branch}"), &format!("{rest}{below}"), lines);
    }
}

/// A stage: what it is, its rows, and its details in parentheses.
fn described(stage: &Value) -> String {
    let mut text = printable(stage["stage"].as_str().unwrap_or("nothing"));
    if let (Some(estimated), Some(actual)) = (stage.get("estimated_rows"), stage.get("actual_rows")) {
        text.push_str(&format!(": {actual} rows, {estimated} expected"));
    }
    let details = stage.as_object().into_iter().flatten();
    let details = details.filter(|(name, _)| !SHOWN_APART.contains(&name.as_str()));
    let details: Vec<String> = details.map(|(name, value)| format!("{name} {}", detail(value))).collect();
    if details.is_empty() { text } else { format!("{text}  ({})", details.join(", ")) }
}

fn detail(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = printable(&text);
    if text.chars().count() <= DETAIL_CHARS_MAX {
        return text;
    }
    text.chars().take(DETAIL_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_a_tree() {
        let plan = json!({
            "stage": "limit", "limit": 10, "offset": 0, "estimated_rows": 2.5, "actual_rows": 3, "cost": 12.5, "input": {
                "stage": "filter", "filter": {"a": {"$eq": 1}}, "estimated_rows": 2.5, "actual_rows": 3, "input": {
                    "stage": "union", "estimated_rows": 4.0, "actual_rows": 5, "inputs": [
                        {"stage": "intersection", "inputs": [{"stage": "index", "index": "x"}, {"stage": "ids", "ids": 2}]},
                        {"stage": "index", "index": "y\u{1b}[2J"},
                    ],
                },
            },
        });
        let mut lines = Vec::new();
        tree(&plan, "", "", &mut lines);
        assert_eq!(
            lines,
            [
                "limit: 3 rows, 2.5 expected  (cost 12.5, limit 10, offset 0)",
                "└─ filter: 3 rows, 2.5 expected  (filter {\"a\":{\"$eq\":1}})",
                "   └─ union: 5 rows, 4.0 expected",
                "      ├─ intersection",
                "      │  ├─ index  (index x)",
                "      │  └─ ids  (ids 2)",
                "      └─ index  (index y\u{fffd}[2J)",
            ]
        );
    }
}
