//! The beginnings of frames as a file for Wireshark and tcpdump (draft-ietf-opsawg-pcapng).

use crate::model::trace::Event;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Tells the order of the bytes.
const MAGIC: u32 = 0x1a2b_3c4d;
const UNKNOWN_LENGTH: u64 = u64::MAX;
const ETHERNET: u16 = 1;
const COMMENT: u16 = 1;
const NAME: u16 = 2;
/// Of timestamps: a power of ten.
const RESOLUTION: u16 = 9;
const NANOSECONDS: u8 = 9;
/// The end of options.
const END: [u8; 4] = [0; 4];

/// A file in the making. Each interface is described before its first packet.
#[derive(Debug, Default)]
pub(super) struct Pcapng {
    interfaces: Vec<String>,
}

impl Pcapng {
    /// What the file begins with.
    pub(super) fn head() -> Vec<u8> {
        let body =
            [&MAGIC.to_le_bytes()[..], &1_u16.to_le_bytes(), &0_u16.to_le_bytes(), &UNKNOWN_LENGTH.to_le_bytes()];
        block(SECTION_HEADER, &body.concat())
    }

    /// A packet, and what has to be there before it. One without its beginning is none.
    pub(super) fn packet(&mut self, event: &Event) -> Vec<u8> {
        let Some(bytes) = event.bytes() else { return Vec::new() };
        let mut blocks = Vec::new();
        let known = self.interfaces.iter().position(|name| *name == event.interface);
        let index = known.unwrap_or_else(|| {
            blocks = interface(&event.interface);
            self.interfaces.push(event.interface.clone());
            self.interfaces.len() - 1
        });
        let mut comment = format!("{} {}", event.verdict, event.why);
        for (what, found) in [("service", event.service.clone()), ("backend", event.backend.map(|one| one.to_string()))]
        {
            if let Some(found) = found {
                comment += &format!(" {what} {found}");
            }
        }
        let time = event.unix_nanoseconds;
        let words = [index as u32, (time >> 32) as u32, time as u32, bytes.len() as u32, event.length];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(padded(&bytes));
        body.extend(option(COMMENT, comment.as_bytes()));
        body.extend(END);
        blocks.extend(block(ENHANCED_PACKET, &body));
        blocks
    }
}

fn interface(name: &str) -> Vec<u8> {
    // All of a frame may be there: no limit.
    let mut body = [&ETHERNET.to_le_bytes()[..], &[0; 2], &[0; 4]].concat();
    body.extend(option(NAME, name.as_bytes()));
    body.extend(option(RESOLUTION, &[NANOSECONDS]));
    body.extend(END);
    block(INTERFACE, &body)
}

/// What is in front of a block's body and behind it: its type, and twice its length.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u16).to_le_bytes();
    [&code.to_le_bytes()[..], &length, &padded(value)].concat()
}

/// Up to a multiple of four bytes.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a file, each with its type and its body.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(&file[4..]) as usize;
            assert_eq!((length % 4, word(&file[length - 4..]) as usize), (0, length));
            blocks.push((word(file), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn a_file_has_its_interfaces_before_their_packets() {
        let event = |interface: &str, frame: &str| -> Event {
            let text = format!(
                r#"{{"unix_nanoseconds":4294967298,"interface":"{interface}","verdict":"pass","why":"no_service","protocol":"arp",
                "length":60,"frame":"{frame}"}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let mut pcapng = Pcapng::default();
        let mut file = Pcapng::head();
        for (interface, frame) in [("eth0", "0102030405"), ("eth1", "06"), ("eth0", "0708")] {
            file.extend(pcapng.packet(&event(interface, frame)));
        }
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, ENHANCED_PACKET, INTERFACE, ENHANCED_PACKET, ENHANCED_PACKET]);
        let body = &blocks[2].1;
        let words = |from: usize| u32::from_le_bytes(*body[from..].first_chunk().unwrap());
        assert_eq!([0, 4, 8, 12, 16].map(words), [0, 1, 2, 5, 60]);
        assert_eq!(&body[20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(&body[28..32], [1, 0, 15, 0]);
        assert_eq!(&body[32..47], b"pass no_service");
        assert_eq!(blocks[4].1[0], 1);
        assert_eq!(blocks[5].1[0], 0);
        let none: Event = serde_json::from_str(
            r#"{"unix_nanoseconds":0,"interface":"x","verdict":"pass","why":"no_service","protocol":"arp","length":60}"#,
        )
        .unwrap();
        assert_eq!(pcapng.packet(&none), Vec::<u8>::new());
    }
}
