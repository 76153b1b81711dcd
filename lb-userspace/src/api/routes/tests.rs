use super::*;
use crate::{
    api::{
        ChangeStatus, Export, FoundStatus, StaleStatus,
        trial::{Phase, Proven},
    },
    model::{
        certificate::Certificate,
        health::State,
        trace::{Line, TraceRequest},
    },
    status::{TargetStatus, TurnStatus},
};
use axum::http::{Method, Request as HttpRequest, header::ALLOW};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn described() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_resource_is_described_with_its_methods() {
    let known = resources().into_iter().map(|(path, methods, _)| {
        (format!("{PREFIX}{path}"), methods.iter().map(|method| (*method).to_owned()).collect::<BTreeSet<_>>())
    });
    let mut known: BTreeMap<_, _> = known.collect();
    known.insert("/metrics".into(), ["get".to_owned()].into());
    let description = described();
    let paths = description["paths"].as_object().unwrap();
    let described: BTreeMap<_, _> = paths.iter().map(|(path, methods)| (path.clone(), keys(methods))).collect();
    assert_eq!(described, known);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{place}");
            let responses = keys(&operation["responses"]);
            assert!(responses.contains("default") && responses.iter().any(|code| code.starts_with('2')), "{place}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path =
                parameters.filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap().to_owned());
            let braced = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned());
            assert_eq!(in_path.collect::<BTreeSet<_>>(), braced.collect::<BTreeSet<_>>(), "{place}");
        }
    }
}

fn target() -> TargetStatus {
    TargetStatus {
        address: "10.0.0.1:443".parse().unwrap(),
        via: None,
        check: "https".into(),
        used_by: vec!["web".into()],
        health: State::Up,
        since_seconds: None,
        weight_percent: 100,
        says: None,
        held_seconds: None,
        contradicted: 0,
        last_ago_ms: None,
        last_took_ms: None,
        last_failure: None,
        last_output: None,
        certificate: Some(Certificate { name: "www.example.com".into(), covers: true, expires: None }),
        names: Vec::new(),
        files: Vec::new(),
        turns: vec![TurnStatus {
            unix_seconds: 1,
            ago_seconds: 1,
            up: true,
            reason: None,
            output: None,
            took_ms: 1,
            after_ms: 1,
        }],
    }
}

fn attached() -> Attached {
    let interface = Proven { name: "eth0".into(), mode: "native".into(), milliseconds: None };
    Attached { interfaces: vec![interface], warnings: Vec::new(), on_trial: Vec::new(), pins: "/sys/fs/bpf/lb".into() }
}

fn everything_traced() -> TraceRequest {
    let request = json!({
        "service": "web", "client": "192.0.2.1", "why": "answered", "every": 1, "count": 1, "seconds": 1, "frames": true
    });
    serde_json::from_value(request).unwrap()
}

fn event() -> Line {
    let event = json!({
        "what": "event", "unix_nanoseconds": 1, "interface": "eth0", "verdict": "pass", "why": "no_service", "protocol": "arp",
        "length": 60, "frame": "00"
    });
    serde_json::from_value(event).unwrap()
}

/// Every `$ref` below a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| match value {
            Value::String(name) if key == "$ref" => _ = found.insert(name.clone()),
            value => references(value, found),
        }),
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => (),
    }
}

