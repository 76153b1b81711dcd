//! Explicit congestion notification at a tunnel's end (RFC 6040).

/// The transport does not understand marks (RFC 3168 section 5, as are the others).
const NOT_CAPABLE: u8 = 0b00;
/// Capable, first codepoint.
const CAPABLE_1: u8 = 0b01;
/// Capable, second codepoint.
const CAPABLE_0: u8 = 0b10;
/// Congestion was met.
const MET: u8 = 0b11;

/// What the inner header says from now on, by figure 4 of RFC 6040 (section 4.2); `None` if the packet has to be dropped.
#[inline(always)]
pub const fn combined(outer: u8, inner: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_CAPABLE, MET) => None,
        (NOT_CAPABLE, _) => Some(NOT_CAPABLE),
        (_, MET) => Some(MET),
        (CAPABLE_0, CAPABLE_1) => Some(CAPABLE_1),
        (inner, _) => Some(inner),
    }
}
