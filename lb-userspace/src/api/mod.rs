//! The agent's HTTP API on its Unix socket. Handlers translate a request to a command and its reply to a response.

pub mod client;
pub mod trial;

use crate::{
    model::{
        explain::{Ask, Explanation},
        intent::Service,
    },
    status::{AnswerDetail, AnswerList, Status, TopName},
};
use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use std::{fs, io, net::SocketAddr, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};
use trial::{AttachRequest, Attached, TrialStatus};

/// Where a command's reply goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the agent can be asked.
#[derive(Debug)]
pub enum Command {
    /// What is the state of everything?
    Status(Reply<Status>),
    /// Take a backend out of a service, or put it back.
    Drain {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Out, or back.
        drain: bool,
        /// After this its flows are given up; default what the config says.
        limit: Option<Duration>,
        /// Done.
        reply: Reply<()>,
    },
    /// What does the path do with a packet?
    Explain(Box<Ask>, Reply<Explanation>),
    /// Attach to all interfaces of the config, and see that frames pass.
    Attach(AttachRequest, Reply<Attached>),
    /// How is the trial going that attaching began?
    Trial(Reply<TrialStatus>),
    /// It works; says on how many interfaces.
    Confirm(Reply<usize>),
    /// Detach from all interfaces; says how many.
    Detach(Reply<usize>),
    /// Which answers does the kernel hold?
    CacheList(Reply<AnswerList>),
    /// What does it hold of a name?
    CacheShow {
        /// The name.
        name: String,
        /// What it holds.
        reply: Reply<Vec<AnswerDetail>>,
    },
    /// Have it hold nothing of a name, or have that written anew; says how many answers that were.
    CacheFlush {
        /// The name.
        name: String,
        /// Done.
        reply: Reply<usize>,
    },
    /// Which names is the kernel asked for most?
    Top(Reply<Vec<TopName>>),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence for the operator.
    pub error: String,
    /// Whether what was named does not exist.
    pub not_found: bool,
}

impl Refusal {
    /// Something failed.
    pub fn failed(error: &anyhow::Error) -> Self {
        Self { error: format!("{error:#}"), not_found: false }
    }

    /// There is no such service.
    pub fn no_service(name: &str, services: &[Service]) -> Self {
        let known: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        Self { error: format!("there is no service `{name}`; the config has: {}", known.join(", ")), not_found: true }
    }

    /// The service has no such backend.
    pub fn no_backend(service: &Service, address: SocketAddr) -> Self {
        let known =
            service.backends.iter().map(|backend| SocketAddr::new(backend.endpoint.ip(), backend.endpoint.port()));
        let known: Vec<_> = known.map(as_in_commands).collect();
        let (name, address) = (&service.name, as_in_commands(address));
        let error = format!("service `{name}` has no backend {address}; it has: {}", known.join(", "));
        Self { error, not_found: true }
    }
}

/// A backend's address as commands take it: without a port for one of a service on any port.
fn as_in_commands(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = if self.not_found { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        (status, Json(self)).into_response()
    }
}

/// Which backend to take out or put back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The service's name.
    pub service: String,
    /// The backend's address and port; port 0 for one of a service on any port.
    pub backend: SocketAddr,
    /// Out, or back.
    pub drain: bool,
    /// Seconds after which its flows are given up; default what the config says.
    #[serde(default)]
    pub seconds: Option<u32>,
}

/// Which name is meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRequest {
    /// The name.
    pub name: String,
}

/// How many interfaces a command was carried out on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Interfaces {
    /// The number.
    pub interfaces: usize,
}

/// Opens the socket, for the owner and the group alone.
pub async fn bind(path: &Path) -> Result<UnixListener> {
    let place = || format!("cannot open the agent's socket {}", path.display());
    if UnixStream::connect(path).await.is_ok() {
        bail!(
            "another agent answers at {}: stop it, or give this one another `socket` and other `pins`",
            path.display()
        );
    }
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(place);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(place)?;
    }
    let before = umask(Mode::from_bits_truncate(0o117));
    let listener = UnixListener::bind(path).with_context(place);
    umask(before);
    listener
}

/// Removes the socket of an agent that stops.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(socket = %path.display(), %error, "the socket is left behind");
    }
}

/// Answers requests until the agent stops.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/drain", post(drain))
        .route("/explain", post(explain))
        .route("/attach", get(trial).post(attach))
        .route("/attach/confirm", post(confirm))
        .route("/detach", post(detach))
        .route("/dns/cache", get(cache_list))
        .route("/dns/cache/show", post(cache_show))
        .route("/dns/cache/flush", post(cache_flush))
        .route("/dns/top", get(top))
        .with_state(commands);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the API stopped");
    }
}

type Commands = State<mpsc::Sender<Command>>;

async fn status(commands: Commands) -> Result<Json<Status>, Refusal> {
    ask(commands, Command::Status).await.map(Json)
}

async fn drain(commands: Commands, Json(request): Json<DrainRequest>) -> Result<Json<()>, Refusal> {
    let DrainRequest { service, backend, drain, seconds } = request;
    let limit = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    ask(commands, |reply| Command::Drain { service, backend, drain, limit, reply }).await.map(Json)
}

async fn explain(commands: Commands, Json(ask): Json<Ask>) -> Result<Json<Explanation>, Refusal> {
    self::ask(commands, |reply| Command::Explain(ask.into(), reply)).await.map(Json)
}

async fn attach(commands: Commands, Json(request): Json<AttachRequest>) -> Result<Json<Attached>, Refusal> {
    ask(commands, |reply| Command::Attach(request, reply)).await.map(Json)
}

async fn trial(commands: Commands) -> Result<Json<TrialStatus>, Refusal> {
    ask(commands, Command::Trial).await.map(Json)
}

async fn confirm(commands: Commands) -> Result<Json<Interfaces>, Refusal> {
    ask(commands, Command::Confirm).await.map(|interfaces| Json(Interfaces { interfaces }))
}

async fn detach(commands: Commands) -> Result<Json<Interfaces>, Refusal> {
    ask(commands, Command::Detach).await.map(|interfaces| Json(Interfaces { interfaces }))
}

async fn cache_list(commands: Commands) -> Result<Json<AnswerList>, Refusal> {
    ask(commands, Command::CacheList).await.map(Json)
}

async fn cache_show(commands: Commands, Json(request): Json<NameRequest>) -> Result<Json<Vec<AnswerDetail>>, Refusal> {
    ask(commands, |reply| Command::CacheShow { name: request.name, reply }).await.map(Json)
}

async fn cache_flush(commands: Commands, Json(request): Json<NameRequest>) -> Result<Json<usize>, Refusal> {
    ask(commands, |reply| Command::CacheFlush { name: request.name, reply }).await.map(Json)
}

async fn top(commands: Commands) -> Result<Json<Vec<TopName>>, Refusal> {
    ask(commands, Command::Top).await.map(Json)
}

async fn ask<T>(State(commands): Commands, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
    let stopping = || Refusal { error: "the agent is stopping".into(), not_found: false };
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}
