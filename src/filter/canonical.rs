//! Filters back to JSON, in one form: what plans show, and what cursors are bound to.
//!
//! Conditions that must hold together share one object, as far as no operator would stand twice in one place.

use serde_json::{Map, Value, json};

use super::condition::{Comparison, Condition, Element, Operand, Test, Type};
use super::geo::{Near, Point, Shape};
use super::regex::Regex;

pub(super) fn condition(condition: &Condition) -> Value {
    let mut fields = Map::new();
    match condition {
        Condition::All(all) => return together(all),
        Condition::Any(any) => fields.insert("$or".into(), any.iter().map(self::condition).collect()),
        Condition::Not(inner) => {
            let inner = if let Condition::Any(any) = inner.as_ref() { any } else { std::slice::from_ref(&**inner) };
            fields.insert("$nor".into(), inner.iter().map(self::condition).collect())
        }
        Condition::Field { path, test } => {
            fields.insert(path.to_string(), Value::Object(tests(std::slice::from_ref(test))))
        }
        Condition::Expression { source, .. } => fields.insert("$expr".into(), source.clone()),
        Condition::Text(search) => fields.insert("$text".into(), json!({"$search": search.words()})),
    };
    Value::Object(fields)
}

fn together(all: &[Condition]) -> Value {
    let conditions: Vec<Value> = all.iter().map(condition).collect();
    let mut merged = Map::new();
    for condition in &conditions {
        for (name, value) in condition.as_object().into_iter().flatten() {
            if !merge(&mut merged, name, value) {
                return json!({"$and": conditions});
            }
        }
    }
    Value::Object(merged)
}

/// Adds a field; false when one of its operators is there already.
fn merge(merged: &mut Map<String, Value>, name: &str, value: &Value) -> bool {
    match (merged.get_mut(name), value) {
        (None, _) => {
            merged.insert(name.to_owned(), value.clone());
            true
        }
        (Some(Value::Object(there)), Value::Object(new)) if !name.starts_with('$') => {
            let free = new.keys().all(|operator| !there.contains_key(operator));
            if free {
                there.extend(new.clone());
            }
            free
        }
        (Some(_), _) => false,
    }
}

/// The operators of tests that came from one object, of which each operator is there once.
fn tests(tests: &[Test]) -> Map<String, Value> {
    let mut operators = Map::new();
    for test in tests {
        let (operator, value) = operator(test);
        if let (Test::Not(inner), true) = (test, operators.contains_key(operator)) {
            // Another negation has the short name.
            operators.insert("$not".into(), Value::Object(self::tests(inner)));
            continue;
        }
        operators.insert(operator.into(), value);
        if let Test::Matches(regex) = test {
            options(regex, &mut operators);
        }
    }
    operators
}

fn options(regex: &Regex, operators: &mut Map<String, Value>) {
    if !regex.options().is_empty() {
        operators.insert("$options".into(), regex.options().into());
    }
}

fn operator(test: &Test) -> (&'static str, Value) {
    match test {
        Test::Equal(operand) => ("$eq", plain(operand)),
        Test::In(operands) => ("$in", operands.iter().map(plain).collect()),
        Test::Compare(comparison, operand) => {
            let name = Comparison::ALL.iter().find(|(_, known)| known == comparison);
            (name.map_or("$gte", |(name, _)| name), plain(operand))
        }
        Test::Exists(wanted) => ("$exists", (*wanted).into()),
        Test::Type(types) => {
            let named = |(name, _, known): &(&'static str, _, Type)| types.contains(known).then_some(*name);
            ("$type", Type::ALL.iter().filter_map(named).collect())
        }
        Test::Matches(regex) => ("$regex", regex.pattern().into()),
        Test::Remainder { divisor, remainder } => ("$mod", json!([divisor, remainder])),
        Test::Holds(inner) => {
            let value = |test: &Test| {
                if let Test::Equal(operand) = test {
                    return plain(operand);
                }
                Value::Object(tests(std::slice::from_ref(test)))
            };
            ("$all", inner.iter().map(value).collect())
        }
        Test::Size(size) => ("$size", (*size).into()),
        Test::Element(Element::Fields(inner)) => ("$elemMatch", condition(inner)),
        Test::Element(Element::Value(inner)) => ("$elemMatch", Value::Object(tests(inner))),
        Test::Not(inner) => match inner.as_slice() {
            [Test::Equal(operand)] => ("$ne", plain(operand)),
            [Test::In(operands)] => ("$nin", operands.iter().map(plain).collect()),
            other => ("$not", Value::Object(tests(other))),
        },
        Test::Near(near) => ("$near", self::near(near)),
        Test::Within(shape) => ("$within", self::shape(shape)),
    }
}

fn plain(operand: &Operand) -> Value {
    serde_json::from_slice(operand.json().text()).unwrap_or_default()
}

fn near(near: &Near) -> Value {
    let mut value = json!({"lat": near.point.lat, "lng": near.point.lng});
    if let Some(distance) = near.max_distance_m {
        value["max_distance_m"] = distance.into();
    }
    if near.min_distance_m > 0.0 {
        value["min_distance_m"] = near.min_distance_m.into();
    }
    value
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Circle { center, radius_m } => {
            json!({"circle": {"lat": center.lat, "lng": center.lng, "radius_m": radius_m}})
        }
        Shape::Box { south, west, north, east } => {
            json!({"box": {"south": south, "west": west, "north": north, "east": east}})
        }
        Shape::Polygon(points) => {
            let pair = |point: &Point| json!([point.lat, point.lng]);
            json!({"polygon": points.iter().map(pair).collect::<Vec<_>>()})
        }
    }
}
