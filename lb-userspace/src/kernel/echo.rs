//! Sockets for echo requests. They take `CAP_NET_RAW`, which the agent gives up, so they are opened before that.

use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

/// `ICMP_FILTER` of `linux/icmp.h`: bits of the types that are kept away.
const ICMP_FILTER: libc::c_int = 1;
/// `SOL_RAW` of `linux/socket.h`.
const SOL_RAW: libc::c_int = 255;
/// `ICMPV6_FILTER` of `linux/icmpv6.h`: the same, of 256 types.
const ICMPV6_FILTER: libc::c_int = 1;
/// Echo replies of RFC 792 and of RFC 4443.
const REPLY: u32 = 0;
const REPLY6: usize = 129;

/// A raw socket of one family that hears nothing but echo replies. It sends and receives like one of UDP, without ports.
pub fn echo_socket(ipv4: bool) -> io::Result<UdpSocket> {
    let (domain, protocol) = if ipv4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if ipv4 {
        let filter: u32 = !(1 << REPLY);
        set(&socket, SOL_RAW, ICMP_FILTER, &filter)?;
    } else {
        let mut filter = [u32::MAX; 8];
        if let Some(word) = filter.get_mut(REPLY6 / 32) {
            *word &= !(1 << (REPLY6 % 32));
        }
        set(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &filter)?;
    }
    Ok(socket.into())
}

fn set<T: bytemuck::Pod>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes behind the pointer, which are those of `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
