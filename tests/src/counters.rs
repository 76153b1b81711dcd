//! What the machines of a lab have lost, by their kernels' own counters.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail};

use crate::Host;

/// Counters of `/proc/net/snmp`, `snmp6` and `netstat` that move when something was lost, or was taken for lost.
const PROTOCOLS: [&str; 12] = [
    "Tcp RetransSegs",
    "Tcp InErrs",
    "TcpExt ListenDrops",
    "TcpExt TCPTimeouts",
    "Ip ReasmFails",
    "Ip InHdrErrors",
    "Ip FragFails",
    "Udp RcvbufErrors",
    "Udp InCsumErrors",
    "Udp InErrors",
    "Ip6ReasmFails",
    "Udp6RcvbufErrors",
];
/// Columns of `/proc/net/dev` behind the name, by their place.
const INTERFACE: [(usize, &str); 4] = [(2, "rx_errors"), (3, "rx_dropped"), (10, "tx_errors"), (11, "tx_dropped")];

/// Counters of losses, by machine and name: `client Tcp RetransSegs`, `balancer eth0 rx_dropped`,
/// `backend-0 eth0 rx_queue_0_xdp_drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads those of `hosts`; with [`crate::Lab::everyone`] nothing of a lab is left out.
    pub fn read<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Result<Self> {
        let mut counters = Self::default();
        for host in hosts {
            counters.read_host(host).with_context(|| format!("counting losses in {}", host.namespace()))?;
        }
        Ok(counters)
    }

    fn read_host(&mut self, host: &Host) -> Result<()> {
        let role = host.role();
        for (name, value) in protocol_counters(host)? {
            if PROTOCOLS.contains(&name.as_str()) {
                self.0.insert(format!("{role} {name}"), value);
            }
        }
        for (interface, numbers) in interfaces(&read(host, "dev")?) {
            for (place, name) in INTERFACE {
                let value = numbers.get(place).with_context(|| format!("{interface} has no {name}"))?;
                self.0.insert(format!("{role} {interface} {name}"), *value);
            }
            if interface == "lo" || interface == "br0" {
                continue;
            }
            let statistics = host.run(["ethtool", "-S", &interface])?.stdout;
            for (name, value) in statistics.lines().filter_map(|line| line.trim().split_once(": ")) {
                if name.contains("drop") || name.contains("error") {
                    self.0.insert(format!("{role} {interface} {name}"), value.parse()?);
                }
            }
        }
        Ok(())
    }

    /// Those that have moved since `before`, with by how much, but for those whose names contain one of `ignored`.
    #[must_use]
    pub fn moved_since(&self, before: &Self, ignored: &[&str]) -> BTreeMap<String, u64> {
        let moved = self.0.iter().map(|(name, value)| (name, value.saturating_sub(*before.0.get(name).unwrap_or(&0))));
        let moved = moved.filter(|(name, by)| *by != 0 && !ignored.iter().any(|ignored| name.contains(ignored)));
        moved.map(|(name, by)| (name.clone(), by)).collect()
    }
}

/// The counters of a host's protocols, such as `Tcp RetransSegs`, `TcpExt TCPTimeouts`, `Icmp InTimeExcds` and
/// `Icmp6InTimeExcds`.
pub fn protocol_counters(host: &Host) -> Result<BTreeMap<String, u64>> {
    let mut counters = protocols(&(read(host, "snmp")? + &read(host, "netstat")?))?;
    for line in read(host, "snmp6")?.lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace) {
            counters.insert(name.to_owned(), value.trim().parse()?);
        }
    }
    Ok(counters)
}

/// A file of `/proc/net`, as the host has it.
fn read(host: &Host, name: &str) -> Result<String> {
    // Without the thread it would be that of the process.
    let path = format!("/proc/thread-self/net/{name}");
    host.inside(|| fs::read_to_string(&path).with_context(|| format!("reading {path} in {}", host.namespace())))?
}

/// The counters of a file that has a line of names before each line of numbers.
fn protocols(text: &str) -> Result<BTreeMap<String, u64>> {
    let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks(2) {
        let [(protocol, names), (same, numbers)] = pair else { bail!("a line of names without numbers") };
        if protocol != same {
            bail!("names of {protocol} are followed by numbers of {same}");
        }
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()) {
            // Settings among them may be -1.
            if let Ok(number) = number.parse() {
                counters.insert(format!("{protocol} {name}"), number);
            }
        }
    }
    Ok(counters)
}

/// The numbers of each interface in `/proc/net/dev`.
fn interfaces(text: &str) -> BTreeMap<String, Vec<u64>> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let numbers = |numbers: &str| numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    lines.map(|(name, text)| (name.trim().to_owned(), numbers(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_names() {
        let text = "Tcp: MaxConn RetransSegs\nTcp: -1 3\nTcpExt: TCPTimeouts ListenDrops\nTcpExt: 0 4\n";
        let counters = protocols(text).unwrap();
        assert_eq!(counters.get("Tcp RetransSegs"), Some(&3));
        assert_eq!(counters.get("TcpExt ListenDrops"), Some(&4));
        assert!(protocols("Tcp: a\nUdp: 1\n").is_err());

        let text = "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13\n";
        let numbers = interfaces(text).remove("eth0").unwrap();
        let named = INTERFACE.map(|(place, name)| (name, numbers[place]));
        assert_eq!(named, [("rx_errors", 3), ("rx_dropped", 4), ("tx_errors", 11), ("tx_dropped", 12)]);
    }

    #[test]
    fn what_moved_is_told() {
        let counters = |retransmitted, dropped| {
            let pairs = [("client Tcp RetransSegs", retransmitted), ("client lo rx_dropped", dropped)];
            Counters(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let (before, after) = (counters(1, 1), counters(3, 2));
        assert_eq!(after.moved_since(&before, &["lo "]), [("client Tcp RetransSegs".to_owned(), 2)].into());
        assert_eq!(before.moved_since(&before, &[]), BTreeMap::new());
    }
}
