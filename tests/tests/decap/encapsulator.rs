//! The balancer's side of a tunnel in user space: the kernels that tests run on need not have tunnel devices.
//!
//! What the client sends to a service goes into a veth pair of its own; a packet socket takes it out at the other end, and a
//! raw socket sends it on as the payload of protocol 4 or 41 (RFC 2003, RFC 2473), with an outer header by the kernel.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tests::Host;

// linux/if_ether.h
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// What an Ethernet link takes, less the longer of the two outer headers.
const INNER_MTU: u16 = 1_500 - 40;
/// The service's neighbour entry: there is nobody to ask.
const NOBODY: &str = "02:00:00:00:00:ee";

/// Sends what a client has for services through tunnels, until it is dropped.
pub struct Encapsulator {
    client: Host,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Encapsulator {
    /// Each service is reached through a tunnel to an address of its backend.
    pub fn start(client: &Host, tunnels: &[(IpAddr, IpAddr)]) -> Self {
        client.ip(&["link add tunnel0 type veth peer name tunnel1".into()]).unwrap();
        // As everywhere in a lab: nobody computes what a sender leaves to hardware.
        client.run(["ethtool", "-K", "tunnel0", "tx", "off", "tso", "off"]).unwrap();
        let mut lines = vec!["link set tunnel0 up".to_owned(), "link set tunnel1 up".to_owned()];
        for (service, _) in tunnels {
            let source: IpAddr = if service.is_ipv4() { client.ipv4().into() } else { client.ipv6().into() };
            lines.push(format!("neigh add {service} lladdr {NOBODY} dev tunnel0 nud permanent"));
            lines.push(format!("route add {service} dev tunnel0 src {source} mtu {INNER_MTU}"));
        }
        client.ip(&lines).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |(service, backend): &(IpAddr, IpAddr)| {
            let (from, to) = client.inside(|| sockets(*service, *backend)).unwrap();
            let (stop, service, backend) = (Arc::clone(&stop), *service, SocketAddr::new(*backend, 0));
            thread::spawn(move || pass_on(from, &to, service, backend, &stop))
        };
        let workers = tunnels.iter().map(worker).collect();
        Self { client: client.clone(), stop, workers }
    }
}

impl Drop for Encapsulator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        // A lab that is going takes its devices along.
        let _ = self.client.attempt(["ip", "link", "delete", "tunnel0"]);
    }
}

/// Where packets to the service come out, and where they go in again.
fn sockets(service: IpAddr, backend: IpAddr) -> (Socket, Socket) {
    let (ethertype, protocol) = if service.is_ipv4() { (IPV4, 4) } else { (IPV6, 41) };
    // Of one EtherType, such a socket sees what comes in and not what goes out; without the link's header.
    let every = Some(Protocol::from(i32::from(ethertype.to_be())));
    let from = Socket::new(Domain::PACKET, Type::DGRAM, every).unwrap();
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let domain = if backend.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    (from, Socket::new(domain, Type::from(libc::SOCK_RAW), Some(Protocol::from(protocol))).unwrap())
}

fn pass_on(mut from: Socket, to: &Socket, service: IpAddr, backend: SocketAddr, stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = from.read(&mut packet) else { continue };
        let packet = &packet[..length];
        let destination = match service {
            IpAddr::V4(service) => (16..20, service.octets().to_vec()),
            IpAddr::V6(service) => (24..40, service.octets().to_vec()),
        };
        if packet.get(destination.0) == Some(&destination.1) {
            // That nobody takes packets out of tunnels there comes back as an error, which is the client's to notice.
            let _ = to.send_to(packet, &backend.into());
        }
    }
}
