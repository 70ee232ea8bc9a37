//! Expressions as they are written.

use serde_json::{Map, Value};

use super::super::fault::{fault, join, too_large};
use super::operator::{Operator, suggestion};
use super::{Node, evaluate};
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX};
use crate::value::{Json, Kind, Path, Row};
use crate::{Error, Result};

pub(super) fn parse(value: &Value, at: &str) -> Result<Node> {
    Parser { nodes: 0 }.node(value, at, 0)
}

struct Parser {
    /// Operators, paths, objects and arrays so far; constants are bounded by the request.
    nodes: usize,
}

impl Parser {
    fn node(&mut self, value: &Value, at: &str, depth: usize) -> Result<Node> {
        if depth > EXPRESSION_DEPTH_MAX {
            return Err(too_large(at, format!("the expression is nested deeper than {EXPRESSION_DEPTH_MAX} levels")));
        }
        let node = match value {
            Value::String(text) if text.starts_with('$') => variable(text, at)?,
            Value::Array(items) => self.array(items, at, depth)?,
            Value::Object(fields) => match fields.iter().find(|(key, _)| key.starts_with('$')) {
                None => self.object(fields, at, depth)?,
                Some((name, argument)) if fields.len() == 1 => self.operator(name, argument, at, depth)?,
                Some((name, _)) => {
                    let message = format!("{name} stands beside other fields; an operator is an object with one key");
                    return Err(fault(at, message));
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => constant(value),
        };
        if !matches!(node, Node::Constant(_)) {
            self.nodes += 1;
        }
        if self.nodes > EXPRESSION_NODES_MAX {
            let message = format!("the expression has more than {EXPRESSION_NODES_MAX} operators and paths");
            return Err(too_large(at, message));
        }
        Ok(node)
    }

    fn array(&mut self, items: &[Value], at: &str, depth: usize) -> Result<Node> {
        let items = self.list(items, at, depth)?;
        let is_constant = items.iter().all(|item| matches!(item, Node::Constant(_)));
        fold(Node::Array { items, at: at.into() }, is_constant)
    }

    fn list(&mut self, items: &[Value], at: &str, depth: usize) -> Result<Vec<Node>> {
        let items = items.iter().enumerate();
        items.map(|(index, item)| self.node(item, &join(at, index), depth + 1)).collect()
    }

    fn object(&mut self, fields: &Map<String, Value>, at: &str, depth: usize) -> Result<Node> {
        let mut nodes = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            if key.contains('.') {
                let message = format!("the field {key:?} has a dot in its name; write an object within an object");
                return Err(fault(at, message));
            }
            nodes.push((Value::from(key.as_str()).to_string(), self.node(value, &join(at, key), depth + 1)?));
        }
        let is_constant = nodes.iter().all(|(_, node)| matches!(node, Node::Constant(_)));
        fold(Node::Object { fields: nodes, at: at.into() }, is_constant)
    }

    fn operator(&mut self, name: &str, argument: &Value, at: &str, depth: usize) -> Result<Node> {
        let at = join(at, name);
        match name {
            "$literal" => return Ok(constant(argument)),
            "$cond" => return self.cond(argument, &at, depth),
            "$switch" => return self.switch(argument, &at, depth),
            _ => {}
        }
        let Some((operator, least, most)) = Operator::named(name) else {
            let message = format!("there is no operator {name:.64}; {}", suggestion(name));
            return Err(fault(&at, message));
        };
        let arguments = match argument {
            Value::Array(items) => self.list(items, &at, depth)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                vec![self.node(argument, &at, depth + 1)?]
            }
        };
        let count = arguments.len();
        if count < least || count > most {
            let wanted = match (least, most) {
                (1, 1) => "one argument".to_owned(),
                (least, usize::MAX) => format!("an array of at least {least} arguments"),
                (least, most) if least == most => format!("an array of {least} arguments"),
                (least, most) => format!("an array of {least} to {most} arguments"),
            };
            return Err(fault(&at, format!("{name} takes {wanted}, not {count}")));
        }
        Ok(Node::Call { operator, arguments, at: at.into() })
    }

