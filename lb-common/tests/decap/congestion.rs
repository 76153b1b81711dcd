//! Figure 4 of RFC 6040, cell by cell.

use crate::frames::{MIXES, Outcome, Tunneled, outcome, tables};
use lb_common::decap::verdict::{Verdict, Why};

const NOT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The order of rows and columns in the figure.
const ORDER: [u8; 4] = [NOT, ECT_0, ECT_1, CE];
/// A row for each inner header, a column for each outer one.
const FIGURE_4: [[Option<u8>; 4]; 4] = [
    [Some(NOT), Some(NOT), Some(NOT), None],
    [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
    [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
    [Some(CE), Some(CE), Some(CE), Some(CE)],
];

#[test]
fn marks_are_combined_as_rfc_6040_says() {
    for (outer, inner, why) in MIXES {
        for tags in 0..=2 {
            for (inner_mark, row) in ORDER.into_iter().zip(FIGURE_4) {
                for (outer_mark, comes_out) in ORDER.into_iter().zip(row) {
                    let packet = Tunneled::new(outer, inner).tagged(tags).marked(outer_mark, inner_mark);
                    let frame = packet.bytes();
                    let expected = match comes_out {
                        Some(mark) => Outcome::expected(Verdict::Pass(why), packet.taken_out(mark)),
                        None => Outcome::expected(Verdict::Drop(Why::DroppedForCongestion), frame.clone()),
                    };
                    assert_eq!(outcome(&frame, &tables(&[])), expected, "{packet:?}");
                }
            }
        }
    }
}

/// Differentiated services are the inner header's own (RFC 2983 section 3.1, the uniform model apart).
#[test]
fn every_inner_class_and_checksum_survives_a_mark() {
    for (outer, inner, why) in MIXES {
        for class in 0..64_u8 {
            let packet = Tunneled { payload: vec![class; 16], ..Tunneled::new(outer, inner).marked(CE, ECT_0) };
            let with_class = |mut frame: Vec<u8>, start: usize| {
                if inner == crate::frames::Four {
                    frame[start + 1] = frame[start + 1] & 3 | class << 2;
                    crate::frames::repair(&mut frame, start);
                } else {
                    let mark = frame[start + 1] >> 4 & 3;
                    frame[start] = 0x60 | class >> 2;
                    frame[start + 1] = class << 6 | mark << 4 | frame[start + 1] & 0xf;
                }
                frame
            };
            let frame = with_class(packet.bytes(), packet.start());
            let expected = with_class(packet.taken_out(CE), packet.link());
            assert_eq!(outcome(&frame, &tables(&[])), Outcome::expected(Verdict::Pass(why), expected));
        }
    }
}
