//! What is measured: frames, and what the path has to do with them.

use crate::{
    config::{DNS, NAME},
    control::{ADDRESS4, ADDRESS4_TAGGED, ADDRESS6, DATAGRAM4, ONE_FLOW},
    frames::{self, Ends},
};
use anyhow::Result;
use lb_common::{
    tables::{ANY_PORT, FlowTable, RETURNS},
    verdict::Why,
};

/// What a program returns: `enum xdp_action` of the kernel's `uapi/linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Left to the kernel.
    Pass = 2,
    /// Sent back.
    Transmit = 3,
    /// Sent out of another interface.
    Redirect = 4,
}

/// What is measured together.
pub struct Case {
    /// What it is called.
    pub name: String,
    /// What is called in each round: the path, or a floor.
    pub program: &'static str,
    /// What each round begins with.
    pub frame: Vec<u8>,
    /// Where flows differ: [`ONE_FLOW`] and the others.
    pub vary: u64,
    /// How many there are, a power of two.
    pub flows: u32,
    /// The first one's address, as a number.
    pub first: u64,
    /// What the program returns.
    pub action: Action,
    /// The counter that moves, by one each packet.
    pub why: Option<Why>,
    /// What packets pay for: [`lb_common::tables::Settings::features`].
    pub features: u64,
    /// Where its flows are tracked.
    pub tracked: Option<FlowTable>,
    /// A frame that the path has to have seen before.
    pub before: Option<Vec<u8>>,
}

/// The program of the path's cases.
pub const PATH: &str = "rounds_path";

const SOME: u32 = 1 << 16;
const MANY: u32 = 1 << 20;
const CLIENT4: &str = "10.78.1.10";
const CLIENT6: &str = "fd78:1::10";
/// Clients whose neighbour entries have to be there.
pub const CLIENTS: [&str; 2] = [CLIENT4, CLIENT6];

