//! `lb decap`: what a backend behind tunnels runs instead of an agent.

use crate::{
    kernel::{
        KernelError, attach,
        decap::{self, DEFAULT_PINS, Decapsulator, Found},
        netlink::{self, Program},
    },
    model::{intent::Attach, prefix::Prefix},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use lb_common::decap::tables::{MAX_ADDRESSES, MAX_SOURCES, Settings, Source};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};
use thiserror::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach the decapsulator to interfaces, or replace what is there with other settings in one step.
    ///
    /// It stays when the command has ended, until `lb decap detach` or a restart of the machine. IPv4 and IPv6 in IPv4 and IPv6 are
    /// taken out, tagged for a VLAN or not. All other packets are left to the stack, those in fragments and those with options
    /// too. One kind is dropped: a packet that met congestion on its way and whose sender would not understand a mark that says
    /// so (RFC 6040).
    Attach(AttachArgs),
    /// Detach the decapsulator from interfaces.
    Detach {
        /// The interfaces.
        #[arg(required = true, value_name = "INTERFACE")]
        interfaces: Vec<String>,
        #[command(flatten)]
        pins: Pins,
    },
    /// Show where the decapsulator is attached, its settings, and where packets went since it was attached.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        pins: Pins,
    },
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The interfaces.
    #[arg(required = true, value_name = "INTERFACE")]
    interfaces: Vec<String>,
    /// Take only packets from this prefix: the balancers. Up to 8 times. Without it anybody who can send to this machine can send
    /// it packets in a tunnel, past the filters on the way that look at the packet outside.
    #[arg(long = "source", value_name = "PREFIX")]
    sources: Vec<Prefix>,
    /// Take only packets to this address, which is what the balancers know the backend by. Any number of times. Without it, all
    /// addresses that the interfaces have now, link-local ones apart; one that is on a VLAN, bridge or bond above them has to be
    /// named.
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Attach in generic mode, for drivers without XDP. An interface that is attached already keeps its mode.
    #[arg(long)]
    generic: bool,
    #[command(flatten)]
    pins: Pins,
}

/// Where the pins are.
#[derive(Debug, Args)]
pub struct Pins {
    /// Where to pin links and maps.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_PINS)]
    pins: PathBuf,
}

/// Why it can't be done that way.
#[derive(Debug, Error)]
pub enum DecapError {
    #[error("{count} sources are too many; name up to {MAX_SOURCES} prefixes")]
    TooManySources { count: usize },
    #[error("{count} addresses are too many; name up to {MAX_ADDRESSES} with `--address`")]
    TooManyAddresses { count: usize },
    #[error("{names}: no address that a tunnel could end at; name one with `--address`")]
    NoAddress { names: String },
    #[error("{names}: not attached; `lb decap status` lists what is")]
    NotAttached { names: String },
}

impl DecapError {
    /// As [`super::Cli`] says.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::TooManySources { .. } | Self::TooManyAddresses { .. } | Self::NoAddress { .. } => 2,
            Self::NotAttached { .. } => 1,
        }
    }
}

/// Does what the command line says.
pub async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Attach(args) => attach(args).await,
        Verb::Detach { interfaces, pins } => detach(&interfaces, &pins.pins),
        Verb::Status { json, pins } => status(json, &pins.pins).await,
    }
}

async fn attach(args: AttachArgs) -> Result<()> {
    let AttachArgs { interfaces, sources, addresses, generic, pins } = args;
    let from: Vec<_> = sources.iter().map(|source| Source::new(source.address(), source.bits())).collect();
    let settings = Settings::new(&from).ok_or(DecapError::TooManySources { count: from.len() })?;
    let (netlink, _changes) = netlink::connect()?;

    // All that can be wrong is looked for before anything is changed.
    let links = netlink.links().await?;
    let index = |name: &String| {
        let mut found = links.iter().filter(|(_, link)| link.name == *name);
        found.next().map(|(index, _)| *index).ok_or(KernelError::NoInterface { name: name.clone() })
    };
    let indexes: Vec<u32> = interfaces.iter().map(index).collect::<Result<_, _>>()?;
    let mut to: BTreeSet<IpAddr> = addresses.into_iter().collect();
    if to.is_empty() {
        let all = netlink.addresses().await?.into_iter();
        to.extend(all.filter(|(index, address)| indexes.contains(index) && ends_tunnels(*address)).map(|(_, ip)| ip));
    }
    if to.is_empty() {
        return Err(DecapError::NoAddress { names: interfaces.join(", ") }.into());
    }
    if to.len() > MAX_ADDRESSES as usize {
        return Err(DecapError::TooManyAddresses { count: to.len() }.into());
    }

    let pins = decap::hold(&pins.pins)?;
    let mode = if generic { Attach::Generic } else { Attach::Native };
    for (name, index) in interfaces.iter().zip(indexes) {
        Decapsulator::load(&settings, to.iter().copied())?.attach(&pins, name, index, mode)?;
        println!("attached to {name}: packets to {} leave their tunnels, {}", list(&to), from_whom(&sources));
        warn_of_strict_filter(name);
    }
    Ok(())
}

