//! Tests from JSON: the operators that stand under a field.

use serde_json::{Map, Value};

use super::condition::{Comparison, Element, Operand, Test, Type};
use super::fault::{brief, fault, join, kind, too_large, unknown};
use super::geo::{Near, Shape};
use super::parse::{Parser, Place, operators};
use super::regex::Regex;
use crate::Result;
use crate::base::suggestion;
use crate::limits::DOCUMENT_DEPTH_MAX;
use crate::value::compare;

pub(super) const OPERATORS: &[&str] = &[
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$not",
    "$exists",
    "$type",
    "$regex",
    "$options",
    "$mod",
    "$all",
    "$size",
    "$elemMatch",
    "$near",
    "$within",
];

impl Parser {
    /// The tests that an object of operators asks for.
    pub(super) fn tests(&mut self, operators: &Map<String, Value>, at: &str, place: Place) -> Result<Vec<Test>> {
        self.check_depth(at, place)?;
        let mut tests = Vec::with_capacity(operators.len());
        for (operator, value) in operators {
            let at = join(at, operator);
            self.count(&at)?;
            if operator == "$options" {
                if !operators.contains_key("$regex") {
                    return Err(fault(&at, "$options stands beside a $regex"));
                }
                continue;
            }
            tests.push(self.test(operator, value, operators, &at, place)?);
        }
        Ok(tests)
    }

    fn test(
        &mut self,
        operator: &str,
        value: &Value,
        beside: &Map<String, Value>,
        at: &str,
        place: Place,
    ) -> Result<Test> {
        if let Some((_, comparison)) = Comparison::ALL.iter().find(|(name, _)| *name == operator) {
            return Ok(Test::Compare(*comparison, self.operand(value, at)?));
        }
        Ok(match operator {
            "$eq" => Test::Equal(self.operand(value, at)?),
            "$ne" => Test::Not(vec![Test::Equal(self.operand(value, at)?)]),
            "$in" => self.among(value, at)?,
            "$nin" => Test::Not(vec![self.among(value, at)?]),
            "$not" => self.not(value, at, place)?,
            "$exists" => Test::Exists(exists(value, at)?),
            "$type" => Test::Type(types(value, at)?),
            "$regex" => {
                self.count_regex(at)?;
                Test::Matches(Regex::parse(value, beside.get("$options"), at)?)
            }
            "$mod" => remainder(value, at)?,
            "$all" => self.holds(value, at, place)?,
            "$size" => Test::Size(size(value, at)?),
            "$elemMatch" => Test::Element(self.element(value, at, place)?),
            "$near" => {
                self.check_near(at, place)?;
                Test::Near(Near::parse(value, at)?)
            }
            "$within" => Test::Within(Shape::parse(value, at)?),
            _ => return Err(fault(at, unknown(operator, OPERATORS))),
        })
    }

    /// A value to compare with.
    pub(super) fn operand(&self, value: &Value, at: &str) -> Result<Operand> {
        if fits(value, DOCUMENT_DEPTH_MAX) {
            return Ok(Operand::new(value));
        }
        Err(too_large(at, format!("values are nested at most {DOCUMENT_DEPTH_MAX} levels, as in documents")))
    }

    fn among(&mut self, value: &Value, at: &str) -> Result<Test> {
        let Value::Array(values) = value else {
            return Err(fault(at, format!("it takes a list of values, not {}", kind(value))));
        };
        self.count_values(values.len(), at)?;
        let mut operands = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            if let Some(operator) = first_operator(value) {
                let message = match operator {
                    "$regex" => {
                        "a $regex cannot stand in a list; write {\"$or\": [..]} of conditions, or one $regex a|b"
                    }
                    _ => "a list holds values, not operators",
                };
                return Err(fault(&join(at, index), message));
            }
            operands.push(self.operand(value, at)?);
        }
        operands.sort_by(|a, b| compare(a.json(), b.json()));
        operands.dedup_by(|a, b| compare(a.json(), b.json()).is_eq());
        Ok(Test::In(operands))
    }

    fn not(&mut self, value: &Value, at: &str, place: Place) -> Result<Test> {
        match operators(value, at)? {
            Some(operators) => Ok(Test::Not(self.tests(operators, at, place.inside())?)),
            None => Err(fault(at, "$not takes operators, such as {\"$gt\": 5}; for a value use $ne")),
        }
    }

    fn holds(&mut self, value: &Value, at: &str, place: Place) -> Result<Test> {
        let Value::Array(values) = value else {
            return Err(fault(at, format!("$all takes a list of values, not {}", kind(value))));
        };
        self.count_values(values.len(), at)?;
        let mut tests = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let at = join(at, index);
            match first_operator(value) {
                None => tests.push(Test::Equal(self.operand(value, &at)?)),
                Some("$elemMatch") if value.as_object().is_some_and(|fields| fields.len() == 1) => {
                    self.count(&at)?;
                    let at = join(&at, "$elemMatch");
                    tests.push(Test::Element(self.element(&value["$elemMatch"], &at, place)?));
                }
                Some(_) => return Err(fault(&at, "$all takes values, or {\"$elemMatch\": {..}}")),
            }
        }
        let elements = tests.iter().filter(|test| matches!(test, Test::Element(_))).count();
        if elements != 0 && elements != tests.len() {
            return Err(fault(at, "$all takes either values or $elemMatch, not both; write two $all in an $and"));
        }
        Ok(Test::Holds(tests))
    }

    pub(super) fn element(&mut self, value: &Value, at: &str, place: Place) -> Result<Element> {
        let logical = |operator: &str| matches!(operator, "$and" | "$or" | "$nor" | "$comment" | "$expr" | "$text");
        match first_operator(value) {
            Some(operator) if !logical(operator) => match operators(value, at)? {
                Some(operators) => Ok(Element::Value(self.tests(operators, at, place.item())?)),
                None => Err(fault(at, "conditions are needed here, such as {\"$gt\": 5}")),
            },
            Some(_) | None => Ok(Element::Fields(self.condition(value, at, place.item())?.into())),
        }
    }
}

