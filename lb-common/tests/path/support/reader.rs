//! Where the parts of a frame are, read by the book and one byte at a time: for frames that etherparse refuses as well.

/// The VLAN tags of a frame, if what they stand before is there: at most two are looked behind.
pub fn tags(frame: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    match (is_tag(12), is_tag(16)) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

/// Where the EtherType is.
pub fn ethertype(frame: &[u8]) -> usize {
    12 + 4 * tags(frame)
}

/// A packet's parts, as offsets in its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub four: bool,
    /// The IP header.
    pub ip: usize,
    /// Both addresses.
    pub source: [usize; 2],
    pub destination: [usize; 2],
    pub hops: usize,
    /// What comes behind options or extension headers.
    pub protocol: u8,
    pub payload: usize,
    /// The end of the packet, which may lie behind that of the frame.
    pub end: usize,
    /// Not all of the payload: more fragments, or an offset.
    pub in_fragments: bool,
    /// Not its beginning.
    pub rest: bool,
    /// Protocol of the fragment header or the IPv4 header, and what tells the datagram.
    pub identification: u32,
}

/// The packet of a frame.
pub fn parts(frame: &[u8]) -> Option<Parts> {
    let at = ethertype(frame);
    match frame.get(at..at + 2)? {
        [0x08, 0x00] => parts4(frame, at + 2),
        [0x86, 0xdd] => parts6(frame, at + 2),
        _ => None,
    }
}

/// The packet that an ICMP error in a frame repeats.
pub fn repeated(frame: &[u8], error: &Parts) -> Option<Parts> {
    if error.four { parts4(frame, error.payload + 8) } else { parts6(frame, error.payload + 8) }
}

fn word(frame: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(*frame.get(at)?) * 256 + usize::from(*frame.get(at + 1)?))
}

fn parts4(frame: &[u8], ip: usize) -> Option<Parts> {
    let first = *frame.get(ip)?;
    let header = usize::from(first % 16) * 4;
    let fragment = word(frame, ip + 6)?;
    frame.get(ip + 19)?;
    if first / 16 != 4 || header < 20 {
        return None;
    }
    Some(Parts {
        four: true,
        ip,
        source: [ip + 12, ip + 16],
        destination: [ip + 16, ip + 20],
        hops: ip + 8,
        protocol: frame[ip + 9],
        payload: ip + header,
        end: ip + word(frame, ip + 2)?,
        in_fragments: fragment % 0x4000 != 0,
        rest: fragment % 0x2000 != 0,
        identification: word(frame, ip + 4)? as u32,
    })
}

fn parts6(frame: &[u8], ip: usize) -> Option<Parts> {
    frame.get(ip + 39)?;
    if frame[ip] / 16 != 6 {
        return None;
    }
    let mut parts = Parts {
        four: false,
        ip,
        source: [ip + 8, ip + 24],
        destination: [ip + 24, ip + 40],
        hops: ip + 7,
        protocol: frame[ip + 6],
        payload: ip + 40,
        end: ip + 40 + word(frame, ip + 4)?,
        in_fragments: false,
        rest: false,
        identification: 0,
    };
    while let 0 | 43 | 44 | 60 = parts.protocol {
        if parts.rest {
            break;
        }
        let [next, length] = *frame.get(parts.payload..parts.payload + 2)? else { return None };
        let mut bytes = 8 + 8 * usize::from(length);
        if parts.protocol == 44 {
            let fragment = word(frame, parts.payload + 2)?;
            let identification = frame.get(parts.payload + 4..parts.payload + 8)?;
            bytes = 8;
            parts.rest = fragment / 8 != 0;
            if parts.rest || fragment % 2 != 0 {
                parts.in_fragments = true;
                parts.identification = u32::from_be_bytes(identification.try_into().unwrap());
            }
        }
        parts.protocol = next;
        parts.payload += bytes;
    }
    Some(parts)
}
