//! Rates, from what was counted at two moments.

use crate::{
    changes::edit::as_in_commands,
    status::{BackendStatus, ServiceStatus, Status},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// How much of everything there was in a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Between the two moments.
    pub seconds: f64,
    /// The services of the later moment.
    pub services: Vec<ServiceRates>,
    /// DNS questions that the kernel answered.
    pub dns_by_kernel: f64,
    /// Those that came to the agent.
    pub dns_by_agent: f64,
    /// Packets by the way they left, without those that did not.
    pub packets: BTreeMap<String, f64>,
}

/// Of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRates {
    /// Its name.
    pub service: String,
    /// Packets sent to its backends.
    pub packets: f64,
    /// Bytes of their frames.
    pub bytes: f64,
    /// Its backends.
    pub backends: Vec<BackendRates>,
}

/// Of a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendRates {
    /// Its address and port.
    pub backend: String,
    /// Packets sent to it.
    pub packets: f64,
    /// Bytes of their frames.
    pub bytes: f64,
}

impl Rates {
    /// Between two moments that are so far apart.
    pub fn between(before: &Status, after: &Status, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(0.001);
        // What was counted anew in between has no rate that anybody knows.
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let known: BTreeMap<(&str, String), &BackendStatus> = before.services.iter().flat_map(members).collect();
        let of = |service: &ServiceStatus, backend: &BackendStatus| {
            let name = as_in_commands(backend.address);
            // One that has come since has been counted from nothing.
            let (packets, bytes) = known
                .get(&(service.name.as_str(), name.clone()))
                .map_or((0, 0), |before| (before.packets, before.bytes));
            BackendRates { backend: name, packets: rate(packets, backend.packets), bytes: rate(bytes, backend.bytes) }
        };
        let services = after.services.iter().map(|service| {
            let backends: Vec<_> = service.backends.iter().map(|backend| of(service, backend)).collect();
            ServiceRates {
                service: service.name.clone(),
                packets: backends.iter().map(|backend| backend.packets).sum(),
                bytes: backends.iter().map(|backend| backend.bytes).sum(),
                backends,
            }
        });
        let packets = after
            .packets
            .iter()
            .map(|(why, count)| (why.clone(), rate(before.packets.get(why).copied().unwrap_or_default(), *count)));
        Self {
            seconds,
            services: services.collect(),
            dns_by_kernel: rate(before.dns.answered_by_kernel, after.dns.answered_by_kernel),
            dns_by_agent: rate(before.dns.agent.queries, after.dns.agent.queries),
            packets: packets.filter(|(_, rate)| *rate > 0.0).collect(),
        }
    }
}

fn members(service: &ServiceStatus) -> impl Iterator<Item = ((&str, String), &BackendStatus)> {
    service.backends.iter().map(|backend| ((service.name.as_str(), as_in_commands(backend.address)), backend))
}

/// A number with at most four digits and a letter for its thousands.
pub fn short(number: f64) -> String {
    let mut number = number;
    for unit in ["", "k", "M", "G", "T"] {
        if number < 999.5 {
            let digits = usize::from(number < 99.95 && (!unit.is_empty() || number.fract() > 0.05));
            return format!("{number:.digits$}{unit}");
        }
        number /= 1_000.0;
    }
    format!("{number:.0}P")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::sample;

    #[test]
    fn rates_are_what_came_by_the_time_it_took() {
        let before = sample();
        let mut after = before.clone();
        after.services[0].backends[0].packets += 300;
        after.services[0].backends[0].bytes += 30_000;
        after.dns.answered_by_kernel += 9;
        after.dns.agent.queries += 3;
        *after.packets.get_mut("forwarded_dsr").unwrap() += 300;
        // Counted anew, and come since.
        after.services[0].backends[1].packets = 0;
        let mut new = after.services[0].backends[0].clone();
        (new.address, new.packets, new.bytes) = ("10.0.0.9:80".parse().unwrap(), 30, 3_000);
        after.services[0].backends.push(new);
        let rates = Rates::between(&before, &after, Duration::from_secs(3));
        let [service] = rates.services.as_slice() else { panic!("{rates:?}") };
        let of: Vec<_> = service.backends.iter().map(|backend| (backend.packets, backend.bytes)).collect();
        assert_eq!(of, [(100.0, 10_000.0), (0.0, 0.0), (10.0, 1_000.0)]);
        assert_eq!((service.packets, service.bytes), (110.0, 11_000.0));
        assert_eq!((rates.dns_by_kernel, rates.dns_by_agent), (3.0, 1.0));
        assert_eq!(rates.packets, [("forwarded_dsr".to_owned(), 100.0)].into());
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (7.0, "7"),
            (99.9, "99.9"),
            (100.4, "100"),
            (999.0, "999"),
            (1_000.0, "1.0k"),
            (12_345.0, "12.3k"),
            (999_499.0, "999k"),
            (1e6, "1.0M"),
            (2.5e9, "2.5G"),
            (3e12, "3.0T"),
            (4e15, "4P"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
