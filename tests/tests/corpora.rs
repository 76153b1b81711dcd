//! DNS messages that others have collected, if there is a folder of them: files that are a message each, and captures of packets.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use etherparse::{SlicedPacket, TransportSlice};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};
use tests::{
    Lab, Layout,
    fixture::{self, Fixture},
    frames, needs_root, skip,
};

/// Longer messages have no room in a frame of a test run.
const LONGEST: usize = 3_000;
/// How a capture's numbers are read.
type Number = fn([u8; 4]) -> u32;
/// The first bytes of a capture, which show the order of its numbers.
const CAPTURES: [([u8; 4], Number); 2] =
    [([0xd4, 0xc3, 0xb2, 0xa1], u32::from_le_bytes), ([0xa1, 0xb2, 0xc3, 0xd4], u32::from_be_bytes)];
/// The length of what comes before all packets of a capture, and before each.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
/// How a capture says what its packets begin with: with an Ethernet header, or with four bytes of PPP.
const ETHERNET: u32 = 1;
const PPP_BYTES: usize = 4;

#[test]
fn kernel_and_host_agree_on_messages_that_others_have_collected() {
    const NAME: &str = "kernel_and_host_agree_on_messages_that_others_have_collected";
    let Some(folder) = env::var_os("LB_DNS_CORPORA") else {
        return skip(NAME, "LB_DNS_CORPORA names no folder of DNS messages");
    };
    if !needs_root(NAME) {
        return;
    }
    let messages = messages(Path::new(&folder));
    let lab = Lab::blueprint(Layout::Routed).backends(1).up().unwrap();
    fixture::neighbors(lab.balancer()).unwrap();
    lab.balancer()
        .inside(|| {
            fixture::stay_on_one_cpu().unwrap();
            let mut fixture = Fixture::load(lab.balancer()).unwrap();
            let mut reasons = BTreeMap::<&str, u64>::new();
            for (path, message) in &messages {
                // As it is, and as a question.
                for is_question in [false, true] {
                    let mut message = message.clone();
                    message.get_mut(2).filter(|_| is_question).into_iter().for_each(|flags| *flags &= 0x7f);
                    for frame in frames::with_message(&message).unwrap() {
                        let [kernel, host] = fixture.in_both(&frame).unwrap();
                        assert_eq!(kernel, host, "{}: {message:02x?}", path.display());
                        kernel.counts.iter().for_each(|(why, count)| *reasons.entry(why.name()).or_default() += count);
                    }
                }
            }
            println!("{} messages: {reasons:?}", messages.len());
            assert!(!messages.is_empty(), "no messages");
        })
        .unwrap();
}

/// All messages below a folder, each with its file.
fn messages(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            messages.extend(self::messages(&path));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let found = captured(&bytes).unwrap_or_else(|| vec![bytes]);
        let found = found.into_iter().filter(|message| message.len() <= LONGEST);
        messages.extend(found.map(|message| (path.clone(), message)));
    }
    messages
}

/// The messages in a capture, if it is one.
fn captured(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (_, number) = CAPTURES.iter().find(|(magic, _)| bytes.starts_with(magic))?;
    let number = |at: usize| Some(number(*bytes.get(at..)?.first_chunk()?));
    let is_ethernet = number(20)? == ETHERNET;
    let (mut at, mut messages) = (FILE_HEADER, Vec::new());
    while let Some(length) = number(at + 8) {
        let start = at + PACKET_HEADER;
        at = start + length as usize;
        let Some(packet) = bytes.get(start..at) else { break };
        let packet = if is_ethernet {
            SlicedPacket::from_ethernet(packet).ok()
        } else {
            packet.get(PPP_BYTES..).and_then(|packet| SlicedPacket::from_ip(packet).ok())
        };
        match packet.and_then(|packet| packet.transport) {
            Some(TransportSlice::Udp(udp)) => messages.push(udp.payload().to_vec()),
            // Behind its length.
            Some(TransportSlice::Tcp(tcp)) => messages.extend(tcp.payload().get(2..).map(<[u8]>::to_vec)),
            _ => (),
        }
    }
    Some(messages)
}
