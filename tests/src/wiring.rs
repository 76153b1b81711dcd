//! The making of a lab: namespaces, settings, cables, addresses and routes.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    host::{Host, Interface},
    lab::Lab,
    layout::{Layout, Subnet},
    process::tail,
    veth_peer,
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

/// Further settings of the balancer. `bpf_fib_lookup` asks for them too.
const BALANCER: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Settings of the segment, whose ports have no addresses and so say nothing on their own.
const SEGMENT: [(&str, &str); 2] = [("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];

/// Makes all that `lab` says.
pub(crate) fn make(lab: &Lab, route_back_via_balancer: bool) -> Result<()> {
    let pass = lab.belongings.bpf_folder().join("pass");
    veth_peer::pin_pass(&pass)?;
    make_namespaces(lab)?;
    lab.segment.set(SEGMENT)?;
    for host in lab.machines() {
        host.set(HOST)?;
    }
    lab.balancer.set(BALANCER)?;

    lab.segment.ip(&bridge(lab, &pass))?;
    if lab.layout == Layout::Routed {
        lab.client.ip(&[cable(&lab.client, &lab.balancer)])?;
    }

    configure(&lab.client, Some(&pass), client_routes(lab))?;
    configure(&lab.balancer, None, Vec::new())?;
    for backend in &lab.backends {
        configure(backend, Some(&pass), backend_routes(lab, route_back_via_balancer))?;
    }
    Ok(())
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
        Layout::Routed if host.role() == lab.client.role() => None,
        Layout::Routed | Layout::Bridged => host.interfaces().last().cloned(),
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

fn client_routes(lab: &Lab) -> Vec<String> {
    if lab.layout == Layout::Bridged {
        return Vec::new();
    }
    [lab.layout.services(), lab.layout.backends()]
        .iter()
        .flat_map(|subnet| {
            [
                format!("route add {} via {}", subnet.ipv4_prefix(), lab.balancer.ipv4()),
                format!("route add {} via {}", subnet.ipv6_prefix(), lab.balancer.ipv6()),
            ]
        })
        .collect()
}

fn backend_routes(lab: &Lab, route_back_via_balancer: bool) -> Vec<String> {
    let Some(Interface { ipv4, ipv6, .. }) = lab.balancer.interfaces().last() else {
        return Vec::new();
    };
    let mut lines = vec![format!("route add default via {ipv4}"), format!("route add default via {ipv6}")];
    if route_back_via_balancer && lab.layout == Layout::Bridged {
        lines.push(format!("route add {}/32 via {ipv4}", lab.client.ipv4()));
        lines.push(format!("route add {}/128 via {ipv6}", lab.client.ipv6()));
    }
    lines
}