const fn to4(address: &'static str, port: u16) -> Ends<'static> {
    Ends { from: CLIENT4, from_port: 40_001, to: address, to_port: port }
}

const fn to6(address: &'static str, port: u16) -> Ends<'static> {
    Ends { from: CLIENT6, from_port: 40_001, to: address, to_port: port }
}

/// A service behind tunnels to backends where the frames come from.
pub const TUNNEL: Ends<'_> = to4("192.0.2.20", 80);
/// The same with backends elsewhere.
pub const AWAY: Ends<'_> = to4("192.0.2.22", 80);

impl Case {
    fn new(name: &str, action: Action, why: Why, frame: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            program: PATH,
            frame,
            vary: ONE_FLOW,
            flows: 1,
            first: 0x0a00_0000,
            action,
            why: Some(why),
            features: RETURNS,
            tracked: None,
            before: None,
        }
    }

    fn floor(name: &str, program: &'static str, action: Action, frame: Vec<u8>) -> Self {
        Self { program, why: None, ..Self::new(name, action, Why::NoService, frame) }
    }

    fn passed(name: &str, features: u64, frame: Vec<u8>) -> Self {
        Self { features, ..Self::new(name, Action::Pass, Why::NoService, frame) }
    }

    fn sent(name: &str, why: Why, frame: Vec<u8>) -> Self {
        Self::new(name, Action::Transmit, why, frame)
    }

    fn with(self, vary: u64, flows: u32) -> Self {
        Self { vary, flows, ..self }
    }

    /// Through a tunnel, with 1, 64 Ki and 1 Mi flows.
    fn tunnels(name: &str, vary: u64, frame: &[u8]) -> [Self; 3] {
        [(1, "1 flow"), (SOME, "64 Ki flows"), (MANY, "1 Mi flows")].map(|(flows, text)| {
            let case = Self::sent(&format!("{name}, {text}"), Why::ForwardedTunnel, frame.to_vec());
            if flows == 1 { case } else { case.with(vary, flows) }
        })
    }
}

/// All cases. The first is the floor that others are compared with; the floors are first.
pub fn all() -> Result<Vec<Case>> {
    Ok(floors()?.into_iter().chain(plain()?).chain(changed()?).chain(rare()?).collect())
}

fn floors() -> Result<Vec<Case>> {
    let frame = TUNNEL.tcp(0)?;
    Ok(vec![
        Case::floor("floor: pass", "rounds_pass", Action::Pass, frame.clone()),
        Case::floor("floor: pass, flow written", "rounds_pass", Action::Pass, frame.clone()).with(ADDRESS4, SOME),
        Case::floor("floor: MAC swap", "rounds_swap", Action::Transmit, frame.clone()),
        Case::floor("floor: constant IPIP", "rounds_encapsulate", Action::Transmit, frame),
    ])
}

/// What nearly every frame is.
fn plain() -> Result<Vec<Case>> {
    let other = to4("192.0.2.99", 80).tcp(0)?;
    let back4 = Ends { from: "10.78.9.1", from_port: 8080, to: CLIENT4, to_port: 40_001 };
    let back6 = Ends { from: "fd78:9::1", from_port: 8080, to: CLIENT6, to_port: 40_001 };
    let mut cases = vec![
        Case::passed("not ours", 0, other.clone()),
        Case::passed("not ours, NAT configured", RETURNS, other.clone()),
        Case::passed("not ours, NAT and all ports configured", RETURNS | ANY_PORT, other),
        Case::sent("dsr IPv4", Why::ForwardedDsr, to4("192.0.2.10", 80).tcp(0)?),
        Case::sent("dsr IPv6", Why::ForwardedDsr, to6("2001:db8::10", 80).tcp(0)?),
        Case::sent("nat IPv4", Why::ForwardedNat, to4("192.0.2.11", 80).tcp(0)?),
        Case::sent("nat IPv6", Why::ForwardedNat, to6("2001:db8::11", 80).tcp(0)?),
        Case::new("nat back IPv4", Action::Redirect, Why::Returned, back4.tcp(0)?),
        Case::new("nat back IPv6", Action::Redirect, Why::Returned, back6.tcp(0)?),
    ];
    cases.extend(Case::tunnels("tunnel 4 in 4, TCP", ADDRESS4, &TUNNEL.tcp(0)?));
    cases.extend(Case::tunnels("tunnel 4 in 4, SYN", ADDRESS4, &TUNNEL.syn()?));
    cases.extend(Case::tunnels("tunnel 4 in 4, UDP", ADDRESS4, &to4("192.0.2.20", 443).udp(&[0; 18])?));
    cases.extend(Case::tunnels("tunnel 6 in 6, TCP", ADDRESS6, &to6("2001:db8::20", 80).tcp(0)?));
    cases.extend(Case::tunnels("tunnel 6 in 6, SYN", ADDRESS6, &to6("2001:db8::20", 80).syn()?));
    cases.extend(Case::tunnels("tunnel 6 in 6, UDP", ADDRESS6, &to6("2001:db8::20", 443).udp(&[0; 18])?));
    cases.extend(Case::tunnels("tunnel 4 in 6, TCP", ADDRESS4, &to4("192.0.2.21", 80).tcp(0)?));
    cases.extend(Case::tunnels("tunnel 6 in 4, TCP", ADDRESS6, &to6("2001:db8::21", 80).tcp(0)?));
    let redirected = Case::new("tunnel 4 in 4, TCP, redirected", Action::Redirect, Why::ForwardedTunnel, AWAY.tcp(0)?);
    cases.push(redirected.with(ADDRESS4, SOME));
    cases.push(Case::sent("DNS hit", Why::Answered, to4(DNS, 53).question(NAME)?));
    Ok(cases)
}

/// All slots of the service are changed, and their windows open.
fn changed() -> Result<Vec<Case>> {
    let service = to4("192.0.2.30", 80);
    let flows = Case::sent("all slots changed, 64 Ki flows tracked", Why::ForwardedTunnel, service.tcp(0)?);
    let flood = Case::sent("all slots changed, SYN flood of 1 Mi", Why::ForwardedTunnel, service.syn()?);
    Ok(vec![
        Case { tracked: Some(FlowTable::Established), ..flows.with(ADDRESS4, SOME) },
        Case { tracked: Some(FlowTable::HalfOpen), first: 0x0b00_0000, ..flood.with(ADDRESS4, MANY) },
    ])
}

/// What few frames are.
fn rare() -> Result<Vec<Case>> {
    let udp = to4("192.0.2.20", 443);
    let tagged = Case::sent("tunnel 4 in 4, TCP, VLAN tag", Why::ForwardedTunnel, frames::tagged(&TUNNEL.tcp(0)?, 7));
    Ok(vec![
        tagged.with(ADDRESS4_TAGGED, SOME),
        Case::sent("first fragment, 64 Ki datagrams", Why::ForwardedTunnel, udp.fragment(true)?).with(DATAGRAM4, SOME),
        Case {
            before: Some(udp.fragment(true)?),
            ..Case::sent("rest of a datagram", Why::FragmentForwarded, udp.fragment(false)?)
        },
        Case::sent("ICMP error to a backend", Why::ErrorForwarded, TUNNEL.unreachable("203.0.113.1")?),
        Case::sent("echo IPv4", Why::EchoAnswered, TUNNEL.echo()?),
        Case::sent("echo IPv6", Why::EchoAnswered, to6("2001:db8::20", 0).echo()?),
        Case::sent("too long, answered", Why::TooLongAnswered, TUNNEL.tcp(1_460)?),
    ])
}
