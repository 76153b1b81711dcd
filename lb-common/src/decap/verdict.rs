//! What happens to a frame on a backend, and why: the one list of all ways out.

use crate::verdict::why;

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's network stack takes it.
    Pass(Why),
    /// It ends here.
    Drop(Why),
}

impl Verdict {
    /// The reason.
    #[inline(always)]
    pub const fn why(self) -> Why {
        match self {
            Self::Pass(why) | Self::Drop(why) => why,
        }
    }
}

why! {
    /// IPv4 out of IPv4, passed to the stack.
    Ipv4InIpv4 = "ipv4_in_ipv4",
    /// IPv6 out of IPv4, passed to the stack.
    Ipv6InIpv4 = "ipv6_in_ipv4",
    /// IPv4 out of IPv6, passed to the stack.
    Ipv4InIpv6 = "ipv4_in_ipv6",
    /// IPv6 out of IPv6, passed to the stack.
    Ipv6InIpv6 = "ipv6_in_ipv6",
    /// Dropped: congestion was met on the way, and the sender would not understand the mark that says so; for it only a loss does
    /// (RFC 6040 section 4.2).
    DroppedForCongestion = "dropped_for_congestion",
    /// In no tunnel: what else comes to this machine.
    NotTunneled = "not_tunneled",
    /// In a tunnel to an address that is not one of those to take packets out at.
    OtherDestination = "other_destination",
    /// In a tunnel from a source that is not one of those to take packets from.
    OtherSource = "other_source",
    /// Neither IPv4 nor IPv6, or behind more than two VLAN tags.
    NotIp = "not_ip",
    /// An outer header longer than the frame, or shorter than one can be.
    Truncated = "truncated",
    /// An outer IPv4 header with options, or of another version.
    Ipv4Options = "ipv4_options",
    /// An outer IPv4 header whose checksum is wrong: the stack discards it.
    Ipv4Checksum = "ipv4_checksum",
    /// An outer IPv6 header with extension headers; Linux's own tunnels write one unless they have `encaplimit none`.
    Ipv6Extensions = "ipv6_extensions",
    /// A fragment of an outer packet: the way to here takes shorter packets than the balancer thinks.
    Fragment = "fragment",
    /// An inner packet of another version than the outer header says.
    InnerVersion = "inner_version",
    /// An inner packet longer than the outer one, or shorter than its own header.
    InnerLength = "inner_length",
    /// The tables contradict each other: the settings are missing.
    Inconsistent = "inconsistent",
}

/// Number of reasons.
pub const REASONS: u32 = Why::ALL.len() as u32;
