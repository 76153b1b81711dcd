//! Frames as they are, sent on an interface of a host.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket,
        sockopt::SndBufForce,
    },
};

use crate::{Host, udp_echo::BUFFER};

const ANSWER: Duration = Duration::from_secs(5);

/// Sends frames on an interface of a host, whatever is in them.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl FrameSocket {
    /// Opens one on the host's interface with this index. `known` answers echo requests that leave by it: the socket's address
    /// on an interface is that of something that came by it, since safe code can't make one.
    pub fn open(host: &Host, index: u32, known: IpAddr) -> Result<Self> {
        host.inside(|| {
            let open = |flags, protocol: Option<SockProtocol>| {
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC | flags, protocol)
                    .context("opening a packet socket")
            };
            let seen = open(SockFlag::SOCK_NONBLOCK, Some(SockProtocol::EthAll))?;
            host.ping(known, 8, ANSWER)?;
            loop {
                match recvfrom::<LinkAddr>(seen.as_raw_fd(), &mut [0; 64]) {
                    Ok((_, Some(interface))) if u32::try_from(interface.ifindex()) == Ok(index) => {
                        // Another one, that gets nothing: what it got would stay in its buffer.
                        let socket = open(SockFlag::empty(), None)?;
                        setsockopt(&socket, SndBufForce, &BUFFER)?;
                        return Ok(Self { socket, interface });
                    }
                    Ok(_) => {}
                    Err(Errno::EAGAIN) => {
                        bail!("{known} does not answer by the interface {index} of {}", host.namespace());
                    }
                    Err(error) => return Err(error).context("looking for a frame of the interface"),
                }
            }
        })?
    }

    /// Sends a frame, from its Ethernet header on.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            match sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                // The interface's own queue was full: the socket waits for room in its buffer only.
                Err(Errno::ENOBUFS) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("sending a frame of {} bytes", frame.len()));
                }
            }
        }
    }
}
