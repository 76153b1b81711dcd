//! The API over TCP with a token and TLS, misused in every way; metrics as Prometheus reads them; exit codes.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use support::{Site, backend_of, head, lab, services, wait_for};
use tests::{Agent, Host, Lab, Layout, Output, needs_root};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PORT: u16 = 8443;

/// A token of its owner's alone.
fn token(lab: &Lab, text: &str, mode: u32) -> PathBuf {
    let path = lab.folder().join("token");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A certificate for the balancer's address, and its key.
fn certificate(lab: &Lab) -> [PathBuf; 2] {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| lab.folder().join(name));
    let name = format!("subjectAltName=IP:{}", lab.balancer().ipv4());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=lb", "-addext", &name, "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    [certificate, key]
}

fn with_api(lab: &Lab, certificate: &[PathBuf; 2], token: &Path) -> String {
    let [certificate, key] = certificate;
    let api = format!(
        "[api]\nlisten = [\"{}:{PORT}\"]\ntoken_file = {token:?}\ncertificate = {certificate:?}\nkey = {key:?}\n\n",
        lab.balancer().ipv4()
    );
    head(lab).replace("[check.web]", &format!("{api}[check.web]"))
}

fn site() -> (Site, [PathBuf; 2]) {
    let lab = lab(Layout::Bridged, "dsr", 2);
    let (certificate, token) = (certificate(&lab), token(&lab, &format!("{TOKEN}\n"), 0o600));
    let config = with_api(&lab, &certificate, &token) + "port = 80\n" + &services(&lab, "dsr", &[1, 1]);
    (Site::start(lab, config), certificate)
}

/// What a request gets: the status code, and the body.
fn ask(host: &Host, url: &str, more: &[&str]) -> (u16, String) {
    let line =
        ["curl", "--silent", "--show-error", "--globoff", "--max-time", "20", "--write-out", "\n%{http_code}", url];
    let output = host.attempt(line.iter().chain(more)).unwrap();
    let (body, code) = output.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (code.parse().unwrap(), body.to_owned())
}

