//! What holds for every call, added to the descriptions of the handlers: the answers of the guard, the shape of
//! problems, and the token.
//!
//! A handler describes the statuses of its own. It does not say that those from 400 up are problem documents, nor
//! that any request can be turned away at the door: that is said here, once.

use std::collections::BTreeSet;

use axum::http::Method;
use bytes::Bytes;
use utoipa::PartialSchema;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use super::super::guard;
use super::super::problem::Shape;
use super::strict;

const PROBLEM: &str = "Problem";
const PROBLEM_TYPE: &str = "application/problem+json";
const TOKEN: &str = "token";

/// Statuses of the guard, and what they mean. A handler's own words come first.
const AT_THE_DOOR: [(&str, &str); 3] = [
    ("400", "The path, the query or the Host header cannot be understood"),
    ("403", "Pages of this origin may not call"),
    ("421", "The peer does not answer under this name"),
];
const WITHOUT_TOKEN: (&str, &str) = ("401", "The peer wants a token, and this is none or a wrong one");
const UNDER_LOAD: [(&str, &str); 2] = [
    ("429", "The client sent too many requests, or too many wrong tokens"),
    ("503", "Too many requests at a time, or the peer is shutting down"),
];
const FAULT: (&str, &str) = ("5XX", "A fault in this peer, such as 507 for a full disk");

const TAGS: [(&str, &str); 7] = [
    (
        "documents",
        "JSON objects under ids. Reads are of this peer's replica; writes are answered when they are on its disk.",
    ),
    (
        "collections",
        "Sets of documents. A collection comes into being with its first document, or before it on demand.",
    ),
    (
        "queries",
        "Questions to this peer's replica in MongoDB's language, and the indexes of this peer that answer them sooner.",
    ),
    ("sync", "Who has what."),
    ("mesh", "The peers that share data."),
    ("status", "How this peer is."),
    ("description", "This interface."),
];

/// The finished description, as JSON text.
pub(super) fn complete(mut api: OpenApi) -> Bytes {
    let about = "Documents of one peer of a mesh, each of at most 1 MiB. Errors are problem documents (RFC 9457) that say \
                 what to do. Pages of other origins may call when api.rest_api.cors_enabled says so, those of \
                 api.rest_api.cors_origins or, when that is empty, those on this machine.";
    api.info = InfoBuilder::new()
        .title("aerolithsDB")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .license(Some(utoipa::openapi::LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    let tag = |(name, about): (&str, &str)| TagBuilder::new().name(name).description(Some(about)).build();
    api.tags = Some(TAGS.map(tag).to_vec());
    let mut shapes = Vec::new();
    <Shape<'_> as utoipa::ToSchema>::schemas(&mut shapes);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("What the peer's token file holds. A peer on loopback may do without."));
    let mut components = ComponentsBuilder::from(api.components.take().unwrap_or_default())
        .schema(PROBLEM, Shape::schema())
        .security_scheme(TOKEN, SecurityScheme::Http(bearer.build()))
        .build();
    components.schemas.extend(shapes);
    api.components = Some(components);
    let mut names = BTreeSet::new();
    for (path, item) in &mut api.paths.paths {
        for operation in operations(item).into_iter().flatten() {
            add_common(path, operation);
            name(operation, &mut names);
        }
    }
    let mut api = serde_json::to_value(&api).expect("a description has keys of text");
    strict::requests(&mut api);
    api.to_string().into()
}

/// The calls of a path, in the order of [`methods`].
pub(super) fn operations(item: &mut PathItem) -> [Option<&mut Operation>; 8] {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].map(Option::as_mut)
}

/// The methods that a path may have.
pub(super) fn methods() -> impl Iterator<Item = Method> {
    let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE];
    methods.into_iter().chain([Method::OPTIONS, Method::HEAD, Method::PATCH, Method::TRACE])
}

/// Adds what the guard may answer, and the problem to every answer that is one.
fn add_common(path: &str, operation: &mut Operation) {
    let mut common: Vec<(&str, &str)> = AT_THE_DOOR.to_vec();
    common.push(FAULT);
    if !guard::is_health(path) {
        common.extend(UNDER_LOAD);
    }
    if !guard::is_open(path) {
        common.push(WITHOUT_TOKEN);
        // The second one is none: a peer on loopback may do without.
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, [""; 0]), SecurityRequirement::default()]);
    }
    let responses = &mut operation.responses.responses;
    for (status, meaning) in common {
        let response = || RefOr::T(ResponseBuilder::new().description(meaning).build());
        responses.entry(status.into()).or_insert_with(response);
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            add_problem(status, response);
        }
    }
}

fn add_problem(status: &str, response: &mut Response) {
    let problem = || ContentBuilder::new().schema(Some(Ref::from_schema_name(PROBLEM))).build();
    if response.content.is_empty() {
        response.content.insert(PROBLEM_TYPE.into(), RefOr::T(problem()));
    }
    let mut header = |name: &str, kind, about: &str| {
        response.headers.insert(name.into(), RefOr::T(described(kind, about)));
    };
    match status {
        "401" => header("WWW-Authenticate", Type::String, "How to send the token"),
        "429" | "503" => header("Retry-After", Type::Integer, "Seconds after which to try again"),
        _ => {}
    }
}

fn described(kind: Type, about: &str) -> Header {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind).build())).description(Some(about)).build()
}

/// Operations that are served under two paths need two names.
fn name(operation: &mut Operation, names: &mut BTreeSet<String>) {
    let Some(id) = &mut operation.operation_id else { return };
    while !names.insert(id.clone()) {
        id.push_str("AtTop");
    }
}
