//! The command's side of the API.

use super::{Kind, PREFIX, Refusal};
use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, client::conn::http1::handshake, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{io, path::Path};
use tokio::net::UnixStream;

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no agent.
    #[error("no agent answers at {socket}: start one with `lb run`, or name its socket with `--socket`")]
    NoAgent {
        /// The socket.
        socket: String,
        /// What happened.
        source: io::Error,
    },
    /// The socket can't be opened.
    #[error("cannot open the agent's socket {socket}")]
    NoAccess {
        /// The socket.
        socket: String,
        /// What happened.
        source: io::Error,
    },
    /// The agent said no.
    #[error("{}", .0.error)]
    Refused(Refusal),
}

/// Asks for something.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    send(socket, Method::GET, path, Vec::new()).await
}

/// Has something done.
pub async fn post<T: DeserializeOwned>(socket: &Path, path: &str, body: &impl Serialize) -> Result<T> {
    send(socket, Method::POST, path, serde_json::to_vec(body)?).await
}

/// Has part of something changed.
pub async fn patch<T: DeserializeOwned>(socket: &Path, path: &str, body: &impl Serialize) -> Result<T> {
    send(socket, Method::PATCH, path, serde_json::to_vec(body)?).await
}

/// Has something taken away.
pub async fn delete<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    send(socket, Method::DELETE, path, Vec::new()).await
}

async fn send<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<T> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let socket = socket.display().to_string();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent { socket, source },
            _ => ClientError::NoAccess { socket, source },
        }
    })?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.context("cannot speak with the agent")?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("{PREFIX}{path}"))
        .header("host", "lb")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await.context("the agent did not answer")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("the agent's answer broke off")?.to_bytes();
    if !status.is_success() {
        let text = || format!("{status}: {}", String::from_utf8_lossy(&body));
        let refusal = serde_json::from_slice::<Refusal>(&body);
        bail!(ClientError::Refused(refusal.unwrap_or_else(|_| Refusal::new(Kind::Failed, text()))));
    }
    serde_json::from_slice(&body).map_err(|error| anyhow!("the agent's answer makes no sense: {error}"))
}
