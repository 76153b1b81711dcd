//! Whether the checksums of a frame hold, summed by etherparse, for frames that it would refuse to parse as well.

use etherparse::checksum::Sum16BitWords;

/// Where a frame's checksums are and what they cover.
struct Layout {
    /// IPv4's header.
    header: Option<[usize; 2]>,
    addresses: [usize; 2],
    payload: [usize; 2],
    /// TCP, UDP or ICMPv6, with the offset of its field.
    protocol: u8,
    field: usize,
}

/// `None` for what has no checksum that this module knows.
fn layout(frame: &[u8]) -> Option<Layout> {
    let at = |offset: usize| frame.get(offset).copied();
    let length = |offset| Some(usize::from(u16::from_be_bytes([at(offset)?, at(offset + 1)?])));
    let (header, addresses, payload, protocol) = match (at(12)?, at(13)?) {
        (0x08, 0x00) if at(14)? == 0x45 => (Some([14, 34]), [26, 34], [34, 14 + length(16)?], at(23)?),
        (0x86, 0xdd) => (None, [22, 54], [54, 54 + length(18)?], at(20)?),
        _ => return None,
    };
    let field = payload[0]
        + match protocol {
            6 => 16,
            17 => 6,
            58 => 2,
            _ => return None,
        };
    let fits = field + 2 <= payload[1] && payload[1] <= frame.len();
    fits.then_some(Layout { header, addresses, payload, protocol, field })
}

/// The checksum, in the order of memory, that is still missing in a part of a frame: zero if what is there is right.
fn missing(frame: &[u8], layout: &Layout) -> u16 {
    let part = |[from, to]: [usize; 2]| &frame[from..to];
    let payload = part(layout.payload);
    let sum = Sum16BitWords::new()
        .add_slice(part(layout.addresses))
        .add_4bytes((payload.len() as u32).to_be_bytes())
        .add_2bytes([0, layout.protocol])
        .add_slice(payload);
    sum.ones_complement()
}

fn header_missing(frame: &[u8], layout: &Layout) -> u16 {
    layout.header.map_or(0, |[from, to]| Sum16BitWords::new().add_slice(&frame[from..to]).ones_complement())
}

/// Whether all checksums of a frame hold; `None` if it has none.
pub fn sound(frame: &[u8]) -> Option<bool> {
    let layout = layout(frame)?;
    let absent = layout.header.is_some() && layout.protocol == 17 && frame[layout.field..][..2] == [0, 0];
    Some(header_missing(frame, &layout) == 0 && (absent || missing(frame, &layout) == 0))
}

/// Makes the checksums of a frame hold, where it has some.
pub fn repair(frame: &mut [u8]) {
    let Some(layout) = layout(frame) else { return };
    if layout.header.is_some() {
        frame[24..26].fill(0);
        let checksum = header_missing(frame, &layout);
        frame[24..26].copy_from_slice(&checksum.to_ne_bytes());
    }
    frame[layout.field..][..2].fill(0);
    let checksum = match (missing(frame, &layout), layout.protocol) {
        (0, 17) => 0xffff,
        (checksum, _) => checksum,
    };
    frame[layout.field..][..2].copy_from_slice(&checksum.to_ne_bytes());
}
