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
    /// It ends here.
    Drop(Why),
}

impl Verdict {
    /// The reason.
    #[inline(always)]
    pub const fn why(self) -> Why {
        match self {
            Self::Pass(why) | Self::Transmit(why) | Self::Redirect(why, _) | Self::Drop(why) => why,
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
    /// Sent to a backend through a tunnel.
    ForwardedTunnel = "forwarded_tunnel",
    /// The rest of a datagram in fragments, sent where its first fragment went.
    FragmentForwarded = "fragment_forwarded",
    /// An ICMP error about a service's packet, sent to the backend that owns the flow.
    ErrorForwarded = "error_forwarded",
    /// A backend's reply, sent to the client from the service's address.
    Returned = "returned",
    /// An ICMP error about a client's packet, sent to the client as if it were about the service.
    ErrorReturned = "error_returned",
    /// A packet on its way back with the service's address restored, left to the kernel, which has to resolve the neighbour or
    /// to use an interface without the program.
    ReturnedByStack = "returned_by_stack",
    /// Longer than what its backend can be sent: the sender was told by an ICMP message.
    TooLongAnswered = "too_long_answered",
    /// An echo request to a service address, answered.
    EchoAnswered = "echo_answered",
    /// A DNS question, answered with what we are the authority for.
    Answered = "answered",
    /// A DNS question for what we know not to be there, answered so.
    AnsweredNegative = "answered_negative",
    /// A DNS question, answered with what another server said a while ago.
    AnsweredCached = "answered_cached",
    /// A DNS question whose answer is larger than the client takes: it was told to ask by TCP.
    DnsTruncated = "dns_truncated",
    /// A DNS question beyond its clients' rate, told to ask by TCP.
    DnsSlipped = "dns_slipped",
    /// A DNS question beyond its clients' rate, dropped.
    DnsLimited = "dns_limited",
    /// A DNS question without an answer here, beyond the rate at which its clients may have the agent work; dropped.
    DnsMissLimited = "dns_miss_limited",
    /// A DNS question after the agent's lease, refused with SERVFAIL as the config wants it.
    DnsLapseRefused = "dns_lapse_refused",
    /// A DNS question whose answer was replaced while it was copied, dropped; the client asks again.
    DnsReplaced = "dns_replaced",
    /// An ARP request for a service address, answered.
    ArpAnswered = "arp_answered",
    /// A neighbour solicitation for a service address, answered.
    NeighborAnswered = "neighbor_answered",
    /// Shorter than its headers say.
    Truncated = "truncated",
    /// Neither IPv4, IPv6 nor ARP, or behind more than two VLAN tags.
    NotIp = "not_ip",
    /// A header of IPv4 that is none: another version, or shorter than one can be.
    Ipv4Header = "ipv4_header",
    /// IPv6 extension headers that are too many, or that only its destination may read.
    Ipv6Extensions = "ipv6_extensions",
    /// The rest of a datagram in fragments whose first fragment was not seen, or went to no backend.
    FragmentUnknown = "fragment_unknown",
    /// Neither TCP, UDP nor ICMP.
    OtherProtocol = "other_protocol",
    /// An ICMP message that is about nothing of ours.
    IcmpNotOurs = "icmp_not_ours",
    /// An ARP packet that asks for nothing of ours.
    ArpNotOurs = "arp_not_ours",
    /// A neighbour solicitation that asks for nothing of ours.
    NeighborNotOurs = "neighbor_not_ours",
    /// To no service.
    NoService = "no_service",
    /// To a service of whose backends none can take this flow.
    NoBackend = "no_backend",
    /// Hops used up: the kernel tells the sender.
    HopsExceeded = "hops_exceeded",
    /// Longer than what its backend can be sent, and such that no ICMP message may be sent about it.
    TooLong = "too_long",
    /// From a NAT backend to this machine, such as the answer to a probe, or to nowhere.
    ReturnNotForwarded = "return_not_forwarded",
    /// Something else than UDP to a DNS address: the agent serves TCP.
    DnsTcp = "dns_tcp",
    /// A DNS message in fragments, behind options or extension headers, or of another length than its datagram.
    DnsNotPlain = "dns_not_plain",
    /// A DNS message from a port that no client has (0), or a server (53): two servers that answer each other never stop.
    DnsPort = "dns_port",
    /// A response where questions are expected.
    DnsResponse = "dns_response",
    /// A DNS message that is truncated or no query: NOTIFY, an update.
    DnsOpcode = "dns_opcode",
    /// A DNS message with not just one question, or with records that a query does not have.
    DnsCounts = "dns_counts",
    /// A DNS question whose name has no end.
    DnsName = "dns_name",
    /// A DNS question followed by something else than one OPT record, or by more.
    DnsTrailing = "dns_trailing",
    /// A DNS question in an unknown version of EDNS.
    DnsVersion = "dns_version",
    /// A DNS question with EDNS options that the agent has to answer, too many or malformed ones.
    DnsOption = "dns_option",
    /// A DNS question without an answer here.
    DnsMiss = "dns_miss",
    /// A DNS question whose answer has outlived its TTL.
    DnsSpent = "dns_spent",
    /// A DNS question after the agent's lease: it has not said for long that what is here is still right.
    DnsLapsed = "dns_lapsed",
    /// The frame can't grow to hold the answer or the outer header.
    NoRoom = "no_room",
    /// The tables contradict each other: a slot, backend, interface or setting that should be there is not.
    Inconsistent = "inconsistent",
}

/// Number of reasons.
pub const REASONS: u32 = Why::ALL.len() as u32;