#[test]
fn over_tcp_it_answers_whom_it_knows_and_nobody_else() {
    if !needs_root("over_tcp_it_answers_whom_it_knows_and_nobody_else") {
        return;
    }
    let (site, [certificate, _]) = site();
    let (client, balancer) = (site.lab.client(), site.lab.balancer().ipv4());
    let url = |path: &str| format!("https://{balancer}:{PORT}{path}");
    let known = certificate.display().to_string();
    let right = ["--cacert", &known, "--header", &format!("Authorization: Bearer {TOKEN}")];
    let with = |more: &[&str]| -> Vec<String> { right.iter().chain(more).map(|word| (*word).to_owned()).collect() };
    let asks = |path: &str, more: &[&str]| {
        let more = with(more);
        ask(client, &url(path), &more.iter().map(String::as_str).collect::<Vec<_>>())
    };

    // Who is nobody learns nothing, not even what there is.
    for header in ["X: y", "Authorization: Bearer 0123456789abcdef0123456789abcdee", "Authorization: Basic bGI6bGI="] {
        for path in ["/v1/status", "/metrics", "/nothing", "/v1/openapi.json"] {
            let (code, body) = ask(client, &url(path), &["--cacert", &known, "--header", header]);
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code, &body["kind"]), (401, &"unauthorized".into()), "{path} {header}: {body}");
            assert!(body["error"].as_str().unwrap().contains("Authorization: Bearer TOKEN"), "{body}");
        }
    }
    let changing = ["--cacert", &known, "--request", "DELETE"];
    assert_eq!(ask(client, &url("/v1/services/web4"), &changing).0, 401);
    // Nobody is made to believe in a certificate, and without TLS there is nothing.
    assert_eq!(ask(client, &url("/v1/status"), &[]).0, 0);
    assert_eq!(ask(client, &url("/v1/status").replace("https", "http"), &[]).0, 0);

    let (code, body) = asks("/v1/services", &[]);
    let listed: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, listed.as_array().unwrap().len()), (200, 2));
    let first = site.backends(site.services()[0])[0];
    let path = format!("/v1/services/web4/backends/{first}");
    let patched = asks(&path, &["--request", "PATCH", "--data", "{\"weight\": 5}"]);
    assert_eq!(patched, (200, "{\"changed\":true,\"stale\":[],\"wrong_files\":[]}".into()));
    let status = site.agent.status().unwrap();
    assert_eq!(backend_of(&status, site.services()[0], first)["weight"], 5);
    let of6 = site.backends(site.services()[1])[0];
    assert_eq!(asks(&format!("/v1/services/web6/backends/{of6}"), &[]).0, 200);
    assert_eq!(asks("/v1/changes", &["--request", "DELETE"]).0, 200);
    assert_eq!(asks("/v1/openapi.json", &[]).0, 200);

    // Every kind of refusal has its code, and leaves everything as it is.
    let before = site.agent.lb(["export", "--with-secret"]).unwrap().stdout;
    let large = site.lab.folder().join("large.json");
    fs::write(&large, format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20))).unwrap();
    let large = format!("@{}", large.display());
    for (method, path, body, code) in [
        ("GET", "/v1/services/nobody", "", 404),
        ("DELETE", "/v1/services/nobody", "", 404),
        ("PUT", "/v1/services", "{}", 405),
        ("POST", "/v1/services", "{", 400),
        ("POST", "/v1/services", "[1]", 400),
        ("POST", "/v1/services", "{\"name\": \"web4\"}", 409),
        ("POST", "/v1/services", "{\"name\": \"new\"}", 422),
        ("POST", "/v1/services", "{\"name\": 7}", 422),
        ("POST", "/v1/services", "{\"name\": null}", 422),
        ("PATCH", &path, "{\"weight\": 70000}", 422),
        ("PATCH", &path, "{\"weight\": \"5\"}", 400),
        ("PATCH", "/v1/services/web4/backends/10.1.1.1:80", "{\"weight\": 5}", 404),
        ("POST", "/v1/config/apply", "{\"config\": \"interfaces = 7\"}", 422),
        ("POST", "/v1/config/diff", "{\"config\": 7}", 400),
        ("POST", "/v1/services", &large, 413),
    ] {
        let data = ["--request", method, "--data-binary", body];
        let (found, said) = asks(path, if body.is_empty() { &data[..2] } else { &data });
        let said: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{method} {path}: {error}: {said}"));
        assert_eq!(found, code, "{method} {path} {}: {said}", body.chars().take(50).collect::<String>());
        assert!(said["error"].is_string() && said["kind"].is_string(), "{said}");
    }
    assert_eq!(site.agent.lb(["export", "--with-secret"]).unwrap().stdout, before);
    site.requests(site.services()[0], 20);
}

#[test]
fn who_says_nothing_is_let_go_and_keeps_nobody_out() {
    if !needs_root("who_says_nothing_is_let_go_and_keeps_nobody_out") {
        return;
    }
    let (site, [certificate, _]) = site();
    let balancer = site.lab.balancer().ipv4();
    // As many as there are places: none speaks TLS.
    let connect = || (0..64).map(|_| TcpStream::connect((balancer, PORT)).unwrap()).collect::<Vec<_>>();
    let mut silent = site.lab.client().inside(connect).unwrap();
    silent[0].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let begun = Instant::now();
    let header = format!("Authorization: Bearer {TOKEN}");
    let known = certificate.display().to_string();
    let right = ["--cacert", &known, "--header", &header];
    assert_eq!(ask(site.lab.client(), &format!("https://{balancer}:{PORT}/v1/status"), &right).0, 200);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    silent[1].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent[1].read_to_end(&mut rest).unwrap(), 0);
    // The Unix socket is its own way in all the while.
    site.agent.status().unwrap();
}

#[test]
fn a_token_that_others_may_read_or_guess_is_refused_at_the_start() {
    if !needs_root("a_token_that_others_may_read_or_guess_is_refused_at_the_start") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 1);
    let certificate = certificate(&lab);
    let path = token(&lab, TOKEN, 0o640);
    let config = with_api(&lab, &certificate, &path) + "port = 80\n" + &services(&lab, "dsr", &[1]);
    let refused = |config: &str, said: &str| {
        let error = Agent::start(lab.balancer(), config).unwrap_err().to_string();
        assert!(error.contains(said), "{error} does not say {said}");
    };
    refused(&config, "is for others too (mode 640); `chmod 600` makes it its owner's alone");
    token(&lab, "0123456789abcdef", 0o600);
    refused(&config, "has 16 characters, 32 are the least; write the output of `openssl rand -hex 32`");
    fs::remove_file(&path).unwrap();
    refused(&config, "cannot read token_file");
    token(&lab, TOKEN, 0o600);
    refused(&config.replace("key.pem", "token"), "cannot read key");
    refused(&config.replace(&format!(":{PORT}"), ":0"), "is not an address with a port");
    let taken = config.replace(&format!("\"{}:{PORT}\"", lab.balancer().ipv4()), "\"192.0.2.77:8443\"");
    refused(&taken, "cannot answer the API at 192.0.2.77:8443");
    Agent::start(lab.balancer(), &config).unwrap();
}

