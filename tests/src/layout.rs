//! The layouts of a lab and the addresses in them.
//!
//! Every lab has its own namespaces, so fixed private ranges cannot clash. A host has the same number
//! in both families, written with the same digits: 10.77.0.21 and fd77::21.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How the hosts of a lab are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One segment, 10.77.0.0/24 and fd77::/64: client, balancer and backends on one bridge.
    Bridged,
    /// The client, 10.78.1.0/24 and fd78:1::/64, is cabled to `eth0` of the balancer; its `eth1` is on
    /// the bridge of the backends, 10.78.2.0/24 and fd78:2::/64. The balancer forwards between them;
    /// services have a prefix of their own, 10.78.100.0/24 and fd78:100::/64.
    Routed,
    /// The client, 10.79.1.0/24 and fd79:1::/64, is cabled to `eth0` of a router; its `eth1`, the balancer and the backends
    /// are on one bridge, 10.79.2.0/24 and fd79:2::/64, and have the router as their way to everywhere.
    Distant,
}

/// Number of the balancer in each of its subnets.
pub(crate) const BALANCER: u8 = 1;
/// Number of the router in both of its subnets.
pub(crate) const ROUTER: u8 = 2;
/// Number of the client in its subnet.
pub(crate) const CLIENT: u8 = 10;
/// Number of the first backend.
pub(crate) const FIRST_BACKEND: u8 = 21;
/// Number of the first service address. Unless routed, they share the subnet with the backends.
pub(crate) const FIRST_SERVICE: u8 = 200;
/// What fits between the first backend and the first service address.
pub(crate) const MAX_BACKENDS: u8 = FIRST_SERVICE - FIRST_BACKEND;

impl Layout {
    /// The subnet that the client is in.
    pub(crate) const fn clients(self) -> Subnet {
        match self {
            Self::Bridged => Subnet { ipv4: [10, 77, 0], ipv6: [0xfd77, 0] },
            Self::Routed => Subnet { ipv4: [10, 78, 1], ipv6: [0xfd78, 1] },
            Self::Distant => Subnet { ipv4: [10, 79, 1], ipv6: [0xfd79, 1] },
        }
    }

    /// The subnet that the balancer's `eth0` is in.
    pub(crate) const fn balancer(self) -> Subnet {
        match self {
            Self::Bridged | Self::Routed => self.clients(),
            Self::Distant => self.backends(),
        }
    }

    /// The subnet that the backends are in.
    pub(crate) const fn backends(self) -> Subnet {
        match self {
            Self::Bridged => self.clients(),
            Self::Routed => Subnet { ipv4: [10, 78, 2], ipv6: [0xfd78, 2] },
            Self::Distant => Subnet { ipv4: [10, 79, 2], ipv6: [0xfd79, 2] },
        }
    }

    /// The prefix that service addresses are taken from.
    pub(crate) const fn services(self) -> Subnet {
        match self {
            Self::Bridged => self.clients(),
            Self::Routed => Subnet { ipv4: [10, 78, 100], ipv6: [0xfd78, 0x100] },
            Self::Distant => self.backends(),
        }
    }
}

/// A /24 and a /64 that go together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subnet {
    ipv4: [u8; 3],
    ipv6: [u16; 2],
}

impl Subnet {
    pub(crate) const IPV4_LENGTH: u8 = 24;
    pub(crate) const IPV6_LENGTH: u8 = 64;

    pub(crate) const fn ipv4(self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.ipv4;
        Ipv4Addr::new(a, b, c, number)
    }

    pub(crate) const fn ipv6(self, number: u8) -> Ipv6Addr {
        let [a, b] = self.ipv6;
        let number = number as u16;
        let digits = ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10);
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, digits)
    }

    /// A locally administered address that tells subnet and number, so that captures read easily.
    pub(crate) const fn mac(self, number: u8) -> [u8; 6] {
        let [_, _, c] = self.ipv4;
        [0x02, b'l', b'b', c, 0, number]
    }

    pub(crate) fn ipv4_prefix(self) -> String {
        format!("{}/{}", self.ipv4(0), Self::IPV4_LENGTH)
    }

    pub(crate) fn ipv6_prefix(self) -> String {
        format!("{}/{}", self.ipv6(0), Self::IPV6_LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        let subnet = Layout::Routed.backends();
        assert_eq!(subnet.ipv4(121).to_string(), "10.78.2.121");
        assert_eq!(subnet.ipv6(121).to_string(), "fd78:2::121");
        assert_eq!(Layout::Routed.services().ipv6_prefix(), "fd78:100::/64");
        assert_eq!(Layout::Bridged.services().ipv6(200).to_string(), "fd77::200");
    }
}
