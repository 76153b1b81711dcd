//! Packets longer than what their receiver can be sent: the message is built from scratch, to its last bit.

use crate::support::datagram::{Body, Datagram};

/// What the sender of a packet is told.
pub fn told(packet: &Datagram, mtu: u16) -> Datagram {
    let four = packet.from.is_ipv4();
    let (kind, code, repeated) = if four { (3, 4, 548) } else { (2, 0, 1_232) };
    let [high, low] = mtu.to_be_bytes();
    let mut payload = packet.packet();
    payload.truncate(repeated);
    Datagram {
        receiver: packet.sender,
        sender: packet.receiver,
        tags: packet.tags.clone(),
        hops: 64,
        class: 0,
        mark: 0,
        dont_fragment: four,
        ..Datagram::asked(packet.to, packet.from, Body::Icmp { kind, code, rest: [0, 0, high, low], payload })
    }
}
