//! Golden packets: what the program in the kernel does with a frame, byte for byte, and exactly which counters move.
//!
//! `UPDATE=1 cargo test -p tests --test golden` writes them anew, for review.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, env, fs, path::Path};
use tests::{
    Lab, Layout,
    fixture::{self, Fixture, Outcome},
    frames, needs_root,
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    action: String,
    counts: BTreeMap<String, u64>,
    /// Packets and bytes, by the backend's id.
    traffic: BTreeMap<String, (u64, u64)>,
    frame: String,
    after: String,
}

fn golden(frame: &[u8], outcome: &Outcome) -> Golden {
    let unchanged = frame == outcome.frame;
    Golden {
        action: format!("{:?}", outcome.action),
        counts: outcome.counts.iter().map(|(why, count)| (why.name().to_owned(), *count)).collect(),
        traffic: outcome.traffic.iter().map(|(id, traffic)| (id.to_string(), *traffic)).collect(),
        frame: hex(frame),
        after: if unchanged { "unchanged".into() } else { hex(&outcome.frame) },
    }
}

/// Hexadecimal, two bytes a group and sixteen a line.
fn hex(bytes: &[u8]) -> String {
    let group = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |bytes: &[u8]| bytes.chunks(2).map(group).collect::<Vec<_>>().join(" ");
    format!("\n{}\n", bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_frame_leaves_as_recorded() {
    if !needs_root("every_frame_leaves_as_recorded") {
        return;
    }
    let lab = Lab::blueprint(Layout::Routed).backends(1).up().unwrap();
    fixture::neighbors(lab.balancer()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    lab.balancer()
        .inside(|| {
            fixture::stay_on_one_cpu().unwrap();
            let mut fixture = Fixture::load(lab.balancer()).unwrap();
            for named in frames::all().unwrap() {
                // No frame's outcome depends on another's, but for those that it comes with.
                fixture.forget().unwrap();
                fixture.go_to(named.moment).unwrap();
                named.before.iter().for_each(|frame| _ = fixture.in_kernel(frame).unwrap());
                let outcome = fixture.in_kernel(&named.frame).unwrap();
                let found = golden(&named.frame, &outcome);
                let path = folder.join(format!("{}.toml", named.name));
                if env::var_os("UPDATE").is_some() {
                    fs::write(&path, toml::to_string_pretty(&found).unwrap()).unwrap();
                }
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let expected: Golden = toml::from_str(&text).unwrap();
                assert_eq!(found, expected, "{}", named.name);
            }
        })
        .unwrap();
}
