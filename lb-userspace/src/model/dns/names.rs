//! The names that are answered for, as they stand right now.

use lb_common::wire::dns::{A, AAAA};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// How many the config has.
    pub configured: usize,
    /// Those that are up, in the order of the config.
    pub live: Vec<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { configured: 0, live: Vec::new() }
    }
}

impl<T> Set<T> {
    fn add(&mut self, address: T, is_up: bool) {
        self.configured += 1;
        if is_up {
            self.live.push(address);
        }
    }
}

/// One name as it stands right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameState {
    /// TTL of its records.
    pub ttl_seconds: u32,
    /// Its IPv4 addresses.
    pub a: Set<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub aaaa: Set<Ipv6Addr>,
}

impl NameState {
    /// How many records of this type the config has; none of a type other than A and AAAA.
    pub const fn configured(&self, kind: u16) -> usize {
        match kind {
            A => self.a.configured,
            AAAA => self.aaaa.configured,
            _ => 0,
        }
    }

    /// Addresses for records of this type that are up, in the order of the config.
    pub fn live(&self, kind: u16) -> Vec<IpAddr> {
        match kind {
            A => self.a.live.iter().copied().map(IpAddr::V4).collect(),
            AAAA => self.aaaa.live.iter().copied().map(IpAddr::V6).collect(),
            _ => Vec::new(),
        }
    }
}

/// All names, by their form on the wire in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(HashMap<Vec<u8>, NameState>);

impl Names {
    /// Adds a name, or replaces it: `wire` with its root label, each address with whether it is up.
    pub fn insert(&mut self, wire: &[u8], ttl_seconds: u32, addresses: impl Iterator<Item = (IpAddr, bool)>) {
        let mut state = NameState { ttl_seconds, ..NameState::default() };
        for (address, is_up) in addresses {
            match address {
                IpAddr::V4(address) => state.a.add(address, is_up),
                IpAddr::V6(address) => state.aaaa.add(address, is_up),
            }
        }
        self.0.insert(wire.to_ascii_lowercase(), state);
    }

    /// The name with this form on the wire, in lower case.
    pub fn get(&self, wire: &[u8]) -> Option<&NameState> {
        self.0.get(wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_addresses_keep_their_order_and_family() {
        let addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"];
        let mut names = Names::default();
        names.insert(b"\x01X\0", 30, addresses.iter().map(|text| (text.parse().unwrap(), *text != "192.0.2.2")));
        let state = names.get(b"\x01x\0").unwrap();
        assert_eq!((state.ttl_seconds, state.configured(A), state.configured(AAAA)), (30, 3, 1));
        assert_eq!(state.live(A), ["192.0.2.1", "192.0.2.3"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!(state.live(AAAA), [addresses[1].parse::<IpAddr>().unwrap()]);
        assert_eq!((state.configured(15), state.live(15)), (0, Vec::new()));
        assert_eq!(names.get(b"\x01X\0"), None, "the key is in lower case");
    }

    #[test]
    fn a_name_inserted_again_is_replaced() {
        let mut names = Names::default();
        names.insert(b"\x01x\0", 30, [("192.0.2.1".parse().unwrap(), true)].into_iter());
        names.insert(b"\x01x\0", 5, std::iter::empty());
        assert_eq!(names.get(b"\x01x\0"), Some(&NameState { ttl_seconds: 5, ..NameState::default() }));
    }
}
