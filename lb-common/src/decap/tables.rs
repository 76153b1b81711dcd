//! What the decapsulator looks things up in: its map keys and values, and the seam to where they live.

use super::verdict::Why;
use crate::tables::{Address, Endpoint, address_words};
use bytemuck::{Pod, Zeroable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version of the layouts below and of the numbers of the reasons. Pinned maps of another one are not read.
pub const LAYOUT: u64 = 1;
/// Addresses that tunnels end at.
pub const MAX_ADDRESSES: u32 = 1_024;
/// Prefixes that packets are taken from.
pub const MAX_SOURCES: usize = 8;

/// What holds for every packet. Written once, before the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`LAYOUT`] of who wrote the maps.
    pub layout: u64,
    /// How many of `sources` there are; none means that any source will do.
    pub count: u64,
    /// Where packets are taken from; the rest are zeros, which match nothing.
    pub sources: [Source; MAX_SOURCES],
}

impl Settings {
    /// Takes packets from these sources; `None` if they are too many.
    pub fn new(sources: &[Source]) -> Option<Self> {
        let mut settings = Self { layout: LAYOUT, count: sources.len() as u64, ..Self::zeroed() };
        settings.sources.get_mut(..sources.len())?.copy_from_slice(sources);
        Some(settings)
    }

    /// Whether packets are taken from this address.
    #[inline(always)]
    pub fn admits(&self, from: &Endpoint) -> bool {
        self.count == 0 || self.sources.iter().any(|source| source.contains(from))
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().take(self.count as usize)
    }
}

/// A prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// Its address, see [`endpoint`].
    pub prefix: Endpoint,
    /// Ones where an address has to be the same.
    pub mask: Address,
}

impl Source {
    /// The prefix of this length in bits; what the address has behind it does not matter.
    pub fn new(address: IpAddr, bits: u32) -> Self {
        let (mask, masked): (IpAddr, IpAddr) = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(Ipv4Addr::BITS.saturating_sub(bits)).unwrap_or(0);
                (Ipv4Addr::from(mask).into(), Ipv4Addr::from(address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(Ipv6Addr::BITS.saturating_sub(bits)).unwrap_or(0);
                (Ipv6Addr::from(mask).into(), Ipv6Addr::from(address.to_bits() & mask).into())
            }
        };
        Self { prefix: endpoint(masked), mask: address_words(mask) }
    }

    /// The address and the length in bits.
    pub fn parts(&self) -> (IpAddr, u32) {
        let [first, second] = self.mask;
        (self.prefix.ip(), first.count_ones() + second.count_ones())
    }

    #[inline(always)]
    const fn contains(&self, from: &Endpoint) -> bool {
        let ([a, b], [c, d], [first, second]) = (from.address, self.prefix.address, self.mask);
        // Without a branch for each of them: the verifier follows them all.
        ((a ^ c) & first) | ((b ^ d) & second) | (from.tail ^ self.prefix.tail) == 0
    }
}

/// How an outer address is told: with its family, and neither protocol nor port.
pub fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint::new(address, 0, 0)
}

/// What the decapsulator looks things up in.
pub trait Tables {
    /// What holds for every packet.
    fn settings(&self) -> Option<&Settings>;
    /// Whether tunnels end at this [`endpoint`].
    fn receives(&self, to: &Endpoint) -> bool;
    /// Counts the way out of a packet.
    fn count(&self, why: Why);
}
