//! The commands' side: a log that another process holds.

use super::path::ShortFolder;
use super::wire;
use crate::connect::{
    Assignment, Broker, Commit, CommitError, Committed, Fetched, GroupDescription, GroupOffset, LogError, Position,
    TopicDescription, TopicPartition, TopicSpec,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A log that another process holds, through the socket in its folder. Each call has a connection of its own, so that
/// one that waits holds up no other.
pub struct Client {
    folder: PathBuf,
    pub(super) runtime: Runtime,
    host: bool,
}

/// How far a call got that has no answer.
pub(super) enum Failed {
    /// Nobody answers: nothing was sent.
    Unsent(String),
    /// Sent, and then the connection broke.
    Sent(String),
    /// The holder refused, with these bytes.
    Refused(StatusCode, Bytes),
}

impl Client {
    /// For the folder, where a host serves its socket.
    ///
    /// # Errors
    /// Where nobody does.
    pub fn connect(folder: &Path) -> io::Result<Client> {
        let mut client = Client {
            folder: folder.into(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            host: true,
        };
        client.host = client
            .read(Method::GET, "/v0/holder", Vec::new())
            .map_err(io::Error::other)?;
        Ok(client)
    }

    /// Whether it is a host that holds the folder, and not a command.
    pub fn is_host(&self) -> bool {
        self.host
    }

    pub(super) fn open(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(ShortFolder::new(&self.folder)?.socket())?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    pub(super) fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failed> {
        let stream = self.open().map_err(|error| Failed::Unsent(error.to_string()))?;
        let json = !path.ends_with("/commits") && !body.is_empty();
        let mut request = Request::builder().method(method).uri(path).header("host", "millstream");
        if json {
            request = request.header("content-type", "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failed::Unsent(error.to_string()))?;
        let sent = |error: hyper::Error| Failed::Sent(error.to_string());
        self.runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| Failed::Unsent(error.to_string()))?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.map_err(|error| Failed::Unsent(error.to_string()))?;
            let exchange = async move {
                let response = sender.send_request(request).await.map_err(sent)?;
                let status = response.status();
                let body = response.into_body().collect().await.map_err(sent)?.to_bytes();
                if status.is_success() {
                    Ok(body)
                } else {
                    Err(Failed::Refused(status, body))
                }
            };
            let (outcome, _) = tokio::join!(exchange, connection);
            outcome
        })
    }

    fn read<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, LogError> {
        self.call(method, path, body)
            .map_err(log_error)
            .and_then(|body| decode(&body))
    }

    fn change<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, CommitError> {
        let body = self.call(method, path, body).map_err(|failed| match failed {
            Failed::Unsent(detail) => CommitError::Unavailable { detail: gone(&detail) },
            Failed::Sent(detail) => CommitError::Unknown { detail },
            Failed::Refused(status, body) => serde_json::from_slice(&body).unwrap_or_else(|_| match status {
                StatusCode::PAYLOAD_TOO_LARGE => too_large().into(),
                _ => LogError::Holder {
                    detail: strange(status, &body),
                }
                .into(),
            }),
        })?;
        decode(&body).map_err(|error: LogError| CommitError::Unknown {
            detail: error.to_string(),
        })
    }
}

fn gone(detail: &str) -> String {
    format!("the process that held the data folder does not answer ({detail}); run the command again")
}

fn too_large() -> LogError {
    LogError::CommitTooLarge {
        bytes: crate::limits::CALLER_COMMIT_BYTES_MAX as u64 + 1,
        bytes_max: crate::limits::CALLER_COMMIT_BYTES_MAX as u64,
    }
}

pub(super) fn log_error(failed: Failed) -> LogError {
    match failed {
        Failed::Unsent(detail) => LogError::Unavailable { detail: gone(&detail) },
        Failed::Sent(detail) => LogError::Unavailable { detail },
        Failed::Refused(status, body) => serde_json::from_slice(&body).unwrap_or_else(|_| LogError::Holder {
            detail: strange(status, &body),
        }),
    }
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, LogError> {
    serde_json::from_slice(body).map_err(|error| LogError::Holder {
        detail: format!("an answer that is not understood ({error}): is it of another version?"),
    })
}

fn strange(status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    format!("{status}: {text}")
}

pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte as char),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn place(tp: &TopicPartition) -> String {
    format!("/v0/topics/{}/{}", segment(&tp.topic), tp.partition)
}

impl Broker for Arc<Client> {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError> {
        self.change(Method::POST, "/v0/topics", json(spec))
    }

    fn delete_topic(&self, name: &str) -> Result<(), CommitError> {
        self.change(Method::DELETE, &format!("/v0/topics/{}", segment(name)), Vec::new())
    }

    fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError> {
        self.change(Method::POST, "/v0/reset", json(&(topics, offsets)))
    }

    fn topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.read(Method::GET, "/v0/topics", Vec::new())
    }

    fn topic(&self, name: &str) -> Result<TopicDescription, LogError> {
        self.read(Method::GET, &format!("/v0/topics/{}", segment(name)), Vec::new())
    }

    fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        self.read(Method::POST, &format!("{}/offset", place(tp)), json(&position))
    }

    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize, wait: Duration) -> Result<Fetched, LogError> {
        let path = format!(
            "{}/records?from={from}&bytes={bytes_max}&wait_ms={}",
            place(tp),
            wait.as_millis()
        );
        let body = self.call(Method::GET, &path, Vec::new()).map_err(log_error)?;
        wire::decode_fetched(from, body).map_err(|detail| LogError::Holder { detail })
    }

    fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.change(Method::POST, "/v0/commits", wire::encode_commit(commit))
    }

    fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        self.read(Method::GET, "/v0/groups", Vec::new())
    }

    fn delete_group(&self, group: &str) -> Result<(), CommitError> {
        self.change(Method::DELETE, &format!("/v0/groups/{}", segment(group)), Vec::new())
    }

    fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError> {
        let path = format!(
            "/v0/groups/{}/offsets/{}/{}",
            segment(group),
            segment(&tp.topic),
            tp.partition
        );
        self.read(Method::GET, &path, Vec::new())
    }

    fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        self.read(
            Method::POST,
            &format!("/v0/groups/{}/members", segment(group)),
            json(&topics),
        )
    }

    fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        self.read(
            Method::POST,
            &format!("/v0/groups/{}/members/{}", segment(group), segment(member)),
            Vec::new(),
        )
    }

    fn leave(&self, group: &str, member: &str) -> Result<(), LogError> {
        self.read(
            Method::DELETE,
            &format!("/v0/groups/{}/members/{}", segment(group), segment(member)),
            Vec::new(),
        )
    }
}