#[test]
fn what_is_described_is_what_is_sent() {
    let description = described();
    let schemas = &description["components"]["schemas"];
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    let names: BTreeSet<_> =
        found.iter().map(|name| name.trim_start_matches("#/components/schemas/").to_owned()).collect();
    assert_eq!(names, keys(schemas));
    let status = serde_json::to_value(crate::metrics::sample()).unwrap();
    let edit = Edit::RemoveService { service: "web".into() };
    let change =
        ChangeStatus { id: 1, text: String::new(), at_seconds: 0, age_seconds: 0, no_longer_applies: None, edit };
    let change = serde_json::to_value(change).unwrap();
    let stale = StaleStatus { id: 1, reason: String::new() };
    let done = Done { changed: true, stale: vec![stale.clone()], wrong_files: Vec::new() };
    let found = FoundStatus {
        service: "web".into(),
        address: "10.0.0.1:80".into(),
        by: "host api.example.com".into(),
        weight: 1,
        state: "up".into(),
    };
    for (name, value) in [
        ("Status", status.clone()),
        ("Service", status["services"][0].clone()),
        ("Backend", status["services"][0]["backends"][0].clone()),
        ("Name", status["services"][0]["names"][0].clone()),
        ("File", status["services"][0]["backends_file"].clone()),
        ("Refusal", serde_json::to_value(Refusal::not_found("")).unwrap()),
        ("Done", serde_json::to_value(done).unwrap()),
        ("Stale", serde_json::to_value(stale).unwrap()),
        (
            "Export",
            serde_json::to_value(Export { config: String::new(), left_out: Vec::new(), found: vec![found.clone()] })
                .unwrap(),
        ),
        ("Found", serde_json::to_value(found).unwrap()),
        ("Diff", serde_json::to_value(Diff { lines: Vec::new(), steps: 0, stale: Vec::new() }).unwrap()),
        ("HealthReport", serde_json::to_value(HealthReport { targets: Vec::new() }).unwrap()),
        ("Target", serde_json::to_value(target()).unwrap()),
        ("Turn", serde_json::to_value(target().turns.remove(0)).unwrap()),
        ("Certificate", serde_json::to_value(target().certificate).unwrap()),
        ("AttachRequest", serde_json::to_value(AttachRequest::default()).unwrap()),
        ("Attached", serde_json::to_value(attached()).unwrap()),
        ("Proven", serde_json::to_value(attached().interfaces.remove(0)).unwrap()),
        ("Trial", serde_json::to_value(TrialStatus { phase: Phase::Running, left_milliseconds: Some(1) }).unwrap()),
        ("Interfaces", serde_json::to_value(Interfaces { interfaces: 1 }).unwrap()),
        ("TraceRequest", serde_json::to_value(everything_traced()).unwrap()),
        ("TraceEvent", serde_json::to_value(event()).unwrap()),
        ("TraceLost", serde_json::to_value(Line::Lost { events: 1 }).unwrap()),
    ] {
        assert_eq!(keys(&schemas[name]["properties"]), keys(&value), "{name}");
    }
    assert!(keys(&schemas["Change"]["properties"]).is_subset(&keys(&change)));
    for key in keys(&schemas["BackendChange"]["properties"]) {
        let text = json!({ key.clone(): if key == "state" { json!("drain") } else { json!(1) } });
        assert!(serde_json::from_value::<BackendChange>(text).is_ok(), "{key}");
    }
    let kinds: Vec<_> = Kind::ALL.iter().map(|(kind, _)| serde_json::to_value(kind).unwrap()).collect();
    assert_eq!(schemas["Refusal"]["properties"]["kind"]["enum"], Value::Array(kinds));
}

/// An agent that says yes to every change, and tells which it was.
fn agent() -> (Router, mpsc::Receiver<Command>) {
    let (commands, commanded) = mpsc::channel(16);
    (router(commands), commanded)
}

