//! Stages as they are written.

use serde_json::{Map, Value};

use super::super::project::filter;
use super::super::{Projection, Sort, fault, too_large, within};
use super::accumulator::{Accumulator, NAMES};
use super::group::{Buckets, Grouping};
use super::lookup::Lookup;
use super::unwind::Unwind;
use super::{Pipeline, Stage, Step, path};
use crate::Result;
use crate::base::suggestion;
use crate::filter::Expression;
use crate::limits::{DOCUMENT_DEPTH_MAX, PIPELINE_STAGES_MAX, QUERY_FIELDS_MAX};
use crate::value::{Direction, ID_FIELD, Json, Path, encode};

const STAGES: &[&str] = &[
    "$match",
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$replaceRoot",
    "$replaceWith",
    "$limit",
    "$skip",
    "$sort",
    "$count",
    "$group",
    "$bucket",
    "$sortByCount",
    "$unwind",
    "$lookup",
    "$facet",
];

pub(super) fn pipeline(value: &Value) -> Result<Pipeline> {
    let pipeline = Parser { stages: 0 }.pipeline(value, "", false)?;
    if pipeline.height() > DOCUMENT_DEPTH_MAX {
        let message = format!("the stages can nest documents by more than {DOCUMENT_DEPTH_MAX} levels");
        return Err(too_large("", message));
    }
    Ok(pipeline)
}

struct Parser {
    /// Stages so far, those in facets among them.
    stages: usize,
}

impl Parser {
    fn pipeline(&mut self, value: &Value, at: &str, in_facet: bool) -> Result<Pipeline> {
        let wanted = "a pipeline is a list of stages, such as [{\"$match\": {..}}, {\"$limit\": 10}]";
        let items = value.as_array().ok_or_else(|| fault(at, wanted))?;
        let mut stages = Vec::with_capacity(items.len().min(PIPELINE_STAGES_MAX));
        for (index, item) in items.iter().enumerate() {
            let at = within(at, index);
            self.stages += 1;
            if self.stages > PIPELINE_STAGES_MAX {
                return Err(too_large(&at, format!("the pipeline has more than {PIPELINE_STAGES_MAX} stages")));
            }
            let mut fields = item.as_object().into_iter().flatten();
            let (Some((name, argument)), None) = (fields.next(), fields.next()) else {
                return Err(fault(&at, "a stage is an object with one key, such as {\"$limit\": 10}"));
            };
            let at = within(&at, name);
            if name == "$sortByCount" {
                stages.extend(sort_by_count(argument, &at)?);
            } else {
                stages.push(Step { stage: self.stage(name, argument, &at, in_facet)?, at });
            }
        }
        let_through(&mut stages);
        Ok(Pipeline { stages })
    }

    fn stage(&mut self, name: &str, argument: &Value, at: &str, in_facet: bool) -> Result<Stage> {
        Ok(match name {
            "$match" => Stage::Match(filter(argument, at)?),
            "$project" if argument.as_object().is_some_and(Map::is_empty) => {
                return Err(fault(at, "names no field; {\"name\": 1} shows it, {\"name\": 0} leaves it out"));
            }
            "$project" => Stage::Reshape(Projection::parse(argument, at)?),
            "$addFields" | "$set" => Stage::Reshape(Projection::adding(argument, at)?),
            "$unset" => Stage::Reshape(unset(argument, at)?),
            "$replaceRoot" => {
                let [root] = fields(argument, ["newRoot"], &[], at)?;
                Stage::ReplaceRoot(Expression::parse(root, &within(at, "newRoot"))?)
            }
            "$replaceWith" => Stage::ReplaceRoot(Expression::parse(argument, at)?),
            "$limit" => match number(argument) {
                Some(limit) if limit > 0 => Stage::Limit(limit),
                _ => return Err(fault(at, "takes a number of rows from 1 on")),
            },
            "$skip" => Stage::Skip(number(argument).ok_or_else(|| fault(at, "takes a number of rows from 0 on"))?),
            "$sort" => Stage::Sort { sort: Sort::parse(argument, at)?, first: None },
            "$count" => {
                let name =
                    argument.as_str().ok_or_else(|| fault(at, "takes the name of a field, such as \"total\""))?;
                Stage::Count(key(name, at)?)
            }
            "$group" => Stage::Group(group(argument, at)?),
            "$bucket" => Stage::Group(bucket(argument, at)?),
            "$unwind" => Stage::Unwind(unwind(argument, at)?),
            "$lookup" => Stage::Lookup(lookup(argument, at)?),
            "$facet" if in_facet => return Err(fault(at, "stands within another $facet, which is not possible")),
            "$facet" => Stage::Facet(self.facet(argument, at)?),
            "$out" | "$merge" => {
                return Err(fault(at, "is not built: a pipeline writes nothing; write what it answers, in bulk"));
            }
            _ => {
                let word = name.chars().take(32).collect::<String>();
                let near = suggestion(name, STAGES.iter().copied());
                return Err(fault(at, format!("there is no stage {word}; {near}")));
            }
        })
    }

