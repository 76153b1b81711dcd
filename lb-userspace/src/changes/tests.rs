use super::{document::*, edit::*, state::*, *};
use crate::config::Place;
use proptest::prelude::*;
use serde_json::json;
use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::LazyLock};

const TEXT: &str = r#"# The fleet's config.
interfaces = ["lo"]   # one of them
secret = "0123456789abcdef"

[[service]]
name = "web"
address = "192.0.2.10"
port = 80
mode = "nat"

[[service.backend]]   # the old one
address = "10.0.0.1"
weight = 2 # twice

[[service.backend]]
address = "10.0.0.2"
port = 8080

[tracking]
adopt_seconds = 60
"#;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn written(value: serde_json::Value) -> Written {
    value.as_object().unwrap().clone()
}

fn web() -> String {
    "web".into()
}

fn weight(backend: &str, weight: i64) -> Edit {
    Edit::SetWeight { service: web(), backend: address(backend), weight }
}

fn state(backend: &str, state: BackendState) -> Edit {
    Edit::SetState { service: web(), backend: address(backend), state, drain_seconds: None }
}

fn add(backend: &str, port: u16) -> Edit {
    Edit::AddBackend { service: web(), backend: written(json!({ "address": backend, "port": port })) }
}

fn remove(backend: &str) -> Edit {
    Edit::RemoveBackend { service: web(), backend: address(backend) }
}

fn more() -> Edit {
    let service = json!({
        "name": "more", "address": "192.0.2.11", "port": "any", "mode": "dsr", "check": "tcp",
        "backend": [{ "address": "10.0.0.1" }, { "address": "10.0.0.3", "weight": 3 }],
    });
    Edit::AddService { service: written(service) }
}

fn edited(text: &str, edit: &Edit) -> String {
    let mut document = Document::read(text).unwrap();
    assert_eq!(document.edit(edit), Ok(true), "{edit}");
    document.text()
}

fn misfit(text: &str, edit: &Edit) -> String {
    let mut document = Document::read(text).unwrap();
    let misfit = document.edit(edit).unwrap_err();
    assert_eq!(document.text(), text, "an edit that does not fit has changed something");
    misfit.to_string()
}

/// Makes changes one after the other, as the agent would.
fn made(text: &str, edits: &[Edit]) -> Changes {
    edits.iter().fold(Changes::default(), |changes, edit| match changes.with(text, edit.clone(), 7) {
        Ok(Edited::Changes(changes)) => changes,
        _ => changes,
    })
}

#[test]
fn an_edit_leaves_everything_else_as_it_is_written() {
    assert_eq!(edited(TEXT, &weight("10.0.0.1:80", 5)), TEXT.replace("weight = 2 # twice", "weight = 5 # twice"));
    assert_eq!(edited(TEXT, &weight("10.0.0.2:8080", 5)), TEXT.replace("port = 8080\n", "port = 8080\nweight = 5\n"));
    let drained = edited(TEXT, &state("10.0.0.2:8080", BackendState::Drain));
    assert_eq!(drained, TEXT.replace("port = 8080\n", "port = 8080\nstate = \"drain\"\n"));
    assert_eq!(edited(&drained, &state("10.0.0.2:8080", BackendState::Active)), TEXT);
    let added = "port = 8080\n\n[[service.backend]]\naddress = \"10.0.0.3\"\nport = 81\n";
    assert_eq!(edited(TEXT, &add("10.0.0.3", 81)), TEXT.replace("port = 8080\n", added));
    assert_eq!(edited(&edited(TEXT, &add("10.0.0.3", 81)), &remove("10.0.0.3:81")), TEXT);
    let removed = "\n[[service.backend]]   # the old one\naddress = \"10.0.0.1\"\nweight = 2 # twice\n";
    assert_eq!(edited(TEXT, &remove("10.0.0.1:80")), TEXT.replacen(removed, "", 1));
    let released = edited(TEXT, &Edit::SetClaim { address: "192.0.2.10".parse().unwrap(), claim: false });
    assert_eq!(released, TEXT.replace("mode = \"nat\"\n", "mode = \"nat\"\nclaim = \"routed\"\n"));
}