/// The first of the operators in an object.
fn first_operator(value: &Value) -> Option<&str> {
    value.as_object()?.keys().map(String::as_str).find(|key| key.starts_with('$'))
}

fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| fits(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| fits(field, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn exists(value: &Value, at: &str) -> Result<bool> {
    match value {
        Value::Bool(wanted) => Ok(*wanted),
        Value::Number(number) => Ok(number.as_f64() != Some(0.0)),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(fault(at, format!("$exists takes true or false, not {}", kind(value))))
        }
    }
}

fn types(value: &Value, at: &str) -> Result<Vec<Type>> {
    let mut types = match value {
        Value::Array(values) if values.is_empty() => return Err(fault(at, "$type takes one type or more")),
        Value::Array(values) if values.len() > 2 * Type::ALL.len() => {
            return Err(too_large(at, format!("there are only {} types", Type::ALL.len())));
        }
        Value::Array(values) => {
            let one = |(index, value)| one_type(value, &join(at, index));
            values.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![one_type(value, at)?]
        }
    };
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

fn one_type(value: &Value, at: &str) -> Result<Type> {
    let mut all = Type::ALL.iter();
    let found = match value {
        Value::String(name) => all.find(|(known, ..)| known == name),
        Value::Number(_) => {
            let code = whole(value).and_then(|code| u64::try_from(code).ok());
            all.find(|(_, known, _)| known.is_some() && *known == code)
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(fault(at, format!("$type takes the name of a type such as \"string\", not {}", kind(value))));
        }
    };
    found.map(|(.., found)| *found).ok_or_else(|| {
        let known = Type::ALL.iter().map(|(name, ..)| *name);
        let message = match value.as_str() {
            Some(name) => format!("JSON has no type {:?}; {}", brief(name), suggestion(name, known)),
            None => format!("JSON has no type {value}; there are 1 double, 2 string, 3 object, 4 array, 8 bool, 10 null, 16 int, 18 long"),
        };
        fault(at, message)
    })
}

fn size(value: &Value, at: &str) -> Result<u64> {
    let message = "$size takes a whole number from 0 on; for ranges ask $exists of a position, as in \"tags.2\"";
    whole(value).and_then(|size| u64::try_from(size).ok()).ok_or_else(|| fault(at, message))
}

/// A number without a fraction.
fn whole(value: &Value) -> Option<i128> {
    truncated(value).filter(|_| value.as_f64().is_none_or(|number| number.fract() == 0.0))
}

/// A number without its fraction, when 64 bits, signed or not, hold it.
fn truncated(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)).or_else(|| {
        let number = value.as_f64()?.trunc();
        (number.abs() < 18_446_744_073_709_551_616.0).then_some(number as i128)
    })
}

fn remainder(value: &Value, at: &str) -> Result<Test> {
    let Some([divisor, remainder]) = value.as_array().map(Vec::as_slice) else {
        return Err(fault(at, "$mod takes a list of two numbers: the divisor and the remainder"));
    };
    let number = |value: &Value, index: usize| {
        let number = truncated(value).and_then(|number| i64::try_from(number).ok());
        number.ok_or_else(|| fault(&join(at, index), format!("a number of 64 bits is needed, not {}", kind(value))))
    };
    match (number(divisor, 0)?, number(remainder, 1)?) {
        (0, _) => Err(fault(&join(at, 0), "nothing can be divided by 0")),
        (divisor, remainder) => Ok(Test::Remainder { divisor, remainder }),
    }
}
