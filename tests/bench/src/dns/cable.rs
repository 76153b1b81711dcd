//! A pair of veths between who asks and a server, such that what it takes to receive can be told from everything else.
//!
//! Both ends have GRO on, which gives them NAPI, and NAPI in threads: what a machine does with frames that come in is then the work of
//! one kernel thread, which has a CPU and a count of its time.

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{self, Command},
    time::Duration,
};
use tests::{Host, wait_until};

/// Indexes of servers' ends, and of clients'.
const FIRST_INDEX: u32 = 2_001;
const FIRST_CLIENT_INDEX: u32 = 2_101;

/// The pair.
pub struct Cable {
    /// Its number, from 1 on.
    pub number: u8,
    /// The server's end.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The client's end.
    pub client_name: String,
    /// Its index.
    pub client_index: u32,
    /// The thread that receives at the server's end.
    pub receiver: u32,
}

impl Cable {
    /// Lays one; no other has its number, of one digit. What the server receives is done on its CPU, what the client receives on that of the client.
    pub fn lay(number: u8, client: &Host, server: &Host, [server_cpu, client_cpu]: [usize; 2]) -> Result<Self> {
        // The threads are called after the devices, and are in no namespace.
        let [name, client_name] = ["s", "c"].map(|end| format!("{end}{number}x{}", process::id()));
        let (index, client_index) = (FIRST_INDEX + u32::from(number), FIRST_CLIENT_INDEX + u32::from(number));
        let mut cable = Self { number, name, index, client_name, client_index, receiver: 0 };
        cable.connect(client, server)?;
        for (host, name) in [(server, &cable.name), (client, &cable.client_name)] {
            // Frames of sockets are to be received like those of programs, and no checksum to be left undone.
            host.run(["ethtool", "-K", name, "gro", "on", "tx", "off", "rx", "off", "gso", "off", "tso", "off"])?;
            thread_napi(host, name)?;
        }
        cable.receiver = receiver(&cable.name)?;
        pin(cable.receiver, server_cpu)?;
        let taker = receiver(&cable.client_name)?;
        pin(taker, client_cpu)?;
        // Before what asks, which otherwise waits for responses that nobody takes.
        let status = Command::new("chrt").args(["-f", "-p", "10", &taker.to_string()]).status().context("no chrt")?;
        if !status.success() {
            bail!("chrt cannot put the receiving thread of the client before others: {status}");
        }
        Ok(cable)
    }

    fn connect(&self, client: &Host, server: &Host) -> Result<()> {
        let Self { number, name, index, client_name, client_index, .. } = self;
        let [mac, client_mac] = self.macs().map(text);
        let queues = "numtxqueues 1 numrxqueues 1";
        server.ip(&[
            format!(
                "link add name {name} index {index} address {mac} txqueuelen 10000 {queues} type veth peer name \
                 {client_name} index {client_index} address {client_mac} txqueuelen 10000 {queues} netns {}",
                client.namespace()
            ),
            format!("link set {name} up"),
            format!("address add 172.20.{number}.1/24 dev {name}"),
            format!("address add fd20:{number}::1/64 dev {name} nodad"),
            format!("neigh replace 172.20.{number}.2 lladdr {client_mac} dev {name} nud permanent"),
            format!("neigh replace fd20:{number}::2 lladdr {client_mac} dev {name} nud permanent"),
            format!("route add 100.64.0.0/10 via 172.20.{number}.2"),
        ])?;
        client.ip(&[
            format!("link set {client_name} up"),
            format!("address add 172.20.{number}.2/24 dev {client_name}"),
            format!("address add fd20:{number}::2/64 dev {client_name} nodad"),
            format!("neigh replace 172.20.{number}.1 lladdr {mac} dev {client_name} nud permanent"),
            format!("neigh replace fd20:{number}::1 lladdr {mac} dev {client_name} nud permanent"),
        ])
    }

    /// The MAC addresses of the server's end and the client's.
    pub const fn macs(&self) -> [[u8; 6]; 2] {
        [[2, b'l', b'b', 20, self.number, 1], [2, b'l', b'b', 20, self.number, 2]]
    }

    /// The addresses of the server's end and the client's, of one family.
    pub const fn addresses(&self, ipv6: bool) -> [IpAddr; 2] {
        let number = self.number;
        if ipv6 {
            let group = number as u16;
            [
                IpAddr::V6(Ipv6Addr::new(0xfd20, group, 0, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::new(0xfd20, group, 0, 0, 0, 0, 0, 2)),
            ]
        } else {
            [IpAddr::V4(Ipv4Addr::new(172, 20, number, 1)), IpAddr::V4(Ipv4Addr::new(172, 20, number, 2))]
        }
    }
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Has a device's NAPI run in a thread. The device is seen only in a sysfs that was mounted in its namespace.
fn thread_napi(host: &Host, device: &str) -> Result<()> {
    let write = format!("echo 1 > /sys/class/net/{device}/threaded");
    let output = Command::new("ip")
        .args(["netns", "exec", host.namespace(), "sh", "-c", &write])
        .output()
        .context("cannot run ip netns exec")?;
    if !output.status.success() {
        bail!("NAPI of {device} in a thread: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The thread that receives for a device.
fn receiver(device: &str) -> Result<u32> {
    let name = format!("napi/{device}-");
    wait_until(Duration::from_secs(5), &format!("a thread receives for {device}"), || {
        fs::read_dir("/proc").ok()?.find_map(|entry| {
            let path = entry.ok()?.path();
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(&name)).then_some(pid)
        })
    })
}

/// Keeps a thread on a CPU.
pub fn pin(thread: u32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    let thread = Pid::from_raw(i32::try_from(thread)?);
    sched_setaffinity(thread, &cpus).with_context(|| format!("cannot keep thread {thread} on CPU {cpu}"))
}
