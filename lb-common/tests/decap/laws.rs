//! Frames that nobody would send, and the laws that hold for all of them.

use crate::{
    frames::{MIXES, Outcome, Tunneled, outcome, tables},
    ways::rows,
};
use etherparse::checksum::Sum16BitWords;
use lb_common::decap::{host::HostTables, verdict::Verdict, verdict::Why};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use std::collections::BTreeMap;

/// What must be true of any frame and what came of it; says why it went that way.
fn judged(frame: &[u8], tables: &HostTables) -> Why {
    let Outcome { verdict, frame: after, counts } = outcome(frame, tables);
    let why = verdict.why();
    assert_eq!(counts, BTreeMap::from([(why, 1)]), "one frame leaves in one way");
    if let Some((_, inner, _)) = MIXES.iter().find(|(_, _, taken_out)| *taken_out == why) {
        assert_eq!(verdict, Verdict::Pass(why));
        let link = link(frame);
        let start = link + frame.len() - after.len();
        assert!(frame[link - 2..link] == [0x08, 0x00] && start == link + 20 || start == link + 40);
        assert_eq!(after[..link - 2], frame[..link - 2], "addresses and tags stay");
        assert_eq!(after[link - 2..link], inner.ethertype());
        assert_eq!(after[link] >> 4, if inner.header() == 20 { 4 } else { 6 });
        only_the_mark_differs(&frame[start..], &after[link..]);
        return why;
    }
    assert_eq!(after, frame, "what is not taken out is untouched");
    let drops = why == Why::DroppedForCongestion;
    assert_eq!(verdict, if drops { Verdict::Drop(why) } else { Verdict::Pass(why) });
    why
}

/// Length of the link's header.
fn link(frame: &[u8]) -> usize {
    let tag = |at: usize| matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]);
    if !tag(12) {
        14
    } else if tag(16) {
        22
    } else {
        18
    }
}

fn only_the_mark_differs(before: &[u8], after: &[u8]) {
    let four = before[0] >> 4 == 4;
    let mark = if four { 0x03 } else { 0x30 };
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        match at {
            1 => assert_eq!(old & !mark, new & !mark, "the rest of the mark's byte stays"),
            10 | 11 if four && before[1] != after[1] => {}
            _ => assert_eq!(old, new, "byte {at}"),
        }
    }
    if four {
        let sum = |packet: &[u8]| Sum16BitWords::new().add_slice(&packet[..20]).ones_complement();
        assert_eq!(sum(before), sum(after), "a right checksum stays right and a wrong one stays as wrong as it was");
    }
}

#[test]
fn the_laws_hold_for_every_row_and_for_all_that_it_can_be_cut_to() {
    let tables = tables(&[]);
    for row in rows() {
        for length in 0..=row.frame.len() {
            judged(&row.frame[..length], &tables);
        }
    }
}

#[test]
fn nothing_is_taken_out_of_a_frame_that_was_cut() {
    for (outer, inner, why) in MIXES {
        for tags in 0..=2 {
            let frame = Tunneled::new(outer, inner).tagged(tags).bytes();
            for length in 0..frame.len() {
                assert_eq!(judged(&frame[..length], &tables(&[])), Why::Truncated, "{length} bytes of {frame:02x?}");
            }
            assert_eq!(judged(&frame, &tables(&[])), why);
        }
    }
}

#[test]
fn the_laws_hold_for_every_flipped_bit() {
    let tables = tables(&[("10.0.0.0", 16), ("fd00::", 16)]);
    for (outer, inner, _) in MIXES {
        for tags in 0..=2 {
            let packet = Tunneled::new(outer, inner).tagged(tags).marked(3, 2);
            for bit in 0..8 * (packet.start() + inner.header()) {
                let mut frame = packet.bytes();
                frame[bit / 8] ^= 1 << (bit % 8);
                judged(&frame, &tables);
            }
        }
    }
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Most bytes are somewhere that matters; the checksum of an outer header is made right again, or nothing behind it would be
/// looked at.
#[test]
fn the_laws_hold_for_spoilt_frames() {
    let frames: Vec<Vec<u8>> = rows().into_iter().map(|row| row.frame).filter(|frame| frame.len() > 60).collect();
    let change = (any::<Index>(), any::<u8>(), 0_u8..4);
    let spoilt = (0..frames.len(), prop::collection::vec(change, 1..5), any::<bool>(), any::<Index>());
    let tables = tables(&[]);
    let judge = |(index, changes, repaired, cut): (usize, Vec<(Index, u8, u8)>, bool, Index)| {
        let mut frame: Vec<u8> = frames[index].clone();
        for (at, byte, kind) in changes {
            let length = frame.len();
            match kind {
                0 => frame[at.index(length.min(90))] ^= 1 << (byte % 8),
                1 => frame[at.index(length)] = byte,
                2 => frame.insert(at.index(length), byte),
                _ => {
                    frame.remove(at.index(length));
                }
            }
        }
        if cut.index(8) == 0 {
            frame.truncate(cut.index(frame.len()));
        }
        let start = if frame.len() > 22 { link(&frame) } else { 0 };
        if repaired && frame.len() > start + 20 && frame[start..].first() == Some(&0x45) {
            crate::frames::repair(&mut frame, start);
        }
        judged(&frame, &tables);
        Ok(())
    };
    TestRunner::new(config(20_000)).run(&spoilt, judge).unwrap();
}

#[test]
fn the_laws_hold_for_arbitrary_bytes() {
    let beginnings: [&[(usize, u8)]; 4] = [
        &[],
        &[(12, 0x08), (13, 0x00), (14, 0x45), (20, 0), (21, 0), (23, 4)],
        &[(12, 0x86), (13, 0xdd), (14, 0x60), (18, 0), (19, 60), (20, 41)],
        &[(12, 0x81), (13, 0x00), (16, 0x86), (17, 0xdd), (18, 0x60), (22, 0), (23, 60), (24, 4)],
    ];
    let arbitrary = (prop::collection::vec(any::<u8>(), 0..200), 0..beginnings.len());
    let judge = |(mut frame, beginning): (Vec<u8>, usize)| {
        for (at, byte) in beginnings[beginning] {
            if let Some(place) = frame.get_mut(*at) {
                *place = *byte;
            }
        }
        judged(&frame, &tables(&[]));
        Ok(())
    };
    TestRunner::new(config(5_000)).run(&arbitrary, judge).unwrap();
}