#[test]
fn a_service_is_written_behind_the_others_with_its_backends() {
    let text = edited(TEXT, &more());
    let service = "\n[[service]]\nname = \"more\"\naddress = \"192.0.2.11\"\nport = \"any\"\nmode = \"dsr\"\ncheck = \"tcp\"\n\n\
                   [[service.backend]]\naddress = \"10.0.0.1\"\n\n[[service.backend]]\naddress = \"10.0.0.3\"\nweight = 3\n";
    // Keys come as JSON objects have them: by name.
    let sorted = service.lines().collect::<std::collections::BTreeSet<_>>();
    assert!(sorted.iter().all(|line| text.lines().any(|other| other == *line)), "{text}");
    assert!(text.find("name = \"more\"").unwrap() < text.find("[tracking]").unwrap(), "{text}");
    // One on any port is told without.
    let edit = Edit::SetWeight { service: "more".into(), backend: address("10.0.0.3:0"), weight: 1 };
    assert!(edited(&text, &edit).contains("weight = 1"));
    assert_eq!(edited(&text, &Edit::RemoveService { service: "more".into() }), TEXT);
}

#[test]
fn lists_in_brackets_are_edited_too() {
    let text = "service = [{ name = \"web\", port = 80, backend = [{ address = \"10.0.0.1\" }] }]\n";
    let text = edited(text, &add("10.0.0.2", 81));
    let text = edited(&text, &weight("10.0.0.1:80", 9));
    let text = edited(&text, &remove("10.0.0.2:81"));
    assert_eq!(
        text,
        "service = [{ name = \"web\", port = 80, backend = [{ address = \"10.0.0.1\" , weight = 9 }] }]\n"
    );
}

#[test]
fn what_does_not_fit_is_said_in_a_sentence() {
    let nobody = Edit::RemoveService { service: "nobody".into() };
    assert_eq!(misfit(TEXT, &nobody), "there is no service `nobody`; the config has: web");
    let absent = "service `web` has no backend 10.0.0.1:81; it has: 10.0.0.1:80, 10.0.0.2:8080";
    assert_eq!(misfit(TEXT, &weight("10.0.0.1:81", 1)), absent);
    let there = "service `web` has backend 10.0.0.1:80 already; `lb backend weight` changes its weight";
    assert_eq!(misfit(TEXT, &add("10.0.0.1", 80)), there);
    let there = Edit::AddService { service: written(json!({ "name": "web" })) };
    assert_eq!(misfit(TEXT, &there), "there is a service `web` already; `lb service remove` takes it away");
    let elsewhere = Edit::SetClaim { address: "192.0.2.9".parse().unwrap(), claim: true };
    assert_eq!(misfit(TEXT, &elsewhere), "no service is at 192.0.2.9; the config has services at: 192.0.2.10");
    let null = Edit::AddBackend { service: web(), backend: written(json!({ "address": null })) };
    assert_eq!(misfit(TEXT, &null), "`address` is null, and a config has no such value; leave it out");
}

#[test]
fn secrets_are_taken_out_and_named() {
    let text = format!("{TEXT}\n[dns]\ncookie_secret = \"00\"\nlisten = []\n");
    let mut document = Document::read(&text).unwrap();
    assert_eq!(document.redact(), ["secret", "cookie_secret"]);
    assert!(!document.text().contains("0123456789abcdef") && !document.text().contains("\"00\""));
    assert_eq!(document.redact(), Vec::<&str>::new());
}

#[test]
fn changes_that_cancel_out_leave_nothing_behind() {
    for edits in [
        vec![state("10.0.0.1:80", BackendState::Drain), state("10.0.0.1:80", BackendState::Active)],
        vec![add("10.0.0.3", 81), weight("10.0.0.3:81", 4), remove("10.0.0.3:81")],
        vec![more(), Edit::RemoveService { service: "more".into() }],
        vec![weight("10.0.0.1:80", 3), weight("10.0.0.1:80", 2)],
    ] {
        let changes = made(TEXT, &edits);
        assert_eq!(changes.list(), [], "{edits:?}");
    }
    let changes = made(TEXT, &[weight("10.0.0.1:80", 3), weight("10.0.0.2:8080", 3), weight("10.0.0.1:80", 4)]);
    let ids: Vec<_> = changes.list().iter().map(|change| (change.id, change.edit.to_string())).collect();
    let text = |weight, backend| format!("weight {weight} for backend {backend} of service web");
    assert_eq!(ids, [(2, text(3, "10.0.0.2:8080")), (3, text(4, "10.0.0.1:80"))]);
    assert_eq!(changes.with(TEXT, weight("10.0.0.1:80", 4), 8), Ok(Edited::Nothing));
    // A number is never given away twice.
    let next = made(TEXT, &[weight("10.0.0.1:80", 3)]).without(1).unwrap();
    let Ok(Edited::Changes(next)) = next.with(TEXT, weight("10.0.0.1:80", 3), 8) else { panic!() };
    assert_eq!(next.list()[0].id, 2);
}

