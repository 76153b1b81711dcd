//! What a lab is to be, and the making of it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::{
    belongings::{self, Belongings},
    host::{Host, Interface},
    lab::Lab,
    layout::{BALANCER, CLIENT, FIRST_BACKEND, Layout, MAX_BACKENDS, ROUTER, Subnet},
    leftovers, signals, wiring,
};

/// A lab before it is made; [`Lab::blueprint`] begins one.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint {
    layout: Layout,
    backends: u8,
    pub(crate) route_back_via_balancer: bool,
    pub(crate) tag: Option<u16>,
}

/// The first index of an interface. All of a lab differ, so that a test notices when one is taken for
/// another.
const FIRST_INDEX: u32 = 11;

impl Blueprint {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, backends: 2, route_back_via_balancer: false, tag: None }
    }

    /// How many backends there are; 2 if nothing is said, at most 179.
    #[must_use]
    pub fn backends(mut self, count: u8) -> Self {
        self.backends = count;
        self
    }

    /// Whether the backends reach the client through the balancer, as NAT needs it, although there is
    /// a shorter way. The routed layout has no other.
    #[must_use]
    pub fn route_back_via_balancer(mut self, yes: bool) -> Self {
        self.route_back_via_balancer = yes;
        self
    }

    /// Has every frame of a bridged lab bear this VLAN tag on the wire. The machines' interfaces have
    /// their addresses as ever: tags are put on and taken off behind them, and the balancer's XDP
    /// program is on the wire's side of that.
    #[must_use]
    pub fn tagged(mut self, id: u16) -> Self {
        self.tag = Some(id);
        self
    }

    /// Makes the lab; what labs of dead processes left behind is removed first.
    pub fn up(self) -> Result<Lab> {
        if self.backends > MAX_BACKENDS {
            bail!("{} backends asked for, a lab has at most {MAX_BACKENDS}", self.backends);
        }
        // What XDP sends on a cable is held against the far end's own MTU, which has no room for a tag.
        if self.tag.is_some() && self.layout != Layout::Bridged {
            bail!("only a bridged lab can have tags");
        }
        signals::watch()?;
        let _making = belongings::making();
        leftovers::mount_bpf_fs()?;
        leftovers::remove_leftovers().context("removing leftovers of earlier labs")?;
        // From here on the lab's own end removes what has been made, also if the rest fails.
        let lab = self.hosts(&Belongings::new()?);
        wiring::make(&lab, self).context("making a lab")?;
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
        let mut balancer = vec![interface("eth0", self.layout.balancer(), BALANCER)];
        if self.layout == Layout::Routed {
            balancer.push(interface("eth1", self.layout.backends(), BALANCER));
        }
        let router = match self.layout {
            Layout::Bridged | Layout::Routed => None,
            Layout::Distant => {
                let near = interface("eth0", self.layout.clients(), ROUTER);
                let far = interface("eth1", self.layout.backends(), ROUTER);
                Some(Host::new("router", vec![near, far], belongings))
            }
        };
        let mut backend = |number| {
            let eth0 = interface("eth0", self.layout.backends(), FIRST_BACKEND + number);
            Host::new(&format!("backend-{number}"), vec![eth0], belongings)
        };
        Lab {
            layout: self.layout,
            backends: (0..self.backends).map(&mut backend).collect(),
            router,
            client: Host::new("client", client, belongings),
            balancer: Host::new("balancer", balancer, belongings),
            segment: Host::new("segment", Vec::new(), belongings),
            belongings: Arc::clone(belongings),
        }
    }
}
