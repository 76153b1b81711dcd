//! The resources, each with the command that it becomes.

use super::{
    BackendChange, ChangeList, Command, ConfigText, Diff, Done, Export, HealthQuery, Interfaces, Kind, NameRequest,
    Refusal, Reply,
    trial::{AttachRequest, Attached, TrialStatus},
};
use crate::{
    changes::edit::{BackendState, Edit, Written, as_in_commands},
    model::{
        explain::{Ask, Explanation},
        trace::TraceRequest,
    },
    status::{AnswerDetail, AnswerList, BackendStatus, HealthReport, ServiceStatus, Status, TopName},
};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{FromRequest, Path, Query, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::{MethodRouter, delete, get, post},
};
use futures_util::stream::unfold;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};
use tokio::sync::{mpsc, oneshot};

/// What every resource's path begins with. What is below keeps its meaning; another meaning gets another number.
pub const PREFIX: &str = "/v1";
/// A service with thousands of backends fits.
const MOST_BYTES: usize = 1 << 20;
/// A config with a million backends fits.
const MOST_CONFIG_BYTES: usize = 256 << 20;

type Sender = mpsc::Sender<Command>;
type Commands = State<Sender>;
type Answer<T> = Result<Json<T>, Refusal>;
type Created<T> = Result<(StatusCode, Json<T>), Refusal>;

/// Every resource with its methods: what the router is made of, and what the description is held against.
pub fn resources() -> Vec<(&'static str, &'static [&'static str], MethodRouter<Sender>)> {
    vec![
        ("/status", &["get"], get(status)),
        ("/health", &["get"], get(health)),
        ("/services", &["get", "post"], get(services).post(add_service)),
        ("/services/{service}", &["get", "delete"], get(service).delete(remove_service)),
        ("/services/{service}/backends", &["get", "post"], get(backends).post(add_backend)),
        (
            "/services/{service}/backends/{backend}",
            &["get", "patch", "delete"],
            get(backend).patch(change_backend).delete(remove_backend),
        ),
        ("/vips/{address}/claim", &["post"], post(claim)),
        ("/vips/{address}/release", &["post"], post(release)),
        ("/changes", &["get", "delete"], get(changes).delete(clear_changes)),
        ("/changes/{id}", &["delete"], delete(drop_change)),
        ("/config", &["get"], get(export)),
        ("/config/diff", &["post"], post(diff)),
        ("/config/apply", &["post"], post(apply)),
        ("/explain", &["post"], post(explain)),
        ("/trace", &["post"], post(trace)),
        ("/attach", &["get", "post"], get(trial).post(attach)),
        ("/attach/confirm", &["post"], post(confirm)),
        ("/detach", &["post"], post(detach)),
        ("/dns/cache", &["get"], get(cache_list)),
        ("/dns/cache/show", &["post"], post(cache_show)),
        ("/dns/cache/flush", &["post"], post(cache_flush)),
        ("/dns/top", &["get"], get(top)),
        ("/openapi.json", &["get"], get(openapi)),
    ]
}

/// All of it.
pub fn router(commands: Sender) -> Router {
    let mut router = Router::new();
    for (path, _, methods) in resources() {
        router = router.route(&format!("{PREFIX}{path}"), methods);
    }
    // Where Prometheus looks for it.
    router = router.route("/metrics", get(metrics));
    router.fallback(no_resource).method_not_allowed_fallback(no_method).with_state(commands)
}

async fn no_resource(request: Request) -> Refusal {
    let error = format!(
        "there is no resource {}; `{PREFIX}/openapi.json` describes those that there are",
        request.uri().path()
    );
    Refusal::not_found(error)
}

async fn no_method(request: Request) -> Refusal {
    let error = format!("{} is no method of {}", request.method(), request.uri().path());
    Refusal::new(Kind::MethodNotAllowed, error)
}

/// A request's body in JSON.
struct Read<T>(T);

impl<T: DeserializeOwned> FromRequest<Sender> for Read<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Sender) -> Result<Self, Refusal> {
        read(request.into_body(), MOST_BYTES).await.map(Self)
    }
}

/// The same for a whole config.
struct ReadConfig(ConfigText);