#[test]
fn what_another_text_lacks_is_told_and_kept() {
    let changes = made(TEXT, &[weight("10.0.0.1:80", 3), state("10.0.0.2:8080", BackendState::Drain), more()]);
    let text = TEXT.replace("10.0.0.2", "10.0.0.9");
    let (intent, merged) = changes.intent(&(text + "[check.tcp]\nport = 9\n"), Path::new("lb.toml"), found()).unwrap();
    let stale: Vec<_> = merged.stale.iter().map(|stale| (stale.id, stale.reason.to_string())).collect();
    assert_eq!(stale, [(2, "service `web` has no backend 10.0.0.2:8080; it has: 10.0.0.1:80, 10.0.0.9:8080".into())]);
    assert_eq!(intent.services().len(), 2);
    assert_eq!(intent.services()[0].backends[0].weight, 3);
    assert_eq!(changes.list().len(), 3);
}

#[test]
fn a_backend_of_a_file_is_drained_and_taken_back() {
    let folder = Folder::new("targets");
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("targets.json"), r#"[{"targets": ["10.0.0.7"]}]"#).unwrap();
    let (path, text) = (folder.0.join("lb.toml"), TEXT.replace("mode = ", "backends_file = \"targets.json\"\nmode = "));
    let drain = state("10.0.0.7:80", BackendState::Drain);
    let changes = Changes::default().with_fitting(&drain, 1).unwrap();
    let (intent, merged) = changes.intent(&text, &path, found()).unwrap();
    assert!(merged.stale.is_empty(), "{:?}", merged.stale);
    assert_eq!(intent.backend("web", address("10.0.0.7:80")).unwrap().state, BackendState::Drain);
    let back = changes.with(&text, state("10.0.0.7:80", BackendState::Active), 2).unwrap();
    let Edited::Changes(back) = back else { panic!("{back:?}") };
    assert!(back.list().is_empty());
    // Once it is in no file any more, this is told.
    fs::write(folder.0.join("targets.json"), "[]").unwrap();
    assert_eq!(changes.intent(&text, &path, found()).unwrap().1.stale.len(), 1);
}

#[test]
fn a_change_that_makes_the_config_wrong_is_left_out_alone() {
    let path = Path::new("lb.toml");
    let changes = made(TEXT, &[weight("10.0.0.1:80", 3), more(), weight("10.0.0.2:8080", 70_000)]);
    let (intent, merged) = changes.intent(TEXT, path, found()).unwrap();
    let stale: Vec<_> = merged.stale.iter().map(|stale| (stale.id, stale.reason.to_string())).collect();
    let wrong = |why: &str| format!("the config would be wrong with it: service `{why}");
    assert_eq!(
        stale,
        [
            (2, wrong("more`: there is no check `tcp`; write one, [check.<name>]")),
            (3, wrong("web`: weight 70000 is out of range; write 0 to 65535")),
        ]
    );
    assert_eq!(intent.services()[0].backends[0].weight, 3);
    assert_eq!(merged.text, TEXT.replace("weight = 2 # twice", "weight = 3 # twice"));
    // Where the file itself is wrong, that is said, with its own lines.
    let errors = changes.intent(&TEXT.replace("mode = \"nat\"", "mode = \"nut\""), path, found()).unwrap_err();
    assert_eq!(errors.errors[0].line, Some(9));
    assert_eq!(errors.errors[0].place, Place::Service("web".into()));
}

/// Nothing.
fn found() -> Found<'static> {
    static NONE: LazyLock<(Files, Answers)> = LazyLock::new(Default::default);
    let (files, answers) = &*NONE;
    Found { files, answers }
}

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-changes-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn changes_are_kept_for_their_owner_alone() {
    let folder = Folder::new("kept");
    let store = Store::new(&folder.0);
    assert_eq!(store.load().unwrap(), Changes::default());
    let changes = made(TEXT, &[weight("10.0.0.1:80", 3), more(), state("10.0.0.2:8080", BackendState::Disabled)]);
    store.save(&changes).unwrap();
    assert_eq!(store.load().unwrap(), changes);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.0), mode(&store.path())), (0o700, 0o600));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "something is left behind");
    store.save(&changes.cleared()).unwrap();
    assert_eq!(store.load().unwrap(), changes.cleared());
}

#[test]
fn what_is_no_state_is_refused_with_the_cure() {
    let folder = Folder::new("malformed");
    let store = Store::new(&folder.0);
    store.save(&Changes::default()).unwrap();
    let cure = "; move it away to go on without them";
    for (content, reason) in
        [("", "EOF"), ("[]", "invalid"), ("{\"version\": 9, \"last\": 0, \"changes\": []}", "its version is 9")]
    {
        fs::write(store.path(), content).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains(reason) && error.ends_with(cure), "{error}");
    }
    fs::remove_file(store.path()).unwrap();
    fs::create_dir(store.path()).unwrap();
    assert!(store.load().unwrap_err().to_string().ends_with(cure));
    assert!(matches!(store.save(&Changes::default()), Err(StateError::Unwritable { .. })));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "something is left behind");
}

