//! The shapes that one packet can have: tags, options, extension headers.

use super::datagram::{Datagram, Extension};

/// No tag, one and two, of both kinds.
pub fn tags() -> [Vec<[u8; 4]>; 5] {
    let (customer, provider) = ([0x81, 0x00, 0xe0, 0x07], [0x88, 0xa8, 0x0f, 0xff]);
    [vec![], vec![customer], vec![provider], vec![provider, customer], vec![customer, [0x81, 0, 0, 0]]]
}

/// A packet in all shapes of its headers, without tags.
pub fn headers(packet: &Datagram) -> Vec<Datagram> {
    let mut shapes = vec![packet.clone()];
    if packet.from.is_ipv4() {
        // A router alert (RFC 2113), a time stamp of the longest kind, and all that there is room for.
        let stamp = [&[68, 36, 5, 0][..], &[0x55; 32]].concat();
        for options in [vec![148, 4, 0, 0], stamp, vec![1; 40]] {
            shapes.push(packet.clone().with_options(&options));
        }
        return shapes;
    }
    let [hop_by_hop, routing, whole] =
        [Extension::hop_by_hop(), Extension::routing(0), Extension::fragment(7, 0, false)];
    let options = Extension::destination_options;
    for chain in [
        vec![hop_by_hop.clone()],
        vec![options(1)],
        vec![options(32)],
        vec![routing.clone()],
        vec![whole.clone()],
        vec![hop_by_hop.clone(), options(2)],
        vec![hop_by_hop.clone(), options(1), routing.clone(), options(3)],
        vec![hop_by_hop, routing, whole, options(4)],
    ] {
        shapes.push(packet.clone().with_extensions(&chain));
    }
    shapes
}

/// A packet in all shapes of its headers, behind all kinds of tags.
pub fn shapes(packet: &Datagram) -> Vec<Datagram> {
    let tagged = |shape: Datagram| tags().map(|tags| Datagram { tags, ..shape.clone() });
    headers(packet).into_iter().flat_map(tagged).collect()
}
