//! Interfaces: the program on them, their indexes, and the ways that lead over them.

use super::Agent;
use crate::{
    kernel::{KernelError, attach, load, netlink::Link},
    model::{
        announcement,
        desired::Desired,
        intent::Intent,
        reach::{NoHop, narrow},
    },
};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};
use tokio::task::block_in_place;

impl Agent {
    /// The interfaces of a config, with their indexes.
    pub(super) async fn links(&self, intent: &Intent) -> Result<Vec<(u32, Link)>> {
        let links = self.netlink.links().await?;
        let link = |name: &String| {
            let found = links.iter().find(|(_, link)| link.name == *name);
            let (index, link) = found.ok_or_else(|| KernelError::NoInterface { name: name.clone() })?;
            Ok((*index, link.clone()))
        };
        intent.interfaces().iter().map(link).collect()
    }

    /// Interfaces may go, and come back with other indexes; those that are there do their work meanwhile.
    async fn follow_interfaces(&mut self) -> Result<(), KernelError> {
        let mut links = self.netlink.links().await?;
        links.retain(|_, link| self.intent.interfaces().contains(&link.name));
        let before = std::mem::take(&mut self.conditions.interfaces);
        self.conditions.interfaces = links.iter().map(|(index, link)| (*index, link.mac)).collect();
        for (name, index) in &self.attached {
            if before.contains_key(index) && !links.contains_key(index) {
                tracing::warn!(interface = name, index, "gone");
            }
        }
        if before != self.conditions.interfaces {
            // Ways over them are none, or are some again.
            self.touched.all(&self.intent);
        }
        let back =
            links.into_iter().filter(|(index, link)| self.attached.get(&link.name).is_some_and(|known| known != index));
        let back: Vec<_> = back.collect();
        if !back.is_empty() {
            // The tables are right before the first packet comes.
            self.settle_or_log();
        }
        for (index, link) in back {
            if let Err(error) = self.attach_to(&link.name, index) {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
        Ok(())
    }

    /// Looks up interfaces and the ways to all backends anew.
    pub(super) async fn look_up_ways(&mut self) {
        if let Err(error) = self.follow_interfaces().await {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        let backends = self.intent.services().iter().flat_map(|service| &service.backends);
        let mut addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.endpoint.ip()).collect();
        addresses.extend(self.conditions.leaving.keys().map(|key| key.own.ip()));
        let mut ways = match self.netlink.ways(&addresses).await {
            Ok(ways) => ways,
            Err(error) => return tracing::warn!("{:#}", anyhow::Error::from(error)),
        };
        for (address, way) in &mut ways {
            let before = self.conditions.ways.get(address);
            // A neighbour that the kernel has just forgotten is mostly still there: its answer, or its silence, will tell.
            if let (Err(NoHop::Asked { index, .. }), Some(Ok(known))) = (&way, before)
                && known.hop.interface == *index
            {
                *way = Ok(*known);
            }
            if before == Some(way) {
                continue;
            }
            match (&way, before) {
                (Err(reason), None | Some(Ok(_))) => tracing::warn!(backend = %address, %reason, "no next hop"),
                (Ok(_), Some(Err(_))) => tracing::info!(backend = %address, "next hop found"),
                _ => (),
            }
            let mtu_before = before.and_then(|way| way.as_ref().ok()).map(|way| way.hop.mtu);
            if let Ok(way) = way
                && mtu_before != Some(way.hop.mtu)
                && let Some(service) = self.index.at(*address, &self.intent).next()
                && let Some(narrow) = narrow(service.mode, *address, &way.hop)
            {
                tracing::warn!(backend = %address, "{narrow}");
            }
            self.touched.address(*address, &self.index, &self.conditions);
        }
        self.conditions.ways = ways;
        self.show_ways();
    }

    /// Puts the program on the interfaces of the config, and takes it off others that it is still on; if it can't be on one of
    /// them, nothing changes.
    pub(super) async fn attach(&mut self) -> Result<()> {
        let wanted = self.links(&self.intent).await?;
        let before = attach::attached(self.pins.path());
        let mut added: Vec<String> = Vec::new();
        for (index, Link { name, .. }) in wanted {
            if self.attached.get(&name) == Some(&index) {
                continue;
            }
            if let Err(error) = self.attach_to(&name, index) {
                added.iter().for_each(|name| self.detach_from(name));
                return Err(error.into());
            }
            // One that was attached by an earlier agent has its traffic, whatever becomes of this one.
            if !before.contains(&name) {
                added.push(name);
            }
        }
        for name in before {
            if !self.intent.interfaces().contains(&name) {
                self.detach_from(&name);
            }
        }
        Ok(())
    }

    fn attach_to(&mut self, name: &str, index: u32) -> Result<(), KernelError> {
        let program = load::program(&mut self.ebpf, self.traces.program())?;
        block_in_place(|| attach::attach(program, &self.pins, name, index, self.intent.attach()))?;
        self.attached.insert(name.into(), index);
        tracing::info!(interface = name, "attached");
        Ok(())
    }

    pub(super) fn detach_from(&mut self, name: &str) {
        match attach::detach(self.pins.path(), name) {
            Ok(_) => tracing::info!(interface = name, "detached"),
            Err(error) => tracing::error!("{:#}", anyhow::Error::from(error)),
        }
        self.attached.remove(name);
    }

    /// Takes the program off all interfaces.
    pub(super) fn detach(&mut self) -> Result<usize, KernelError> {
        let names = attach::attached(self.pins.path());
        for name in &names {
            attach::detach(self.pins.path(), name)?;
            self.attached.remove(name);
            tracing::info!(interface = name, "detached");
        }
        Ok(names.len())
    }

    /// Tells all links, unasked, that this machine answers for an address.
    pub(super) fn announce(&self, address: IpAddr) {
        let Some(announcer) = &self.announcer else { return };
        for (index, mac) in &self.conditions.interfaces {
            if let Err(error) = announcer.send(*index, &announcement::frame(address, *mac)) {
                tracing::warn!(interface = index, %address, "{:#}", anyhow::Error::from(error));
            }
        }
    }

    /// Joins the multicast groups that neighbour solicitations for the services' addresses come to.
    pub(super) fn join_groups(&mut self) {
        let Desired { interfaces, .. } = &self.desired;
        let claimed = self.intent.services().iter().filter(|service| service.claim);
        let addresses: BTreeSet<Ipv6Addr> = claimed
            .filter_map(|service| match service.endpoint.ip() {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            })
            .collect();
        if let Err(error) = self.link_groups.keep(&interfaces.keys().copied().collect(), &addresses) {
            tracing::warn!(%error, "cannot join the multicast groups that neighbour solicitations come to");
        }
    }
}
