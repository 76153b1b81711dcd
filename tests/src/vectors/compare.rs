//! What came of a frame against what a vector says, and what differs on purpose.

use super::{
    file::{Action, Kind, Vector},
    flow::Flow,
};
use etherparse::{Icmpv4Type, Icmpv6Type, LaxNetSlice, LaxSlicedPacket, TransportSlice, icmpv4};
use std::{collections::BTreeMap, net::IpAddr};

/// What came of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was done with it.
    pub action: Action,
    /// It afterwards.
    pub frame: Vec<u8>,
    /// The reason, by its name.
    pub why: &'static str,
}

/// What came of a vector.
pub struct Case<'v> {
    /// It.
    pub vector: &'v Vector,
    /// What came of its frame.
    pub outcome: Outcome,
    /// The reals that its packet may go to.
    pub reals: Vec<IpAddr>,
}

/// The real that each flow was sent to first.
#[derive(Default)]
pub struct Homes(BTreeMap<Flow, IpAddr>);

/// How a vector compares.
pub enum Judgement {
    /// As it says.
    Equal,
    /// Otherwise, on purpose.
    Differs(&'static str),
    /// Otherwise.
    Fails(String),
}

/// Something that this project does otherwise on purpose.
struct Policy {
    reason: &'static str,
    /// Whether that is all that differs, and is done right.
    explains: fn(&Case<'_>) -> bool,
}

const POLICIES: &[Policy] = &[
    Policy {
        reason: "the outer header forbids fragments: whose packet is too long is told",
        explains: forbids_fragments,
    },
    Policy {
        reason: "the message repeats as much of the packet as RFC 1812 and RFC 4443 let it",
        explains: |case| case.expects(Action::Transmit, Kind::Reply) && case.tells_of_too_long(),
    },
    Policy {
        reason: "a packet that is too long is answered, not dropped",
        explains: |case| case.expects(Action::Drop, Kind::Unmodified) && case.tells_of_too_long(),
    },
    Policy { reason: "IPv4 options are forwarded, not dropped", explains: forwards_options },
    Policy {
        reason: "fragments follow their datagram's first one, or pass; none is dropped",
        explains: |case| case.passes_instead() && ["fragment_unknown", "fragment"].contains(&case.outcome.why),
    },
    Policy {
        reason: "fragments are no tunnel's packets and pass; none is dropped",
        explains: |case| case.passes_instead() && case.outcome.why == "not_tunneled" && is_fragment(&case.vector.frame),
    },
    Policy {
        reason: "without a backend packets pass; none is dropped",
        explains: |case| case.passes_instead() && case.outcome.why == "no_backend",
    },
];

/// Compares.
pub fn judge(case: &Case<'_>, homes: &mut Homes) -> Judgement {
    let fault = match fault(case, homes) {
        Ok(()) => return Judgement::Equal,
        Err(fault) => fault,
    };
    match POLICIES.iter().find(|policy| (policy.explains)(case)) {
        Some(policy) => Judgement::Differs(policy.reason),
        None => Judgement::Fails(fault),
    }
}

/// What is not as the vector says.
fn fault(case: &Case<'_>, homes: &mut Homes) -> Result<(), String> {
    let Case { vector, outcome, .. } = case;
    if outcome.action != vector.action {
        return Err(format!("{:?} instead of {:?}, for {}", outcome.action, vector.action, outcome.why));
    }
    if vector.expect.kind == Kind::Encap {
        let real = case.wrapped_for()?;
        let home = Flow::of(&vector.frame).map(|flow| *homes.0.entry(flow).or_insert(real));
        if let Some(home) = home.filter(|home| *home != real) {
            return Err(format!("the flow went to {home} before and goes to {real} now"));
        }
    }
    let differing = case.differing();
    if differing.is_empty() { Ok(()) } else { Err(format!("other bytes at {differing:?}: {:02x?}", outcome.frame)) }
}

impl Case<'_> {
    fn expects(&self, action: Action, kind: Kind) -> bool {
        (self.vector.action, self.vector.expect.kind) == (action, kind)
    }