impl FromRequest<Sender> for ReadConfig {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Sender) -> Result<Self, Refusal> {
        read(request.into_body(), MOST_CONFIG_BYTES).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(body: Body, most: usize) -> Result<T, Refusal> {
    // What is longer, and what breaks off, is an error of the same kind; the first is by far the more likely.
    let bytes = to_bytes(body, most)
        .await
        .map_err(|_| Refusal::new(Kind::TooLarge, format!("the request has more than {most} bytes, or broke off")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Kind::BadRequest, format!("the request can't be read: {error}")))
}

async fn status(commands: Commands) -> Answer<Status> {
    ask(commands, Command::Status).await.map(Json)
}

async fn health(commands: Commands, Query(wanted): Query<HealthQuery>) -> Answer<HealthReport> {
    ask(commands, |reply| Command::Health { of: wanted.of, reply }).await.map(Json)
}

async fn services(commands: Commands) -> Answer<Vec<ServiceStatus>> {
    Ok(Json(ask(commands, Command::Status).await?.services))
}

async fn service(commands: Commands, Path(name): Path<String>) -> Answer<ServiceStatus> {
    service_named(commands, &name).await.map(Json)
}

async fn service_named(commands: Commands, name: &str) -> Result<ServiceStatus, Refusal> {
    ask(commands, |reply| Command::Service { name: name.into(), reply }).await
}

async fn add_service(commands: Commands, Read(service): Read<Written>) -> Created<Done> {
    created(change(commands, Edit::AddService { service }).await)
}

async fn remove_service(commands: Commands, Path(service): Path<String>) -> Answer<Done> {
    change(commands, Edit::RemoveService { service }).await.map(Json)
}

async fn backends(commands: Commands, Path(service): Path<String>) -> Answer<Vec<BackendStatus>> {
    Ok(Json(service_named(commands, &service).await?.backends))
}

async fn add_backend(commands: Commands, Path(service): Path<String>, Read(backend): Read<Written>) -> Created<Done> {
    created(change(commands, Edit::AddBackend { service, backend }).await)
}

async fn backend(commands: Commands, Path((service, backend)): Path<(String, String)>) -> Answer<BackendStatus> {
    let address = backend_address(&backend)?;
    let backends = service_named(commands, &service).await?.backends;
    let known: Vec<_> = backends.iter().map(|backend| as_in_commands(backend.address)).collect();
    let found = backends.into_iter().find(|backend| backend.address == address);
    found.map(Json).ok_or_else(|| {
        Refusal::not_found(format!("service `{service}` has no backend {backend}; it has: {}", known.join(", ")))
    })
}

async fn change_backend(
    commands: Commands,
    Path((service, backend)): Path<(String, String)>,
    Read(BackendChange { weight, state, drain_seconds }): Read<BackendChange>,
) -> Answer<Done> {
    let backend = backend_address(&backend)?;
    let edit = match (weight, state, drain_seconds) {
        (Some(weight), None, None) => Edit::SetWeight { service, backend, weight },
        (None, Some(BackendState::Drain), drain_seconds) => {
            Edit::SetState { service, backend, state: BackendState::Drain, drain_seconds }
        }
        (None, Some(state), None) => Edit::SetState { service, backend, state, drain_seconds: None },
        _ => {
            let error =
                "the request can't be read: write either `weight`, or `state` (`drain_seconds` beside it with `drain`)";
            return Err(Refusal::new(Kind::BadRequest, error));
        }
    };
    change(commands, edit).await.map(Json)
}

async fn remove_backend(commands: Commands, Path((service, backend)): Path<(String, String)>) -> Answer<Done> {
    let backend = backend_address(&backend)?;
    change(commands, Edit::RemoveBackend { service, backend }).await.map(Json)
}

async fn claim(commands: Commands, Path(address): Path<String>) -> Answer<Done> {
    change(commands, Edit::SetClaim { address: ip(&address)?, claim: true }).await.map(Json)
}

async fn release(commands: Commands, Path(address): Path<String>) -> Answer<Done> {
    change(commands, Edit::SetClaim { address: ip(&address)?, claim: false }).await.map(Json)
}

async fn changes(commands: Commands) -> Answer<ChangeList> {
    ask(commands, Command::Changes).await.map(Json)
}

async fn clear_changes(commands: Commands) -> Answer<Done> {
    ask(commands, |reply| Command::DropChanges(None, reply)).await.map(Json)
}

async fn drop_change(commands: Commands, Path(id): Path<String>) -> Answer<Done> {
    let number =
        id.parse().map_err(|_| Refusal::new(Kind::BadRequest, format!("`{id}` is not the number of a change")))?;
    ask(commands, |reply| Command::DropChanges(Some(number), reply)).await.map(Json)
}

/// What is wanted of the config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    #[serde(default)]
    with_secret: bool,
}

