//! What an interface's driver does for XDP, and what an operator is to be told of it.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// `NETDEV_XDP_ACT_REDIRECT` and `NETDEV_XDP_ACT_NDO_XMIT` of the kernel's netdev.h.
const REDIRECT: u64 = 1 << 1;
const TRANSMIT: u64 = 1 << 2;

/// The controller of generic netlink, which knows the numbers of the families: its own, its command, and attributes of it
/// (genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The family `netdev`, since Linux 6.3: its command and attributes (netdev.h).
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;

/// A netlink message's header, and that of generic netlink behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const IS_REQUEST: u16 = 1;

/// What the kernel says of an interface's XDP features; `None` before Linux 6.3.
pub fn features(index: u32) -> io::Result<Option<u64>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let Some(family) = ask(&socket, CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0", FAMILY_ID)? else {
        return Ok(None);
    };
    let family = family.try_into().map(u16::from_ne_bytes).unwrap_or_default();
    let features = ask(&socket, family, GET_DEVICE, DEVICE_INDEX, &index.to_ne_bytes(), DEVICE_FEATURES)?;
    Ok(features.and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes))
}

/// Makes a request with one attribute, and gives an attribute of the response; `None` for an error, or one without it.
fn ask(
    socket: &Socket,
    family: u16,
    command: u8,
    attribute: u16,
    value: &[u8],
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    let padded = value.len().next_multiple_of(4);
    let mut message = Vec::with_capacity(HEADER + GENERIC + 4 + padded);
    message.extend(u32::try_from(HEADER + GENERIC + 4 + padded).unwrap_or_default().to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(IS_REQUEST.to_ne_bytes());
    // Sequence number and sender, which the kernel does not need.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(u16::try_from(4 + value.len()).unwrap_or_default().to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(HEADER + GENERIC + 4 + padded, 0);
    socket.send(&message, 0)?;
    let (response, _) = socket.recv_from_full()?;
    let is_of = |kind: u16| response.get(4..6) == Some(&kind.to_ne_bytes());
    // The response of the controller bears its number as well; an error has another.
    Ok(if is_of(family) { find(response.get(HEADER + GENERIC..).unwrap_or_default(), wanted) } else { None })
}

/// An attribute's value.
fn find(mut attributes: &[u8], wanted: u16) -> Option<Vec<u8>> {
    loop {
        let (header, _) = attributes.split_first_chunk::<4>()?;
        let [low, high, kind @ ..] = *header;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if u16::from_ne_bytes(kind) == wanted {
            return attributes.get(4..length).map(<[u8]>::to_vec);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

/// What an operator is to know of an interface that runs a program in native mode.
pub fn warnings(name: &str, is_veth: bool, features: Option<u64>) -> Vec<String> {
    let lacks = |feature| features.is_some_and(|features| features & feature == 0);
    let mut warnings = Vec::new();
    if lacks(REDIRECT) {
        warnings.push(format!(
            "{name}: its driver does not redirect, so that backends behind other interfaces get nothing that comes in here; \
             `attach = \"generic\"` in the config does"
        ));
    }
    if is_veth {
        if lacks(TRANSMIT) {
            warnings.push(format!(
                "{name}: what is sent by this veth never arrives, since its other end has neither an XDP program nor GRO; \
                 `ethtool -K OTHER_END gro on` helps"
            ));
        }
        warnings.push(format!(
            "{name}: senders behind a veth may leave checksums to a hardware that it has not, and packets of theirs arrive with \
             wrong ones when they are rewritten; `ethtool -K OTHER_END tx off` helps"
        ));
    } else if lacks(TRANSMIT) {
        warnings.push(format!(
            "{name}: its driver takes no frames that come in by other interfaces; `attach = \"generic\"` in the config does"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_their_kind() {
        let attributes = [6_u16, 7, 0x0101, 0, 12, 3, 1, 0, 0, 0].map(u16::to_ne_bytes).concat();
        assert_eq!(find(&attributes, 7), Some(vec![1, 1]));
        assert_eq!(find(&attributes, 3), Some([1_u16, 0, 0, 0].map(u16::to_ne_bytes).concat()));
        assert_eq!(find(&attributes, 4), None);
        // One that says that it is of no length ends nothing but itself.
        assert_eq!(find(&[0, 0, 1, 0, 0, 0, 2, 0], 9), None);
        assert_eq!(find(&[200, 0, 1, 0], 1), None);
    }

    #[test]
    fn each_lack_is_told_with_its_cure() {
        let all = Some(REDIRECT | TRANSMIT | 1);
        assert_eq!(warnings("eth0", false, all), Vec::<String>::new());
        assert_eq!(warnings("eth0", false, None), Vec::<String>::new());
        let told = warnings("eth0", false, Some(1));
        assert!(told.len() == 2 && told[0].contains("does not redirect") && told[1].contains("takes no frames"));
        let told = warnings("eth0", true, all);
        assert!(told.len() == 1 && told[0].contains("tx off"), "{told:?}");
        let told = warnings("eth0", true, Some(REDIRECT));
        assert!(told.len() == 2 && told[0].contains("gro on"), "{told:?}");
    }
}
