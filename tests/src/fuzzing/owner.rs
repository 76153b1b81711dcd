//! Whose a packet is, as the rules for slots and tracked flows tell it: written from the rules, not from the path.

use super::reader::{Parts, parts, repeated};
use lb_common::{
    hash,
    host::HostTables,
    tables::{
        CLEAN, DNS, DOWN, Endpoint, FlowKey, FlowTable, IN_USE, MOVES, Region, Service, Slot, Tables as _, Tracked,
    },
};
use std::{net::IpAddr, ops::Range};

/// Indices of a service's slots.
pub fn slots_of(service: &Service) -> Range<u32> {
    let Region { first, slots } = Region::from_word(service.region);
    first..first + slots
}

/// A service's packet.
pub struct Packet {
    /// The slot of its flow.
    pub slot: Slot,
    /// Id of the backend that it belongs to, should it be sent to any.
    pub owner: u32,
}

/// The packet of a frame, or for an ICMP error the one that it is about, if that is a service's.
pub fn packet(tables: &HostTables, frame: &[u8]) -> Option<Packet> {
    let outer = parts(frame)?;
    if outer.rest {
        return None;
    }
    let is_error = !matches!(outer.protocol, 6 | 17);
    let about = if is_error { repeated(frame, &outer)? } else { outer };
    let ends = [endpoint(frame, &about, about.source, 0)?, endpoint(frame, &about, about.destination, 2)?];
    let [client, own] = if is_error { [ends[1], ends[0]] } else { ends };
    let id = tables.service_ids.get(&own).or_else(|| tables.service_ids.get(&own.without_port()))?;
    let service = tables.services.get(id).filter(|service| service.flags & DNS == 0)?;
    let key = FlowKey::new(&client, &own, service.id);
    let slots = slots_of(service);
    let number = hash::slot(hash::flow(&tables.settings?.keys, key.words()), slots.len() as u32);
    let slot = *tables.slots.get(&(slots.start + number))?;
    let begins = !is_error && begins(frame, &about, service);
    Some(Packet { slot, owner: owner(tables, &key, slot, is_error, begins) })
}

fn owner(tables: &HostTables, key: &FlowKey, slot: Slot, is_error: bool, begins: bool) -> u32 {
    let is_live = |id: u32| tables.backends.get(&id).is_some_and(|backend| backend.flags & (IN_USE | DOWN) == IN_USE);
    if slot.previous == CLEAN {
        return slot.current;
    }
    for table in [FlowTable::Established, FlowTable::HalfOpen] {
        let known = tables.with_flow(table, key, |word| Tracked::from_word(word.get()));
        let Some(known) = known else { continue };
        let anew = known.closing && begins;
        match is_live(known.backend) && !anew {
            true => return known.backend,
            // An error changes nothing: it goes where the flow's next packet would.
            false if is_error => continue,
            false => return slot.current,
        }
    }
    match slot.open() {
        Some(previous) if is_live(previous) && !begins => previous,
        _ => slot.current,
    }
}

/// Whether a packet begins a flow: a SYN alone, any of a service whose flows move, a QUIC Initial of version 1 or 2.
fn begins(frame: &[u8], packet: &Parts, service: &Service) -> bool {
    let byte = |offset: usize| frame.get(packet.payload + offset).copied().unwrap_or_default();
    if packet.protocol == 6 {
        return byte(13) & 0b1_0111 == 0b10;
    }
    let version = [9, 10, 11, 12].map(byte);
    let quic = match byte(8) & 0xf0 {
        0xc0 => version == [0, 0, 0, 1],
        0xd0 => version == [0x6b, 0x33, 0x43, 0xcf],
        _ => false,
    };
    // What pads the frame behind the packet is none of its bytes.
    service.flags & MOVES != 0 || quic && packet.end > packet.payload + 12
}

fn endpoint(frame: &[u8], packet: &Parts, [start, end]: [usize; 2], port: usize) -> Option<Endpoint> {
    let address: IpAddr = match frame.get(start..end)? {
        bytes if packet.four => <[u8; 4]>::try_from(bytes).ok()?.into(),
        bytes => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    let port = frame.get(packet.payload + port..packet.payload + port + 2)?;
    Some(Endpoint::new(address, packet.protocol, u16::from_be_bytes(port.try_into().ok()?)))
}
