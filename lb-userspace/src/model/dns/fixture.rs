//! Names for tests.

use super::{names::Names, respond::Server, stored::Stored, zone::Zone};
use crate::{
    config::Config,
    model::intent::{Address, Below, Check, Intent, Name, Policy, Target},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A name as on the wire.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// Names with addresses, each with whether it is up; more than a config may have.
pub(crate) fn names(all: &[(&str, Vec<(IpAddr, bool)>)], server: Server) -> Names {
    let mut up = BTreeSet::new();
    let check = Arc::new(Check::default());
    let names = all.iter().enumerate().map(|(number, (name, addresses))| {
        let addresses = addresses.iter().map(|(address, is_up)| {
            // Each name has targets of its own.
            let target =
                Target { address: SocketAddr::new(*address, 1 + number as u16), check: Arc::clone(&check), via: None };
            up.extend(is_up.then(|| target.clone()));
            Address { address: *address, weight: 1, tier: 1, target: Some(target) }
        });
        Name {
            name: (*name).into(),
            wire: wire(name).into(),
            ttl_seconds: 30,
            addresses: addresses.collect(),
            policy: Policy::RoundRobin,
            minimum_healthy: 1,
            below_minimum: Below::ServFail,
            data: Vec::new(),
        }
    });
    let zone = Zone::new(names.collect(), Stored::default(), Vec::new(), server);
    Names::new(&Arc::new(zone), &up)
}

/// The names of a config; what is written below `[dns]`. Up are those of its targets that have one of these addresses.
pub(crate) fn of_config(text: &str, up: &[&str]) -> Names {
    let start =
        "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[check.web]\nport = 80\n[dns]\nlisten = [\"::1\"]\n";
    let intent =
        Intent::new(&Config::parse(&format!("{start}{text}")).unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
    let up: Vec<IpAddr> = up.iter().map(|address| address.parse().unwrap()).collect();
    let up = intent.targets().into_iter().filter(|target| up.contains(&target.address.ip())).collect();
    Names::new(intent.zone(), &up)
}