#[test]
fn what_replaces_a_file_may_be_read_by_whom_the_file_might() {
    let folder = Folder::new("replaced");
    fs::create_dir(&folder.0).unwrap();
    let file = folder.0.join("lb.toml");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    drop(Replacement::write(&file, b"never").unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    Replacement::write(&file, b"new").unwrap().install().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "something is left behind");
}

fn edits() -> impl Strategy<Value = Edit> {
    let backend = prop_oneof![Just("10.0.0.1:80"), Just("10.0.0.2:8080"), Just("10.0.0.3:81"), Just("10.0.0.4:80")];
    let states = prop_oneof![Just(BackendState::Active), Just(BackendState::Drain), Just(BackendState::Disabled)];
    prop_oneof![
        (backend.clone(), 0..4_i64).prop_map(|(backend, of)| weight(backend, of)),
        (backend.clone(), states).prop_map(|(backend, of)| state(backend, of)),
        backend.clone().prop_map(remove),
        backend.prop_map(|backend| {
            let address = address(backend);
            add(&address.ip().to_string(), address.port())
        }),
        Just(more()),
        Just(Edit::RemoveService { service: "more".into() }),
        Just(Edit::RemoveService { service: web() }),
        any::<bool>().prop_map(|claim| Edit::SetClaim { address: "192.0.2.10".parse().unwrap(), claim }),
    ]
}

proptest! {
    /// Leaving out what is of no use any more changes nothing of what is meant, and no number is there twice.
    #[test]
    fn changes_mean_what_their_edits_mean(edits in prop::collection::vec(edits(), 1..12)) {
        let mut document = Document::read(TEXT).unwrap();
        edits.iter().for_each(|edit| _ = document.edit(edit));
        let changes = made(TEXT, &edits);
        let merged = changes.merge(TEXT);
        let mean = |text: &str| meant(text);
        prop_assert_eq!(mean(&document.text()), mean(&merged.text), "{:?} became {:?}", edits, changes);
        prop_assert_eq!(merged.stale, vec![]);
        prop_assert!(changes.list().windows(2).all(|pair| pair[0].id < pair[1].id));
        let kept: Changes = serde_json::from_value(serde_json::to_value(&changes).unwrap()).unwrap();
        prop_assert_eq!(kept, changes);
    }
}

proptest! {
    /// What is made without a look at the text is what would be made with one.
    #[test]
    fn a_change_made_at_once_means_the_same(
        edits in prop::collection::vec(edits(), 0..8),
        number in 0..2_usize,
        of in prop_oneof![Just(Ok(BackendState::Active)), Just(Ok(BackendState::Drain)), Just(Ok(BackendState::Disabled)), (0..4_i64).prop_map(Err)],
    ) {
        let changes = made(TEXT, &edits);
        let backend = ["10.0.0.1:80", "10.0.0.2:8080"][number];
        let edit = of.map_or_else(|of| weight(backend, of), |of| state(backend, of));
        if let (Ok(Edited::Changes(with)), Some(at_once)) = (changes.with(TEXT, edit.clone(), 7), changes.with_fitting(&edit, 7)) {
            prop_assert_eq!(meant(&with.merge(TEXT).text), meant(&at_once.merge(TEXT).text));
            prop_assert_eq!(at_once.merge(TEXT).stale, vec![]);
        }
    }
}

/// What a text says, with defaults that are written left out, and regardless of the order of backends.
fn meant(text: &str) -> toml::Value {
    let mut table: toml::Table = text.parse().unwrap();
    for service in table.get_mut("service").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        let service = service.as_table_mut().unwrap();
        if service.get("claim").and_then(toml::Value::as_str) == Some("link") {
            service.remove("claim");
        }
        let backends = service.get_mut("backend").and_then(toml::Value::as_array_mut);
        for backend in backends.into_iter().flatten() {
            let backend = backend.as_table_mut().unwrap();
            if backend.get("weight").and_then(toml::Value::as_integer) == Some(1) {
                backend.remove("weight");
            }
            if backend.get("port").and_then(toml::Value::as_integer) == Some(80) {
                backend.remove("port");
            }
        }
        if let Some(backends) = service.get_mut("backend").and_then(toml::Value::as_array_mut) {
            backends.sort_by_key(ToString::to_string);
        }
    }
    toml::Value::Table(table)
}
