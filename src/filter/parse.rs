//! Conditions from JSON: the operators that stand where fields do.
//!
//! Every error carries its place in the filter. What is read is bounded before it is kept.

use serde_json::{Map, Value};

use super::condition::{Condition, Element, Operand, Test};
use super::expression::Expression;
use super::fault::{fault, join, kind, too_large, unknown};
use super::text::TextSearch;
use crate::Result;
use crate::error::Error;
use crate::limits::{
    FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, FILTER_EXPRESSIONS_MAX, FILTER_REGEXES_MAX, FILTER_VALUES_MAX,
};
use crate::value::Path;

const OPERATORS: &[&str] = &["$and", "$or", "$nor", "$expr", "$text", "$comment"];

/// Reads a whole filter.
pub(super) fn filter(value: &Value) -> Result<Condition> {
    let place = Place { depth: 0, top: true, item: false };
    Parser::default().condition(value, "", place)
}

/// Reads a value to compare with.
pub(super) fn operand(value: &Value, at: &str) -> Result<Operand> {
    Parser::default().operand(value, at)
}

/// Reads what is asked of one item of an array, with so many conditions at most.
pub(super) fn element(value: &Value, at: &str, conditions_max: usize) -> Result<Element> {
    let place = Place { depth: 0, top: false, item: true };
    let mut parser = Parser::default();
    let element = parser.element(value, at, place)?;
    if parser.conditions > conditions_max {
        let message = format!("{} conditions, the limit is {conditions_max}", parser.conditions);
        return Err(too_large(at, message));
    }
    Ok(element)
}

/// What was read so far, all of it bounded.
#[derive(Debug, Default)]
pub(super) struct Parser {
    conditions: usize,
    values: usize,
    regexes: usize,
    expressions: usize,
    near: bool,
    text: bool,
}

/// What is around the place that is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Levels of operators around it.
    depth: usize,
    /// Whether everything here must hold of every row.
    pub(super) top: bool,
    /// Whether it is about an item of an array, not a document.
    item: bool,
}

impl Place {
    /// Within an operator after which what is inside need not hold.
    pub(super) fn inside(self) -> Self {
        Self { depth: self.depth + 1, top: false, item: self.item }
    }

    /// Within `$elemMatch`.
    pub(super) fn item(self) -> Self {
        Self { item: true, ..self.inside() }
    }
}

