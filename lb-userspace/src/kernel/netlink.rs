//! Links, routes and neighbours: how backends are reached, and word of changes.

use super::error::KernelError;
use crate::model::reach::{Hop, NoHop, Way};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMetric, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Neighbours of a family that are asked at once.
const NEIGHBORS: usize = 8;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its MAC address; zeros if it has none.
    pub mac: [u8; 6],
    /// Bytes of the longest packet that it takes.
    pub mtu: u32,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// Whether it runs on socket buffers, not in the driver.
    pub generic: bool,
}

/// A netlink connection.
#[derive(Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
}

/// Opens a connection. The stream yields something for every change of a link, a route or a neighbour.
pub fn connect() -> Result<(Netlink, impl Stream<Item = ()> + Unpin), KernelError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, messages) = new_multicast_connection(&groups).map_err(KernelError::NetlinkSocket)?;
    tokio::spawn(connection);
    Ok((Netlink { handle }, messages.map(|_| ())))
}

pub(super) fn failed(action: &'static str) -> impl Fn(rtnetlink::Error) -> KernelError {
    move |source| KernelError::Netlink { action, source }
}

impl Netlink {
    /// All links, by index.
    pub async fn links(&self) -> Result<BTreeMap<u32, Link>, KernelError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list the interfaces"))?;
        let link = |message: LinkMessage| {
            let mut link = Link { name: String::new(), mac: [0; 6], mtu: u32::MAX };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Address(address) => link.mac = address.try_into().unwrap_or_default(),
                    LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                    _ => (),
                }
            }
            (message.header.index, link)
        };
        Ok(messages.into_iter().map(link).collect())
    }

    /// XDP programs, by the name of their interface.
    pub async fn programs(&self) -> Result<BTreeMap<String, Program>, KernelError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list the interfaces"))?;
        let program = |message: LinkMessage| {
            let (mut link, mut program) = (None, Program { id: 0, generic: false });
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link = Some(name),
                    LinkAttribute::Xdp(attributes) => attributes.iter().for_each(|attribute| match attribute {
                        LinkXdp::ProgId(id) => program.id = *id,
                        LinkXdp::Attached(attached) => program.generic = *attached == XdpAttached::SocketBuffer,
                        _ => (),
                    }),
                    _ => (),
                }
            }
            (program.id != 0).then_some((link?, program))
        };
        Ok(messages.into_iter().filter_map(program).collect())
    }

    /// Whether an interface is one end of a veth.
    pub async fn is_veth(&self, index: u32) -> bool {
        let message = self.handle.link().get().match_index(index).execute().try_next().await;
        let attributes = message.ok().flatten().map(|message| message.attributes).unwrap_or_default();
        attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Veth)))
        })
    }

    /// Has the kernel ask neighbours behind an interface whether they are still there, and says how many: their answers are frames.
    pub async fn ask_neighbors(&self, index: u32) -> Result<usize, KernelError> {
        let mut asked = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages: Vec<_> = request.execute().try_collect().await.map_err(failed("list the neighbours"))?;
            for message in messages.into_iter().filter(|message| message.header.ifindex == index).take(NEIGHBORS) {
                let Some(address) = destination(&message) else { continue };
                match message.header.state {
                    NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay => {
                        // A state that has the kernel ask at once; what it knows stays until there is no answer.
                        let request =
                            self.handle.neighbours().add(index, address).state(NeighbourState::Probe).replace();
                        if let Err(error) = request.execute().await {
                            tracing::debug!(%address, index, %error, "cannot ask a neighbour");
                        }
                    }
                    NeighbourState::Probe => (),
                    NeighbourState::Failed | NeighbourState::Incomplete => self.ask(index, address).await,
                    // Who needs no resolution is not asked.
                    _ => continue,
                }
                asked.insert(address);
            }
        }
        // Behind the gateway to addresses that are nobody's (RFC 5737, RFC 3849).
        for nobody in
            [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))]
        {
            if let Ok(Route { interface, gateway: Some(gateway), .. }) = self.route(nobody).await
                && interface == index
                && asked.insert(gateway)
            {
                self.ask(index, gateway).await;
            }
        }
        Ok(asked.len())
    }

    /// Addresses, each with the index of its interface.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, KernelError> {
        let messages: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list the addresses"))?;
        let address = |message: AddressMessage| {
            let (mut local, mut other) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => local = Some(address),
                    AddressAttribute::Address(address) => other = Some(address),
                    _ => (),
                }
            }
            // On a link with two ends the other one is the peer's.
            Some((message.header.index, local.or(other)?))
        };
        Ok(messages.into_iter().filter_map(address).collect())
    }

    /// Ways to these addresses, where there are any. A neighbour that is not known is asked for; its answer is a change.
    pub async fn ways(
        &self,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Result<Way, NoHop>>, KernelError> {
        let links = self.links().await?;
        let neighbors = self.neighbors().await?;
        let mut ways = BTreeMap::new();
        for address in addresses {
            let way = match self.route(*address).await {
                Ok(Route { interface, gateway, mtu }) => {
                    let next = gateway.unwrap_or(*address);
                    let unknown = || Link { name: interface.to_string(), mac: [0; 6], mtu: u32::MAX };
                    let link = links.get(&interface).cloned().unwrap_or_else(unknown);
                    let mtu = mtu.min(link.mtu).try_into().unwrap_or(u16::MAX);
                    match neighbors.get(&(interface, next)) {
                        Some(Neighbor::Mac(destination)) => {
                            let hop = Hop { interface, destination: *destination, source: link.mac, mtu };
                            Ok(Way { hop, gateway })
                        }
                        Some(Neighbor::Failed) => {
                            self.ask(interface, next).await;
                            Err(NoHop::Silent { address: next, interface: link.name })
                        }
                        None => {
                            self.ask(interface, next).await;
                            Err(NoHop::Asked { address: next, interface: link.name, index: interface })
                        }
                    }
                }
                Err(no_hop) => Err(no_hop),
            };
            ways.insert(*address, way);
        }
        Ok(ways)
    }

    async fn route(&self, address: IpAddr) -> Result<Route, NoHop> {
        let request = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build(),
        };
        let message = match self.handle.route().get(request).execute().try_next().await {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => return Err(NoHop::NoRoute),
        };
        match message.header.kind {
            RouteType::Unicast => (),
            RouteType::Local => return Err(NoHop::Local),
            _ => return Err(NoHop::NoRoute),
        }
        let mut route = Route { interface: 0, gateway: None, mtu: u32::MAX };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(interface) => route.interface = interface,
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some(gateway.into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => route.gateway = Some(gateway.into()),
                RouteAttribute::Metrics(metrics) => route.mtu = mtu(&metrics),
                _ => (),
            }
        }
        if route.interface == 0 { Err(NoHop::NoRoute) } else { Ok(route) }
    }

    async fn neighbors(&self) -> Result<BTreeMap<(u32, IpAddr), Neighbor>, KernelError> {
        let mut neighbors = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages: Vec<_> = request.execute().try_collect().await.map_err(failed("list the neighbours"))?;
            neighbors.extend(messages.into_iter().filter_map(neighbor));
        }
        Ok(neighbors)
    }

    /// Makes the kernel resolve a neighbour. That it can't shows in the neighbour's state.
    async fn ask(&self, interface: u32, address: IpAddr) {
        let request = self.handle.neighbours().add(interface, address);
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
        if let Err(error) = request.execute().await {
            tracing::debug!(%address, interface, %error, "cannot ask for a neighbour");
        }
    }
}

struct Route {
    interface: u32,
    gateway: Option<IpAddr>,
    /// What the route itself allows, or was found out on the path.
    mtu: u32,
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(u32::MAX)
}

enum Neighbor {
    Mac([u8; 6]),
    Failed,
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => Some(IpAddr::from(*found)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => Some(IpAddr::from(*found)),
        _ => None,
    })
}

fn neighbor(message: NeighbourMessage) -> Option<((u32, IpAddr), Neighbor)> {
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(IpAddr::from(found)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address = Some(IpAddr::from(found)),
            NeighbourAttribute::LinkLayerAddress(found) => mac = <[u8; 6]>::try_from(found).ok(),
            _ => (),
        }
    }
    let neighbor = match message.header.state {
        NeighbourState::Failed => Neighbor::Failed,
        NeighbourState::Incomplete | NeighbourState::None => return None,
        _ => Neighbor::Mac(mac?),
    };
    Some(((message.header.ifindex, address?), neighbor))
}
