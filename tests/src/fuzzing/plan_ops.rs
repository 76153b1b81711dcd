//! Configs, health, drains, restarts, sweeps and plans that stop midway, in any order, with packets in between.

use super::{checks::Seen, plan_laws, world::World};
use arbitrary::{Arbitrary, Result, Unstructured};
use std::fmt::Write as _;

/// Seconds that an adoption window is open.
pub(super) const ADOPT: u64 = 30;
/// Seconds after which a silent flow is over.
const IDLE: u64 = 60;
/// Services that there may be.
pub(super) const SERVICES: usize = 4;
/// Backends that each of them may have.
pub(super) const SERVERS: usize = 4;
/// More events find nothing that fewer do not, and take longer.
const MOST_EVENTS: usize = 40;

/// What happens.
#[derive(Clone, Debug)]
pub struct Input {
    first: Config,
    events: Vec<Event>,
}

/// What an operator may write.
#[derive(Arbitrary, Clone, Debug)]
pub struct Config {
    services: [Service; SERVICES],
    /// How many addresses the name in DNS has (bits 0 and 1; without any there is no name), and whether drains end by themselves.
    rest: u8,
}

/// A service as an operator may write it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Service {
    /// Bit by bit, see [`Service::write`]; there is none if bit 7 is set.
    kind: u8,
    /// Weights of its backends; those with bit 7 are not there.
    servers: [u8; SERVERS],
}

/// A server: the number of the service that it may be behind, and its own.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Server {
    pub(super) service: u8,
    pub(super) number: u8,
}

/// Packets from some clients.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Packets {
    pub(super) service: u8,
    pub(super) first: u8,
    pub(super) count: u8,
    /// Whether they begin flows, if it is odd.
    pub(super) begin: u8,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// The config is another one.
    Reload(Config),
    /// A server fails, or comes back if the number is odd.
    Health(Server, u8),
    /// The way to a server is another one, or there is none.
    Way(Server, u8),
    /// The operator drains a backend for so many seconds; without end if they are 255, no longer if they are 254.
    Drain(Server, u8),
    /// An interface goes, or comes if the number is odd.
    Interface(u8),
    /// DNS questions come for the name that nothing is known for.
    Ask,
    /// Packets come.
    Packets(Packets),
    /// Seconds pass.
    Time(u8),
    /// The agent sweeps.
    Sweep,
    /// The next plan stops after so many steps.
    Fail(u8),
    /// The agent is killed, and another one comes.
    Restart,
}

impl<'a> Arbitrary<'a> for Event {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(bytes)? % 16 {
            0 | 1 => Self::Reload(Config::arbitrary(bytes)?),
            2 | 3 => Self::Health(Server::arbitrary(bytes)?, u8::arbitrary(bytes)?),
            4 => Self::Way(Server::arbitrary(bytes)?, u8::arbitrary(bytes)?),
            5 => Self::Drain(Server::arbitrary(bytes)?, u8::arbitrary(bytes)?),
            6 => Self::Interface(u8::arbitrary(bytes)?),
            7 => Self::Ask,
            8..=10 => Self::Packets(Packets::arbitrary(bytes)?),
            11 | 12 => Self::Time(u8::arbitrary(bytes)?),
            13 => Self::Sweep,
            14 => Self::Fail(u8::arbitrary(bytes)?),
            _ => Self::Restart,
        })
    }
}

/// Byte by byte from the front, so that a change of one byte changes one thing.
impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let (first, mut events) = (Config::arbitrary(bytes)?, Vec::new());
        while !bytes.is_empty() && events.len() < MOST_EVENTS {
            events.push(Event::arbitrary(bytes)?);
        }
        Ok(Self { first, events })
    }
}

