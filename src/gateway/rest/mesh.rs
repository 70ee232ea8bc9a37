//! The mesh: `/mesh/invites`, `/mesh/join`, `/mesh/init`, `/mesh/leave` and `/mesh/peers`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::super::problem::{Answer, Problem};
use super::super::rfc3339::Rfc3339;
use super::super::{App, body, mesh_shape, shape};
use super::json;
use crate::peer::Invite;

/// Makes a ticket.
///
/// Whoever has it can join, until it is used up or expires. Before it is handed out, the ways through relays that it names
/// are tried as a newcomer would; that takes a few seconds at most.
#[utoipa::path(
    post, path = "/mesh/invites", tag = "mesh", operation_id = "invite",
    request_body(content = Option<shape::InviteBody>, description = "May be left out: a writer, once, within a week"),
    responses(
        (status = 201, description = "The ticket", body = shape::Invited),
        (status = 400, description = "The body is no JSON"),
        (status = 403, description = "This peer may not invite"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A field is unknown or breaks a rule"),
    ),
)]
pub(super) async fn invite(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let wanted: shape::InviteBody = body::arguments(&headers, body).await?;
    let role = wanted.role.parse().map_err(|error| Problem { field: Some("role".into()), ..Problem::from(error) })?;
    let invite = Invite { role, expires_in: Duration::from_secs(wanted.expires_in_s), uses: wanted.uses };
    let ticket = app.peer.mesh().invite(invite).await?;
    let invited = shape::Invited {
        ticket: ticket.to_string(),
        role: ticket.role().to_string(),
        uses: ticket.uses(),
        expires_at: Rfc3339(ticket.expires()),
        reach: app.peer.mesh().try_ticket(&ticket).await.into(),
    };
    Ok(json(StatusCode::CREATED, &invited))
}

/// Joins the mesh of a ticket.
///
/// Answers once a member of that mesh let this peer in. Nothing that is stored is deleted. A ticket of the mesh that this
/// peer is in already raises its role, when it is for a higher one.
#[utoipa::path(
    post, path = "/mesh/join", tag = "mesh", operation_id = "join",
    request_body(content = mesh_shape::JoinBody),
    responses(
        (status = 200, description = "It is joined", body = mesh_shape::Joined),
        (status = 400, description = "The body is no JSON, or the ticket is none"),
        (status = 403, description = "The ticket is used up, expired, or not good for this"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "This peer shares another mesh with others already, or has this role or a higher one"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A field is missing, unknown or breaks a rule"),
        (status = 502, description = "Nobody of that mesh could be reached; the detail says what was tried"),
    ),
)]
pub(super) async fn join(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let wanted: mesh_shape::JoinBody = body::arguments(&headers, body).await?;
    let joined = app.peer.mesh().join(&wanted.ticket, wanted.local_documents.into()).await;
    let joined = joined.map_err(Problem::of_join)?;
    Ok(json(StatusCode::OK, &mesh_shape::Joined::from(joined)))
}

/// Founds a mesh of this one peer and turns to it.
///
/// What the mesh before holds stays on the disk, invisible, and its other members go on. The answer waits until the
/// documents are carried over.
#[utoipa::path(
    post, path = "/mesh/init", tag = "mesh", operation_id = "initMesh",
    request_body(content = mesh_shape::InitBody),
    responses(
        (status = 201, description = "It is founded, and this peer its only member", body = mesh_shape::Founded),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "This peer is turning to another mesh already, or is the only admin of those who stay"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A field is missing, unknown or breaks a rule"),
    ),
)]
pub(super) async fn init(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let wanted: mesh_shape::InitBody = body::arguments(&headers, body).await?;
    let farewell = mesh_shape::farewell(wanted.without_admin);
    let founded = app.peer.mesh().init(&wanted.name, wanted.local_documents.into(), farewell).await?;
    Ok(json(StatusCode::CREATED, &mesh_shape::Founded::from(founded)))
}

/// Leaves the mesh that this peer shares with others, for one of its own.
///
/// That one has the name with which the peer is set up. The others go on; a ticket of theirs lets this peer come back.
/// What only this peer has is lost to them: ask `/sync/safe-to-leave` first.
#[utoipa::path(
    post, path = "/mesh/leave", tag = "mesh", operation_id = "leaveMesh",
    request_body(content = Option<mesh_shape::LeaveBody>, description = "May be left out: the documents are carried over"),
    responses(
        (status = 200, description = "It is left, and this peer the only member of its own mesh", body = mesh_shape::Founded),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "Nobody shares the mesh, this peer is its only admin, or is turning to another one already"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A field is unknown or breaks a rule"),
    ),
)]
pub(super) async fn leave(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let wanted: mesh_shape::LeaveBody = body::arguments(&headers, body).await?;
    let farewell = mesh_shape::farewell(wanted.without_admin);
    let founded = app.peer.mesh().leave(wanted.local_documents.into(), farewell).await?;
    Ok(json(StatusCode::OK, &mesh_shape::Founded::from(founded)))
}

/// The members of the mesh, in the order of their ids, and after them who was let in and is no member.
#[utoipa::path(
    get, path = "/mesh/peers", tag = "mesh", operation_id = "listMembers",
    responses((status = 200, description = "All of them, this peer included", body = shape::Members)),
)]
pub(super) async fn peers(State(app): State<App>) -> Answer {
    let members = app.peer.mesh().members().await?;
    Ok(json(StatusCode::OK, &shape::Members { peers: members.into_iter().map(shape::Member::from).collect() }))
}
