//! Echo requests, and the replies that they deserve.

use crate::support::{
    Side,
    datagram::{Body, Datagram},
};

/// From the client to the service's address.
pub fn request(side: &Side, payload: &[u8]) -> Datagram {
    let kind = if side.client.is_ipv4() { 8 } else { 128 };
    let body = Body::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 7], payload: payload.to_vec() };
    Datagram::asked(side.client, side.service, body)
}

/// RFC 792 and RFC 4443 section 4.2: identifier, sequence number and data come back.
pub fn reply(request: &Datagram) -> Datagram {
    let mut body = request.body.clone();
    if let Body::Icmp { kind, .. } = &mut body {
        *kind = if *kind == 8 { 0 } else { 129 };
    }
    Datagram {
        receiver: request.sender,
        sender: request.receiver,
        from: request.to,
        to: request.from,
        hops: 64,
        body,
        ..request.clone()
    }
}