async fn export(
    commands: Commands,
    query: Result<Query<ExportQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Export> {
    let Query(ExportQuery { with_secret }) =
        query.map_err(|error| Refusal::new(Kind::BadRequest, error.body_text()))?;
    ask(commands, |reply| Command::Export { with_secret, reply }).await.map(Json)
}

async fn diff(commands: Commands, ReadConfig(text): ReadConfig) -> Answer<Diff> {
    let Some(config) = text.config else {
        return Err(Refusal::new(Kind::BadRequest, "no `config`; write the text of one"));
    };
    ask(commands, |reply| Command::Diff(config, reply)).await.map(Json)
}

async fn apply(commands: Commands, ReadConfig(text): ReadConfig) -> Answer<Done> {
    ask(commands, |reply| Command::Apply(text.config, reply)).await.map(Json)
}

async fn explain(commands: Commands, Read(ask): Read<Ask>) -> Answer<Explanation> {
    self::ask(commands, |reply| Command::Explain(ask.into(), reply)).await.map(Json)
}

/// What lines of a trace are.
const LINES: &str = "application/x-ndjson";

/// An answer that goes on until the trace ends, or who asked for it goes away.
async fn trace(commands: Commands, Read(request): Read<TraceRequest>) -> Result<impl IntoResponse, Refusal> {
    let lines = ask(commands, |reply| Command::Trace(request.into(), reply)).await?;
    let lines = unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(lines)))
}

async fn attach(commands: Commands, Read(request): Read<AttachRequest>) -> Answer<Attached> {
    ask(commands, |reply| Command::Attach(request, reply)).await.map(Json)
}

async fn trial(commands: Commands) -> Answer<TrialStatus> {
    ask(commands, Command::Trial).await.map(Json)
}

async fn confirm(commands: Commands) -> Answer<Interfaces> {
    ask(commands, Command::Confirm).await.map(|interfaces| Json(Interfaces { interfaces }))
}

async fn detach(commands: Commands) -> Answer<Interfaces> {
    ask(commands, Command::Detach).await.map(|interfaces| Json(Interfaces { interfaces }))
}

async fn cache_list(commands: Commands) -> Answer<AnswerList> {
    ask(commands, Command::CacheList).await.map(Json)
}

async fn cache_show(commands: Commands, Read(request): Read<NameRequest>) -> Answer<Vec<AnswerDetail>> {
    ask(commands, |reply| Command::CacheShow { name: request.name, reply }).await.map(Json)
}

async fn cache_flush(commands: Commands, Read(request): Read<NameRequest>) -> Answer<usize> {
    ask(commands, |reply| Command::CacheFlush { name: request.name, reply }).await.map(Json)
}

async fn top(commands: Commands) -> Answer<Vec<TopName>> {
    ask(commands, Command::Top).await.map(Json)
}

/// This API described, in OpenAPI's words.
pub const DESCRIPTION: &str = include_str!("openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION)
}

async fn metrics(commands: Commands) -> Result<impl IntoResponse, Refusal> {
    let status = ask(commands, Command::Status).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], crate::metrics::text(&status)))
}

async fn change(commands: Commands, edit: Edit) -> Result<Done, Refusal> {
    ask(commands, |reply| Command::Change(edit, reply)).await
}

fn created(done: Result<Done, Refusal>) -> Created<Done> {
    done.map(|done| (StatusCode::CREATED, Json(done)))
}

/// An address with a port, or without for any.
fn backend_address(text: &str) -> Result<SocketAddr, Refusal> {
    let any = text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0));
    text.parse().ok().or(any).ok_or_else(|| {
        let error = format!(
            "`{text}` is no backend; write 10.0.0.11:80 or [2001:db8::11]:80, without a port for a service on any"
        );
        Refusal::new(Kind::BadRequest, error)
    })
}

fn ip(text: &str) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| Refusal::new(Kind::BadRequest, format!("`{text}` is no IP address")))
}

async fn ask<T>(State(commands): Commands, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
    let stopping = || Refusal::new(Kind::Stopping, "the agent is stopping");
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

#[cfg(test)]
mod tests;