    fn facet(&mut self, argument: &Value, at: &str) -> Result<Vec<(String, Pipeline)>> {
        let fields = argument.as_object().filter(|fields| !fields.is_empty());
        let fields = fields.ok_or_else(|| fault(at, "takes an object with a pipeline in each field"))?;
        let facet = |(name, value): (&String, &Value)| {
            let at = within(at, name);
            Ok((key(name, &at)?, self.pipeline(value, &at, true)?))
        };
        fields.iter().map(facet).collect()
    }
}

/// Tells each `$sort` how many rows a `$limit` behind it lets through.
fn let_through(stages: &mut [Step]) {
    let mut wanted: Option<u64> = None;
    for step in stages.iter_mut().rev() {
        match &mut step.stage {
            Stage::Limit(limit) => wanted = Some(wanted.map_or(*limit, |wanted| wanted.min(*limit))),
            Stage::Skip(skip) => wanted = wanted.and_then(|wanted| wanted.checked_add(*skip)),
            Stage::Sort { first, .. } => {
                *first = wanted.and_then(|wanted| usize::try_from(wanted).ok());
                wanted = None;
            }
            // One row comes out for each.
            Stage::Reshape(_) => {}
            Stage::Match(_)
            | Stage::ReplaceRoot(_)
            | Stage::Count(_)
            | Stage::Group(_)
            | Stage::Unwind(_)
            | Stage::Lookup(_)
            | Stage::Facet(_) => wanted = None,
        }
    }
}

/// A whole number that is not negative.
fn number(value: &Value) -> Option<u64> {
    // A double of this size is exact.
    let whole = |double: &f64| double.fract() == 0.0 && (0.0..9e15).contains(double);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|double| double as u64))
}

/// The text of the key of a new field.
fn key(name: &str, at: &str) -> Result<String> {
    if name.is_empty() || name.starts_with('$') || name.contains('.') {
        return Err(fault(
            at,
            format!("{name:.64?} cannot be the name of a new field: it is empty, or has a $ or a dot"),
        ));
    }
    Ok(Value::from(name).to_string())
}

/// The needed fields of a stage's argument, which may have others as well.
fn fields<'v, const N: usize>(
    argument: &'v Value,
    needed: [&str; N],
    others: &[&str],
    at: &str,
) -> Result<[&'v Value; N]> {
    let wanted = || {
        let needed = needed.map(|name| format!("{name:?}")).join(", ");
        let others = others.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let besides = if others.is_empty() { String::new() } else { format!(", and perhaps {others}") };
        fault(at, format!("takes an object with {needed}{besides}"))
    };
    let object = argument.as_object().ok_or_else(wanted)?;
    if object.keys().any(|key| !needed.contains(&key.as_str()) && !others.contains(&key.as_str())) {
        return Err(wanted());
    }
    let values = needed.iter().map(|name| object.get(*name)).collect::<Option<Vec<_>>>().ok_or_else(wanted)?;
    values.try_into().map_err(|_| wanted())
}

