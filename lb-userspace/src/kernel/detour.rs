//! What takes probes to service addresses off the stack's own way: a device that packets with a mark are routed to, and a socket
//! that sends whole frames.

use socket2::{Domain, Socket, Type};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};
use tokio::io::unix::AsyncFd;

/// `TUNSETIFF`, `IFF_TUN` and `IFF_NO_PI` of `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const TUN: u16 = 0x0001;
const NO_INFORMATION: u16 = 0x1000;
/// The kernel puts the first free number behind it.
const NAME: &[u8] = b"lb-probe%d";
const NAME_LENGTH: usize = 16;

/// A device whose packets this process reads. It goes with the process.
#[derive(Debug)]
pub struct Tun {
    file: AsyncFd<File>,
    /// Its name.
    pub name: String,
}

/// `struct ifreq`, as far as it is read.
#[repr(C)]
struct Request {
    name: [u8; NAME_LENGTH],
    flags: u16,
    rest: [u8; 22],
}

impl Tun {
    /// Makes one. It is down, and nothing is routed to it.
    pub fn new() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut request = Request { name: [0; NAME_LENGTH], flags: TUN | NO_INFORMATION, rest: [0; 22] };
        request.name.iter_mut().zip(NAME).for_each(|(to, from)| *to = *from);
        // SAFETY: the kernel reads and writes a `struct ifreq`, which is as large as `Request`.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        // SAFETY: a `File` has one descriptor, which is its own until it is dropped.
        let file = unsafe { AsyncFd::register(file) }?;
        Ok(Self { file, name })
    }

    /// The next packet that was routed to it; its length.
    pub async fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.file.readable().await?;
            if let Ok(read) = ready.try_io(|file| file.get_ref().read(packet)) {
                return read;
            }
        }
    }
}

/// A socket that sends whole frames and receives none. It takes `CAP_NET_RAW` to open it.
#[derive(Debug)]
pub struct FrameSender(Socket);

impl FrameSender {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        // Of no protocol: it hears nothing.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Another handle of it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(Socket::from(OwnedFd::from(self.0.try_clone()?))))
    }

    /// Sends a frame by an interface.
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: 0,
            sll_ifindex: interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the kernel reads the frame's bytes and a `sockaddr_ll`, both of which are there.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
