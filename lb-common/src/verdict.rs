//! What happens to a packet, and why: the one list of all ways out.

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel's network stack takes it.
    Pass(Why),
    /// It leaves by the interface it came in by.
    Transmit(Why),
    /// It leaves by the interface with this index.
    Redirect(Why, u32),
}

impl Verdict {
    /// The reason.
    #[inline(always)]
    pub const fn why(self) -> Why {
        match self {
            Self::Pass(why) | Self::Transmit(why) | Self::Redirect(why, _) => why,
        }
    }
}

macro_rules! why {
    ($($(#[doc = $help:literal])+ $name:ident = $label:literal,)*) => {
        /// Why a packet left the way it did: a return value, the index of a counter, a metric's label and a text, all from
        /// this list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Why { $($(#[doc = $help])+ $name),* }

        impl Why {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in metrics and in a status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// One sentence for an operator.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => concat!($($help),+)),* }
            }
        }
    };
}

pub(crate) use why;

why! {
    /// Sent to a backend with only its MAC address changed.
    ForwardedDsr = "forwarded_dsr",
    /// Sent to a backend with address and port rewritten.
    ForwardedNat = "forwarded_nat",
    /// A backend's reply, sent to the client from the service's address.
    Returned = "returned",
    /// A backend's reply with the service's address restored, left to the kernel, which has to resolve the neighbour or to
    /// use an interface without the program.
    ReturnedByStack = "returned_by_stack",
    /// A DNS question, answered.
    Answered = "answered",
    /// An ARP request for a service address, answered.
    ArpAnswered = "arp_answered",
    /// A neighbour solicitation for a service address, answered.
    NeighborAnswered = "neighbor_answered",
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// Neither IPv4, IPv6 nor ARP.
    NotIp = "not_ip",
    /// IPv4 with options, or not IPv4 at all in spite of its EtherType.
    Ipv4Options = "ipv4_options",
    /// A fragment of an IPv4 datagram.
    Fragment = "fragment",
    /// Neither TCP, UDP nor a neighbour solicitation.
    OtherProtocol = "other_protocol",
    /// An ARP packet that asks for nothing of ours.
    ArpNotOurs = "arp_not_ours",
    /// A neighbour solicitation that asks for nothing of ours.
    NeighborNotOurs = "neighbor_not_ours",
    /// To no service.
    NoService = "no_service",
    /// To a service without a slot table: none of its backends can take traffic.
    NoBackend = "no_backend",
    /// Hops used up: the kernel tells the sender.
    HopsExceeded = "hops_exceeded",
    /// From a NAT backend to this machine, such as the answer to a probe, or to nowhere.
    ReturnNotForwarded = "return_not_forwarded",
    /// A DNS message that the path does not handle: not one plain question, or an unknown EDNS version.
    DnsNotPlain = "dns_not_plain",
    /// A DNS question without an answer here.
    DnsMiss = "dns_miss",
    /// A DNS question whose answer has outlived its TTL.
    DnsSpent = "dns_spent",
    /// An answer larger than the client takes.
    DnsTooLarge = "dns_too_large",
    /// The frame can't grow to hold the answer.
    NoRoom = "no_room",
    /// The tables contradict each other: a slot, backend, interface or setting that should be there is not.
    Inconsistent = "inconsistent",
}

/// Number of reasons.
pub const REASONS: u32 = Why::ALL.len() as u32;
