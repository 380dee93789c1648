//! The holder's side: requests of other processes, done on the log.

use super::path::ShortFolder;
use super::wire;
use crate::connect::{CommitError, EmbeddedLog, Fetched, GroupOffset, LogError, Position, TopicPartition, TopicSpec};
use crate::limits::{CALLER_COMMIT_BYTES_MAX, SOCKET_FETCH_BYTES_MAX, SOCKET_THREADS_MAX, SOCKET_WAIT_TIME_MAX};
use crate::state::LocalState;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Why the socket of a folder cannot be served; the log itself is not concerned.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the socket in the data folder {} cannot be made: {source}", folder.display())]
#[diagnostic(help("other commands cannot use the folder while this one runs; a folder on a local disk takes sockets"))]
pub struct ServeError {
    /// The folder.
    pub folder: PathBuf,
    /// Of the system.
    pub source: io::Error,
}

/// Serves a log until it is dropped: then requests that are on their way get half a second.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

/// Serves a log on the socket of its folder, on a thread of its own.
///
/// # Errors
/// Where the socket cannot be made.
pub fn serve(log: Arc<EmbeddedLog>) -> Result<Server, ServeError> {
    serve_host(LocalState::beside(log), Arc::default())
}

/// The same with the local store that the host has opened or will open, and the names of its pipelines.
///
/// # Errors
/// Where the socket cannot be made.
pub fn serve_host(state: Arc<LocalState>, pipelines: Pipelines) -> Result<Server, ServeError> {
    serve_all(state, pipelines, true)
}

/// The same for a command that holds the folder for a while; it says so to those who ask.
///
/// # Errors
/// Where the socket cannot be made.
pub fn serve_command(state: Arc<LocalState>) -> Result<Server, ServeError> {
    serve_all(state, Arc::default(), false)
}

/// The names of the pipelines that run in a host.
pub type Pipelines = Arc<Mutex<Vec<String>>>;

fn serve_all(state: Arc<LocalState>, pipelines: Pipelines, host: bool) -> Result<Server, ServeError> {
    let folder = state.log().path().to_path_buf();
    serve_log(state, pipelines, host).map_err(|source| ServeError { folder, source })
}

fn serve_log(state: Arc<LocalState>, pipelines: Pipelines, host: bool) -> io::Result<Server> {
    let log = state.log().clone();
    let socket = log.path().join(crate::connect::embedded::SOCKET_NAME);
    let listener = listen(&log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(SOCKET_THREADS_MAX)
        .thread_name("log-socket")
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("log-socket".into()).spawn(move || {
        runtime.block_on(async move {
            let listener = match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the socket of the data folder is not served"),
            };
            let (ending, ended) = oneshot::channel();
            let stopped = async {
                let _ = stopped.await;
                // The socket has lost its name: who connected before is let in, nobody else comes.
                tokio::time::sleep(ACCEPT_TIME).await;
                let _ = ending.send(());
            };
            let serving = axum::serve(
                listener,
                router(log, host).merge(super::state::router(state, pipelines)),
            )
            .with_graceful_shutdown(stopped)
            .into_future();
            let over = async {
                let _ = ended.await;
                tokio::time::sleep(END_TIME_MAX).await;
            };
            tokio::select! {
                _ = serving => {}
                () = over => {}
            }
        });
        runtime.shutdown_timeout(Duration::from_millis(500));
    })?;
    Ok(Server {
        stop: Some(stop),
        thread: Some(thread),
        socket,
    })
}

