//! What the kernel can refuse, and what to do about it.

use aya::{
    EbpfError,
    maps::{MapError, xdp::XdpMapError},
    pin::PinError,
    programs::ProgramError,
    programs::links::LinkError,
};
use std::{io, path::PathBuf};
use thiserror::Error;

/// Something that the kernel refused.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum KernelError {
    #[error(
        "not allowed to load BPF programs: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NoPrivileges,
    #[error("cannot mount bpffs on {path}; mount it with `mount -t bpf bpf {path}`")]
    MountBpffs { path: PathBuf, source: io::Error },
    #[error("{path} is not on bpffs; choose `pins` below a mount of it, such as /sys/fs/bpf/lb")]
    NotBpffs { path: PathBuf },
    #[error("cannot use {path} for pins")]
    Pins { path: PathBuf, source: io::Error },
    #[error("another agent uses the pins in {path}: stop it, or give this one other `pins` and `socket`")]
    PinsInUse { path: PathBuf },
    #[error(
        "the maps in {path} have layout {found}, this program has layout {expected}: take the data path down with \
         `lb detach --pins {path}` and start again"
    )]
    Layout { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "the maps in {path} have room for {found} {what}, [limits] asks for {wanted}: take the data path down with `lb detach --pins \
         {path}` and start again, or write {what} = {found}"
    )]
    Limit { path: PathBuf, what: &'static str, found: u32, wanted: u32 },
    #[error("the kernel refused the BPF object")]
    Load(#[source] Box<EbpfError>),
    #[error("the kernel refused the XDP program: {tail}")]
    Verifier { tail: String, source: Box<ProgramError> },
    #[error("the BPF object has no {name}: it was built from other sources")]
    Missing { name: &'static str },
    #[error("map {map}: cannot {action}")]
    Map { map: &'static str, action: &'static str, source: MapError },
    #[error("map {map}: cannot {action}")]
    Memory { map: &'static str, action: &'static str, source: io::Error },
    #[error("cannot tell the link of an address")]
    Announce(#[source] io::Error),
    #[error("cannot read the clock")]
    Clock(#[source] io::Error),
    #[error("map {map}: cannot pin a chunk at {path}")]
    PinChunk { map: &'static str, path: PathBuf, source: PinError },
    #[error("cannot pin a map at {path}")]
    PinMap { path: PathBuf, source: PinError },
    #[error("{path} holds the pins of an agent; choose other `--pins`, such as {default}")]
    PinsOfAgent { path: PathBuf, default: &'static str },
    #[error(
        "interface {name}: its pinned maps are missing or of another version of lb; attach it again, or \
         `lb decap detach {name}`"
    )]
    Unreadable { name: String },
    #[error("cannot give up privileges")]
    Privileges(#[source] caps::errors::CapsError),
    #[error("cannot have the kernel give no new privileges")]
    NewPrivileges(#[source] io::Error),
    #[error("map DEVICES: cannot add an interface; does its driver support XDP?")]
    Devices(#[source] XdpMapError),
    #[error("interface {name} does not exist; `ip link` lists those that do")]
    NoInterface { name: String },
    #[error(
        "interface {name} already has an XDP program: `ip link show dev {name}` shows it, `ip link set dev {name} xdp off` \
         removes it"
    )]
    Occupied { name: String },
    #[error(
        "interface {name} takes no XDP program in {mode} mode; try the other one (`attach` in the config, `--generic`)"
    )]
    Attach { name: String, mode: &'static str, source: Box<ProgramError> },
    #[error("the kernel gave no link for interface {name}, which needs Linux 5.9 or later")]
    NoLink { name: String },
    #[error("interface {name}: cannot pin its link")]
    PinLink { name: String, source: PinError },
    #[error("interface {name}: cannot open its pinned link")]
    OpenLink { name: String, source: LinkError },
    #[error("interface {name}: cannot detach")]
    Detach { name: String, source: io::Error },
    #[error(
        "checks with probe = \"service\" need a device: load the module `tun`, let this process open /dev/net/tun, or write \
         probe = \"backend\""
    )]
    Tun(#[source] io::Error),
    #[error(
        "checks with probe = \"service\" send frames: start the agent with CAP_NET_RAW, or write probe = \"backend\""
    )]
    NoSender,
    #[error("netlink: cannot {action}")]
    Netlink { action: &'static str, source: rtnetlink::Error },
    #[error("cannot open a netlink socket")]
    NetlinkSocket(#[source] io::Error),
}
