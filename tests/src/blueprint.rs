//! What a lab is to be, and the making of it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::{
    belongings::{self, Belongings},
    host::{Host, Interface},
    lab::Lab,
    layout::{BALANCER, CLIENT, FIRST_BACKEND, Layout, MAX_BACKENDS, Subnet},
    leftovers, signals, wiring,
};

/// A lab before it is made; [`Lab::blueprint`] begins one.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint {
    layout: Layout,
    backends: u8,
    route_back_via_balancer: bool,
}

/// The first index of an interface. All of a lab differ, so that a test notices when one is taken for
/// another.
const FIRST_INDEX: u32 = 11;

impl Blueprint {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, backends: 2, route_back_via_balancer: false }
    }

    /// How many backends there are; 2 if nothing is said, at most 179.
    #[must_use]
    pub fn backends(mut self, count: u8) -> Self {
        self.backends = count;
        self
    }

    /// Whether the backends of a bridged lab reach the client through the balancer, as NAT needs it,
    /// although they are on one segment. The routed layout has no other way.
    #[must_use]
    pub fn route_back_via_balancer(mut self, yes: bool) -> Self {
        self.route_back_via_balancer = yes;
        self
    }

    /// Makes the lab; what labs of dead processes left behind is removed first.
    pub fn up(self) -> Result<Lab> {
        if self.backends > MAX_BACKENDS {
            bail!("{} backends asked for, a lab has at most {MAX_BACKENDS}", self.backends);
        }
        signals::watch()?;
        let _making = belongings::making();
        leftovers::mount_bpf_fs()?;
        leftovers::remove_leftovers().context("removing leftovers of earlier labs")?;
        // From here on the lab's own end removes what has been made, also if the rest fails.
        let lab = self.hosts(&Belongings::new()?);
        wiring::make(&lab, self.route_back_via_balancer).context("making a lab")?;
        Ok(lab)
    }

    fn hosts(self, belongings: &Arc<Belongings>) -> Lab {
        let mut indexes = FIRST_INDEX..;
        let mut interface = |name: &str, subnet: Subnet, number| Interface {
            name: name.to_owned(),
            index: indexes.next().unwrap_or_default(),
            mac: subnet.mac(number),
            ipv4: subnet.ipv4(number),
            ipv6: subnet.ipv6(number),
        };
        let client = vec![interface("eth0", self.layout.clients(), CLIENT)];
        let mut balancer = vec![interface("eth0", self.layout.clients(), BALANCER)];
        if self.layout == Layout::Routed {
            balancer.push(interface("eth1", self.layout.backends(), BALANCER));
        }
        let mut backend = |number| {
            let eth0 = interface("eth0", self.layout.backends(), FIRST_BACKEND + number);
            Host::new(&format!("backend-{number}"), vec![eth0], belongings)
        };
        Lab {
            layout: self.layout,
            backends: (0..self.backends).map(&mut backend).collect(),
            client: Host::new("client", client, belongings),
            balancer: Host::new("balancer", balancer, belongings),
            segment: Host::new("segment", Vec::new(), belongings),
            belongings: Arc::clone(belongings),
        }
    }
}