/// The socket gets its name when only this user can open it; one that a dead host left is replaced with that.
fn listen(log: &EmbeddedLog) -> io::Result<UnixListener> {
    let folder = ShortFolder::new(log.path())?;
    let new = folder.new_socket();
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    std::fs::rename(&new, folder.socket())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Drop for Server {
    fn drop(&mut self) {
        // The folder is still held: nobody else's socket can have taken the name.
        let _ = std::fs::remove_file(&self.socket);
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Between the end of the socket's name and that of letting in.
const ACCEPT_TIME: Duration = Duration::from_millis(5);
/// For requests that are being done when the server ends.
const END_TIME_MAX: Duration = Duration::from_millis(500);

type Log = State<Arc<EmbeddedLog>>;

fn router(log: Arc<EmbeddedLog>, host: bool) -> Router {
    Router::new()
        .route("/v0/holder", get(move || async move { Json(host) }))
        .route("/v0/topics", get(topics).post(create_topic))
        .route("/v0/topics/{topic}", get(topic).delete(delete_topic))
        .route("/v0/topics/{topic}/{partition}/records", get(records))
        .route("/v0/topics/{topic}/{partition}/offset", post(offset_at))
        .route("/v0/commits", post(commit))
        .route("/v0/reset", post(reset))
        .route("/v0/groups", get(groups))
        .route("/v0/groups/{group}", axum::routing::delete(delete_group))
        .route("/v0/groups/{group}/offsets/{topic}/{partition}", get(committed))
        .route("/v0/groups/{group}/members", post(join))
        .route("/v0/groups/{group}/members/{member}", post(poll).delete(leave))
        // A little more than a commit: its head.
        .layer(DefaultBodyLimit::max(CALLER_COMMIT_BYTES_MAX + (8 << 20)))
        .with_state(log)
}

async fn topics(State(log): Log) -> Response {
    answer(log.topics())
}

async fn create_topic(State(log): Log, Json(spec): Json<TopicSpec>) -> Response {
    blocking(move || log.create_topic(&spec)).await
}

async fn topic(State(log): Log, Path(topic): Path<String>) -> Response {
    answer(log.topic(&topic))
}

async fn delete_topic(State(log): Log, Path(topic): Path<String>) -> Response {
    blocking(move || log.delete_topic(&topic)).await
}

#[derive(Deserialize)]
struct Ask {
    from: u64,
    bytes: usize,
    wait_ms: u64,
}

async fn records(State(log): Log, Path((topic, partition)): Path<(String, u32)>, Query(ask): Query<Ask>) -> Response {
    let tp = TopicPartition::new(topic, partition);
    let deadline = Instant::now() + Duration::from_millis(ask.wait_ms).min(SOCKET_WAIT_TIME_MAX);
    let grown = Arc::new(Notify::new());
    let notify = grown.clone();
    let _subscription = log.subscribe(&tp, Arc::new(move || notify.notify_one()));
    loop {
        let (from, bytes_max) = (ask.from, ask.bytes.min(SOCKET_FETCH_BYTES_MAX));
        let (log, tp) = (log.clone(), tp.clone());
        let fetched: Result<Fetched, LogError> =
            match tokio::task::spawn_blocking(move || log.fetch(&tp, from, bytes_max)).await {
                Ok(fetched) => fetched,
                Err(error) => return panicked(&error),
            };
        match fetched {
            Ok(fetched) if fetched.is_empty() => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || tokio::time::timeout(left, grown.notified()).await.is_err() {
                    return Vec::new().into_response();
                }
            }
            Ok(fetched) => return wire::encode_fetched(fetched).into_response(),
            Err(error) => return refuse(&error, status(&error)),
        }
    }
}

async fn offset_at(
    State(log): Log,
    Path((topic, partition)): Path<(String, u32)>,
    Json(position): Json<Position>,
) -> Response {
    let tp = TopicPartition::new(topic, partition);
    let found = tokio::task::spawn_blocking(move || log.offset_at(&tp, position)).await;
    found.map_or_else(|error| panicked(&error), answer)
}

async fn commit(State(log): Log, body: Bytes) -> Response {
    let commit = match wire::decode_commit(&body) {
        Ok(commit) => commit,
        Err(detail) => {
            let refusal = LogError::Holder { detail };
            return refuse(&CommitError::from(refusal), StatusCode::BAD_REQUEST);
        }
    };
    drop(body);
    blocking(move || log.commit(commit)).await
}

async fn reset(State(log): Log, Json((topics, offsets)): Json<(Vec<String>, Vec<GroupOffset>)>) -> Response {
    blocking(move || log.reset(topics, offsets)).await
}

async fn groups(State(log): Log) -> Response {
    answer(log.groups())
}

async fn delete_group(State(log): Log, Path(group): Path<String>) -> Response {
    blocking(move || log.delete_group(&group)).await
}

async fn committed(State(log): Log, Path((group, topic, partition)): Path<(String, String, u32)>) -> Response {
    answer(log.committed(&group, &TopicPartition::new(topic, partition)))
}

async fn join(State(log): Log, Path(group): Path<String>, Json(topics): Json<Vec<Arc<str>>>) -> Response {
    members(move || log.join(&group, &topics)).await
}

async fn poll(State(log): Log, Path((group, member)): Path<(String, String)>) -> Response {
    members(move || log.poll(&group, &member)).await
}

async fn leave(State(log): Log, Path((group, member)): Path<(String, String)>) -> Response {
    members(move || {
        log.leave(&group, &member);
        Ok(())
    })
    .await
}

/// Members may have to wait for a commit that is being written.
async fn members<T: Serialize + Send + 'static>(
    ask: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Response {
    tokio::task::spawn_blocking(ask)
        .await
        .map_or_else(|error| panicked(&error), answer)
}

async fn blocking<T: Serialize + Send + 'static>(
    change: impl FnOnce() -> Result<T, CommitError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(change).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(error)) => {
            let status = match &error {
                CommitError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
                CommitError::Refused { refusal } => status(refusal),
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            refuse(&error, status)
        }
        Err(error) => panicked(&error),
    }
}

fn answer<T: Serialize>(outcome: Result<T, LogError>) -> Response {
    match outcome {
        Ok(found) => Json(found).into_response(),
        Err(error) => refuse(&error, status(&error)),
    }
}

fn refuse(error: &impl Serialize, status: StatusCode) -> Response {
    (status, Json(error)).into_response()
}

pub(super) fn panicked(error: &tokio::task::JoinError) -> Response {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the request ended early: {error}"),
    )
        .into_response()
}

fn status(error: &LogError) -> StatusCode {
    match error {
        LogError::UnknownTopic { .. } | LogError::UnknownPartition { .. } => StatusCode::NOT_FOUND,
        LogError::UnknownGroup { .. } | LogError::UnknownMember { .. } => StatusCode::NOT_FOUND,
        LogError::TopicExists { .. } | LogError::GroupInUse { .. } | LogError::Fenced { .. } => StatusCode::CONFLICT,
        LogError::OffsetOutOfRange { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        LogError::CommitTooLarge { .. } | LogError::MetadataTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        LogError::Damaged { .. } | LogError::Foreign { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        LogError::Unavailable { .. } | LogError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        LogError::InvalidTopic { .. } | LogError::InvalidGroup { .. } | LogError::Holder { .. } => {
            StatusCode::BAD_REQUEST
        }
    }
}
