//! What DNS messages over the two families have in common.

use crate::{
    checksum,
    frame::Header,
    wire::{
        dns::{DnsFrame4, DnsFrame6, DnsStart},
        ethernet::Addresses,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        transport::{UDP, Udp},
    },
};

/// Hops of a reply.
const HOPS: u8 = 64;

/// A message up to its question.
pub trait Message: Header {
    /// Length of the network's header.
    const NETWORK: usize;
    /// Length up to the question.
    const QUESTION: usize;
    /// Receiver and sender on the link.
    fn ethernet(&mut self) -> &mut Addresses;
    /// The transport's header.
    fn udp(&self) -> &Udp;
    /// The same, to be changed.
    fn udp_mut(&mut self) -> &mut Udp;
    /// The message's header.
    fn dns(&self) -> &DnsStart;
    /// The same, to be changed.
    fn dns_mut(&mut self) -> &mut DnsStart;
    /// Turns the network's header around for a reply with `length` bytes of UDP; returns the sum of the pseudo header's
    /// addresses.
    fn turn_around(&mut self, length: u16) -> u64;
}

macro_rules! message {
    ($frame:ident, $network:ident, |$ip:ident, $length:ident| $turn:block) => {
        impl Message for $frame {
            const NETWORK: usize = $network::LEN;
            const QUESTION: usize = $frame::LEN;
            #[inline(always)]
            fn ethernet(&mut self) -> &mut Addresses {
                &mut self.ethernet
            }
            #[inline(always)]
            fn udp(&self) -> &Udp {
                &self.udp
            }
            #[inline(always)]
            fn udp_mut(&mut self) -> &mut Udp {
                &mut self.udp
            }
            #[inline(always)]
            fn dns(&self) -> &DnsStart {
                &self.dns
            }
            #[inline(always)]
            fn dns_mut(&mut self) -> &mut DnsStart {
                &mut self.dns
            }
            #[inline(always)]
            fn turn_around(&mut self, $length: u16) -> u64 {
                let $ip = &mut self.ip;
                $turn
            }
        }
    };
}
message!(DnsFrame4, Ipv4, |ip, length| {
    let (source, destination) = (ip.destination.get(), ip.source.get());
    let total = length.wrapping_add(Ipv4::LEN as u16);
    ip.traffic_class = 0;
    ip.total_length.set(total);
    // A datagram that is never fragmented needs no identification (RFC 6864 section 4.1).
    ip.identification.set(0);
    ip.fragment.set(ipv4::DONT_FRAGMENT);
    ip.time_to_live = HOPS;
    ip.source.set(source);
    ip.destination.set(destination);
    let addresses = u64::from(source) + u64::from(destination);
    let rest = u64::from(u16::from_ne_bytes([ipv4::NO_OPTIONS, 0]))
        + u64::from(total.to_be())
        + u64::from(ipv4::DONT_FRAGMENT.to_be())
        + u64::from(u16::from_ne_bytes([HOPS, UDP]));
    ip.checksum = checksum::finish(addresses + rest);
    addresses
});
message!(DnsFrame6, Ipv6, |ip, length| {
    let (source, destination) = (ip.destination.get(), ip.source.get());
    ip.version_class_flow.set(ipv6::PLAIN);
    ip.payload_length.set(length);
    ip.hop_limit = HOPS;
    ip.source.set(source);
    ip.destination.set(destination);
    let [a, b] = source;
    let [c, d] = destination;
    [a, b, c, d].iter().fold(0, |sum, word| checksum::add(sum, *word))
});