    /// Places of the bytes that are not as they should be. A frame of another length differs in all places that only one has.
    fn differing(&self) -> Vec<usize> {
        let (is, should) = (&self.outcome.frame, &self.vector.out);
        let free = |at: usize| {
            let mut ranges = self.vector.expect.free_bytes_if_ring_differs.iter();
            ranges.any(|[start, count]| (*start..start + count).contains(&at))
        };
        (0..is.len().max(should.len())).filter(|at| is.get(*at) != should.get(*at) && !free(*at)).collect()
    }

    /// The real that the packet goes to behind an outer header; it must be one of the VIP's, and the packet untouched.
    fn wrapped_for(&self) -> Result<IpAddr, String> {
        let sent = &self.outcome.frame;
        let behind = |start: usize| sent.get(start..).is_some_and(|inner| Some(inner) == self.vector.frame.get(14..));
        let (real, header): (IpAddr, usize) = match LaxSlicedPacket::from_ethernet(sent).ok().and_then(|sent| sent.net)
        {
            Some(LaxNetSlice::Ipv4(ip)) => (ip.header().destination_addr().into(), 20),
            Some(LaxNetSlice::Ipv6(ip)) => (ip.header().destination_addr().into(), 40),
            _ => return Err(format!("no outer header: {sent:02x?}")),
        };
        if !behind(14 + header) {
            return Err(format!("the packet behind the outer header is another one: {sent:02x?}"));
        }
        if self.reals.contains(&real) { Ok(real) } else { Err(format!("{real} is not among {:?}", self.reals)) }
    }

    /// Whether it was left to the stack as it came, and should have been dropped.
    fn passes_instead(&self) -> bool {
        self.expects(Action::Drop, Kind::Unmodified)
            && self.outcome.action == Action::Pass
            && self.outcome.frame == self.vector.frame
    }

    /// Whether the sender is told, by a message about the start of its packet, the length that can be sent on. Where the vector has
    /// a message as well, both say the same length.
    fn tells_of_too_long(&self) -> bool {
        let Outcome { action: Action::Transmit, frame, .. } = &self.outcome else { return false };
        let (Some((mtu, quote)), frame) = (too_long(frame), &self.vector.frame) else { return false };
        let says = match too_long(&self.vector.out) {
            Some((said, short)) => said == mtu && quote.starts_with(&short),
            None => self.vector.expect.kind != Kind::Reply,
        };
        says && frame.len() - 14 > mtu as usize && frame.get(14..).is_some_and(|packet| packet.starts_with(&quote))
    }
}

/// The length that a message about a packet that is too long tells, and what it repeats of the packet. Its checksum is right.
fn too_long(frame: &[u8]) -> Option<(u32, Vec<u8>)> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net.as_ref()?, packet.transport.as_ref()?) {
        (LaxNetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            let Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }) =
                icmp.icmp_type()
            else {
                return None;
            };
            let right = icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum();
            right.then(|| (next_hop_mtu.into(), icmp.payload().to_vec()))
        }
        (LaxNetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let Icmpv6Type::PacketTooBig { mtu } = icmp.icmp_type() else { return None };
            let right = icmp.is_checksum_valid(ip.header().source(), ip.header().destination());
            right.then(|| (mtu, icmp.payload().to_vec()))
        }
        _ => None,
    }
}

fn forbids_fragments(case: &Case<'_>) -> bool {
    const FLAGS: usize = 20;
    let differing = case.differing();
    case.expects(Action::Transmit, Kind::Encap)
        && case.outcome.action == Action::Transmit
        && case.wrapped_for().is_ok_and(|real| real.is_ipv4())
        && differing == [FLAGS]
        && case.outcome.frame.get(FLAGS) == Some(&0x40)
}

fn forwards_options(case: &Case<'_>) -> bool {
    let has_options = matches!(case.vector.frame.get(12..15), Some([0x08, 0x00, 0x46..=0x4f]));
    case.expects(Action::Drop, Kind::Unmodified)
        && case.outcome.action == Action::Transmit
        && has_options
        && case.wrapped_for().is_ok()
}

fn is_fragment(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(20..22).is_some_and(|field| field != [0, 0] && field != [0x40, 0]),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&44),
        _ => false,
    }
}
