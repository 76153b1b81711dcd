//! The command's side of the API.

use super::{Kind, PREFIX, Refusal};
use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    header::CONTENT_TYPE,
};
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

/// Asks for what goes on: an answer in lines, each when it is there.
pub async fn stream(socket: &Path, path: &str, body: &impl Serialize) -> Result<Lines> {
    let response = exchange(socket, Method::POST, path, serde_json::to_vec(body)?).await?;
    if !response.status().is_success() {
        bail!(refused(response).await?);
    }
    Ok(Lines { body: response.into_body(), begun: Vec::new() })
}

/// An answer in lines.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    /// What has come of lines that were not given out.
    begun: Vec<u8>,
}

impl Lines {
    /// The next line, when it comes; none at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return read(&line).map(Some);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.context("the agent's answer broke off")?;
            self.begun.extend(frame.into_data().unwrap_or_default());
        }
    }
}

async fn send<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<T> {
    let response = exchange(socket, method, path, body).await?;
    if !response.status().is_success() {
        bail!(refused(response).await?);
    }
    read(&collect(response).await?)
}

async fn refused(response: Response<Incoming>) -> Result<ClientError> {
    let status = response.status();
    let body = collect(response).await?;
    let text = || format!("{status}: {}", String::from_utf8_lossy(&body));
    let refusal = serde_json::from_slice::<Refusal>(&body);
    Ok(ClientError::Refused(refusal.unwrap_or_else(|_| Refusal::new(Kind::Failed, text()))))
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response.into_body().collect().await.context("the agent's answer broke off")?.to_bytes())
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| anyhow!("the agent's answer makes no sense: {error}"))
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>> {
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
    sender.send_request(request).await.context("the agent did not answer")
}