impl Parser {
    /// An object of fields and of operators such as `$and`.
    pub(super) fn condition(&mut self, value: &Value, at: &str, place: Place) -> Result<Condition> {
        self.check_depth(at, place)?;
        let Value::Object(fields) = value else {
            let message = format!("a filter is an object such as {{\"age\": {{\"$gte\": 18}}}}, not {}", kind(value));
            return Err(fault(at, message));
        };
        let mut all = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let at = join(at, name);
            match name.as_str() {
                "$and" => all.extend(self.list(value, &at, Place { depth: place.depth + 1, ..place })?),
                "$or" => all.push(Condition::any(self.list(value, &at, place.inside())?)),
                "$nor" => all.push(Condition::Not(Condition::any(self.list(value, &at, place.inside())?).into())),
                "$comment" => {}
                "$expr" => all.push(self.expression(value, &at, place)?),
                "$text" => all.push(self.search(value, &at, place)?),
                "$not" => return Err(fault(&at, "$not stands under a field; of whole conditions write $nor")),
                operator if operator.starts_with('$') => return Err(fault(&at, misplaced(operator))),
                path => self.field(path, value, &at, place, &mut all)?,
            }
        }
        Ok(Condition::all(all))
    }

    fn list(&mut self, value: &Value, at: &str, place: Place) -> Result<Vec<Condition>> {
        let Some(filters) = value.as_array().filter(|filters| !filters.is_empty()) else {
            return Err(fault(at, "it takes a list of one or more filters"));
        };
        let read = |(index, filter)| self.condition(filter, &join(at, index), place);
        filters.iter().enumerate().map(read).collect()
    }

    fn field(&mut self, name: &str, value: &Value, at: &str, place: Place, all: &mut Vec<Condition>) -> Result<()> {
        let path: Path = name.parse().map_err(|error: Error| fault(at, error.to_string()))?;
        let tests = match operators(value, at)? {
            Some(operators) => self.tests(operators, at, place)?,
            None => {
                self.count(at)?;
                vec![Test::Equal(self.operand(value, at)?)]
            }
        };
        all.extend(tests.into_iter().map(|test| Condition::Field { path: path.clone(), test }));
        Ok(())
    }

    fn expression(&mut self, value: &Value, at: &str, place: Place) -> Result<Condition> {
        self.count_expression(at)?;
        if place.item {
            return Err(fault(at, "$expr is about a whole document, and cannot be asked of an item of an array"));
        }
        Ok(Condition::Expression { expression: Expression::parse(value, at)?, source: value.clone() })
    }

    fn search(&mut self, value: &Value, at: &str, place: Place) -> Result<Condition> {
        self.count(at)?;
        if !place.top || std::mem::replace(&mut self.text, true) {
            return Err(fault(at, "$text stands once, at the top level of a filter or in a top-level $and"));
        }
        Ok(Condition::Text(TextSearch::parse(value, at)?))
    }

    pub(super) fn check_depth(&self, at: &str, place: Place) -> Result<()> {
        if place.depth <= FILTER_DEPTH_MAX {
            return Ok(());
        }
        Err(too_large(at, format!("filters are nested at most {FILTER_DEPTH_MAX} levels")))
    }

    /// Counts a condition.
    pub(super) fn count(&mut self, at: &str) -> Result<()> {
        self.conditions += 1;
        if self.conditions <= FILTER_CONDITIONS_MAX {
            return Ok(());
        }
        Err(too_large(at, format!("a filter has at most {FILTER_CONDITIONS_MAX} conditions; $in takes many values")))
    }

    /// Counts the values of a list.
    pub(super) fn count_values(&mut self, count: usize, at: &str) -> Result<()> {
        self.values += count;
        if self.values <= FILTER_VALUES_MAX {
            return Ok(());
        }
        Err(too_large(at, format!("a filter lists at most {FILTER_VALUES_MAX} values; send several queries")))
    }

    fn count_expression(&mut self, at: &str) -> Result<()> {
        self.count(at)?;
        self.expressions += 1;
        if self.expressions <= FILTER_EXPRESSIONS_MAX {
            return Ok(());
        }
        Err(too_large(
            at,
            format!("a filter has at most {FILTER_EXPRESSIONS_MAX} $expr; one of them may have $and in it"),
        ))
    }

    pub(super) fn count_regex(&mut self, at: &str) -> Result<()> {
        self.regexes += 1;
        if self.regexes <= FILTER_REGEXES_MAX {
            return Ok(());
        }
        Err(too_large(at, format!("a filter has at most {FILTER_REGEXES_MAX} $regex; one of them may say a|b|c")))
    }

    /// Whether a `$near` may stand here, which gives the rows their order.
    pub(super) fn check_near(&mut self, at: &str, place: Place) -> Result<()> {
        if place.top && !std::mem::replace(&mut self.near, true) {
            return Ok(());
        }
        Err(fault(
            at,
            "$near stands once, under a field at the top level or in a top-level $and; use $within elsewhere",
        ))
    }
}

/// The operators that a value beside a field is made of; `None` for a value to be equal to.
pub(super) fn operators<'a>(value: &'a Value, at: &str) -> Result<Option<&'a Map<String, Value>>> {
    let Some(fields) = value.as_object().filter(|fields| fields.keys().any(|key| key.starts_with('$'))) else {
        return Ok(None);
    };
    match fields.keys().find(|key| !key.starts_with('$')) {
        None => Ok(Some(fields)),
        Some(key) => {
            let message = "operators and fields are mixed here; for equality with the whole object write \
                           {\"$eq\": {..}}, for a field of it a path such as \"address.city\"";
            Err(fault(&join(at, key), message))
        }
    }
}

fn misplaced(operator: &str) -> String {
    if super::operator::OPERATORS.contains(&operator) {
        return format!("{operator} stands under a field: {{\"age\": {{\"{operator}\": ..}}}}");
    }
    unknown(operator, OPERATORS)
}
