//! Stores of the folder through its socket, both sides: rows go as they are read, and whoever takes his time with them
//! holds up nobody.

use super::client::{Client, Failed, json, segment};
use super::server::{Pipelines, panicked};
use crate::limits::{STORE_PIECE_BYTES_MAX, STORE_READ_TIME_MAX};
use crate::state::{FoundRow, LocalState, QueryError, RowQuery, StateAccess, StoreSize};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// No partition has this number: what follows is no row.
const END: u32 = u32::MAX;
/// All rows were sent.
const DONE: &str = "";
/// It took too long: the rest is to be asked for anew.
const CUT: &str = "cut";
/// Pieces that wait for the reader.
const PIECES_MAX: usize = 2;

#[derive(Clone)]
struct Served {
    state: Arc<LocalState>,
    pipelines: Pipelines,
}

pub(super) fn router(state: Arc<LocalState>, pipelines: Pipelines) -> Router {
    Router::new()
        .route("/v0/pipelines", get(running))
        .route("/v0/stores/{changelog}", get(size).delete(drop_store))
        .route("/v0/stores/{changelog}/rows", post(rows))
        .with_state(Served { state, pipelines })
}

async fn running(State(served): State<Served>) -> Json<Vec<String>> {
    Json(served.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn size(State(served): State<Served>, Path(changelog): Path<String>) -> Response {
    blocking(move || served.state.size(&changelog)).await
}

async fn drop_store(State(served): State<Served>, Path(changelog): Path<String>) -> Response {
    blocking(move || StateAccess::drop_store(&*served.state, &changelog)).await
}

async fn rows(State(served): State<Served>, Json(query): Json<RowQuery>) -> Response {
    let (send, pieces) = channel(PIECES_MAX);
    // It ends when the reader goes, or takes too long.
    tokio::task::spawn_blocking(move || send_rows(&served.state, &query, send));
    Body::new(Pieces(pieces)).into_response()
}

async fn blocking<T: Serialize + Send + 'static>(
    ask: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(ask).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => panicked(&error),
    }
}

/// Reads rows and hands them over in pieces. A snapshot keeps what is dropped meanwhile on the disk, so nobody has it for
/// long: after a while the answer is cut, and the reader asks for the rest.
fn send_rows(state: &LocalState, query: &RowQuery, pieces: Sender<Bytes>) {
    let deadline = Instant::now()
        + if cfg!(test) {
            Duration::ZERO
        } else {
            STORE_READ_TIME_MAX
        };
    let mut piece = BytesMut::new();
    let mut gone = false;
    let mut cut = false;
    let outcome = state.rows(query, &mut |row| {
        write_row(&mut piece, row);
        if piece.len() >= STORE_PIECE_BYTES_MAX {
            (gone, cut) = send(&pieces, piece.split().freeze(), deadline);
        }
        !gone && !cut
    });
    if gone {
        return;
    }
    let why = match outcome {
        Ok(()) if cut => CUT.to_owned(),
        Ok(()) => DONE.to_owned(),
        Err(error) => error.to_string(),
    };
    piece.extend_from_slice(&END.to_le_bytes());
    piece.extend_from_slice(&(why.len() as u32).to_le_bytes());
    piece.extend_from_slice(why.as_bytes());
    // The snapshot is given back, and this thread: the reader may take its time.
    tokio::runtime::Handle::current().spawn(async move { pieces.send(piece.freeze()).await });
}

/// Hands a piece over. Whether the reader has gone, and whether it is late.
fn send(pieces: &Sender<Bytes>, piece: Bytes, deadline: Instant) -> (bool, bool) {
    let runtime = tokio::runtime::Handle::current();
    let sending = tokio::time::timeout_at(deadline.into(), pieces.reserve());
    match runtime.block_on(sending) {
        Ok(Ok(place)) => {
            place.send(piece);
            (false, Instant::now() >= deadline)
        }
        Ok(Err(_)) => (true, false),
        // The rows of this piece are asked for again.
        Err(_) => (false, true),
    }
}

fn write_row(out: &mut BytesMut, row: FoundRow<'_>) {
    out.reserve(12 + row.key.len() + row.row.len());
    for number in [row.partition, row.key.len() as u32, row.row.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(row.key);
    out.extend_from_slice(row.row);
}

/// The body of an answer, in pieces that are still being made.
struct Pieces(Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl StateAccess for Client {
    fn rows(&self, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<(), QueryError> {
        let mut query = query.clone();
        loop {
            let mut last = None;
            let mut shown = |row: FoundRow<'_>| {
                last = Some((row.key.to_vec(), row.partition));
                visit(row)
            };
            if !self.some_rows(&query, &mut shown)? {
                return Ok(());
            }
            query.after = last.or(query.after);
        }
    }

    fn size(&self, changelog: &str) -> Result<StoreSize, QueryError> {
        self.ask(Method::GET, &store(changelog))
    }

    fn drop_store(&self, changelog: &str) -> Result<(), QueryError> {
        self.ask(Method::DELETE, &store(changelog))
    }

    fn running(&self) -> Result<Vec<String>, QueryError> {
        self.ask(Method::GET, "/v0/pipelines")
    }
}

fn store(changelog: &str) -> String {
    format!("/v0/stores/{}", segment(changelog))
}

fn holder(detail: String) -> QueryError {
    QueryError::Holder { detail }
}

impl Client {
    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, QueryError> {
        match self.call(method, path, Vec::new()) {
            Ok(body) => Ok(super::client::decode(&body)?),
            Err(Failed::Refused(_, body)) => Err(holder(String::from_utf8_lossy(&body).into_owned())),
            Err(failed) => Err(super::client::log_error(failed).into()),
        }
    }

    /// Shows rows until the answer ends. Whether it was cut.
    fn some_rows(&self, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<bool, QueryError> {
        let broken = |error: &dyn std::fmt::Display| holder(format!("the answer broke off: {error}"));
        let request = Request::post(format!("{}/rows", store(&query.changelog)))
            .header("host", "millstream")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(json(query))))
            .map_err(|error| broken(&error))?;
        let stream = self.open().map_err(|error| broken(&error))?;
        self.runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| broken(&error))?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let mut body = response.into_body();
            let outcome = if status.is_success() {
                read_rows(&mut body, visit).await
            } else {
                let text = body.collect().await.map_err(|error| broken(&error))?.to_bytes();
                Err(holder(format!("{status}: {}", String::from_utf8_lossy(&text))))
            };
            connection.abort();
            outcome
        })
    }
}

/// Takes an answer apart as it comes. Whether it was cut.
async fn read_rows(body: &mut Incoming, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<bool, QueryError> {
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| holder(format!("the answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            rest.extend_from_slice(&data);
        }
        loop {
            let number = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
            let (Some(partition), Some(first)) = (number(0), number(4)) else {
                break;
            };
            if partition == END {
                let Some(why) = rest.get(8..8 + first as usize) else {
                    break;
                };
                return match std::str::from_utf8(why).unwrap_or("an answer that is not understood") {
                    DONE => Ok(false),
                    CUT => Ok(true),
                    why => Err(holder(why.to_owned())),
                };
            }
            let Some(second) = number(8) else { break };
            let (key_end, end) = (12 + first as usize, 12 + first as usize + second as usize);
            let (Some(key), Some(row)) = (rest.get(12..key_end), rest.get(key_end..end)) else {
                break;
            };
            if !visit(FoundRow { partition, key, row }) {
                return Ok(false);
            }
            rest.advance(end);
        }
    }
    Err(holder(
        "the answer broke off: the process that holds the data folder has ended".into(),
    ))
}