/// Whether a balancer can send to this address.
fn ends_tunnels(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

/// What is in a tunnel comes from a client, and its way back need not lead through the interface of the tunnel.
fn warn_of_strict_filter(name: &str) {
    const STRICT: u8 = 1;
    let filter = |name: &str| -> Option<u8> {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?.trim().parse().ok()
    };
    // The larger one holds (ip-sysctl.rst of the kernel).
    if filter("all").max(filter(name)) == Some(STRICT) {
        eprintln!(
            "warning: {name} has a strict reverse path filter, which drops packets of clients whose way back is by another \
             interface; `sysctl -w net/ipv4/conf/{name}/rp_filter=2` makes it a loose one"
        );
    }
}

fn detach(interfaces: &[String], pins: &Path) -> Result<()> {
    let mut missing = Vec::new();
    if !decap::attached(pins)?.is_empty() {
        let pins = decap::hold(pins)?;
        for name in interfaces {
            if decap::detach(pins.path(), name)? {
                println!("detached from {name}");
            } else {
                missing.push(name.as_str());
            }
        }
        if attach::attached(pins.path()).is_empty() {
            pins.remove()?;
        }
    } else {
        missing.extend(interfaces.iter().map(String::as_str));
    }
    if missing.is_empty() { Ok(()) } else { Err(DecapError::NotAttached { names: missing.join(", ") }.into()) }
}

/// What `lb decap status` says.
#[derive(Debug, Serialize)]
struct Status {
    interfaces: Vec<InterfaceStatus>,
}

#[derive(Debug, Serialize)]
struct InterfaceStatus {
    name: String,
    /// `native`, `generic`, or `gone`: the interface is no more.
    state: &'static str,
    addresses: Vec<IpAddr>,
    /// Empty: any.
    sources: Vec<String>,
    packets: BTreeMap<&'static str, u64>,
}

async fn status(json: bool, pins: &Path) -> Result<()> {
    let (netlink, _changes) = netlink::connect()?;
    let programs = netlink.programs().await?;
    let mut status = Status { interfaces: Vec::new() };
    for name in decap::attached(pins)? {
        let found = decap::read(pins, &name)?;
        status.interfaces.push(InterfaceStatus::new(found, programs.get(&name), name));
    }
    if json {
        println!("{:#}", serde_json::to_value(&status)?);
    } else {
        print!("{}", text(&status));
    }
    Ok(())
}

impl InterfaceStatus {
    fn new(found: Found, attached: Option<&Program>, name: String) -> Self {
        let state = match attached {
            Some(program) if program.id != found.program => "gone",
            Some(Program { generic: true, .. }) => "generic",
            Some(_) => "native",
            None => "gone",
        };
        let source = |source: &Source| {
            let (address, bits) = source.parts();
            format!("{address}/{bits}")
        };
        let sources = found.settings.sources().map(source).collect();
        let packets = found.counts.iter().map(|(why, count)| (why.name(), *count)).collect();
        Self { name, state, addresses: found.addresses, sources, packets }
    }
}

fn text(status: &Status) -> String {
    if status.interfaces.is_empty() {
        return "attached to no interface\n".into();
    }
    let mut lines = Vec::new();
    for interface in &status.interfaces {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("interface {}  {}", interface.name, interface.state));
        lines.push(format!("  to    {}", list(&interface.addresses)));
        lines.push(format!(
            "  from  {}",
            if interface.sources.is_empty() { "any".into() } else { list(&interface.sources) }
        ));
        lines.push("  packets".into());
        let counted = interface.packets.iter().filter(|(_, count)| **count > 0);
        lines.extend(counted.map(|(why, count)| format!("    {why:<24} {count:>14}")));
    }
    lines.join("\n") + "\n"
}

fn from_whom(sources: &[Prefix]) -> String {
    if sources.is_empty() { "whoever sends them".into() } else { format!("if they are from {}", list(sources)) }
}

fn list<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ")
}
