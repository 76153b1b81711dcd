//! How a backend takes packets out of their tunnels: by `lb decap`, by devices of its kernel, or by sockets that take what is in
//! a tunnel and put it on `lo`, which needs next to nothing of the kernel and is foreign to what is tested.

use std::{ffi::OsString, io, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{
    FrameSocket, Host, lb_binary,
    task::{Stop, Task},
    udp_echo::BUFFER,
};

/// IP protocol numbers of what is in a tunnel.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
/// The index of `lo` in every namespace.
const LO: u32 = 1;
/// The longest packet, and an Ethernet header.
const LONGEST: usize = 65_536 + 14;

/// Kinds of tunnel devices, which take all four mixes of families together.
const DEVICES: [(&str, &str, bool); 3] =
    [("tunnel44", "ipip", true), ("tunnel64", "sit", true), ("tunnelx6", "ip6tnl mode any", false)];

/// A backend that takes packets out of their tunnels, for as long as this lives.
#[derive(Debug)]
pub struct Decapsulation {
    host: Host,
    how: How,
}

#[derive(Debug)]
enum How {
    Devices,
    /// What is pinned goes with the lab.
    Program,
    #[expect(dead_code, reason = "held for its end")]
    Sockets(Task<()>),
}

impl Decapsulation {
    /// Why the kernel has no tunnel devices, if it has not got some.
    pub fn lacking_devices(host: &Host) -> Result<Option<String>> {
        for device in DEVICES {
            let output = host.attempt(add(host, device).split(' '))?;
            if !output.status.success() {
                let (_, kind, _) = device;
                return Ok(Some(format!(
                    "this kernel has no tunnel devices of the kind {kind}: {}",
                    output.stderr.trim()
                )));
            }
            let (name, ..) = device;
            host.ip(&[format!("link delete {name}")])?;
        }
        Ok(None)
    }

    /// By the kernel's tunnel devices, all four mixes.
    pub fn by_devices(host: &Host) -> Result<Self> {
        for device in DEVICES {
            let (name, ..) = device;
            host.run(add(host, device).split(' '))?;
            host.ip(&[format!("link set {name} up")])?;
            // What comes out of a tunnel has a client's address, to which no route leads through the device.
            host.set([(format!("ipv4/conf/{name}/rp_filter").as_str(), "0")])?;
        }
        Ok(Self { host: host.clone(), how: How::Devices })
    }

    /// By `lb decap` on all interfaces, which it needs for itself.
    pub fn by_lb(host: &Host) -> Result<Self> {
        let names = host.interfaces().iter().map(|interface| interface.name.clone());
        for name in names.clone() {
            host.remove_pass(&name)?;
        }
        let pins = host.belongings().bpf_folder().join(format!("{}-decap", host.role()));
        let line = [lb_binary()?.into_os_string(), "decap".into(), "attach".into(), "--pins".into(), pins.into()];
        host.run(line.into_iter().chain(names.map(OsString::from)))?;
        Ok(Self { host: host.clone(), how: How::Program })
    }

    /// By sockets, all four mixes.
    pub fn by_sockets(host: &Host) -> Result<Self> {
        // Packets that the kernel has put together have their checksums yet to come.
        for interface in host.interfaces() {
            host.run(["ethtool", "-K", &interface.name, "gro", "off"])?;
        }
        let lo = FrameSocket::open(host, LO, Ipv4Addr::LOCALHOST.into())?;
        let open = |(outer, inner): (Domain, u8)| -> io::Result<Tunnel> {
            let socket = Socket::new(outer, Type::RAW, Some(Protocol::from(i32::from(inner))))?;
            setsockopt(&socket, RcvBufForce, &BUFFER)?;
            socket.set_nonblocking(true)?;
            Ok(Tunnel { socket, outer_header: outer == Domain::IPV4, inner })
        };
        let mixes = [(Domain::IPV4, IPV4), (Domain::IPV4, IPV6), (Domain::IPV6, IPV4), (Domain::IPV6, IPV6)];
        let tunnels: io::Result<Vec<_>> = host.inside(|| mixes.into_iter().map(open).collect())?;
        let tunnels = tunnels.with_context(|| format!("opening tunnels in {}", host.namespace()))?;
        let lo = Arc::new(lo);
        let work = move |mut stop: Stop| async move {
            let mut open = JoinSet::new();
            for tunnel in tunnels {
                let lo = Arc::clone(&lo);
                open.spawn(async move {
                    if let Err(error) = tunnel.unpack(&lo).await {
                        eprintln!("a tunnel ended: {error:#}");
                    }
                });
            }
            stop.requested().await;
        };
        Ok(Self { host: host.clone(), how: How::Sockets(Task::start("decapsulation", work)?) })
    }
}

impl Drop for Decapsulation {
    fn drop(&mut self) {
        if matches!(self.how, How::Devices) {
            let lines = DEVICES.map(|(name, ..)| format!("link delete {name}"));
            // The lab may be gone, and its devices with it.
            let _ = self.host.ip(&lines);
        }
    }
}

/// The line that makes a device.
fn add(host: &Host, (name, kind, over_ipv4): (&str, &str, bool)) -> String {
    // The balancer's outer sources vary by flow, so any is taken.
    let local = if over_ipv4 { host.ipv4().to_string() } else { host.ipv6().to_string() };
    format!("ip link add {name} type {kind} local {local} remote any")
}

/// A socket that gets packets of one mix of families.
struct Tunnel {
    socket: Socket,
    /// Whether packets come with their outer header: the kernel keeps that of IPv6 to itself.
    outer_header: bool,
    inner: u8,
}

impl Tunnel {
    async fn unpack(self, lo: &FrameSocket) -> Result<()> {
        // Any socket of datagrams, as far as receiving goes.
        let socket = UdpSocket::from_std(self.socket.into())?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let packet = buffer.get(..length).unwrap_or_default();
            let outer = match packet.first() {
                Some(first) if self.outer_header => usize::from(first & 15) * 4,
                _ => 0,
            };
            let Some(inner) = packet.get(outer..) else { bail!("{} bytes are less than a header", packet.len()) };
            // The receiver on `lo` has an address of zeros.
            let mut frame = vec![0; 12];
            frame.extend(if self.inner == IPV4 { [0x08, 0x00] } else { [0x86, 0xdd] });
            frame.extend(inner);
            lo.send(&frame)?;
        }
    }
}
