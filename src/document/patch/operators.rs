//! Update operators, read.

use serde_json::{Number, Value};

use super::bounded;
use super::path::{Path, shown};
use crate::base::suggestion;
use crate::document::change::fits;
use crate::document::json::Object;
use crate::error::Error;
use crate::filter::Pull;

const OPERATORS: [&str; 13] = [
    "$set",
    "$unset",
    "$inc",
    "$mul",
    "$min",
    "$max",
    "$push",
    "$pull",
    "$addToSet",
    "$pop",
    "$rename",
    "$currentDate",
    "$text",
];

/// What is to happen at one path.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) struct Update {
    pub(in crate::document) path: Path,
    pub(in crate::document) act: Act,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) enum Act {
    Set(Value),
    Unset,
    Increment(Number),
    Multiply(Number),
    Min(Value),
    Max(Value),
    Push(Push),
    Pull(Pull),
    AddToSet(Vec<Value>),
    /// Whether the first element goes, not the last.
    Pop(bool),
    Rename(Path),
    CurrentDate,
    Text(Vec<Splice>),
}

/// What `$push` adds, where, and how much of the list then stays.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) struct Push {
    pub(in crate::document) items: Vec<Value>,
    /// From the end when negative.
    pub(in crate::document) position: Option<i64>,
    /// The first so many, or the last when negative.
    pub(in crate::document) slice: Option<i64>,
}

/// An edit of a text; positions in characters (Unicode code points).
#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) struct Splice {
    pub(in crate::document) position: usize,
    pub(in crate::document) delete: usize,
    pub(in crate::document) insert: String,
}

pub(super) fn parse(body: Object) -> Result<Vec<Update>, Error> {
    let mut updates = Vec::new();
    for (operator, arguments) in body {
        check_name(&operator)?;
        let Value::Object(arguments) = arguments else {
            let message = format!("{operator} takes an object of paths, not {}", shown(&arguments));
            return Err(Error::invalid(message));
        };
        for (path, argument) in arguments {
            let path = Path::dotted(&path)?;
            let act = act(&operator, &path, argument)?;
            updates.push(Update { path, act });
        }
    }
    let splices = updates.iter().map(|update| if let Act::Text(splices) = &update.act { splices.len() } else { 0 });
    bounded(updates.len() + splices.sum::<usize>())?;
    check_overlap(&updates)?;
    Ok(updates)
}

fn check_name(name: &str) -> Result<(), Error> {
    if OPERATORS.contains(&name) {
        return Ok(());
    }
    let brief: String = name.chars().take(40).collect();
    if name.starts_with('$') {
        let near = suggestion(name, OPERATORS);
        return Err(Error::invalid(format!("unknown update operator {brief:?}; {near}")));
    }
    Err(Error::invalid(format!(
        "{brief:?} is no update operator such as $set: to merge fields into the document, \
         send them with Content-Type: application/merge-patch+json"
    )))
}

fn act(operator: &str, path: &Path, argument: Value) -> Result<Act, Error> {
    Ok(match operator {
        "$set" => Act::Set(fitting(path, argument, path.levels())?),
        "$unset" => Act::Unset,
        "$inc" => Act::Increment(number(operator, path, &argument)?),
        "$mul" => Act::Multiply(number(operator, path, &argument)?),
        "$min" => Act::Min(fitting(path, argument, path.levels())?),
        "$max" => Act::Max(fitting(path, argument, path.levels())?),
        "$push" => Act::Push(push(path, argument)?),
        "$pull" => Act::Pull(Pull::parse(&argument, path.text())?),
        "$addToSet" => Act::AddToSet(push_items(path, argument, operator, &[])?.items),
        "$pop" => Act::Pop(pop(path, &argument)?),
        "$rename" => match argument.as_str() {
            Some(name) => Act::Rename(Path::dotted(name)?),
            None => {
                return Err(path.fault(format!("$rename takes the new path as a string, not {}", shown(&argument))));
            }
        },
        "$currentDate" => current_date(path, &argument)?,
        // The last of the known names.
        _ => Act::Text(splices(path, argument)?),
    })
}

fn fitting(path: &Path, value: Value, levels: usize) -> Result<Value, Error> {
    if fits(&value, levels) { Ok(value) } else { Err(path.fault("nested too deeply")) }
}

fn number(operator: &str, path: &Path, argument: &Value) -> Result<Number, Error> {
    let Value::Number(number) = argument else {
        return Err(path.fault(format!("{operator} takes a number, not {}", shown(argument))));
    };
    Ok(number.clone())
}

