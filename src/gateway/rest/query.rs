//! Refuses parameters of the query that a call does not take: one that is misspelt would else do nothing, and nobody
//! would notice. What a call takes is what its description says.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{OpenApi, RefOr};

use super::super::problem::Problem;
use super::description::{methods, operations};
use crate::{Invalid, InvalidKind};

/// The parameters of each call, by its method and the pattern of its path.
#[derive(Debug, Clone)]
pub(super) struct Known(Arc<HashMap<(Method, String), Vec<String>>>);

impl Known {
    /// What a description says.
    pub(super) fn new(api: &mut OpenApi) -> Self {
        let mut known = HashMap::new();
        for (path, item) in &mut api.paths.paths {
            for (method, operation) in methods().zip(operations(item)) {
                let Some(operation) = operation else { continue };
                let names = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                    RefOr::T(of) if of.parameter_in == ParameterIn::Query => Some(of.name.clone()),
                    RefOr::T(_) | RefOr::Ref(_) => None,
                });
                known.insert((method, path.clone()), names.collect());
            }
        }
        Self(Arc::new(known))
    }
}

/// Refuses a request with a parameter that its call does not take.
pub(super) async fn check(State(known): State<Known>, request: Request, next: Next) -> Response {
    match unknown(&known, &request) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

fn unknown(known: &Known, request: &Request) -> Option<Problem> {
    request.uri().query().filter(|query| !query.is_empty())?;
    let pattern = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    // A method that the path does not take is answered as that.
    let taken = known.0.get(&(method.clone(), pattern.to_owned()))?;
    // Decoded as the extractors decode it; any text is a list of pairs to them.
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
    let (name, _) = pairs.into_iter().find(|(name, _)| !taken.contains(name))?;
    let shown: String = name.chars().take(40).collect();
    let takes = match taken.as_slice() {
        [] => "takes no parameters in its query".to_owned(),
        taken => format!("takes {}", taken.join(", ")),
    };
    let message = format!("unknown parameter {shown:?}: {method} {pattern} {takes}");
    Some(Invalid { message, field: Some(shown), position: None, kind: InvalidKind::Syntax }.into())
}
