//! Backends from a file of targets, as Prometheus' `file_sd` has them.

use super::{
    Problem,
    schema::{Backend, Table},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::Path,
};
use toml::Spanned;

/// Labels that say something of backends; others are somebody else's.
const WEIGHT: &str = "weight";
const BACKUP: &str = "backup";

/// Targets with the same labels.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The backends that a text lists, each as if it were written at `place` of the config.
pub(super) fn backends(text: &str, path: &Path, place: &Range<usize>) -> Result<Vec<Spanned<Table<Backend>>>, Problem> {
    let groups: Vec<Group> =
        serde_json::from_str(text).map_err(|error| Problem::TargetsJson { path: path.into(), error })?;
    let mut backends = Vec::new();
    for Group { targets, labels } in groups {
        let label = |name: &'static str| {
            let wrong = |value: &String| Problem::TargetsLabel { path: path.into(), name, value: value.clone() };
            labels.get(name).map(|value| (value, wrong(value)))
        };
        let weight = match label(WEIGHT) {
            Some((value, wrong)) => Some(value.parse::<i64>().map_err(|_| wrong)?),
            None => None,
        };
        let backup = match label(BACKUP) {
            Some((value, wrong)) => Some(value.parse::<bool>().map_err(|_| wrong)?),
            None => None,
        };
        for target in targets {
            let (address, port) =
                ends(&target).ok_or_else(|| Problem::TargetsTarget { path: path.into(), target: target.clone() })?;
            backends.push(Spanned::new(
                place.clone(),
                Table::from(Backend {
                    host: None,
                    srv: None,
                    is_of_file: true,
                    address: Some(Spanned::new(place.clone(), address.to_string())),
                    port: port.map(|port| Spanned::new(place.clone(), port.into())),
                    weight: weight.map(|weight| Spanned::new(place.clone(), weight)),
                    backup: backup.map(|backup| Spanned::new(place.clone(), backup)),
                    state: None,
                    drain_seconds: None,
                }),
            ));
        }
    }
    Ok(backends)
}

/// An address, with a port or without.
fn ends(target: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = target.parse().map(|address: SocketAddr| (address.ip(), Some(address.port())));
    with_port.or_else(|_| target.parse().map(|address| (address, None))).ok()
}