async fn answer(router: &Router, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, Value, Option<String>) {
    let request = HttpRequest::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    let response =
        TowerToHyperService::new(router.clone()).call(request.body(Body::from(body)).unwrap()).await.unwrap();
    let allow = response.headers().get(ALLOW).map(|allow| allow.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null), allow)
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_json() {
    let (router, _commanded) = agent();
    let backend = "/v1/services/web/backends/10.0.0.1:80";
    let big = format!("{{\"name\": \"{}\"}}", "x".repeat(MOST_BYTES)).into_bytes();
    for (method, path, body, code, kind, said) in [
        ("GET", "/", "", 404, "not_found", "there is no resource /; `/v1/openapi.json`"),
        ("GET", "/v2/status", "", 404, "not_found", "there is no resource /v2/status"),
        ("GET", "/status", "", 404, "not_found", "there is no resource /status"),
        ("DELETE", "/v1/status", "", 405, "method_not_allowed", "DELETE is no method of /v1/status"),
        ("PUT", backend, "{}", 405, "method_not_allowed", "PUT is no method of"),
        ("POST", "/v1/services", "", 400, "bad_request", "the request can't be read: EOF"),
        ("POST", "/v1/services", "{", 400, "bad_request", "the request can't be read: EOF"),
        ("POST", "/v1/services", "[]", 400, "bad_request", "the request can't be read: invalid type"),
        ("POST", "/v1/services", "\"\u{1}\"", 400, "bad_request", "the request can't be read"),
        ("PATCH", backend, "{\"weight\": \"3\"}", 400, "bad_request", "the request can't be read: invalid type"),
        ("PATCH", backend, "{\"wait\": 3}", 400, "bad_request", "the request can't be read: unknown field `wait`"),
        ("PATCH", backend, "{}", 400, "bad_request", "write either `weight`, or `state`"),
        ("PATCH", backend, "{\"weight\": 1, \"state\": \"drain\"}", 400, "bad_request", "write either `weight`"),
        ("PATCH", backend, "{\"state\": \"disabled\", \"drain_seconds\": 1}", 400, "bad_request", "write either"),
        ("PATCH", backend, "{\"state\": \"gone\"}", 400, "bad_request", "unknown variant `gone`"),
        ("PATCH", "/v1/services/web/backends/web", "{\"weight\": 1}", 400, "bad_request", "`web` is no backend"),
        ("DELETE", "/v1/changes/first", "", 400, "bad_request", "`first` is not the number of a change"),
        ("POST", "/v1/vips/web/claim", "", 400, "bad_request", "`web` is no IP address"),
        ("GET", "/v1/config?with_secret=maybe", "", 400, "bad_request", ""),
        ("GET", "/v1/config?secret=true", "", 400, "bad_request", ""),
        ("POST", "/v1/config/diff", "{}", 400, "bad_request", "no `config`"),
        ("POST", "/v1/trace", "{\"every\": 0}", 400, "bad_request", "expected a nonzero"),
        ("POST", "/v1/trace", "{\"whys\": 0}", 400, "bad_request", "unknown field `whys`"),
        ("POST", "/v1/config/apply", "{\"text\": \"\"}", 400, "bad_request", "unknown field `text`"),
    ] {
        let (status, body, allow) = answer(&router, method, path, body.as_bytes().to_vec()).await;
        assert_eq!((status.as_u16(), body["kind"].as_str()), (code, Some(kind)), "{method} {path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(said), "{method} {path}: {body}");
        assert_eq!(allow.is_some(), code == 405, "{method} {path}");
    }
    let (status, body, _) = answer(&router, "POST", "/v1/services", big).await;
    assert_eq!((status.as_u16(), body["kind"].as_str()), (413, Some("too_large")), "{body}");
}

#[tokio::test]
async fn a_request_becomes_the_edit_that_it_means() {
    let (router, mut commanded) = agent();
    let agent = tokio::spawn(async move {
        let mut edits = Vec::new();
        while let Some(Command::Change(edit, reply)) = commanded.recv().await {
            edits.push(edit.to_string());
            let _ = reply.send(Ok(Done { changed: true, stale: Vec::new(), wrong_files: Vec::new() }));
        }
        edits
    });
    let cases = [
        ("POST", "/v1/services", "{\"name\": \"web\"}", 201, "add service web"),
        ("DELETE", "/v1/services/web", "", 200, "remove service web"),
        (
            "POST",
            "/v1/services/web/backends",
            "{\"address\": \"10.0.0.1\"}",
            201,
            "add backend 10.0.0.1 to service web",
        ),
        ("DELETE", "/v1/services/web/backends/10.0.0.1", "", 200, "remove backend 10.0.0.1 from service web"),
        (
            "PATCH",
            "/v1/services/web/backends/[fd00::1]:80",
            "{\"weight\": 3}",
            200,
            "weight 3 for backend [fd00::1]:80 of service web",
        ),
        (
            "PATCH",
            "/v1/services/web/backends/10.0.0.1:80",
            "{\"state\": \"drain\", \"drain_seconds\": 9}",
            200,
            "drain backend 10.0.0.1:80 of service web for 9 s",
        ),
        ("POST", "/v1/vips/192.0.2.10/release", "", 200, "release 192.0.2.10"),
    ];
    for (method, path, body, code, _) in cases {
        let (status, body, _) = answer(&router, method, path, body.as_bytes().to_vec()).await;
        assert_eq!((status.as_u16(), &body["changed"]), (code, &Value::Bool(true)), "{method} {path}: {body}");
    }
    drop(router);
    assert_eq!(agent.await.unwrap(), cases.map(|(.., edit)| edit));
}

#[tokio::test]
async fn an_agent_that_stops_says_so() {
    let (router, commanded) = agent();
    drop(commanded);
    let (status, body, _) = answer(&router, "GET", "/v1/status", Vec::new()).await;
    assert_eq!((status.as_u16(), body["kind"].as_str()), (503, Some("stopping")));
}
