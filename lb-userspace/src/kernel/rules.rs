//! Routing of probes to service addresses: packets with a mark go to a device, whatever their destination.

use super::{
    error::KernelError,
    netlink::{Netlink, failed},
};
use futures_util::TryStreamExt as _;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, LinkUnspec, RouteMessageBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The upper half of our marks, and of the numbers of our routing tables; the lower is the device's index.
const MARKS: u32 = 0x6c62_0000;
/// With an outer header a packet still fits what most links take.
const MTU: u32 = 1_400;

impl Netlink {
    /// Has packets with a mark routed to a device; returns the mark. Rules of agents that are gone are removed.
    pub async fn route_marked(&self, name: &str) -> Result<u32, KernelError> {
        let links = self.links().await?;
        let index = links.iter().find(|(_, link)| link.name == name).map(|(index, _)| *index);
        let index = index.ok_or_else(|| KernelError::NoInterface { name: name.into() })?;
        let mark = MARKS | index & 0xffff;
        let handle = &self.handle;
        let up = LinkUnspec::new_with_index(index).mtu(MTU).up().build();
        handle.link().change(up).execute().await.map_err(failed("bring up the device of probes"))?;
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<_> =
                handle.rule().get(version.clone()).execute().try_collect().await.map_err(failed("list the rules"))?;
            let of_others = |index: u32| links.keys().any(|other| *other & 0xffff == index) && index != mark & 0xffff;
            for rule in rules {
                if mark_of(&rule).is_some_and(|found| found & !0xffff == MARKS && !of_others(found & 0xffff)) {
                    handle
                        .rule()
                        .del(rule)
                        .execute()
                        .await
                        .map_err(failed("remove a rule of an agent that is gone"))?;
                }
            }
        }
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).table_id(mark).build();
        handle.route().add(route).replace().execute().await.map_err(failed("route probes over IPv4"))?;
        let rule = || handle.rule().add().table_id(mark).fw_mark(mark).action(RuleAction::ToTable);
        rule().v4().execute().await.map_err(failed("add a rule for probes over IPv4"))?;
        // A machine may be without IPv6.
        let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index).table_id(mark).build();
        let by_ipv6 = async {
            handle.route().add(route).replace().execute().await?;
            rule().v6().execute().await
        };
        if let Err(error) = by_ipv6.await {
            tracing::warn!(%error, "checks with probe = \"service\" can't go over IPv6");
        }
        Ok(mark)
    }

    /// Takes the rules back.
    pub async fn unroute_marked(&self, mark: u32) {
        for version in [IpVersion::V4, IpVersion::V6] {
            let Ok(rules) = self.handle.rule().get(version).execute().try_collect::<Vec<_>>().await else { continue };
            for rule in rules.into_iter().filter(|rule| mark_of(rule) == Some(mark)) {
                let _ = self.handle.rule().del(rule).execute().await;
            }
        }
    }
}

fn mark_of(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::FwMark(mark) => Some(*mark),
        _ => None,
    })
}
