//! The decapsulator of a backend: the same in the kernel and on the host, end to end, and its commands.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

mod agree;
mod commands;
mod encapsulator;
mod forward;

use serde_json::Value;
use std::{net::IpAddr, path::PathBuf};
use tests::{Host, Lab, Layout, Output, lb_binary};

/// A lab with one backend that has the service addresses and no program on its interface, so that its own may come.
struct Site {
    lab: Lab,
    pins: PathBuf,
}

impl Site {
    fn up() -> Self {
        let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
        let backend = &lab.backends()[0];
        for service in [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()] {
            lab.add_service_address(backend, service).unwrap();
        }
        backend.remove_pass("eth0").unwrap();
        let pins = lab.pins();
        Self { lab, pins }
    }

    fn backend(&self) -> &Host {
        &self.lab.backends()[0]
    }

    fn services(&self) -> [IpAddr; 2] {
        [self.lab.service_ipv4(0).into(), self.lab.service_ipv6(0).into()]
    }

    /// `lb decap` on the backend, with the pins of this site.
    fn decap(&self, arguments: &[&str]) -> Output {
        self.decap_behind(&[], arguments)
    }

    /// The same with `before` in front of it.
    fn decap_behind(&self, before: &[&str], arguments: &[&str]) -> Output {
        let binary = lb_binary().unwrap().display().to_string();
        let pins = self.pins.display().to_string();
        let line = [before, &[&binary, "decap"], arguments, &["--pins", &pins]].concat();
        self.backend().attempt(line).unwrap()
    }

    /// What `lb decap status --json` says of the one interface that is attached.
    fn status(&self) -> Value {
        let output = self.decap(&["status", "--json"]);
        assert!(output.status.success(), "{}", output.stderr);
        let status: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(status["interfaces"].as_array().unwrap().len(), 1, "{status:#}");
        status["interfaces"][0].clone()
    }

    /// Id of the XDP program on an interface of the backend.
    fn program(&self, interface: &str) -> Option<u64> {
        let output = self.backend().run(["ip", "-json", "link", "show", "dev", interface]).unwrap();
        let links: Value = serde_json::from_str(&output.stdout).unwrap();
        links[0]["xdp"]["prog"]["id"].as_u64()
    }
}

fn count(status: &Value, why: &str) -> u64 {
    status["packets"][why].as_u64().unwrap_or_else(|| panic!("the status has no {why}: {status:#}"))
}

/// Asserts how a command ended and what it said, on either output.
fn says(output: Output, code: i32, said: &str) {
    let text = output.stdout + &output.stderr;
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(said), "{said:?} is not in {text}");
}