impl Config {
    /// The text of it.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[limits]\nservices = 16\nbackends = 16\n\
             [tracking]\nadopt_seconds = {ADOPT}\ntcp_idle_seconds = {IDLE}\nudp_idle_seconds = {IDLE}\n"
        );
        if self.rest & 4 != 0 {
            text += "drain_seconds = 40\n";
        }
        text += "[tunnel]\nsource_ipv4 = \"10.99.0.0/16\"\nsource_ipv6 = \"fd99::/64\"\n[check.c]\nport = 9\n";
        for (number, service) in self.services.iter().enumerate() {
            if service.kind & 128 == 0 {
                service.write(number, &mut text);
            }
        }
        let addresses = self.rest % 4;
        if addresses != 0 {
            text += "[dns]\nlisten = [\"192.0.2.53\"]\n[[dns.name]]\nname = \"a.example\"\naddresses = [";
            for address in 0..addresses {
                let _ = write!(text, "\"198.51.100.{address}\", ");
            }
            text += "]\n";
        }
        text
    }
}

impl Service {
    fn write(&self, number: usize, text: &mut String) {
        let kind = self.kind;
        let mode = ["dsr", "nat", "tunnel", "nat"][usize::from(kind % 4)];
        // Four of them, two at one address; which one has all of its ports is chosen anew each time.
        let address = number / 2;
        let port = if kind & 4 != 0 { "\"any\"".to_owned() } else { (80 + number).to_string() };
        let protocol = if number == 1 { "udp" } else { "tcp" };
        let _ = write!(
            text,
            "[[service]]\nname = \"s{number}\"\naddress = \"192.0.2.{address}\"\nport = {port}\nprotocol = \"{protocol}\"\n\
             mode = \"{mode}\"\ncheck = \"c\"\n"
        );
        // The smallest tables, but for those that have to be made anew for a weight.
        if kind & 8 == 0 {
            *text += "slots = 251\n";
        }
        if protocol == "udp" && kind & 16 != 0 {
            *text += "udp = \"move\"\n";
        }
        // A NAT backend may have been another service's a moment ago.
        let net = if kind & 32 != 0 { 0 } else { number };
        let servers = || self.servers.iter().enumerate().filter(|(_, weight)| **weight & 128 == 0);
        let has_weight = servers().any(|(_, weight)| weight_of(*weight) > 0);
        if servers().next().is_none() {
            let _ = writeln!(text, "[[service.backend]]\naddress = \"10.0.{net}.9\"");
        }
        for (server, weight) in servers() {
            let address = address_of(net, server, mode == "tunnel" && kind & 64 != 0);
            let weight = if has_weight { weight_of(*weight) } else { 1 };
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}");
            if mode == "nat" && port != "\"any\"" {
                let _ = writeln!(text, "port = 8080");
            }
        }
    }
}

/// Mostly such that all fit the smallest table.
fn weight_of(number: u8) -> u32 {
    if number == 127 { 150 } else { u32::from(number % 4) }
}

pub(super) fn address_of(net: usize, server: usize, other_family: bool) -> String {
    if other_family { format!("fd00::{net}:{server}") } else { format!("10.0.{net}.{server}") }
}

impl Input {
    /// Does all of it. Returns how many steps that took, and how many packets found a backend.
    pub fn run(&self) -> (usize, usize) {
        let mut world = World::new(Seen::default());
        world.reload(&self.first.text());
        plan_laws::settle(&mut world, usize::MAX);
        for event in self.events.iter().take(MOST_EVENTS) {
            let mut steps = usize::MAX;
            match event {
                Event::Reload(config) => world.reload(&config.text()),
                Event::Health(server, up) => world.set_up(*server, up % 2 == 1),
                Event::Way(server, way) => world.set_way(*server, *way),
                Event::Drain(server, seconds) => world.set_drained(*server, *seconds),
                Event::Interface(there) => world.set_interface(there % 2 == 1),
                Event::Ask => world.ask(),
                Event::Packets(packets) => world.packets(*packets),
                Event::Time(seconds) => world.pass(u64::from(*seconds)),
                Event::Sweep => world.sweep(),
                Event::Fail(after) => steps = usize::from(*after),
                Event::Restart => world.restart(),
            }
            plan_laws::settle(&mut world, steps);
        }
        (world.steps, world.served)
    }
}
