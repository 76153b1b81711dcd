//! The making of a lab: namespaces, settings, cables, addresses and routes.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    blueprint::Blueprint,
    host::{Host, Interface},
    lab::Lab,
    layout::{Layout, Subnet},
    process::tail,
    programs,
};

/// Added to the index of an interface to get that of its port.
const PORT: u32 = 1000;

/// Settings of every host, before it has interfaces: these take over the defaults when they are made.
const HOST: [(&str, &str); 17] = [
    // Replies that bypass the balancer come from where no route points.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // A balancer with one interface sends out of it what came in by it, which is no reason to route
    // around it.
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    // Addresses are usable at once, and nothing is learned from routers.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/router_solicitations", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    // Echo requests by datagram sockets, for `Host::ping`.
    ("ipv4/ping_group_range", "0 0"),
    // Every ICMP error is sent: a test that provokes two wants both.
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// Further settings of the balancer and of a router. `bpf_fib_lookup` asks for them too.
const FORWARDING: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Settings of the segment, whose ports have no addresses and so say nothing on their own.
const SEGMENT: [(&str, &str); 2] = [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// Makes all that `lab` says.
pub(crate) fn make(lab: &Lab, blueprint: Blueprint) -> Result<()> {
    let pass = lab.belongings.bpf_folder().join("pass");
    programs::pin_pass(&pass)?;
    make_namespaces(lab)?;
    lab.segment.set(SEGMENT)?;
    for host in lab.machines() {
        host.set(HOST)?;
    }
    for host in [&lab.balancer].into_iter().chain(&lab.router) {
        host.set(FORWARDING)?;
    }

    lab.segment.ip(&bridge(lab, &pass))?;
    match lab.layout {
        Layout::Bridged => {}
        Layout::Routed => lab.client.ip(&[cable(&lab.client, &lab.balancer)])?,
        Layout::Distant => {
            let router = lab.router.as_ref().context("this layout has a router")?;
            lab.client.ip(&[cable(&lab.client, router)])?;
        }
    }

    configure(&lab.client, Some(&pass), client_routes(lab))?;
    configure(&lab.balancer, None, balancer_routes(lab))?;
    if let Some(router) = &lab.router {
        configure(router, Some(&pass), Vec::new())?;
    }
    for backend in &lab.backends {
        configure(backend, Some(&pass), backend_routes(lab, blueprint.route_back_via_balancer))?;
    }
    blueprint.tag.map_or(Ok(()), |id| tag(lab, id))
}

fn make_namespaces(lab: &Lab) -> Result<()> {
    let lines: String =
        lab.machines().chain([&lab.segment]).map(|host| format!("netns add {}\n", host.namespace())).collect();
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip`")?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("telling `ip` what to make")?;
    }
    let output = ip.wait_with_output()?;
    if !output.status.success() {
        bail!("making namespaces{}", tail(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

/// The bridge with a port for each machine on it; a port is called like its machine.
fn bridge(lab: &Lab, pass: &Path) -> Vec<String> {
    // Without snooping multicast, neighbour solicitations too, reaches every port: there is no querier.
    let mut lines = vec![
        "link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
        "link set br0 up".to_owned(),
    ];
    let connected = |host: &Host| match lab.layout {
        Layout::Routed | Layout::Distant if host.role() == lab.client.role() => None,
        Layout::Routed | Layout::Distant | Layout::Bridged => host.interfaces().last().cloned(),
    };
    for host in lab.machines() {
        let Some(interface) = connected(host) else {
            continue;
        };
        let port = host.role();
        lines.push(format!(
            "link add name {port} index {} type veth peer {} netns {}",
            interface.index + PORT,
            identity(&interface),
            host.namespace()
        ));
        lines.push(format!("link set {port} xdpdrv pinned {}", pass.display()));
        lines.push(format!("link set {port} master br0 up"));
    }
    lines
}

/// A cable between `eth0` of `near`, where the line is run, and `eth0` of `far`.
fn cable(near: &Host, far: &Host) -> String {
    let [near, peer] = [near, far].map(|host| host.interfaces().first().map(identity));
    format!(
        "link add {} type veth peer {} netns {}",
        near.unwrap_or_default(),
        peer.unwrap_or_default(),
        far.namespace()
    )
}

fn identity(interface: &Interface) -> String {
    format!("name {} index {} address {}", interface.name, interface.index, interface.mac_text())
}

fn configure(host: &Host, pass: Option<&Path>, routes: Vec<String>) -> Result<()> {
    let mut lines = vec!["link set lo up".to_owned()];
    for Interface { name, ipv4, ipv6, .. } in host.interfaces() {
        // A sender on the same machine leaves checksums to hardware that a veth has not got, and an
        // incremental update of one that was never computed is wrong for good. The same for segments.
        host.run(["ethtool", "-K", name, "tx", "off", "tso", "off"])?;
        if let Some(pass) = pass {
            lines.push(format!("link set {name} xdpdrv pinned {}", pass.display()));
        }
        lines.push(format!("link set {name} up"));
        lines.push(format!("address add {ipv4}/{} dev {name}", Subnet::IPV4_LENGTH));
        lines.push(format!("address add {ipv6}/{} dev {name} nodad", Subnet::IPV6_LENGTH));
    }
    lines.extend(routes);
    host.ip(&lines)
}

/// Puts a VLAN tag on every frame between the machines.
fn tag(lab: &Lab, id: u16) -> Result<()> {
    let [tag, untag] = ["tag", "untag"].map(|name| lab.belongings.bpf_folder().join(name));
    programs::pin_tag(id, &tag)?;
    programs::pin_untag(&untag)?;
    for host in lab.machines() {
        for Interface { name, .. } in host.interfaces() {
            // Else the tag travels beside the frame, where XDP does not see it.
            host.run(["ethtool", "-K", name, "txvlan", "off"])?;
            host.run(["tc", "qdisc", "add", "dev", name, "clsact"])?;
            for (direction, program) in [("egress", &tag), ("ingress", &untag)] {
                let program = program.display().to_string();
                let line = ["tc", "filter", "add", "dev", name, direction, "bpf", "direct-action", "pinned", &program];
                host.run(line)?;
            }
        }
        let port = host.role();
        lab.segment.run(["ethtool", "-K", port, "txvlan", "off"])?;
        // What XDP sends is held against the far end's MTU with the tag, what a socket sends without.
        lab.segment.ip(&[format!("link set {port} mtu 1504")])?;
    }
    Ok(())
}

fn client_routes(lab: &Lab) -> Vec<String> {
    let gateway = match lab.layout {
        Layout::Bridged => return Vec::new(),
        Layout::Routed => Some(&lab.balancer),
        Layout::Distant => lab.router.as_ref(),
    };
    let Some(Interface { ipv4, ipv6, .. }) = gateway.and_then(|gateway| gateway.interfaces().first()) else {
        return Vec::new();
    };
    [lab.layout.services(), lab.layout.backends()]
        .iter()
        .flat_map(|subnet| {
            [
                format!("route replace {} via {ipv4}", subnet.ipv4_prefix()),
                format!("route replace {} via {ipv6}", subnet.ipv6_prefix()),
            ]
        })
        .collect()
}

fn balancer_routes(lab: &Lab) -> Vec<String> {
    lab.router.as_ref().and_then(|router| router.interfaces().last()).map_or_else(Vec::new, default_routes)
}

fn default_routes(gateway: &Interface) -> Vec<String> {
    vec![format!("route add default via {}", gateway.ipv4), format!("route add default via {}", gateway.ipv6)]
}

fn backend_routes(lab: &Lab, route_back_via_balancer: bool) -> Vec<String> {
    let gateway = lab.router.as_ref().filter(|_| !route_back_via_balancer).unwrap_or(&lab.balancer);
    let Some(gateway) = gateway.interfaces().last() else {
        return Vec::new();
    };
    let mut lines = default_routes(gateway);
    if route_back_via_balancer && lab.layout == Layout::Bridged {
        lines.push(format!("route add {}/32 via {}", lab.client.ipv4(), gateway.ipv4));
        lines.push(format!("route add {}/128 via {}", lab.client.ipv6(), gateway.ipv6));
    }
    lines
}
