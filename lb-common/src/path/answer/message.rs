//! What DNS messages over the two families have in common.

use crate::{
    checksum,
    frame::Header,
    wire::{
        dns::{DnsFrame4, DnsFrame6, DnsStart},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        transport::UDP,
    },
};
use zerocopy::byteorder::little_endian::U64 as Le64;

/// Hops of a reply.
const HOPS: u8 = 64;

/// A message up to its question. Headers are read and written by whole words: each field by itself would be a load and a store.
pub trait Message: Header {
    /// Length of the network's header.
    const NETWORK: usize;
    /// Length up to the question.
    const QUESTION: usize;
    /// The transport's header.
    fn udp(&self) -> u64;
    /// The same, to be changed.
    fn udp_mut(&mut self) -> &mut Le64;
    /// The message's header.
    fn dns(&self) -> &DnsStart;
    /// The same, to be changed.
    fn dns_mut(&mut self) -> &mut DnsStart;
    /// Turns the headers of link and network around for a reply with `length` bytes of UDP; returns the sum of the pseudo header's
    /// addresses.
    fn turn_around(&mut self, length: u16) -> u64;
}

macro_rules! message {
    ($frame:ident, $network:ident, |$head:ident, $length:ident| $turn:block) => {
        impl Message for $frame {
            const NETWORK: usize = $network::LEN;
            const QUESTION: usize = $frame::LEN;
            #[inline(always)]
            fn udp(&self) -> u64 {
                self.udp.get()
            }
            #[inline(always)]
            fn udp_mut(&mut self) -> &mut Le64 {
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
                let $head = self;
                $head.ethernet.turn_around();
                $turn
            }
        }
    };
}
message!(DnsFrame4, Ipv4, |head, length| {
    let (source, destination) = (head.ip.destination.get(), (head.ip.second.get() >> 32) as u32);
    let total = u64::from(length.wrapping_add(Ipv4::LEN as u16).to_be());
    // A datagram that is never fragmented needs no identification (RFC 6864 section 4.1).
    let first = FIRST4 | total << 16;
    let addresses = u64::from(source) + u64::from(destination);
    let checksum = u16::from_ne_bytes(checksum::finish(addresses + REST4 + total));
    head.ip.first.set(first);
    head.ip.second.set(SECOND4 | u64::from(checksum) << 16 | u64::from(source) << 32);
    head.ip.destination.set(destination);
    addresses
});
message!(DnsFrame6, Ipv6, |head, length| {
    let (source, destination) = (head.destination.get(), head.source.get());
    head.ip.set(FIRST6 | u64::from(length.to_be()) << 32);
    head.source.set(source);
    head.destination.set(destination);
    let [a, b] = source;
    let [c, d] = destination;
    [a, b, c, d].iter().fold(0, |sum, word| checksum::add(sum, *word))
});

/// The first word of IPv4's header without its length.
const FIRST4: u64 = ipv4::NO_OPTIONS as u64 | (ipv4::DONT_FRAGMENT.to_be() as u64) << 48;
/// The second word without checksum and address.
const SECOND4: u64 = HOPS as u64 | (UDP as u64) << 8;
/// Sum of both.
const REST4: u64 = checksum::add(checksum::add(0, FIRST4), SECOND4);
/// The first word of IPv6's header without its length.
const FIRST6: u64 = ipv6::PLAIN.to_be() as u64 | (UDP as u64) << 48 | (HOPS as u64) << 56;
