//! The host's frame, which stands for a driver's: every other test here relies on it.

use crate::support::WAN;
use lb_common::{
    frame::{Frame, OFFSET_MAX},
    host::Buffer,
    wire::ethernet::{Addresses, Ethernet},
};

const BYTES: [u8; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

fn buffer(head: usize, tail: usize) -> Buffer {
    Buffer::new(&BYTES, WAN, head, tail)
}

#[test]
fn a_frame_starts_as_it_came() {
    for (head, tail) in [(0, 0), (7, 0), (0, 7), (192, 320)] {
        let frame = buffer(head, tail);
        assert_eq!((frame.bytes(), frame.len(), frame.interface()), (&BYTES[..], 20, WAN));
        assert!(!frame.is_empty());
    }
    assert!(Buffer::new(&[], WAN, 8, 8).is_empty());
}

#[test]
fn a_frame_grows_at_its_tail_where_there_is_room() {
    let mut frame = buffer(100, 12);
    frame.resize(32, 20).unwrap();
    assert_eq!((frame.len(), &frame.bytes()[..20]), (32, &BYTES[..]));
}

#[test]
fn a_frame_grows_at_its_head_where_the_tail_has_no_room() {
    for tail in [0, 11] {
        let mut frame = buffer(12, tail);
        frame.resize(32, 9).unwrap();
        assert_eq!((frame.len(), &frame.bytes()[..9]), (32, &BYTES[..9]));
    }
}

#[test]
fn a_frame_without_room_stays_as_it_was() {
    for (head, tail, len) in [(0, 0, 21), (11, 11, 32), (0, 11, 32), (11, 0, 32), (192, 320, 2_000)] {
        let mut frame = buffer(head, tail);
        assert_eq!(frame.resize(len, 20), None, "{head} and {tail} bytes hold no {len}");
        assert_eq!(frame.bytes(), BYTES);
    }
}

#[test]
fn a_frame_grows_again_with_what_is_left() {
    let mut frame = buffer(10, 5);
    frame.resize(25, 20).unwrap();
    frame.resize(30, 20).unwrap();
    frame.resize(35, 20).unwrap();
    assert_eq!(frame.resize(36, 20), None);
    assert_eq!((frame.len(), &frame.bytes()[..20]), (35, &BYTES[..]));
}

#[test]
fn a_frame_shrinks_from_behind() {
    for len in (0..=20).rev() {
        let mut frame = buffer(3, 0);
        frame.resize(len, len).unwrap();
        assert_eq!(frame.bytes(), &BYTES[..len]);
    }
}

#[test]
fn a_frame_shrinks_from_the_front() {
    // As in the kernel, down to an Ethernet header.
    for by in 0..=6 {
        let mut frame = buffer(0, 3);
        frame.shrink_front(by).unwrap();
        assert_eq!(frame.bytes(), &BYTES[by..]);
        assert_eq!((frame.shrink_front(7 - by), frame.bytes()), (None, &BYTES[by..]));
    }
}

#[test]
fn a_frame_grows_at_its_front_as_far_as_there_is_room() {
    for head in 0..=20 {
        let mut frame = buffer(head, 3);
        assert_eq!((frame.grow_front(head + 1), frame.bytes()), (None, &BYTES[..]));
        frame.grow_front(head).unwrap();
        assert_eq!((frame.len(), &frame.bytes()[head..]), (20 + head, &BYTES[..]));
        frame.shrink_front(head).unwrap();
        assert_eq!(frame.bytes(), BYTES);
    }
}

#[test]
fn what_is_reserved_in_front_stays_free_until_it_is_given_back() {
    for reserved in 0..=20 {
        let mut frame = buffer(20, 0);
        frame.reserve_front(reserved);
        let free = 20 - reserved;
        assert_eq!((frame.grow_front(free + 1), frame.resize(21 + free, 20)), (None, None));
        assert_eq!(frame.bytes(), BYTES, "it is as it was");
        frame.resize(20 + free, 20).unwrap();
        assert_eq!(frame.bytes()[..20], BYTES);
        assert_eq!(frame.grow_front(1), None);
        frame.reserve_front(0);
        frame.grow_front(reserved).unwrap();
        assert_eq!((frame.len(), frame.grow_front(1)), (40, None));
    }
}

#[test]
fn nothing_is_seen_further_than_the_kernel_looks() {
    let mut frame = Buffer::new(&[0x5a; 3_000], WAN, 0, 0);
    assert_eq!(frame.view::<[u8; 200]>(OFFSET_MAX), Some(&[0x5a; 200]));
    assert_eq!(frame.view_mut::<[u8; 200]>(OFFSET_MAX), Some(&mut [0x5a; 200]));
    assert_eq!(frame.view::<u8>(OFFSET_MAX + 1), None);
    assert_eq!(frame.view_mut::<u8>(OFFSET_MAX + 1), None);
    assert_eq!(frame.head::<[u8; 2_500]>(), Some(&[0x5a; 2_500]), "a constant offset has no bound");
}

#[test]
fn a_header_is_seen_only_whole() {
    let frame = buffer(5, 50);
    assert_eq!(frame.head::<Ethernet>(), frame.view(0));
    assert_eq!(frame.view::<[u8; 14]>(6), Some(&[6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]));
    for offset in [7, 20, 21, usize::MAX] {
        assert_eq!(frame.view::<Ethernet>(offset), None, "at {offset}");
    }
    let mut short = Buffer::new(&BYTES[..11], WAN, 64, 64);
    assert_eq!(short.head::<Addresses>(), None);
    assert_eq!(short.head_mut::<Addresses>(), None);
}

#[test]
fn a_changed_header_changes_the_frame() {
    let mut frame = buffer(5, 50);
    *frame.view_mut::<[u8; 2]>(18).unwrap() = [0xaa, 0xbb];
    *frame.head_mut::<[u8; 1]>().unwrap() = [0xcc];
    assert_eq!(frame.view_mut::<[u8; 2]>(19), None);
    let mut bytes = BYTES;
    (bytes[0], bytes[18], bytes[19]) = (0xcc, 0xaa, 0xbb);
    assert_eq!(frame.bytes(), bytes);
}

#[test]
fn words_are_loaded_as_far_as_the_frame_reaches() {
    let frame = buffer(5, 50);
    let mut words = [u64::MAX; 2];
    frame.load(2, &mut words).unwrap();
    assert_eq!(
        words,
        [u64::from_le_bytes([2, 3, 4, 5, 6, 7, 8, 9]), u64::from_le_bytes([10, 11, 12, 13, 14, 15, 16, 17])]
    );

    let mut words = [u64::MAX; 2];
    frame.load(17, &mut words).unwrap();
    assert_eq!(words[0].to_le_bytes()[..3], [17, 18, 19]);

    for offset in [20, 21, usize::MAX] {
        assert_eq!(frame.load(offset, &mut words), None, "there is nothing at {offset}");
    }
}