#[test]
fn token_and_certificate_are_replaced_by_a_reload() {
    const NEXT: &str = "fedcba9876543210fedcba9876543210";
    if !needs_root("token_and_certificate_are_replaced_by_a_reload") {
        return;
    }
    let (site, [own, key_path]) = site();
    let (lab, balancer) = (&site.lab, site.lab.balancer().ipv4());
    let first = lab.folder().join("first.pem");
    fs::copy(&own, &first).unwrap();
    let code = |known: &Path, token: &str| {
        let (known, header) = (known.display().to_string(), format!("Authorization: Bearer {token}"));
        ask(lab.client(), &format!("https://{balancer}:{PORT}/v1/status"), &["--cacert", &known, "--header", &header]).0
    };
    let reloads = |result: &str, count: u64| {
        wait_for(&site.agent, &format!("{count} reloads are {result}"), |status| status["reloads"][result] == count);
    };
    assert_eq!(code(&first, TOKEN), 200);

    // Written, they are not yet in use.
    certificate(lab);
    token(lab, NEXT, 0o600);
    assert_eq!([code(&first, TOKEN), code(&first, NEXT), code(&own, TOKEN)], [200, 401, 0]);
    site.agent.reload(&site.config).unwrap();
    reloads("applied", 1);
    assert_eq!([code(&own, NEXT), code(&own, TOKEN), code(&first, NEXT)], [200, 401, 0]);

    // Wrong ones leave those in use, and what else the reload would have brought with them.
    let [right_certificate, right_key] = [&own, &key_path].map(|path| fs::read(path).unwrap());
    let other = site.config.replacen("weight = 1", "weight = 7", 1);
    certificate(lab);
    let other_key = fs::read(&key_path).unwrap();
    let mut refused = 0;
    for (what, mode, certificate, key, said) in [
        (NEXT, 0o600, &right_certificate[..], &other_key[..], "certificate and key of the API can't be used"),
        (NEXT, 0o600, &right_certificate, b"no key", "cannot read key"),
        (NEXT, 0o600, b"-----BEGIN CERTIFICATE-----\n!\n", &right_key, "cannot read certificate"),
        (NEXT, 0o644, &right_certificate, &right_key, "is for others too (mode 644)"),
        ("too short", 0o600, &right_certificate, &right_key, "has 9 characters, 32 are the least"),
    ] {
        token(lab, what, mode);
        fs::write(&own, certificate).unwrap();
        fs::write(&key_path, key).unwrap();
        let config = lab.folder().join("other.toml");
        fs::write(&config, &other).unwrap();
        let output = site.agent.attempt_lb(["apply".into(), config]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stderr.contains("nothing was changed: ") && output.stderr.contains(said), "{output:?}");
        assert_eq!(fs::read_to_string(site.agent.config()).unwrap(), site.config);
        site.agent.reload(&site.config).unwrap();
        refused += 2;
        reloads("refused", refused);
        let log = site.agent.running().log();
        assert!(log.contains("not reloaded, nothing is changed: ") && log.contains(said), "{log}");
        fs::write(&own, &right_certificate).unwrap();
        assert_eq!([code(&own, NEXT), code(&own, what)], [200, if what == NEXT { 200 } else { 401 }]);
    }
    // Commands don't go by these files.
    let backend = site.backends(site.services()[0])[0];
    site.agent.lb(["backend", "weight", "web4", &backend.to_string(), "3"]).unwrap();
    assert_eq!(backend_of(&site.agent.status().unwrap(), site.services()[0], backend)["weight"], 3);

    let next = certificate(lab);
    token(lab, TOKEN, 0o600);
    site.agent.lb(["apply"]).unwrap();
    assert_eq!([code(&next[0], TOKEN), code(&next[0], NEXT)], [200, 401]);
}

