//! How the peer is: `/health`, `/stats`, `/metrics`, `/nodes/status` and `/sync`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::super::memory_shape::InMemory;
use super::super::problem::{Answer, Problem};
use super::super::reach_shape::{Diagnosis, RunsTwice};
use super::super::sync_shape::{Leave, Sync, Why};
use super::super::{App, metrics, shape};
use super::parameter::{DocumentPath, Others};
use super::{Path, Query, blocking, json};
use crate::Error;
use crate::base::DocumentKey;
use crate::limits::METRICS_COLLECTIONS_MAX;

/// That the process is alive and answers.
#[utoipa::path(
    get, path = "/health", tag = "status", operation_id = "health",
    responses((status = 200, description = "It is", body = shape::Health)),
)]
pub(super) async fn health() -> Answer {
    Ok(json(StatusCode::OK, &shape::Health { status: "ok" }))
}

/// That the peer takes reads and writes; 503 with reasons when it does not.
#[utoipa::path(
    get, path = "/health/ready", tag = "status", operation_id = "ready",
    responses(
        (status = 200, description = "It does", body = shape::Health),
        (status = 503, description = "It does not; the reasons say why"),
    ),
)]
pub(super) async fn ready(State(app): State<App>) -> Answer {
    let (reason, detail) = if app.is_stopping() {
        ("shutting_down", "the peer is shutting down".into())
    } else if let Some((done, pages)) = app.peer.storage_condition().mending {
        let detail = format!(
            "the table is damaged and is being built anew: {done} of {pages} pages are done; what is not damaged can be \
             read, writes are refused"
        );
        ("storage_damaged", detail)
    } else if let Err(error) = app.peer.check_writable() {
        ("storage_refuses_writes", format!("reads go on, writes are refused: {error}"))
    } else if let Some(detail) = fetching(&app).await {
        ("storage_healing", detail)
    } else {
        return Ok(json(StatusCode::OK, &shape::Health { status: "ready" }));
    };
    Err(Problem { reasons: vec![reason], ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail) })
}

/// What is being fetched that the disk lost. A peer that is too busy to say has nothing to say.
async fn fetching(app: &App) -> Option<String> {
    let disk = app.peer.mesh().status().await.ok()?.disk;
    let damaged = disk.damaged;
    disk.fetching.then(|| format!("what the disk lost is being fetched; {damaged} documents are known to be missing"))
}

/// Counters.
#[utoipa::path(
    get, path = "/stats", tag = "status", operation_id = "stats",
    responses((status = 200, description = "Counts, sizes and latencies", body = shape::Stats)),
)]
pub(super) async fn stats(State(app): State<App>) -> Answer {
    let stats = app.peer.stats().await?;
    let counters = &stats.peer.counters;
    let shape = shape::Stats {
        documents: stats.peer.documents,
        collections: stats.peer.collections,
        changes: shape::Changes {
            stored: stats.peer.stored,
            written: counters.written,
            received: counters.applied,
            known_already: counters.known.all(),
            dropped: counters.dropped.values().sum(),
        },
        disk_bytes: stats.disk_bytes,
        memory: InMemory::new(&stats),
        caches: shape::Caches { table: stats.table_cache.into(), open_documents: stats.peer.open_documents.into() },
        operations: shape::Operations {
            reads: stats.reads.into(),
            writes: stats.writes.into(),
            queries: stats.queries.into(),
        },
        peers: shape::Peers { members: stats.peer.members, connected: stats.peer.neighbours.len() },
        traffic: shape::Traffic { sent_bytes: stats.traffic.sent_bytes, received_bytes: stats.traffic.received_bytes },
        dead_letters: stats.peer.letters,
        uptime_s: app.peer.uptime().as_secs(),
    };
    Ok(json(StatusCode::OK, &shape))
}

/// Counters in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "status", operation_id = "metrics",
    responses((status = 200, description = "Version 0.0.4 of the format", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(app): State<App>) -> Answer {
    let stats = app.peer.stats().await?;
    let (peer, uptime) = (app.peer.clone(), app.peer.uptime());
    let largest = blocking(move || peer.largest_collections(METRICS_COLLECTIONS_MAX)).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&stats, &largest, uptime)).into_response())
}

/// This peer and its neighbours.
#[utoipa::path(
    get, path = "/nodes/status", tag = "status", operation_id = "nodeStatus",
    responses((status = 200, description = "Who it is, where it listens, whom it is connected to", body = shape::NodeStatus)),
)]
pub(super) async fn node(State(app): State<App>) -> Answer {
    let mesh = app.peer.mesh();
    let report = mesh.status().await?;
    let reach = mesh.reach();
    let shape = shape::NodeStatus {
        peer_id: report.peer.to_string(),
        node_id: app.peer.node_id().into(),
        mesh: report.mesh.to_string(),
        mesh_name: report.mesh_name,
        role: shape::role(report.role),
        members: report.members,
        overused: report.overused.into_iter().map(shape::Overused::from).collect(),
        runs_twice: RunsTwice::all(report.peer, report.twice, report.restless),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.peer.uptime().as_secs(),
        listen: mesh.listen_addresses(),
        reachability: reach.reachability.as_str(),
        external: mesh.external_addresses(),
        reach: reach.into(),
        peers: report.neighbours.into_iter().map(shape::Neighbour::from).collect(),
        clock: report.clock.into(),
    };
    Ok(json(StatusCode::OK, &shape))
}

/// What is wrong with this peer's network.
#[utoipa::path(
    get, path = "/nodes/doctor", tag = "status", operation_id = "nodeDoctor",
    responses((status = 200, description = "What was looked at, how it is, and what to do", body = Diagnosis)),
)]
pub(super) async fn doctor(State(app): State<App>) -> Answer {
    Ok(json(StatusCode::OK, &Diagnosis::from(app.peer.mesh().diagnose().await?)))
}

/// Who is in sync.
#[utoipa::path(
    get, path = "/sync", tag = "sync", operation_id = "syncStatus",
    responses((status = 200, description = "Each collection with each peer, and what is in the way", body = Sync)),
)]
pub(super) async fn sync(State(app): State<App>) -> Answer {
    Ok(json(StatusCode::OK, &Sync::new(app.peer.mesh().sync().await?)))
}

/// How one document stands.
#[utoipa::path(
    get, path = "/sync/why/{collection}/{id}", tag = "sync", operation_id = "whyOutOfSync",
    params(DocumentPath),
    responses(
        (status = 200, description = "Its version, what it waits for, and who has it", body = Why),
        (status = 404, description = "Nothing is known of such a document"),
        (status = 422, description = "A name or an id breaks a rule"),
    ),
)]
pub(super) async fn why(State(app): State<App>, Path(at): Path<DocumentPath>) -> Answer {
    let collection = at.collection.parse().map_err(Error::from)?;
    let key = DocumentKey::new(collection, at.id.parse().map_err(Error::from)?);
    Ok(json(StatusCode::OK, &Why::new(&app.peer.mesh().why(key).await?)))
}

/// Whether other peers have everything that is here.
#[utoipa::path(
    get, path = "/sync/safe-to-leave", tag = "sync", operation_id = "safeToLeave",
    params(Others),
    responses(
        (status = 200, description = "Whether they have, and who has", body = Leave),
        (status = 422, description = "A parameter is beyond its bound"),
    ),
)]
pub(super) async fn safe_to_leave(State(app): State<App>, Query(others): Query<Others>) -> Answer {
    let concern = others.concern();
    let (safe, peers) = app.peer.mesh().safe_to_leave(concern).await?;
    Ok(json(StatusCode::OK, &Leave::new(concern.peers, safe, &peers)))
}