/// A number without a fraction, however it is written.
fn whole(argument: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || argument.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
    argument.as_i64().or_else(|| float().map(|number| number as i64))
}

fn pop(path: &Path, argument: &Value) -> Result<bool, Error> {
    match whole(argument) {
        Some(1) => Ok(false),
        Some(-1) => Ok(true),
        Some(_) | None => Err(path.fault("$pop takes 1 for the last element or -1 for the first")),
    }
}

fn current_date(path: &Path, argument: &Value) -> Result<Act, Error> {
    let date =
        argument.as_object().is_some_and(|object| object.len() == 1 && object.get("$type") == Some(&"date".into()));
    if *argument == Value::Bool(true) || date {
        return Ok(Act::CurrentDate);
    }
    Err(path.fault("$currentDate takes true or {\"$type\": \"date\"}"))
}

fn push(path: &Path, argument: Value) -> Result<Push, Error> {
    push_items(path, argument, "$push", &["$position", "$slice"])
}

/// A value, or several under `$each` with some modifiers beside it.
fn push_items(path: &Path, argument: Value, operator: &str, modifiers: &[&str]) -> Result<Push, Error> {
    let fit = |item| fitting(path, item, path.levels().saturating_sub(1));
    let Some(fields) = argument.as_object().filter(|fields| fields.keys().any(|key| key.starts_with('$'))) else {
        return Ok(Push { items: vec![fit(argument)?], position: None, slice: None });
    };
    let mut fields = fields.clone();
    let Some(Value::Array(items)) = fields.remove("$each") else {
        return Err(path.fault(format!("{operator} with modifiers needs $each, a list")));
    };
    let items = items.into_iter().map(fit).collect::<Result<_, _>>()?;
    let mut push = Push { items, position: None, slice: None };
    for (name, value) in fields {
        let slot = match name.as_str() {
            "$position" if modifiers.contains(&"$position") => &mut push.position,
            "$slice" if modifiers.contains(&"$slice") => &mut push.slice,
            "$sort" => return Err(path.fault("$sort is not supported; sort when you read")),
            unknown => {
                let brief: String = unknown.chars().take(40).collect();
                let known = ["$each"].iter().chain(modifiers).copied().collect::<Vec<_>>();
                let near = suggestion(unknown, known);
                return Err(path.fault(format!("{operator} knows no {brief:?}; {near}")));
            }
        };
        *slot = Some(whole(&value).ok_or_else(|| path.fault(format!("{name} takes a whole number")))?);
    }
    Ok(push)
}

fn splices(path: &Path, argument: Value) -> Result<Vec<Splice>, Error> {
    let Value::Array(splices) = argument else { return Ok(vec![splice(path, argument)?]) };
    splices.into_iter().map(|item| splice(path, item)).collect()
}

fn splice(path: &Path, argument: Value) -> Result<Splice, Error> {
    const FORM: &str = "$text takes {\"position\": 0, \"delete\": 0, \"insert\": \"\"}, or a list of these";
    let Value::Object(fields) = argument else { return Err(path.fault(FORM)) };
    let mut splice = Splice { position: 0, delete: 0, insert: String::new() };
    if !fields.contains_key("position") {
        return Err(path.fault(FORM));
    }
    for (name, value) in fields {
        let count = |value: &Value| {
            let count = value.as_u64().and_then(|count| u32::try_from(count).ok()).map(|count| count as usize);
            count.ok_or_else(|| path.fault(format!("{name} is a number of characters, not {}", shown(value))))
        };
        match (name.as_str(), value) {
            ("position", value) => splice.position = count(&value)?,
            ("delete", value) => splice.delete = count(&value)?,
            ("insert", Value::String(text)) => splice.insert = text,
            _ => return Err(path.fault(FORM)),
        }
    }
    Ok(splice)
}

/// Two operators on one path, or on a path and one inside it, would depend on their order.
fn check_overlap(updates: &[Update]) -> Result<(), Error> {
    let mut paths: Vec<&Path> = updates.iter().map(|update| &update.path).collect();
    paths.extend(updates.iter().filter_map(|update| if let Act::Rename(to) = &update.act { Some(to) } else { None }));
    paths.sort_unstable_by(|a, b| a.names().cmp(b.names()));
    // What starts with a path comes directly after it.
    match paths.windows(2).find(|pair| pair[1].names().starts_with(pair[0].names())) {
        Some(pair) => Err(pair[1].fault(format!("this conflicts with {:?} in the same update", pair[0].text()))),
        None => Ok(()),
    }
}