#[test]
fn metrics_count_what_was_sent() {
    if !needs_root("metrics_count_what_was_sent") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1, 1]);
    let socket = site.lab.socket().display().to_string();
    let metrics = || ask(site.lab.balancer(), "http://lb/metrics", &["--unix-socket", &socket]);
    let value = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().parse().unwrap()
    };
    let [service, _] = site.services();
    let backends = site.backends(service);
    let names =
        backends.iter().map(|backend| format!("lb_backend_packets_total{{service=\"web4\",backend=\"{backend}\"}}"));
    let names: Vec<String> = names.collect();
    let sum = |text: &str| names.iter().map(|name| value(text, name)).sum::<u64>();
    let (code, before) = metrics();
    assert_eq!(code, 200);
    site.requests(service, 50);
    let after = metrics().1;
    let forwarded = "lb_packets_total{why=\"forwarded_dsr\"}";
    let moved = sum(&after) - sum(&before);
    assert!(moved >= 200, "{after}");
    assert!(value(&after, forwarded) - value(&before, forwarded) >= moved);
    let up = format!("lb_backend_up{{service=\"web4\",backend=\"{}\"}}", backends[0]);
    assert_eq!(value(&after, &up), 1);
    site.agent.lb(["backend", "disable", "web4", &backends[0].to_string()]).unwrap();
    let text = metrics().1;
    assert_eq!(value(&text, "lb_changes"), 1);
    assert_eq!(value(&text, &up.replace("_up", "_disabled")), 1);
    assert_eq!(value(&text, &up.replace("_up", "_serving")), 0);
    assert!(value(&text, "lb_memory_bytes") > 1 << 20);
    // A config that is refused is counted, and one that is taken up.
    site.agent.reload("interfaces = 7\n").unwrap();
    wait_for(&site.agent, "the refusal", |status| status["reloads"]["refused"] == 1);
    site.agent.reload(&site.config).unwrap();
    wait_for(&site.agent, "the reload", |status| status["reloads"]["applied"] == 1);
    let text = metrics().1;
    assert_eq!(value(&text, "lb_reloads_total{result=\"applied\"}"), 1);
    let (code, kind) = ask(site.lab.balancer(), "http://lb/metrics", &["--unix-socket", &socket, "--request", "POST"]);
    assert_eq!(code, 405, "{kind}");
}

/// Says what a command ended with.
fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn exit_codes_are_as_the_help_says() {
    if !needs_root("exit_codes_are_as_the_help_says") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1, 1]);
    let backend = site.backends(site.services()[0])[0].to_string();
    let help = site.lab.balancer().run([tests::lb_binary().unwrap().as_os_str(), "--help".as_ref()]).unwrap().stdout;
    assert!(help.contains("0 done, 1 the answer is no, 2 wrong usage or config, 3 the kernel refused"), "{help}");
    for (line, expected) in [
        (&["status"][..], 0),
        (&["backend", "weight", "web4", &backend, "2"], 0),
        (&["backend", "weight", "web4", &backend, "2"], 0),
        (&["backend", "weight", "web4", "10.1.1.1:80", "2"], 1),
        (&["service", "show", "nobody"], 1),
        (&["backend", "weight", "web4", &backend, "70000"], 2),
        (&["backend", "weight", "web4", "backend-0", "2"], 2),
        (&["service", "add", "web4"], 2),
        (&["diff", "/nowhere/lb.toml"], 1),
        (&["apply", "/dev/null"], 2),
        (&["changes", "drop", "99"], 1),
    ] {
        let output = site.agent.attempt_lb(line).unwrap();
        assert_eq!(code(&output), Some(expected), "{line:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), expected == 0, "{line:?}: {output:?}");
    }
    // An interface that the kernel has not.
    let file = site.lab.folder().join("other.toml");
    fs::write(&file, site.config.replacen("[\"eth0\"]", "[\"eth0\", \"eth9\"]", 1)).unwrap();
    let output = site.agent.attempt_lb(["apply", &file.display().to_string()]).unwrap();
    assert_eq!(code(&output), Some(3), "{output:?}");
    assert_eq!(fs::read_to_string(site.agent.config()).unwrap(), site.config);
    site.agent.terminate().unwrap();
    let output = site.agent.attempt_lb(["changes"]).unwrap();
    assert_eq!(code(&output), Some(1), "{output:?}");
}