    fn cond(&mut self, argument: &Value, at: &str, depth: usize) -> Result<Node> {
        let wanted = || fault(at, "$cond takes [if, then, else] or {\"if\": .., \"then\": .., \"else\": ..}");
        let [case, then, otherwise] = match argument {
            Value::Array(items) => <[&Value; 3]>::try_from(items.iter().collect::<Vec<_>>()).map_err(|_| wanted())?,
            Value::Object(fields) if fields.len() == 3 => {
                let field = |name| fields.get(name).ok_or_else(wanted);
                [field("if")?, field("then")?, field("else")?]
            }
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(wanted());
            }
        };
        let branch = (self.node(case, &join(at, "if"), depth + 1)?, self.node(then, &join(at, "then"), depth + 1)?);
        let otherwise = Some(Box::new(self.node(otherwise, &join(at, "else"), depth + 1)?));
        Ok(Node::Switch { branches: vec![branch], otherwise, at: at.into() })
    }

    fn switch(&mut self, argument: &Value, at: &str, depth: usize) -> Result<Node> {
        let wanted = || {
            let message = "$switch takes {\"branches\": [{\"case\": .., \"then\": ..}, ..], \"default\": ..}";
            fault(at, message)
        };
        let fields = argument.as_object().ok_or_else(wanted)?;
        let cases = fields.get("branches").and_then(Value::as_array).ok_or_else(wanted)?;
        if cases.is_empty() || fields.keys().any(|key| key != "branches" && key != "default") {
            return Err(wanted());
        }
        let mut branches = Vec::with_capacity(cases.len());
        for (index, case) in cases.iter().enumerate() {
            let (Some(when), Some(then), 2) =
                (case.get("case"), case.get("then"), case.as_object().map_or(0, Map::len))
            else {
                return Err(wanted());
            };
            let at = join(at, format!("branches.{index}"));
            let when = self.node(when, &join(&at, "case"), depth + 1)?;
            branches.push((when, self.node(then, &join(&at, "then"), depth + 1)?));
        }
        let otherwise = match fields.get("default") {
            None => None,
            Some(value) => Some(Box::new(self.node(value, &join(at, "default"), depth + 1)?)),
        };
        Ok(Node::Switch { branches, otherwise, at: at.into() })
    }
}

/// `"$a.b"`, `"$$ROOT"`.
fn variable(text: &str, at: &str) -> Result<Node> {
    let path = match text.strip_prefix("$$") {
        None => &text[1..],
        Some("REMOVE") => return Ok(Node::Nothing),
        Some("ROOT" | "CURRENT") => return Ok(Node::Field { names: Vec::new(), at: at.into() }),
        Some(variable) => match variable.strip_prefix("ROOT.").or_else(|| variable.strip_prefix("CURRENT.")) {
            Some(path) => path,
            None => {
                let message = format!("there is no variable $${variable:.64}; $$ROOT and $$REMOVE are known");
                return Err(fault(at, message));
            }
        },
    };
    let path: Path = path.parse().map_err(|error: Error| {
        let message = format!("{error}; a text that starts with $ and is no path is written {{\"$literal\": ..}}");
        fault(at, message)
    })?;
    Ok(Node::Field { names: path.parts().map(str::to_owned).collect(), at: at.into() })
}

fn constant(value: &Value) -> Node {
    Node::Constant(value.to_string().into_bytes().into())
}

/// Puts the value in the place of an expression that no document changes.
fn fold(node: Node, is_constant: bool) -> Result<Node> {
    if !is_constant {
        return Ok(node);
    }
    let value = evaluate::evaluate(&node, Row { id: None, body: Json::new(b"{}"), conflicts: 0 })?.unwrap_or_default();
    Ok(Node::Constant(value.into()))
}

impl Node {
    /// Levels of nesting that it may put around values of the document.
    pub(super) fn height(&self) -> usize {
        let highest = |nodes: &[Self]| nodes.iter().map(Self::height).max().unwrap_or(0);
        match self {
            Self::Constant(text) => levels(Json::new(text)),
            Self::Field { .. } | Self::Nothing => 0,
            Self::Object { fields, .. } => 1 + fields.iter().map(|(_, node)| node.height()).max().unwrap_or(0),
            Self::Array { items, .. } => 1 + highest(items),
            Self::Call { arguments, .. } => highest(arguments),
            Self::Switch { branches, otherwise, .. } => {
                let branches = branches.iter().map(|(_, then)| then.height()).max();
                branches.max(otherwise.as_ref().map(|node| node.height())).unwrap_or(0)
            }
        }
    }
}

/// Levels of nesting of a value.
fn levels(value: Json<'_>) -> usize {
    let deepest = value.items().chain(value.fields().map(|(_, field)| field)).map(levels).max();
    usize::from(matches!(value.kind(), Kind::Object | Kind::Array)) + deepest.unwrap_or(0)
}
