//! Datagrams in fragments: only the first one has ports, so the rest follows it.

use super::{
    backend::backend,
    echo, forward,
    parse::{Kind, Packet},
};
use crate::{
    frame::Frame,
    hash,
    tables::{FRAGMENT_SECONDS, Fragment, FragmentKey, NOBODY, Tables},
    verdict::{Verdict, Why},
};

/// Remembers where the first fragment of a datagram goes: to a backend, or `back` from one. Nothing to do for other packets.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, packet: &Packet, backend: u32, back: bool) {
    if packet.in_fragments && packet.kind != Kind::Rest {
        tables.remember(&key(packet), Fragment { backend, back: back.into(), seen: tables.seconds() });
    }
}

/// Sends the rest of a datagram where its first fragment went.
#[inline(always)]
pub fn follow<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Result<Verdict, Why> {
    let first = tables.fragment(&key(packet)).ok_or(Why::FragmentUnknown)?;
    if tables.seconds().saturating_sub(first.seen) > FRAGMENT_SECONDS {
        return Err(Why::FragmentUnknown);
    }
    if first.backend == NOBODY {
        return echo::turn_around(frame, packet);
    }
    let backend = backend(tables, first.backend).map_err(|_| Why::FragmentUnknown)?;
    // The id may have been given to another backend since.
    if first.back != 0 {
        if backend.own.address != packet.from.address {
            return Err(Why::FragmentUnknown);
        }
        return forward::restore(frame, tables, backend, packet);
    }
    if backend.service.address != packet.to.address {
        return Err(Why::FragmentUnknown);
    }
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    let ([a, b], [c, d]) = (packet.from.address, packet.to.address);
    let hash = hash::flow(&settings.keys, [a ^ c, b ^ d, 0]);
    forward::forward(frame, tables, first.backend, backend, packet, hash)
}

/// RFC 791 section 3.2 tells datagrams by addresses, protocol and identification, RFC 8200 section 4.5 without the protocol.
#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    let (from, to) = (packet.from.address, packet.to.address);
    let family = u64::from(packet.family);
    let protocol = if family == 4 { u64::from(packet.protocol) } else { 0 };
    FragmentKey { from, to, tail: u64::from(packet.identification) | protocol << 32 | family << 40 }
}
