//! The mesh: `/mesh/invites`, `/mesh/join` and `/mesh/peers`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::super::problem::{Answer, Problem};
use super::super::rfc3339::Rfc3339;
use super::super::{App, body, shape};
use super::json;
use crate::peer::Invite;

/// Makes a ticket.
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
    };
    Ok(json(StatusCode::CREATED, &invited))
}

/// Joins the mesh of a ticket.
pub(super) async fn join(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let wanted: shape::JoinBody = body::arguments(&headers, body).await?;
    let joined = app.peer.mesh().join(&wanted.ticket, wanted.local_documents.into()).await;
    let joined = joined.map_err(Problem::of_join)?;
    Ok(json(StatusCode::OK, &shape::Joined::new(&joined.mesh, &joined.by, joined.carried)))
}

/// The members of the mesh, in the order of their ids.
pub(super) async fn peers(State(app): State<App>) -> Answer {
    let members = app.peer.mesh().members().await?;
    Ok(json(StatusCode::OK, &shape::Members { peers: members.into_iter().map(shape::Member::from).collect() }))
}
