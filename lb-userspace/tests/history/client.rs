//! Clients, and what they may expect.

use crate::ADOPT;
use etherparse::PacketBuilder;

/// How often a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All the time.
    Often,
    /// Just often enough to be adopted.
    Seldom,
    /// Too seldom for that.
    Rarely,
    /// To begin a connection, and never again.
    Once,
}

/// A client with one connection.
#[derive(Clone, Debug)]
pub struct Client {
    address: u32,
    pace: Pace,
    packets: u32,
    last: u64,
    /// The first change that it has not sent anything after.
    changed: Option<u64>,
    /// The backend that serves it, as far as it may expect to stay there.
    home: Option<usize>,
}

impl Client {
    pub fn new(number: u32, pace: Pace, now: u64) -> Self {
        Self { address: 0x0a01_0000 + number, pace, packets: 0, last: now, changed: None, home: None }
    }

    pub fn is_new(&self) -> bool {
        self.packets == 0
    }

    pub fn is_due(&self, now: u64) -> bool {
        let interval = match self.pace {
            // The second packet of a connection follows at once.
            _ if self.packets == 1 && self.pace != Pace::Once => 0,
            Pace::Often => 50,
            Pace::Seldom => ADOPT - 10,
            Pace::Rarely => 4 * ADOPT,
            Pace::Once => return false,
        };
        now - self.last >= interval
    }

    /// Its next packet.
    pub fn frame(&self) -> Vec<u8> {
        if self.is_new() { syn(self.address) } else { frame(self.address, false) }
    }

    /// Something about the service changes.
    pub fn change(&mut self, now: u64) {
        self.changed.get_or_insert(now);
    }

    /// A backend fails: whoever was there may go anywhere.
    pub fn failed(&mut self, backend: usize) {
        if self.home == Some(backend) {
            self.home = None;
        }
    }

    /// Its first packet is forgotten in a flood, which half-open connections have to put up with.
    pub fn pushed_out(&mut self, address: u32) {
        if self.address == address {
            self.home = None;
        }
    }

    /// It has sent a packet, which went to `backend`.
    pub fn sent(&mut self, now: u64, backend: Option<usize>) {
        // Seen too late to be adopted: its flow belongs to whoever has its slot by now.
        if self.changed.is_some_and(|changed| now - changed >= ADOPT) {
            self.home = None;
        }
        if let Some(home) = self.home {
            assert_eq!(backend, Some(home), "moved at {now}: {self:?}");
        }
        (self.home, self.changed, self.last) = (backend, None, now);
        self.packets += 1;
    }
}

/// The first packet of a connection.
pub fn syn(address: u32) -> Vec<u8> {
    frame(address, true)
}

fn frame(address: u32, begins: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(address.to_be_bytes(), [192, 0, 2, 10], 64);
    let builder = builder.tcp(40_000, 80, 1, 1_000);
    let builder = if begins { builder.syn() } else { builder.ack(1) };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).unwrap();
    bytes
}