fn text<'v>(value: &'v Value, at: &str) -> Result<&'v str> {
    value.as_str().ok_or_else(|| fault(at, "takes a string"))
}

fn unset(argument: &Value, at: &str) -> Result<Projection> {
    let names = match argument {
        Value::Array(items) if !items.is_empty() => items.iter().collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![argument]
        }
    };
    if names.len() > QUERY_FIELDS_MAX {
        return Err(too_large(at, format!("names more than {QUERY_FIELDS_MAX} fields")));
    }
    let wanted = || fault(at, "takes the path of a field or a list of such, such as [\"a\", \"b.c\"]");
    let read = |name: &Value| path(name.as_str().ok_or_else(wanted)?, at);
    Projection::without(names.into_iter().map(read).collect::<Result<_>>()?, at)
}

fn group(argument: &Value, at: &str) -> Result<Grouping> {
    let wanted = "takes an object with \"_id\", by which rows are grouped, and fields such as {\"total\": {\"$sum\": \"$price\"}}";
    let object = argument.as_object().ok_or_else(|| fault(at, wanted))?;
    let by = object.get(ID_FIELD).ok_or_else(|| fault(at, wanted))?;
    let by = Expression::parse(by, &within(at, ID_FIELD))?.with_only_field_given();
    let others = object.iter().filter(|(name, _)| name.as_str() != ID_FIELD);
    Ok(Grouping { by, buckets: None, fields: accumulators(others, at)? })
}

fn accumulators<'v>(
    fields: impl Iterator<Item = (&'v String, &'v Value)>,
    at: &str,
) -> Result<Vec<(String, Accumulator, Expression)>> {
    let mut read = Vec::new();
    for (name, value) in fields {
        let at = within(at, name);
        key(name, &at)?;
        let wanted = || {
            let names = NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
            fault(&at, format!("takes an object with one of {names}"))
        };
        let mut entries = value.as_object().ok_or_else(wanted)?.iter();
        let (Some((operator, argument)), None) = (entries.next(), entries.next()) else { return Err(wanted()) };
        let (_, accumulator) = NAMES.iter().find(|(name, _)| name == operator).ok_or_else(wanted)?;
        let at = within(&at, operator);
        if *accumulator == Accumulator::Count && argument.as_object().is_none_or(|fields| !fields.is_empty()) {
            return Err(fault(&at, "takes {}: it counts rows; {\"$sum\": ..} adds values"));
        }
        read.push((name.clone(), *accumulator, Expression::parse(argument, &at)?));
        if read.len() > QUERY_FIELDS_MAX {
            return Err(too_large("", format!("more than {QUERY_FIELDS_MAX} fields are named in one place")));
        }
    }
    Ok(read)
}

