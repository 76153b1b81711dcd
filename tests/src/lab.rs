//! The lab: machines that are there as long as it lives.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Result;

use crate::{
    belongings::Belongings,
    blueprint::Blueprint,
    host::{Host, Interface},
    layout::{FIRST_SERVICE, Layout},
};

/// A client, a balancer and backends in namespaces of their own. When it is dropped, its processes
/// end and all that it made is removed; SIGINT and SIGTERM to the test's process do the same.
#[derive(Debug)]
pub struct Lab {
    pub(crate) layout: Layout,
    pub(crate) client: Host,
    pub(crate) balancer: Host,
    pub(crate) backends: Vec<Host>,
    pub(crate) router: Option<Host>,
    pub(crate) segment: Host,
    pub(crate) belongings: Arc<Belongings>,
}

impl Lab {
    /// Begins a lab; [`Blueprint::up`] makes it.
    #[must_use]
    pub fn blueprint(layout: Layout) -> Blueprint {
        Blueprint::new(layout)
    }

    /// How the machines are wired.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where connections come from.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// Where `lb` runs: `eth0` toward the client; if routed, `eth1` toward the backends.
    #[must_use]
    pub fn balancer(&self) -> &Host {
        &self.balancer
    }

    /// Where servers run.
    #[must_use]
    pub fn backends(&self) -> &[Host] {
        &self.backends
    }

    /// The router between the client and all others, if the layout has one: `eth0` toward the client.
    #[must_use]
    pub fn router(&self) -> Option<&Host> {
        self.router.as_ref()
    }

    /// The namespace of the bridge `br0`, whose ports are called like the machines: the place to
    /// watch the wire from.
    #[must_use]
    pub fn segment(&self) -> &Host {
        &self.segment
    }

    /// The path of the agent's socket, for the config.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.belongings.socket()
    }

    /// The folder for the agent's pins, for the config. Its parent exists.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.belongings.pins()
    }

    /// The lab's folder for files of tests; it goes with the lab.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.belongings.folder()
    }

    /// The service address with this number, below 50. It is on no interface; if routed, the client
    /// reaches it through the balancer.
    #[must_use]
    pub fn service_ipv4(&self, number: u8) -> Ipv4Addr {
        self.layout.services().ipv4(FIRST_SERVICE.saturating_add(number))
    }

    /// As [`Lab::service_ipv4`].
    #[must_use]
    pub fn service_ipv6(&self, number: u8) -> Ipv6Addr {
        self.layout.services().ipv6(FIRST_SERVICE.saturating_add(number))
    }

    /// Gives `backend` a service address of its own on `lo`, as direct server return needs it: the
    /// backend accepts packets to it and answers from it, and yet tells nobody that it has it.
    pub fn add_service_address(&self, backend: &Host, address: IpAddr) -> Result<()> {
        match address {
            IpAddr::V4(address) => {
                // Without these Linux answers ARP requests for an address of any interface, and asks
                // for its neighbours in the name of the service.
                backend.set([("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
                backend.ip(&[format!("address add {address}/32 dev lo")])
            }
            // Solicitations are answered for addresses of the interface they came by only.
            IpAddr::V6(address) => backend.ip(&[format!("address add {address}/128 dev lo nodad")]),
        }
    }

    /// Leaves everything as it is, also when this process ends, and says what there is.
    pub fn keep(self) -> Result<String> {
        self.belongings.keep()?;
        self.describe()
    }

    /// All hosts, the segment too.
    pub fn everyone(&self) -> impl Iterator<Item = &Host> {
        self.machines().chain([&self.segment])
    }

    /// The machines: all hosts but the segment.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Host> {
        [&self.client, &self.balancer].into_iter().chain(&self.router).chain(&self.backends)
    }

    fn describe(&self) -> Result<String> {
        let prefix = self.belongings.prefix();
        let folder = self.folder();
        let mut text = format!("lab {prefix} ({:?}), files in {}\n", self.layout, folder.display());
        for host in self.everyone() {
            writeln!(text, "  {:<12} nsenter --net=/run/netns/{}", host.role(), host.namespace())?;
            for interface in host.interfaces() {
                let Interface { name, index, ipv4, ipv6, .. } = interface;
                let mac = interface.mac_text();
                writeln!(text, "    {name} (index {index})  {mac}  {ipv4}  {ipv6}")?;
            }
        }
        writeln!(text, "  services     {}  {} …", self.service_ipv4(0), self.service_ipv6(0))?;
        writeln!(text, "  agent        {}", self.socket().display())?;
        writeln!(
            text,
            "remove it with: for n in /run/netns/{prefix}-*; do ip netns pids ${{n##*/}} | xargs -r kill -9; \
             ip netns del ${{n##*/}}; done; rm -r {} {}",
            folder.display(),
            self.belongings.bpf_folder().display()
        )?;
        Ok(text)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.belongings.remove();
    }
}
