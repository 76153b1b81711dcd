//! Whether the checksums of a frame hold, summed by etherparse, for frames that it would refuse to parse as well.

use super::reader::{Parts, parts, repeated};
use etherparse::checksum::Sum16BitWords;

/// A checksum: where it is, and what it covers.
struct Checksum {
    field: usize,
    covers: [usize; 2],
    /// The protocol, if a pseudo header counts as well, with the addresses of both ends.
    pseudo: Option<(u8, [usize; 2])>,
    /// A field of zeros stands for none.
    may_be_absent: bool,
}

impl Checksum {
    /// The checksum, in the order of memory, that is still missing: zero if what is there is right.
    fn missing(&self, frame: &[u8]) -> u16 {
        let [from, to] = self.covers;
        let mut sum = Sum16BitWords::new().add_slice(&frame[from..to]);
        if let Some((protocol, [source, end])) = self.pseudo {
            sum = sum.add_slice(&frame[source..end]).add_4bytes(((to - from) as u32).to_be_bytes());
            sum = sum.add_2bytes([0, protocol]);
        }
        sum.ones_complement()
    }

    fn holds(&self, frame: &[u8]) -> bool {
        let absent = self.may_be_absent && frame[self.field..][..2] == [0, 0];
        absent || self.missing(frame) == 0
    }

    fn repair(&self, frame: &mut [u8]) {
        frame[self.field..][..2].fill(0);
        let checksum = match (self.missing(frame), self.pseudo) {
            (0, Some((17, _))) => 0xffff,
            (checksum, _) => checksum,
        };
        frame[self.field..][..2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// The checksums of one packet, IPv4's header first; those of fragments and of what is cut short can't be told.
fn of_packet(frame: &[u8], parts: &Parts, end: usize) -> Vec<Checksum> {
    let mut checksums = Vec::new();
    if parts.four && parts.payload <= end {
        let covers = [parts.ip, parts.payload];
        checksums.push(Checksum { field: parts.ip + 10, covers, pseudo: None, may_be_absent: false });
    }
    let field = parts.payload
        + match parts.protocol {
            6 => 16,
            17 => 6,
            58 | 1 => 2,
            _ => return checksums,
        };
    // Each family has an ICMP of its own.
    let known = !matches!((parts.protocol, parts.four), (58, true) | (1, false));
    if known && !parts.in_fragments && field + 2 <= parts.end && parts.end <= end && parts.end <= frame.len() {
        let pseudo = (parts.protocol != 1).then_some((parts.protocol, [parts.source[0], parts.destination[1]]));
        let covers = [parts.payload, parts.end];
        checksums.push(Checksum { field, covers, pseudo, may_be_absent: parts.four && parts.protocol == 17 });
    }
    checksums
}

/// Those of a frame's packet, behind those of the packet that it repeats if it is an ICMP error.
fn of_frame(frame: &[u8]) -> Vec<Checksum> {
    let Some(packet) = parts(frame) else { return Vec::new() };
    let mut checksums = Vec::new();
    let kind = frame.get(packet.payload).copied().unwrap_or_default();
    let is_error = match (packet.four, packet.protocol) {
        (true, 1) => matches!(kind, 3 | 11 | 12),
        (false, 58) => (1..=4).contains(&kind),
        _ => false,
    };
    if is_error
        && !packet.in_fragments
        && let Some(repeated) = repeated(frame, &packet)
    {
        checksums.extend(of_packet(frame, &repeated, packet.end.min(frame.len())));
    }
    checksums.extend(of_packet(frame, &packet, frame.len()));
    checksums
}

/// Which of the checksums of a frame hold.
pub fn checksums(frame: &[u8]) -> Vec<bool> {
    of_frame(frame).iter().map(|checksum| checksum.holds(frame)).collect()
}

/// Whether all checksums of a frame hold; `None` if it has none.
pub fn sound(frame: &[u8]) -> Option<bool> {
    let checksums = checksums(frame);
    (!checksums.is_empty()).then(|| checksums.iter().all(|holds| *holds))
}

/// Makes the checksums of a frame hold, where it has some: inner ones first, as outer ones cover them.
pub fn repair(frame: &mut [u8]) {
    for checksum in of_frame(frame) {
        checksum.repair(frame);
    }
}
