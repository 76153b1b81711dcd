//! The socket by which the link is told of addresses. It takes a privilege to open and none to use.

use super::KernelError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

/// Sends whole frames, and receives none.
#[derive(Debug)]
pub struct Announcer(OwnedFd);

impl Announcer {
    /// Opens the socket.
    pub fn open() -> Result<Self, KernelError> {
        // Without a protocol nothing comes in.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let opened = socket(AddressFamily::Packet, SockType::Raw, flags, None);
        opened.map(Self).map_err(|error| KernelError::Announce(error.into()))
    }

    /// Sends a frame by the interface with this index.
    pub fn send(&self, interface: u32, frame: &[u8]) -> Result<(), KernelError> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: frame and address are read for the call alone, with the lengths that they have.
        let sent = unsafe {
            libc::sendto(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const address).cast(), length)
        };
        if sent < 0 { Err(KernelError::Announce(io::Error::last_os_error())) } else { Ok(()) }
    }
}
