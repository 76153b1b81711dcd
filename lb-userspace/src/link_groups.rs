//! The multicast groups that neighbour solicitations for service addresses come to.
//!
//! A solicitation goes to a group made from the address (RFC 4291 section 2.7.1). Hardware and snooping switches deliver it
//! only to who has joined, and nobody has, since service addresses are on no interface.

use socket2::{Domain, Protocol, Socket, Type};
use std::{collections::BTreeSet, io, net::Ipv6Addr};

/// Groups joined on interfaces, until dropped.
#[derive(Debug, Default)]
pub struct LinkGroups {
    socket: Option<Socket>,
    joined: BTreeSet<(u32, Ipv6Addr)>,
}

impl LinkGroups {
    /// Joins and leaves until exactly the groups of these addresses are joined on these interfaces.
    pub fn keep(&mut self, interfaces: &BTreeSet<u32>, addresses: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        let groups =
            |interface: &u32| addresses.iter().map(|address| (*interface, group(*address))).collect::<Vec<_>>();
        let wanted: BTreeSet<_> = interfaces.iter().flat_map(groups).collect();
        if wanted == self.joined {
            return Ok(());
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?,
        };
        for (interface, group) in self.joined.difference(&wanted) {
            // Fails if the interface is gone, and the membership with it.
            let _ = socket.leave_multicast_v6(group, *interface);
        }
        for (interface, group) in wanted.difference(&self.joined) {
            socket.join_multicast_v6(group, *interface)?;
        }
        self.socket = Some(socket);
        self.joined = wanted;
        Ok(())
    }
}

/// The solicited-node multicast address.
fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn the_group_is_that_of_rfc_4291() {
        assert_eq!(
            group("4037::1:800:200e:8c6c".parse().unwrap()),
            "ff02::1:ff0e:8c6c".parse::<std::net::Ipv6Addr>().unwrap()
        );
    }
}
