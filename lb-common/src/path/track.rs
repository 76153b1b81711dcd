//! Just enough tracking: only the flows of slots that have changed are looked up, so that a change moves none of them (after
//! Mendelson et al., JET, CoNEXT 2021). A slot's word says what holds, see [`Slot`].

use super::{backend::is_live, parse::Packet};
use crate::{
    frame::Frame,
    tables::{CLEAN, FlowKey, FlowTable, MOVES, NOBODY, Service, Slot, Tables, Tracked},
    verdict::Why,
    wire::{
        ethernet::Ethernet,
        transport::{ACK, FIN, FLAGS_OFFSET, QuicLong, RST, SYN, TCP, TcpFlags, Udp},
    },
};
use core::cell::Cell;

/// Id of the backend that a packet goes to.
#[inline(always)]
pub fn backend<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    service: &Service,
    slot: Slot,
    flow: &FlowKey,
    packet: &Packet,
) -> Result<u32, Why> {
    if slot.previous == CLEAN {
        return Ok(slot.current);
    }
    changed(frame, tables, service, slot, flow, packet)
}

/// What a packet says of its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Begins,
    Goes,
    Ends,
}

#[inline(always)]
fn changed<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    service: &Service,
    slot: Slot,
    flow: &FlowKey,
    packet: &Packet,
) -> Result<u32, Why> {
    let says = says(frame, service, packet);
    let seen = tables.seconds() as u32;
    let hit = |word: &Cell<u64>| {
        let known = Tracked::from_word(word.get());
        // A client that begins anew by the ports of a connection that it has ended is a new flow.
        let ended = known.closing && says == Says::Begins;
        let stays = !ended && is_live(tables, known.backend);
        let backend = if stays { known.backend } else { slot.current };
        let now = Tracked { backend, seen, closing: stays && known.closing || says == Says::Ends };
        if backend != NOBODY && word.get() != now.word() {
            word.set(now.word());
        }
        now
    };
    if let Some(known) = tables.with_flow(FlowTable::Established, flow, hit) {
        return Ok(known.backend);
    }
    if let Some(known) = tables.with_flow(FlowTable::HalfOpen, flow, hit) {
        // A repeated SYN may still be part of a flood; UDP has nothing else to tell it by than a second packet.
        if known.backend != NOBODY && (says != Says::Begins || packet.protocol != TCP) {
            tables.track(FlowTable::Established, flow, known);
            tables.forget(FlowTable::HalfOpen, flow);
        }
        return Ok(known.backend);
    }
    let (table, backend) = match slot.open() {
        Some(_) if says == Says::Begins => (FlowTable::HalfOpen, slot.current),
        Some(previous) if is_live(tables, previous) => (FlowTable::Established, previous),
        _ => return Ok(slot.current),
    };
    if backend != NOBODY {
        tables.track(table, flow, Tracked { backend, seen, closing: says == Says::Ends });
    }
    Ok(backend)
}

/// Id of the backend that owns a flow, for a packet that is not the client's own.
#[inline(always)]
pub fn owner<T: Tables>(tables: &T, slot: Slot, flow: &FlowKey) -> u32 {
    if slot.previous == CLEAN {
        return slot.current;
    }
    let tracked = |table| {
        let known = tables.with_flow(table, flow, |word| Tracked::from_word(word.get()).backend);
        known.filter(|id| is_live(tables, *id))
    };
    tracked(FlowTable::Established)
        .or_else(|| tracked(FlowTable::HalfOpen))
        .or_else(|| slot.open().filter(|id| is_live(tables, *id)))
        .unwrap_or(slot.current)
}

#[inline(always)]
fn says<F: Frame>(frame: &F, service: &Service, packet: &Packet) -> Says {
    let payload = usize::from(packet.payload);
    if packet.protocol == TCP {
        return match frame.view(payload + FLAGS_OFFSET) {
            Some(TcpFlags { flags, .. }) if flags & (FIN | RST) != 0 => Says::Ends,
            Some(TcpFlags { flags, .. }) if flags & (SYN | ACK) == SYN => Says::Begins,
            _ => Says::Goes,
        };
    }
    // What pads a frame behind a short packet says nothing.
    let reaches = payload + Udp::LEN + QuicLong::LEN <= Ethernet::LEN + usize::from(packet.length);
    let begins = service.flags & MOVES != 0 || reaches && frame.view(payload + Udp::LEN).is_some_and(is_quic_initial);
    if begins { Says::Begins } else { Says::Goes }
}

/// Whether this is an Initial packet, by which a client begins a QUIC connection: version 1 (RFC 9000 section 17.2.2) or 2 (RFC 9369 section
/// 3.2).
#[inline(always)]
fn is_quic_initial(packet: &QuicLong) -> bool {
    matches!((packet.first & 0xf0, packet.version.get()), (0xc0, 1) | (0xd0, 0x6b33_43cf))
}