fn bucket(argument: &Value, at: &str) -> Result<Grouping> {
    let [by, boundaries] = fields(argument, ["groupBy", "boundaries"], &["default", "output"], at)?;
    let by = Expression::parse(by, &within(at, "groupBy"))?;
    let constant = |value: &Value, at: &str| {
        let value = Expression::parse(value, at)?;
        let value = value.constant().ok_or_else(|| fault(at, "takes a value that is the same for all rows"))?;
        let mut key = Vec::new();
        encode(value, Direction::Ascending, &mut key);
        Ok((value.text().to_vec(), key))
    };
    let boundaries_at = within(at, "boundaries");
    let wanted =
        || fault(&boundaries_at, "takes a list of two or more values of one kind, each greater than the one before");
    let boundaries = boundaries.as_array().ok_or_else(wanted)?;
    let boundaries = boundaries.iter().map(|value| constant(value, &boundaries_at)).collect::<Result<Vec<_>>>()?;
    let is_ascending = |pair: &[(Vec<u8>, Vec<u8>)]| {
        pair[0].1 < pair[1].1 && Json::new(&pair[0].0).kind() == Json::new(&pair[1].0).kind()
    };
    let (Some(first), Some(last)) = (boundaries.first(), boundaries.last()) else { return Err(wanted()) };
    if boundaries.len() < 2 || !boundaries.windows(2).all(is_ascending) {
        return Err(wanted());
    }
    let rest = match argument.get("default") {
        None => None,
        Some(value) => {
            let at = within(at, "default");
            let (text, key) = constant(value, &at)?;
            if key >= first.1 && key < last.1 {
                return Err(fault(&at, "is a value that belongs into one of the buckets; take one outside of them"));
            }
            Some(text)
        }
    };
    let fields = match argument.get("output") {
        None => vec![("count".to_owned(), Accumulator::Count, Expression::parse(&Value::Null, at)?)],
        Some(output) => {
            let at = within(at, "output");
            let output = output.as_object().ok_or_else(|| fault(&at, "takes an object of fields, as $group does"))?;
            if output.contains_key(ID_FIELD) {
                return Err(fault(&at, "names _id, which is where a bucket begins"));
            }
            accumulators(output.iter(), &at)?
        }
    };
    Ok(Grouping { by, buckets: Some(Buckets { boundaries, rest }), fields })
}

/// `$sortByCount`: a `$group` and a `$sort`.
fn sort_by_count(argument: &Value, at: &str) -> Result<[Step; 2]> {
    let by = Expression::parse(argument, at)?;
    if by.constant().is_some() {
        return Err(fault(at, "takes what to count by, such as \"$city\""));
    }
    let fields = vec![("count".to_owned(), Accumulator::Count, Expression::parse(&Value::Null, at)?)];
    let sort = Sort::by(path("count", at)?, Direction::Descending);
    let group = Stage::Group(Grouping { by, buckets: None, fields });
    Ok([group, Stage::Sort { sort, first: None }].map(|stage| Step { stage, at: at.to_owned() }))
}

fn unwind(argument: &Value, at: &str) -> Result<Unwind> {
    let others = ["includeArrayIndex", "preserveNullAndEmptyArrays"];
    let named = if argument.is_string() { argument } else { fields(argument, ["path"], &others, at)?[0] };
    let field = named.as_str().and_then(|text| text.strip_prefix('$')).filter(|text| !text.starts_with('$'));
    let field = field.ok_or_else(|| fault(at, "takes the path of a field with a $ before it, such as \"$tags\""))?;
    let preserves = match argument.get("preserveNullAndEmptyArrays") {
        None => false,
        Some(value) => {
            value.as_bool().ok_or_else(|| fault(&within(at, "preserveNullAndEmptyArrays"), "takes true or false"))?
        }
    };
    let position: Option<Path> = match argument.get("includeArrayIndex") {
        None => None,
        Some(value) => {
            let at = within(at, "includeArrayIndex");
            let name = text(value, &at)?;
            if name.starts_with('$') {
                return Err(fault(&at, "takes the name of a field, without a $"));
            }
            Some(path(name, &at)?)
        }
    };
    Unwind::new(path(field, at)?, position.as_ref(), preserves, at)
}

fn lookup(argument: &Value, at: &str) -> Result<Lookup> {
    let names = ["from", "localField", "foreignField", "as"];
    let values = fields(argument, names, &[], at)?;
    let mut texts = Vec::with_capacity(names.len());
    for (name, value) in names.iter().zip(values) {
        let at = within(at, name);
        let text = text(value, &at)?;
        if text.starts_with('$') {
            return Err(fault(&at, "takes a name without a $"));
        }
        texts.push((text, at));
    }
    let [(from, from_at), (local, local_at), (foreign, foreign_at), (found, found_at)] = texts.as_slice() else {
        return Err(fault(at, "takes four names"));
    };
    if let Err(error) = from.parse::<crate::base::CollectionName>() {
        return Err(fault(from_at, error));
    }
    Lookup::new((*from).to_owned(), path(local, local_at)?, path(foreign, foreign_at)?, &path(found, found_at)?, at)
}
